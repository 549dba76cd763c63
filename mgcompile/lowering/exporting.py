"""A model as one readable Python file that needs nothing but torch."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from keyword import iskeyword
from textwrap import indent
from typing import Any

from torch import fx, nn

from mgcompile.errors import MgcompileError
from mgcompile.graph.names import path_fault
from mgcompile.lowering import kernels
from mgcompile.lowering.fused import FusedConv2d

__all__ = ["to_source"]

_HEAD = '''"""{name}: a network compiled by mgcompile. It needs nothing but torch.

    model = {name}()
    model.load_state_dict(safetensors.torch.load_file("weights.safetensors"))

Until weights are loaded, they are PyTorch's defaults.
"""

from __future__ import annotations

{imports}import torch
from torch import nn
from torch.nn import functional as F
'''

_CLASS = '''
class {name}(nn.Module):
    def __init__(self) -> None:
        super().__init__()
{modules}

{forward}

    def place(self, name: str, module: nn.Module) -> None:
        """Make a module part of this one under a dotted name."""
        *path, last = name.split(".")
        parent = self
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = getattr(parent, part)
        parent.add_module(last, module)
'''

_TAKEN = frozenset({*kernels.__all__, *dir(builtins), "annotations", "torch", "nn", "F", "inf", "nan"})
"""What the file calls by these names, and a class of the same name would hide."""

_CONSTANTS = {"inf": "from math import inf", "nan": "from math import nan"}


def to_source(model: fx.GraphModule) -> str:
    """The text of a Python file with a class that has the model's code, its submodules and its `state_dict` keys.

    Raises `MgcompileError` where the model calls a module or function that comes neither from torch nor from mgcompile,
    and where something in it cannot stand in a source: a name, an option of a module.
    """
    if any(isinstance(module, FusedConv2d) for module in model.modules()):
        raise MgcompileError("an optimised model has no source of its own: compile it without `optimize`")
    code = model.graph.python_code("self")
    forward, needed, constants = _rename(code.src, code.globals, {node.name for node in model.graph.nodes})
    modules = dict(_modules(model))
    needed |= {type(module).__name__ for module in modules.values() if _is_kernel(type(module))}
    lines = [f'self.place("{name}", {_constructor(name, module)})' for name, module in modules.items()]
    name = type(model).__name__
    if not name.isidentifier() or iskeyword(name) or not name.isascii():
        raise MgcompileError(f"{name!r} is no name of a class")
    name += "Model" * (name in _TAKEN)
    return "\n".join(
        [
            _HEAD.format(name=name, imports="".join(f"{_CONSTANTS[constant]}\n" for constant in constants)),
            *_kernel_sources(needed),
            _CLASS.format(name=name, modules=indent("\n".join(lines), " " * 8), forward=indent(forward, " " * 4)),
        ]
    )


def _modules(model: fx.GraphModule) -> Iterator[tuple[str, nn.Module]]:
    """The modules that the code calls, in the order of `state_dict`."""
    called = {node.target for node in model.graph.nodes if node.op == "call_module"}
    return ((name, module) for name, module in model.named_modules() if name in called)


def _constructor(name: str, module: nn.Module) -> str:
    """The call that makes such a module: what its repr says, for PyTorch's leaves and ours."""
    if fault := path_fault(name):
        raise MgcompileError(f"{name!r}: {fault}")
    kind = type(module)
    if _is_kernel(kind):
        text = repr(module)
    elif getattr(nn, kind.__name__, None) is kind and not any(module.children()):
        text = f"nn.{module!r}"
    else:
        raise MgcompileError(f"{name}: {kind.__module__}.{kind.__qualname__} is not of torch, and no source holds it")
    if not _is_plain_call(text):
        raise MgcompileError(f"{name}: {text!r} is no call that makes such a module, and no source holds it")
    return text


def _is_plain_call(text: str) -> bool:
    """Whether a text is a call of a class with nothing but literals: what a repr says need not be code."""
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not re.fullmatch(r"(nn\.)?\w+", ast.unparse(call.func)):
            return False
        for value in (*call.args, *(keyword.value for keyword in call.keywords)):
            ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return False
    return True


def _rename(code: str, names: Mapping[str, Any], local: set[str]) -> tuple[str, set[str], list[str]]:
    """The code with our functions under their own names; those functions; the constants that it needs."""
    needed, constants = set(), []
    code = _tidy(code)
    for name, value in names.items():
        word = rf"(?<![\w.]){name}\b"
        if name == "torch" or not re.search(word, code):
            continue
        if name in _CONSTANTS:
            constants.append(name)
        elif _is_kernel(value):
            ours = value.__name__
            needed.add(ours)
            # A variable of that name would hide the function.
            code = re.sub(word, f'globals()["{ours}"]' if ours in local else ours, code)
        else:
            raise MgcompileError(f"{name} is a function that is not of torch, and no source holds it")
    return code, needed, constants


def _tidy(code: str) -> str:
    """Generated code as a person would write it."""
    code = re.sub(r";  ((?:\w+ = )+)None$", _deletion, code, flags=re.MULTILINE)
    code = re.sub(r"([(,] ?\w+) = ", r"\1=", code)
    return re.sub(r"[ \t]+$", "", code, flags=re.MULTILINE).strip()


def _deletion(assignment: re.Match[str]) -> str:
    """`;  a = b = None` -> a line `del a, b`."""
    return "\n    del " + ", ".join(assignment[1].removesuffix(" = ").split(" = "))


def _is_kernel(value: Any) -> bool:
    name = getattr(value, "__name__", "")
    return name in kernels.__all__ and getattr(kernels, name) is value


def _kernel_sources(needed: Iterable[str]) -> list[str]:
    """The source of these functions and classes, and of those that they use, in the order of their file."""
    sources: dict[str, str] = {}
    pending = list(needed)
    while pending:
        name = pending.pop()
        if name not in sources:
            text = inspect.getsource(getattr(kernels, name))
            sources[name] = re.sub(r"  # type: ignore\[.*\]", "", text)
            pending += set(kernels.__all__) & set(re.findall(r"\w+", text))
    order = sorted(sources, key=lambda name: inspect.getsourcelines(getattr(kernels, name))[1])
    return ["\n" + sources[name] for name in order]
