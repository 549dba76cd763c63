"""Pointwise functions: activations, the learned PReLU, dropout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mgcompile.errors import ShapeError
from mgcompile.graph.ops.base import Kind, Op, check_word
from mgcompile.graph.types import Grid, Kept, Shape, Value, elements

if TYPE_CHECKING:
    from torch import fx, nn

__all__ = ["ACTIVATIONS", "Activation", "Dropout", "PReLU"]

ACTIVATIONS: Mapping[str, int] = {
    "relu": 1,
    "relu6": 2,
    "leaky_relu": 2,
    "elu": 3,
    "gelu": 5,
    "silu": 5,
    "mish": 6,
    "hardswish": 5,
    "hardsigmoid": 4,
    "sigmoid": 4,
    "tanh": 1,
    "softplus": 3,
    "softmax": 5,
}
"""Each activation by its name in `torch.nn.functional`, with its operations an element (an exp, erf, tanh, log or
division is one operation)."""

OF_OUTPUT = frozenset({"relu", "sigmoid", "tanh", "softmax"})
"""Activations whose gradient is computed from the output; those of the others need the input."""


@dataclass(frozen=True)
class Activation(Op):
    """A function of each element; softmax alone is over the channels. `slope` is leaky_relu's, `alpha` elu's."""

    function: str = "relu"
    slope: float = 0.01
    alpha: float = 1.0

    kind: ClassVar[Kind] = Kind.ACT

    def __post_init__(self) -> None:
        check_word(self, "function", ACTIVATIONS)

    def infer(self, *inputs: Value) -> Value:
        return _only(self, inputs)

    def elementwise(self, inputs: Sequence[Shape], output: Shape) -> int:
        return elements(output) * ACTIVATIONS[self.function]

    def kept(self, inputs: Sequence[Shape], output: Shape) -> Kept:
        return Kept(output=True) if self.function in OF_OUTPUT else Kept(inputs=(0,))

    def emit(self, graph: fx.Graph, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        import torch
        from torch.nn import functional

        plain = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
        target = plain.get(self.function) or getattr(functional, self.function)
        return graph.call_function(target, tuple(args), self.options)

    @property
    def options(self) -> dict[str, Any]:
        """What the function in `torch.nn.functional` is told beside its input."""
        options: dict[str, dict[str, Any]] = {
            "leaky_relu": {"negative_slope": self.slope},
            "elu": {"alpha": self.alpha},
            "softmax": {"dim": 1},
        }
        return options.get(self.function, {})

    @property
    def label(self) -> str:
        return self.function


@dataclass(frozen=True)
class PReLU(Op):
    """max(x, 0) + weight * min(x, 0), one learned weight for each channel."""

    initial: float = 0.25

    kind: ClassVar[Kind] = Kind.ACT

    def infer(self, *inputs: Value) -> Value:
        return _only(self, inputs)

    def weights(self, *inputs: Value) -> Mapping[str, Shape]:
        value = _only(self, inputs)
        return {"weight": (value.channels if isinstance(value, Grid) else value.features,)}

    def elementwise(self, inputs: Sequence[Shape], output: Shape) -> int:
        return 2 * elements(output)

    def kept(self, inputs: Sequence[Shape], output: Shape) -> Kept:
        return Kept(inputs=(0,))

    def module(self, *inputs: Value) -> nn.Module:
        from torch import nn

        return nn.PReLU(self.weights(*inputs)["weight"][0], init=self.initial)

    @property
    def label(self) -> str:
        return "prelu"


@dataclass(frozen=True)
class Dropout(Op):
    """Zeroes elements, whole channels or whole samples with probability `p` while training, and rescales the rest."""

    p: float = 0.5
    unit: str = "element"

    kind: ClassVar[Kind] = Kind.ACT

    def __post_init__(self) -> None:
        check_word(self, "unit", ("element", "channel", "sample"))

    def infer(self, *inputs: Value) -> Value:
        return _only(self, inputs)

    def kept(self, inputs: Sequence[Shape], output: Shape) -> Kept:
        # On a CPU the mask is of the type of the numbers; on CUDA that of single elements takes a byte each.
        if self.unit == "sample":
            return Kept(numbers=1)
        whole = self.unit == "channel" and len(output) > 1
        return Kept(numbers=(output[0] if whole else elements(output)) if self.p else 0)

    def stores(self, inputs: Sequence[Shape], output: Shape, *, training: bool) -> int:
        passes = not training or (not self.p and self.unit != "sample")
        return 0 if passes else elements(output)

    def scratch(self, inputs: Sequence[Shape], output: Shape, number: int) -> int:
        return 0

    def module(self, *inputs: Value) -> nn.Module:
        from torch import nn

        from mgcompile.lowering import kernels

        if self.unit == "sample":
            return kernels.DropSample(self.p)
        return nn.Dropout2d(self.p) if self.unit == "channel" and isinstance(inputs[0], Grid) else nn.Dropout(self.p)

    @property
    def label(self) -> str:
        return f"dropout {self.p:g}"


def _only(op: Op, inputs: Sequence[Value]) -> Value:
    if len(inputs) != 1:
        raise ShapeError(f"{op.label} takes one input, not {len(inputs)}")
    return inputs[0]
