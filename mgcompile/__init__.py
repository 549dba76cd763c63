"""mgcompile: a declarative compiler for multi-scale neural networks.

>>> import mgcompile
>>> mgcompile.audit("cifar100/r-pmg-30").params
44882244
"""

from mgcompile.api import audit, compile, draw, load, load_model, save
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
    "register_op",
    "save",
]

__version__ = "0.1.0"
