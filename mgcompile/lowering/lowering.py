"""From a graph to a torch.fx module: one submodule for each set of weights, one line of code for each node."""

from __future__ import annotations

import re
from collections.abc import Mapping
from keyword import iskeyword
from typing import Any

import torch
from torch import fx, nn

from mgcompile.errors import MgcompileError
from mgcompile.graph import Graph, Node
from mgcompile.graph.names import path_fault, reserved
from mgcompile.graph.ops import Input, Kind, Op
from mgcompile.lowering import kernels
from mgcompile.lowering.plans import planned

__all__ = ["lower"]

MOST_CLASS_NAME = 200


def lower(
    graph: Graph,
    *,
    like: Graph | None = None,
    autocast: tuple[str, torch.dtype] | None = None,
    by_plans: bool = False,
) -> fx.GraphModule:
    """The model of a graph, on the meta device: an image x of (batch, channels, height, width) -> the outputs.

    One output is returned as a tensor, several as a dict of tensors by their names. A set of weights is one submodule,
    called by every node that shares it; `state_dict` keys are the name of its owner and the tensor's. Every torch.fx
    node says in `meta["mgcompile"]` which "node" of the graph it comes from, its "level" and its "layer".

    Submodules are in the order in which the graph calls them, or in which `like` does, the graph before the passes: so
    have all forms of a model one order of parameters.

    `autocast` is a type of device and a type of number: convolutions and linear layers then compute in that type there;
    outputs are single precision again. `by_plans` lets repeated calls run by a plan; see `plans`.

    Raises `MgcompileError` where a name cannot be a submodule's or stand in code, or where nodes share weights and
    differ in options.
    """
    _check_names(graph)
    code = _Code()
    modules = _Modules()
    values: dict[str, fx.Node] = {}
    with torch.device("meta"):
        for node in graph:
            code.begin(node)
            args, types = tuple(values[source] for source in node.inputs), graph.input_types(node)
            if isinstance(node.op, Input):
                args = (code.create_node("placeholder", "x", name="x"),)
                module: nn.Module | None = kernels.InputCheck(node.op.channels, graph.smallest_size)
            else:
                module = node.op.module(*types)
            if module is None:
                if autocast is not None and node.op.kind is Kind.ACT and node.name in graph.outputs.values():
                    # In single precision: in half, a sigmoid is 1 from 6 on, and has no gradient there.
                    args = tuple(code.call_method("float", (arg,)) for arg in args)
                values[node.name] = node.op.emit(code, args, *types)
            else:
                modules.add(node, module)
                if node.op.by_reference:
                    values[node.name] = code.create_node("get_attr", node.weights)
                else:
                    values[node.name] = node.op.invoke(code, node.weights, args, *types)
    code.end()
    outputs = {name: values[node] for name, node in graph.outputs.items()}
    if autocast is not None or by_plans:
        code.set_codegen(_DecoratedCode(autocast, by_plans))
    if autocast is not None:
        outputs = {name: code.call_method("float", (value,)) for name, value in outputs.items()}
    code.output(outputs if len(outputs) > 1 else next(iter(outputs.values())))
    model = fx.GraphModule(modules.root, code, class_name=_class_name(graph.name))
    _arrange(model, _ranks(graph if like is None else like))
    return model


def _ranks(graph: Graph) -> Mapping[str, int]:
    """The place of each submodule, and of each container of some, among all, by name."""
    ranks: dict[str, int] = {}
    for node in graph:
        if type(node.op).module is not Op.module:
            parts = node.weights.split(".")
            for end in range(1, len(parts) + 1):
                ranks.setdefault(".".join(parts[:end]), len(ranks))
    return ranks


def _arrange(module: nn.Module, ranks: Mapping[str, int], prefix: str = "") -> None:
    """Put submodules in the order of their ranks; those that have none are last."""
    own = sorted(module._modules.items(), key=lambda item: ranks.get(prefix + item[0], len(ranks)))
    module._modules.clear()
    module._modules.update(own)
    for name, child in own:
        if child is not None:
            _arrange(child, ranks, f"{prefix}{name}.")


def _check_names(graph: Graph) -> None:
    """Names become code. `verify` says so too, of a graph that comes from anywhere; nothing else is lowered."""
    for name in (*graph.outputs, *(name for node in graph for name in (node.name, node.weights))):
        for part in filter(None, name.split(".")):
            if fault := path_fault(part):
                raise MgcompileError(f"{name!r}: {fault}")


class _DecoratedCode(fx.graph.CodeGen):
    """Code whose `forward` runs under autocast, by plans, or both."""

    def __init__(self, autocast: tuple[str, torch.dtype] | None, by_plans: bool) -> None:
        super().__init__()
        self.decorators = [] if autocast is None else ['@torch.autocast("{}", {})'.format(*autocast)]
        self.decorators += ["@planned"] if by_plans else []

    def additional_globals(self) -> list[tuple[str, Any]]:
        """What the decorators are called by."""
        return [("planned", planned)]

    def gen_fn_def(self, free_vars: list[str], maybe_return_annotation: str, **options: Any) -> str:
        """The head of the function, decorated."""
        head: str = super().gen_fn_def(free_vars, maybe_return_annotation, **options)
        return "\n".join([*self.decorators, head])


class _Code(fx.Graph):
    """A torch.fx graph whose nodes take their names and origin from the graph node that is being lowered."""

    _label: str | None = None
    _origin: dict[str, Any] | None = None

    def begin(self, node: Node) -> None:
        label = node.name.replace(".", "_")
        self._label = "self_" if label == "self" else label  # in the generated code, `self` is the model
        self._origin = {"node": node.name, "level": node.level, "layer": node.layer}

    def end(self) -> None:
        self._label = self._origin = None

    def create_node(  # noqa: PLR0917 - the signature is torch's
        self,
        op: str,
        target: Any,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        name: str | None = None,
        type_expr: Any | None = None,
    ) -> fx.Node:
        node = super().create_node(op, target, args, kwargs, name or self._label, type_expr)
        if self._origin is not None:
            node.meta["mgcompile"] = self._origin
        return node


class _Modules:
    """The submodules in a tree of plain containers, and what no name may be."""

    def __init__(self) -> None:
        self.root = nn.Module()
        self._owned: dict[str, nn.Module] = {}
        # Beside what `names` knows: a later PyTorch may need further words.
        self._taken_in_root = set(dir(fx.GraphModule(nn.Module(), fx.Graph())))
        self._taken_in_container = set(dir(nn.Module()))

    def add(self, node: Node, module: nn.Module) -> None:
        """Place a module under the name of the node's weights, or check that the one there is the same."""
        name = node.weights
        if name in self._owned:
            first = self._owned[name]
            if repr(module) != repr(first):
                raise MgcompileError(f"{node.name} shares weights with {name} and differs: {module} and {first}")
            return
        parent, last = self._container(name)
        if hasattr(parent, last):
            raise MgcompileError(f"{name} is a layer of its own and holds others: rename one of them")
        parent.add_module(last, module)
        self._owned[name] = module

    def _container(self, name: str) -> tuple[nn.Module, str]:
        """The module that is to hold one of this name, and the last part of the name."""
        parent, taken, parts = self.root, self._taken_in_root, name.split(".")
        for place, part in enumerate(parts):
            if part in taken or reserved(part, first=not place) or not part:
                raise MgcompileError(f"{name}: no layer can be called {part!r}, a word of Python's or PyTorch's")
            taken = self._taken_in_container
        for part in parts[:-1]:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
            if type(parent) is not nn.Module:
                raise MgcompileError(f"{name} lies within {part}, a layer of its own: rename one of them")
        return parent, parts[-1]


def _class_name(name: str) -> str:
    """A Python identifier that is close to the name of a graph."""
    identifier = re.sub(r"\W|^(?=\d)", "_", name[:MOST_CLASS_NAME], flags=re.ASCII) or "Model"
    return f"{identifier}_" if iskeyword(identifier) else identifier
