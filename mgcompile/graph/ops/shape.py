"""Operations that move or cut data without computing on it, and the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mgcompile.errors import ShapeError
from mgcompile.graph.ops.base import Kind, Op, one_grid
from mgcompile.graph.ops.conv import grid_and_like
from mgcompile.graph.types import Grid, Shape, Value, Vector, Window

if TYPE_CHECKING:
    from torch import fx

__all__ = ["Crop", "Flatten", "Input", "PadChannels", "SliceChannels"]


@dataclass(frozen=True)
class Input(Op):
    """The image: nothing -> (channels, h, w) at level 0."""

    channels: int = 3

    kind: ClassVar[Kind] = Kind.INPUT

    def infer(self, *inputs: Value) -> Grid:
        if inputs:
            raise ShapeError("the input takes nothing")
        return Grid(self.channels)

    def moved(self, inputs: Sequence[Shape], output: Shape) -> int:
        return 0  # it is there already

    @property
    def label(self) -> str:
        return "input"


@dataclass(frozen=True)
class PadChannels(Op):
    """(c, h, w) -> (channels, h, w), the new channels zero and last: the zero-padded shortcut."""

    channels: int

    kind: ClassVar[Kind] = Kind.SHAPE

    def infer(self, *inputs: Value) -> Grid:
        grid = one_grid(self, inputs)
        if grid.channels > self.channels:
            raise ShapeError(f"padding {grid.channels} channels to {self.channels}, which are fewer")
        return Grid(self.channels, grid.height, grid.width)

    def emit(self, graph: fx.Graph, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        from torch.nn import functional

        new = self.channels - one_grid(self, inputs).channels
        return graph.call_function(functional.pad, (*args, (0, 0, 0, 0, 0, new)))

    @property
    def work(self) -> str:
        return "copy"

    @property
    def label(self) -> str:
        return f"pad to {self.channels}"


@dataclass(frozen=True)
class SliceChannels(Op):
    """(c, h, w) -> (stop - start, h, w): the channels from `start` up to, not including, `stop`."""

    start: int
    stop: int

    kind: ClassVar[Kind] = Kind.SHAPE

    def infer(self, *inputs: Value) -> Grid:
        grid = one_grid(self, inputs)
        if not 0 <= self.start < self.stop <= grid.channels:
            raise ShapeError(f"channels {self.start} up to {self.stop} of a grid that has {grid.channels}")
        return Grid(self.stop - self.start, grid.height, grid.width)

    def stores(self, inputs: Sequence[Shape], output: Shape, *, training: bool) -> int:
        return 0

    def emit(self, graph: fx.Graph, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        import torch

        return graph.call_function(torch.narrow, (*args, 1, self.start, self.stop - self.start))

    @property
    def label(self) -> str:
        return f"channels {self.start}:{self.stop}"


@dataclass(frozen=True)
class Crop(Op):
    """(c, h, w), like -> (c, like's height, like's width): the middle of a grid that is at least as large."""

    kind: ClassVar[Kind] = Kind.SHAPE

    def infer(self, *inputs: Value) -> Grid:
        grid, like = grid_and_like(self, inputs)
        for have, want in ((grid.height, like.height), (grid.width, like.width)):
            if (
                (have.level, have.fixed is None) != (want.level, want.fixed is None)
                or have.offset < want.offset
                or ((have.fixed or 0) < (want.fixed or 0))
            ):
                raise ShapeError(f"a grid of {grid.size} cells cannot be cropped to {like.size}")
        return Grid(grid.channels, like.height, like.width)

    def stores(self, inputs: Sequence[Shape], output: Shape, *, training: bool) -> int:
        return 0

    def emit(self, graph: fx.Graph, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        from mgcompile.lowering import kernels

        return graph.call_function(kernels.crop, tuple(args))

    @property
    def size_input(self) -> int:
        return 1

    def windows(self, axis: int, inputs: Sequence[Shape], output: Shape) -> tuple[Window | None, ...]:
        before = (inputs[0][1 + axis] - output[1 + axis]) // 2
        return Window(before, before), None

    @property
    def label(self) -> str:
        return "crop"


@dataclass(frozen=True)
class Flatten(Op):
    """(c, n, n) of a fixed size -> (c * n * n,)."""

    kind: ClassVar[Kind] = Kind.SHAPE
    passes_gradient: ClassVar[bool] = True

    def infer(self, *inputs: Value) -> Vector:
        grid = one_grid(self, inputs)
        if grid.height.fixed is None or grid.width.fixed is None:
            raise ShapeError(
                f"flattening a grid of {grid.size} cells, whose number follows the input: pool it to a fixed size first"
            )
        return Vector(grid.channels * grid.height.fixed * grid.width.fixed)

    def stores(self, inputs: Sequence[Shape], output: Shape, *, training: bool) -> int:
        return 0

    def emit(self, graph: fx.Graph, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        import torch

        return graph.call_function(torch.flatten, tuple(args), {"start_dim": 1})

    @property
    def label(self) -> str:
        return "flatten"
