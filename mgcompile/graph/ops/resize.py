"""Upsampling by interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mgcompile.graph.ops.base import Kind, Op, check_word
from mgcompile.graph.ops.conv import grid_and_like, size_options, target_size
from mgcompile.graph.types import Grid, Shape, Value, Window, elements

if TYPE_CHECKING:
    from torch import fx

__all__ = ["Resize"]


@dataclass(frozen=True)
class Resize(Op):
    """Upsampling by 2**steps: (c, h, w), like -> (c, like's height, like's width).

    The second input gives the size: a grid of the level that is aimed at or, where there is none, one at level 0, from
    which that level's size follows. `nearest` repeats each cell and cuts what reaches beyond; `bilinear` interpolates
    between cell centres to exactly that size. Bilinear with no steps takes any grid to the size of any other.
    """

    function: str = "nearest"
    steps: int = 1

    kind: ClassVar[Kind] = Kind.UP

    def __post_init__(self) -> None:
        check_word(self, "function", ("nearest", "bilinear"))

    def infer(self, *inputs: Value) -> Grid:
        grid, like = grid_and_like(self, inputs)
        if not self.steps and self.function == "bilinear":
            return Grid(grid.channels, like.height, like.width)
        output = Grid(grid.channels, grid.height.shift(-self.steps), grid.width.shift(-self.steps))
        target_size(output, like)
        return output

    def elementwise(self, inputs: Sequence[Shape], output: Shape) -> int:
        # Bilinear: four products with weights that depend on the position alone, three additions.
        return 7 * elements(output) if self.function == "bilinear" else 0

    def emit(self, graph: fx.Graph, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        from mgcompile.lowering import kernels

        _, like = grid_and_like(self, inputs)
        function = kernels.upsample_nearest if self.function == "nearest" else kernels.upsample_bilinear
        return graph.call_function(function, (*args, 2**self.steps), size_options(self.infer(*inputs), like))

    @property
    def size_input(self) -> int:
        return 1

    def windows(self, axis: int, inputs: Sequence[Shape], output: Shape) -> tuple[Window | None, ...]:
        if self.function == "nearest":
            return Window(over=2**self.steps), None
        # The centre of cell i lies at (i + 1/2) * size / new - 1/2; the cell below and the one above it are seen, or
        # one alone where it lies on that.
        size, new = inputs[0][1 + axis], output[1 + axis]
        return Window(size - new, size + new - 1, step=2 * size, over=2 * new), None

    @property
    def work(self) -> str:
        return self.function

    @property
    def label(self) -> str:
        return f"{self.function} x{2**self.steps}" if self.steps else f"{self.function} to size"
