"""mgcompile: a declarative compiler for multi-scale neural networks.

>>> import mgcompile
>>> mgcompile.audit("cifar100/r-pmg-30").params
44882244
"""

TYPE_CHECKING = False  # nothing is imported here: `mgcompile --help` answers at once, and can be interrupted
if TYPE_CHECKING:
    from typing import Any

    from mgcompile.api import audit, compile, draw, load, load_model, memory, receptive_field, refresh, roofline, save
    from mgcompile.errors import MgcompileError, Problem, ShapeError, SpecError
    from mgcompile.graph.ops import Op, register_op
    from mgcompile.spec import Spec

__all__ = [
    "MgcompileError",
    "Op",
    "Problem",
    "ShapeError",
    "Spec",
    "SpecError",
    "audit",
    "compile",
    "draw",
    "load",
    "load_model",
    "memory",
    "receptive_field",
    "refresh",
    "register_op",
    "roofline",
    "save",
]

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(("audit", "compile", "draw", "load", "load_model", "refresh", "save"), "mgcompile.api"),
    **dict.fromkeys(("memory", "receptive_field", "roofline"), "mgcompile.api"),
    **dict.fromkeys(("MgcompileError", "Problem", "ShapeError", "SpecError"), "mgcompile.errors"),
    **dict.fromkeys(("Op", "register_op"), "mgcompile.graph.ops"),
    "Spec": "mgcompile.spec",
}


def __getattr__(name: str) -> "Any":
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
