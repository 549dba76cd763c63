"""The house rules, held over the source itself: who imports whom, where torch may be, how long things get.

A rule takes the package's directory and yields one line a breach, `file:line: what`. Each is run on mgcompile and on
small trees that break it on purpose.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mgcompile"

BASE = ("escaping", "errors", "outputs")
MIDDLE = frozenset({"spec", "passes", "lowering", "analysis", "drawing"})
EXTRA_ROOMS = {"lowering/compiler.py": frozenset({"spec", "passes"})}

TORCH = ("torch", "fvcore", "safetensors.torch")  # the last two import torch themselves
TORCH_ROOMS = frozenset({"lowering", "training", "measuring"})
TORCH_IN_FUNCTIONS = ("graph/ops/", "analysis/verification.py", "cli/")  # besides the modules at the top of the package

FILE_LINES, FUNCTION_LINES = 400, 80
# An operation says itself how it becomes torch; the few modules that PyTorch lacks lie with the rest of torch.
KERNELS = ("mgcompile.lowering.kernels", "mgcompile.lowering.functional", "mgcompile.lowering.fused")
LONGER: dict[str, str] = {}  # "room/file.py" or "room/file.py:function" -> why it is better whole

Function = ast.FunctionDef | ast.AsyncFunctionDef
Rule = Callable[[Path], Iterator[str]]


# --- reading the source


def sources(package: Path) -> Iterator[tuple[str, Path, str]]:
    """Every module: its path inside the package, its path, its text."""
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(package).as_posix(), path, path.read_text(encoding="utf-8")


def place(package: Path, inside: str, line: int) -> str:
    return f"{package.name}/{inside}:{line}"


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def running(node: ast.AST, in_function: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Each node that can run, and whether it stands in a function. What `if TYPE_CHECKING:` guards never runs."""
    yield node, in_function
    children: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and is_type_checking(node.test):
        children = node.orelse
    inner = in_function or isinstance(node, Function | ast.Lambda)
    for child in children:
        yield from running(child, inner)


def imported(node: ast.AST, module: list[str], is_package: bool) -> list[str]:
    """The dotted names that an import statement, or a call of `import_module` with a literal, asks for."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=name, names=names, level=level):
            up = level - 1 if is_package else level
            base = module[: len(module) - up] if level else []
            start = ".".join([*base, name] if name else base)
            return [f"{start}.{alias.name}" for alias in names]
        case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=[ast.Constant(value=str(name)), *_]):
            return [name] if called in {"import_module", "__import__"} else []
    return []


def imports(package: Path, inside: str, text: str) -> Iterator[tuple[int, str, bool]]:
    """(line, dotted name, in a function) for every import that runs."""
    parts = [package.name, *inside.removesuffix(".py").split("/")]
    is_package = parts[-1] == "__init__"
    module = parts[:-1] if is_package else parts
    for node, in_function in running(ast.parse(text)):
        for name in imported(node, module, is_package):
            yield getattr(node, "lineno", 0), name, in_function


def room_of(package: Path, name: str) -> str | None:
    """The room or top module of mgcompile that a dotted name lies in; None when it is somebody else's."""
    top, _, rest = name.partition(".")
    if top != package.name:
        return None
    room = rest.partition(".")[0]
    is_module = (package / room / "__init__.py").is_file() or (package / f"{room}.py").is_file()
    return room if room and is_module else "__init__"


# --- the rules


def one_way_imports(package: Path) -> Iterator[str]:
    """escaping -> errors -> outputs -> graph -> {spec, passes, lowering, analysis, drawing} -> training, measuring, cli
    and the other top modules.
    """
    for inside, _, text in sources(package):
        room = inside.split("/")[0].removesuffix(".py")
        if room in BASE:
            allowed = frozenset(BASE[: BASE.index(room)])
        elif room == "graph":
            allowed = {*BASE, "graph"}
        elif room in MIDDLE:
            allowed = {*BASE, "graph", room} | EXTRA_ROOMS.get(inside, frozenset())
        else:
            continue
        for line, name, in_function in imports(package, inside, text):
            target = room_of(package, name)
            if in_function and inside.startswith("graph/ops/") and name.startswith(KERNELS):
                continue
            if target is not None and target not in allowed:
                may = ", ".join(sorted(allowed)) or "nothing of the project"
                yield f"{place(package, inside, line)}: {room} imports {name}; it may import {may}"


def torch_in_its_place(package: Path) -> Iterator[str]:
    """torch at a module's top in lowering, training and measuring; in functions of ops, of verification and of the top
    modules.
    """
    for inside, _, text in sources(package):
        at_top = "/" not in inside and inside.removesuffix(".py") not in BASE
        if inside.split("/")[0] in TORCH_ROOMS:
            continue
        for line, name, in_function in imports(package, inside, text):
            if not any(f"{name}.".startswith(f"{library}.") for library in TORCH):
                continue
            if not in_function:
                rooms = ", ".join(sorted(TORCH_ROOMS))
                yield f"{place(package, inside, line)}: imports {name} at module level; only {rooms} may"
            elif not (at_top or inside.startswith(TORCH_IN_FUNCTIONS)):
                yield f"{place(package, inside, line)}: imports {name} in a function; here nothing needs torch"


def short_files_and_functions(package: Path) -> Iterator[str]:
    for inside, _, text in sources(package):
        length = len(text.splitlines())
        if length > FILE_LINES and inside not in LONGER:
            yield f"{place(package, inside, FILE_LINES + 1)}: {length} lines in a file, the cap is {FILE_LINES}"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, Function):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES and f"{inside}:{node.name}" not in LONGER:
                    where = place(package, inside, node.lineno)
                    yield f"{where}: {node.name} has {length} lines, the cap is {FUNCTION_LINES}"


def nothing_executed_or_hidden(package: Path) -> Iterator[str]:
    """No eval, exec or pickle, and no except that catches everything, even an interrupt."""
    for inside, _, text in sources(package):
        for node, _ in running(ast.parse(text)):
            match node:
                case ast.ExceptHandler(type=None):
                    yield f"{place(package, inside, node.lineno)}: bare except; name the exception"
                case ast.Name(id="eval" | "exec" as called):
                    yield f"{place(package, inside, node.lineno)}: {called} runs text as code"
                case ast.Attribute(value=ast.Name(id="builtins"), attr="eval" | "exec" as attribute):
                    yield f"{place(package, inside, node.lineno)}: {attribute} runs text as code"
                case ast.Attribute(value=ast.Name(id="torch"), attr="load" | "save" as method):
                    yield f"{place(package, inside, node.lineno)}: torch.{method} pickles; use safetensors"
        for line, name, _ in imports(package, inside, text):
            if name.split(".")[0] in {"pickle", "cPickle", "_pickle", "cloudpickle", "dill"}:
                yield f"{place(package, inside, line)}: imports {name}; a pickle runs code when it is read"


def public_names(tree: ast.Module) -> Iterator[ast.Constant]:
    """The strings in `__all__`, however it is put together."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if value is not None and any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            yield from (
                part for part in ast.walk(value) if isinstance(part, ast.Constant) and isinstance(part.value, str)
            )


def no_shadowed_modules(package: Path) -> Iterator[str]:
    """A module and a function of one name: which of the two a user gets hangs on the order of the imports."""
    for inside, path, text in sources(package):
        if path.name != "__init__.py":
            continue
        dotted = ".".join([package.name, *Path(inside).parts[:-1]])
        modules = {entry.stem for entry in path.parent.glob("*.py")} | {
            entry.name for entry in path.parent.iterdir() if (entry / "__init__.py").is_file()
        }
        exported_modules = {name for _, name, _ in imports(package, inside, text)}
        for constant in public_names(ast.parse(text)):
            if constant.value in modules and f"{dotted}.{constant.value}" not in exported_modules:
                where = place(package, inside, constant.lineno)
                yield f"{where}: {constant.value!r} in __all__ is also the module {dotted}.{constant.value}"


RULES = [
    one_way_imports,
    torch_in_its_place,
    short_files_and_functions,
    nothing_executed_or_hidden,
    no_shadowed_modules,
]


# --- held on mgcompile


@pytest.mark.parametrize("rule", RULES)
def test_the_package_keeps(rule: Rule) -> None:
    assert list(sources(PACKAGE)), f"no source in {PACKAGE}"
    breaches = list(rule(PACKAGE))
    assert not breaches, "\n" + "\n".join(breaches)


def test_the_exceptions_are_still_needed() -> None:
    gone = [name for name in LONGER if not (PACKAGE / name.partition(":")[0]).is_file()]
    assert not gone


# Prints who asked for torch, and does not stop it: a library may look for torch without need and go on.
START = """
import sys, traceback

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            traceback.print_stack()

sys.meta_path.insert(0, Watch())
import {module}
sys.exit("torch" in sys.modules)
"""


def torch_free_start(module: str, directory: Path) -> str:
    """What went wrong when `module` was imported in a fresh interpreter; empty when torch stayed away."""
    run = subprocess.run(
        [sys.executable, "-c", START.format(module=module)], cwd=directory, capture_output=True, text=True, check=False
    )
    return f"import {module}\n{run.stderr}" if run.returncode else ""


@pytest.mark.parametrize("module", ["mgcompile", "mgcompile.cli"])
def test_starts_without_torch(module: str) -> None:
    problem = torch_free_start(module, PACKAGE.parent)
    assert not problem, problem


# --- each rule seen to fail

LONG_FUNCTION = "def f():\n" + "    x = 1\n" * FUNCTION_LINES
GUARDED = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "


def tree(root: Path, files: dict[str, str]) -> Path:
    package = root / "mgcompile"
    rooms = [f"{room}/__init__.py" for room in ("graph", "graph/ops", "training", "measuring", *sorted(MIDDLE))]
    for name, text in (dict.fromkeys(["__init__.py", "errors.py", "cli.py", *rooms], "") | files).items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text, encoding="utf-8")
    return package


BAD = [
    (one_way_imports, "errors.py", "\nimport mgcompile.graph", 2),
    (one_way_imports, "graph/graph.py", "from mgcompile.spec import load", 1),
    (one_way_imports, "graph/ops/conv.py", "from ...passes import fold", 1),
    (one_way_imports, "spec/load.py", "from mgcompile import passes", 1),
    (one_way_imports, "spec/load.py", "from mgcompile import load_model", 1),
    (one_way_imports, "spec/load.py", "import mgcompile", 1),
    (one_way_imports, "passes/__init__.py", "from ..lowering import lower", 1),
    (one_way_imports, "analysis/cost.py", "def f():\n    from mgcompile import spec", 2),
    (one_way_imports, "analysis/cost.py", "import importlib\nimportlib.import_module('mgcompile.spec')", 2),
    (one_way_imports, "drawing/svg.py", "from mgcompile.cli import main", 1),
    (one_way_imports, "lowering/kernels.py", "from mgcompile.spec import load", 1),
    (one_way_imports, "lowering/tuning.py", "from mgcompile.measuring import interleaved", 1),
    (one_way_imports, "lowering/compiler.py", "from mgcompile.analysis import cost", 1),
    (one_way_imports, "spec/load.py", GUARDED + "pass\nelse:\n    import mgcompile.cli", 5),
    (torch_in_its_place, "cli.py", "import torch", 1),
    (torch_in_its_place, "__init__.py", "from torch import nn", 1),
    (torch_in_its_place, "graph/ops/conv.py", "class Conv:\n    from torch import nn", 2),
    (torch_in_its_place, "analysis/verification.py", "try:\n    import torch.fx\nexcept ImportError:\n    pass", 2),
    (torch_in_its_place, "analysis/verification.py", "from fvcore.nn import FlopCountAnalysis", 1),
    (torch_in_its_place, "analysis/cost.py", "def f():\n    import torch", 2),
    (torch_in_its_place, "graph/graph.py", "def f():\n    from torch import nn", 2),
    (torch_in_its_place, "errors.py", "def f():\n    import torch", 2),
    (torch_in_its_place, "api.py", "from safetensors.torch import save_file", 1),
    (short_files_and_functions, "spec/load.py", "x = 1\n" * (FILE_LINES + 1), FILE_LINES + 1),
    (short_files_and_functions, "spec/load.py", "\n" + LONG_FUNCTION, 2),
    (short_files_and_functions, "spec/load.py", "async " + LONG_FUNCTION, 1),
    (nothing_executed_or_hidden, "cli.py", "try:\n    pass\nexcept:\n    pass", 3),
    (nothing_executed_or_hidden, "cli.py", "x = 1\neval('x')", 2),
    (nothing_executed_or_hidden, "cli.py", "run = exec", 1),
    (nothing_executed_or_hidden, "cli.py", "import builtins\nbuiltins.eval('1')", 2),
    (nothing_executed_or_hidden, "cli.py", "from pickle import loads", 1),
    (nothing_executed_or_hidden, "training/loop.py", "import torch\ntorch.save({}, 'x')", 2),
    (no_shadowed_modules, "passes/__init__.py", "from .spec import spec\n__all__ = [\n    'share',\n]", 3),
    (no_shadowed_modules, "__init__.py", "__all__: list[str] = ['cli']", 1),
    (no_shadowed_modules, "__init__.py", "__all__ = ['a']\n__all__ += ['spec']", 2),
]

GOOD = {
    "__init__.py": "from mgcompile import errors\ndef compile():\n    import torch\n__all__ = ['compile', 'errors']",
    "api.py": "from mgcompile.lowering.compiler import build\nfrom mgcompile.training import fit",
    "cli.py": "import mgcompile\nfrom mgcompile import spec, analysis\ndef main():\n    import torch",
    "graph/graph.py": "from .. import errors\nfrom ..errors import SpecError\nfrom .ops import Conv\nimport networkx",
    "graph/ops/conv.py": f"{GUARDED}import torch\n    import mgcompile.spec\ndef lower():\n    from torch import nn",
    "measuring/bench.py": "import torch\nfrom mgcompile import api\nfrom mgcompile.passes import run",
    "lowering/compiler.py": "import torch\nfrom mgcompile.spec import load\nfrom mgcompile.passes import run",
    "analysis/verification.py": "def f():\n    import torch\n    from fvcore.nn import x",
    "passes/share.py": LONG_FUNCTION.removesuffix("    x = 1\n"),
    "passes/fold.py": "x = 1\n" * FILE_LINES,
    "spec/load.py": "import safetensors, torchless\ntry:\n    m.eval()\nexcept Exception:\n    p.exec()",
}


@pytest.mark.parametrize(("rule", "file", "text", "line"), BAD)
def test_a_breach_is_found(tmp_path: Path, rule: Rule, file: str, text: str, line: int) -> None:
    package = tree(tmp_path, {"passes/share.py": "", file: text})
    (breach,) = rule(package)
    assert breach.startswith(f"mgcompile/{file}:{line}: ")


@pytest.mark.parametrize("rule", RULES)
def test_what_is_allowed_passes(tmp_path: Path, rule: Rule) -> None:
    assert list(rule(tree(tmp_path, GOOD))) == []


def test_a_start_with_torch_is_found(tmp_path: Path) -> None:
    tree(tmp_path, {"cli.py": "import mgcompile.heavy", "heavy.py": "import torch"})
    (tmp_path / "torch.py").touch()
    assert torch_free_start("mgcompile", tmp_path) == ""
    problem = torch_free_start("mgcompile.cli", tmp_path)
    assert "import mgcompile.cli" in problem
    assert 'heavy.py", line 1' in problem
