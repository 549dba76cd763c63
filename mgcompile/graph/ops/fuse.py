"""Operations that bring several grids of one size together, in the order of the inputs."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar

from mgcompile.errors import ShapeError
from mgcompile.graph.ops.base import Kind, Op, check_word
from mgcompile.graph.types import Grid, Kept, Shape, Value, Vector, Window, elements

if TYPE_CHECKING:
    from torch import fx, nn

__all__ = ["Concat", "Maximum", "Mean", "Product", "Sum", "WeightedSum"]


@dataclass(frozen=True)
class Concat(Op):
    """(c1, h, w), (c2, h, w), ... -> (c1 + c2 + ..., h, w); vectors alike."""

    kind: ClassVar[Kind] = Kind.FUSE
    passes_gradient: ClassVar[bool] = True

    def infer(self, *inputs: Value) -> Value:
        if all(isinstance(value, Vector) for value in inputs) and inputs:
            return Vector(sum(value.features for value in inputs if isinstance(value, Vector)))
        first, *rest = _grids(self, inputs)
        for other in rest:
            _check_size(self, first, other)
        return Grid(first.channels + sum(grid.channels for grid in rest), first.height, first.width)

    def emit(self, graph: fx.Graph, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        import torch

        return graph.call_function(torch.cat, (tuple(args),), {"dim": 1})

    @property
    def work(self) -> str:
        return "copy"

    @property
    def label(self) -> str:
        return "concat"


@dataclass(frozen=True)
class _Elementwise(Op):
    """Inputs of one shape -> that shape. `function` combines two of them."""

    kind: ClassVar[Kind] = Kind.FUSE

    def infer(self, *inputs: Value) -> Value:
        if len(inputs) < 2:
            raise ShapeError(f"{self.label} takes at least two inputs, not {len(inputs)}")
        for other in inputs[1:]:
            if other != inputs[0]:
                raise ShapeError(f"{self.label} of {_difference(inputs[0], other)}: they must be equal")
        return inputs[0]

    def elementwise(self, inputs: Sequence[Shape], output: Shape) -> int:
        return elements(output) * (len(inputs) - 1)

    def partials(self, inputs: Sequence[Shape], output: Shape) -> tuple[int, ...]:
        return (elements(output),) * (len(inputs) - 2)

    def emit(self, graph: fx.Graph, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        return reduce(lambda a, b: graph.call_function(operator.add, (a, b)), args)

    @property
    def label(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Sum(_Elementwise):
    """The sum of all inputs, element by element."""

    passes_gradient: ClassVar[bool] = True


@dataclass(frozen=True)
class Mean(_Elementwise):
    """The mean of all inputs, element by element."""

    passes_gradient: ClassVar[bool] = True  # one that is divided, for all inputs

    def elementwise(self, inputs: Sequence[Shape], output: Shape) -> int:
        return elements(output) * len(inputs)

    def partials(self, inputs: Sequence[Shape], output: Shape) -> tuple[int, ...]:
        return (elements(output),) * (len(inputs) - 1)

    def emit(self, graph: fx.Graph, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        return graph.call_function(operator.truediv, (super().emit(graph, args, *inputs), len(args)))


@dataclass(frozen=True)
class Maximum(_Elementwise):
    """The maximum of all inputs, element by element."""

    def kept(self, inputs: Sequence[Shape], output: Shape) -> Kept:
        return Kept(inputs=tuple(range(len(inputs))), partials=True)

    def emit(self, graph: fx.Graph, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        import torch

        return reduce(lambda a, b: graph.call_function(torch.maximum, (a, b)), args)


@dataclass(frozen=True)
class Product(_Elementwise):
    """The product of all inputs; one of a single cell, or of a single channel, scales all those of the others."""

    def infer(self, *inputs: Value) -> Value:
        if not any(isinstance(value, Grid) for value in inputs):
            return super().infer(*inputs)
        grids = _grids(self, inputs)
        whole = max(grids, key=lambda grid: (grid.height.fixed != 1, grid.channels))
        for grid in grids:
            single = grid.height.fixed == grid.width.fixed == 1
            if grid.channels not in (1, whole.channels):
                raise ShapeError(
                    f"product of {grid.channels} and {whole.channels} channels: they must be equal, or one be 1"
                )
            if not single:
                _check_size(self, whole, grid)
        return Grid(max(grid.channels for grid in grids), whole.height, whole.width)

    def windows(self, axis: int, inputs: Sequence[Shape], output: Shape) -> tuple[Window | None, ...]:
        if len(output) == 1:
            return super().windows(axis, inputs, output)
        # A grid of one cell scales all those of the others.
        return tuple([Window(step=int(shape[1 + axis] == output[1 + axis])) for shape in inputs])

    def kept(self, inputs: Sequence[Shape], output: Shape) -> Kept:
        return Kept(inputs=tuple(range(len(inputs))), partials=True, crossed=True)

    def partials(self, inputs: Sequence[Shape], output: Shape) -> tuple[int, ...]:
        made = accumulate(inputs, lambda one, other: tuple(map(max, one, other)))
        return tuple(map(elements, made))[1:-1]

    def emit(self, graph: fx.Graph, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        return reduce(lambda a, b: graph.call_function(operator.mul, (a, b)), args)


@dataclass(frozen=True)
class WeightedSum(_Elementwise):
    """The sum of all inputs, each times a learned scalar; the scalars are normalised by `normalize`.

    `none`: as they are. `relu`: max(w, 0) / (sum of max(w, 0) + 1e-4). `softmax`: exp(w) / sum of exp(w).
    """

    normalize: str = "relu"

    uncounted: ClassVar[str] = "normalising the weights of a weighted sum (a few operations a node)"

    def __post_init__(self) -> None:
        check_word(self, "normalize", ("none", "relu", "softmax"))

    def weights(self, *inputs: Value) -> Mapping[str, Shape]:
        return {"weight": (len(inputs),)}

    def elementwise(self, inputs: Sequence[Shape], output: Shape) -> int:
        return elements(output) * (2 * len(inputs) - 1)

    def kept(self, inputs: Sequence[Shape], output: Shape) -> Kept:
        # The scalars before and after they are normalised, and what they are divided by.
        scalars = {"relu": 2 * len(inputs) + 1, "softmax": len(inputs)}
        return Kept(inputs=tuple(range(len(inputs))), per_batch=scalars.get(self.normalize, 0))

    def scratch(self, inputs: Sequence[Shape], output: Shape, number: int) -> int:
        return 2 * elements(output) * number  # the sum so far and one product, beside the new sum

    def partials(self, inputs: Sequence[Shape], output: Shape) -> tuple[int, ...]:
        return ()  # a module holds all its inputs until it returns

    def further(self, inputs: Sequence[Shape], output: Shape) -> tuple[int, ...]:
        return (2 * elements(output),) * (2 * len(inputs) - 2)  # products, and sums so far

    def module(self, *inputs: Value) -> nn.Module:
        from mgcompile.lowering import kernels

        return kernels.WeightedSum(len(inputs), self.normalize)

    @property
    def label(self) -> str:
        return "weighted sum"


def _grids(op: Op, inputs: Sequence[Value]) -> list[Grid]:
    grids = [value for value in inputs if isinstance(value, Grid)]
    if len(grids) < max(1, len(inputs)):
        others = [str(value) for value in inputs if not isinstance(value, Grid)]
        among = " beside a grid" if grids else ""
        raise ShapeError(f"{op.label} takes grids, not {', '.join(others) or 'nothing'}{among}")
    return grids


def _difference(one: Value, other: Value) -> str:
    """Two values that differ, by what they differ in."""
    if isinstance(one, Grid) and isinstance(other, Grid) and one.same_size(other):
        return f"{one.channels} and {other.channels} channels"
    return f"{one} and {other}"


def _check_size(op: Op, one: Grid, other: Grid) -> None:
    if not one.same_size(other):
        raise ShapeError(f"{op.label} of grids of {one.size} and of {other.size} cells, s being the input's size")
