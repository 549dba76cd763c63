"""Pooling: local (a grid goes some levels down) and global (one cell, or a fixed number of them, is left)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mgcompile.errors import ShapeError
from mgcompile.graph.ops.base import Kind, Op, check_word, one_grid
from mgcompile.graph.types import ALL, Extent, Grid, Kept, Shape, Value, Window, elements

if TYPE_CHECKING:
    from torch import fx

__all__ = ["GlobalPool", "Pool"]

INDEX = 8
"""Bytes of the index of a maximum, which PyTorch finds beside it, with or without gradients."""


@dataclass(frozen=True)
class Pool(Op):
    """Max or average pooling: (c, h, w) -> (c, ceil(h / stride), ceil(w / stride)).

    Windows are centred; a window that reaches over the border sees the cells that exist, and an average divides by
    their number.
    """

    function: str = "max"
    kernel: int = 2
    stride: int = 2

    kind: ClassVar[Kind] = Kind.POOL

    def __post_init__(self) -> None:
        check_word(self, "function", ("max", "avg"))

    def infer(self, *inputs: Value) -> Grid:
        grid = one_grid(self, inputs)
        if self.kernel % 2 == 0 and (self.stride % 2 or self.kernel < self.stride):
            raise ShapeError(
                f"a pool of kernel {self.kernel} and stride {self.stride} has no centred windows: the kernel must be "
                "odd, or even with an even stride that is no larger"
            )
        steps = self.stride.bit_length() - 1
        return Grid(grid.channels, grid.height.shift(steps), grid.width.shift(steps))

    def elementwise(self, inputs: Sequence[Shape], output: Shape) -> int:
        # Comparisons for a maximum; additions and one division for an average.
        window = self.kernel**2
        return elements(output) * (window - 1 if self.function == "max" else window)

    def kept(self, inputs: Sequence[Shape], output: Shape) -> Kept:
        return Kept(inputs=(0,), extra=INDEX * elements(output) if self.function == "max" else 0)

    def emit(self, graph: fx.Graph, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        from torch.nn import functional

        options: dict[str, Any] = {
            "kernel_size": self.kernel,
            "stride": self.stride,
            "padding": self.padding,
            "ceil_mode": self.rounds_up,
        }
        if self.function == "max":
            return graph.call_function(functional.max_pool2d, tuple(args), options)
        return graph.call_function(functional.avg_pool2d, tuple(args), options | {"count_include_pad": False})

    def windows(self, axis: int, inputs: Sequence[Shape], output: Shape) -> tuple[Window | None, ...]:
        return (Window(-self.padding, self.kernel - 1 - self.padding, step=self.stride),)

    @property
    def padding(self) -> int:
        """Cells added (and not seen) on each side."""
        return (self.kernel - 1) // 2 if self.kernel % 2 else (self.kernel - self.stride) // 2

    @property
    def rounds_up(self) -> bool:
        """Whether the last window is kept though it is not whole. Odd kernels round up without it."""
        return self.kernel % 2 == 0

    @property
    def work(self) -> str:
        return "pool"

    @property
    def label(self) -> str:
        return f"{self.function} pool {self.kernel}, stride {self.stride}"


@dataclass(frozen=True)
class GlobalPool(Op):
    """Average or maximum over equal parts: (c, h, w) -> (c, cells, cells), for any h and w (adaptive pooling)."""

    function: str = "avg"
    cells: int = 1

    kind: ClassVar[Kind] = Kind.POOL

    def __post_init__(self) -> None:
        check_word(self, "function", ("max", "avg"))

    def infer(self, *inputs: Value) -> Grid:
        fixed = Extent(fixed=self.cells)
        return Grid(one_grid(self, inputs).channels, fixed, fixed)

    def elementwise(self, inputs: Sequence[Shape], output: Shape) -> int:
        # Exact for one cell and for sizes that divide: each cell of the input is seen once.
        seen = elements(inputs[0])
        return seen + elements(output) if self.function == "avg" else max(0, seen - elements(output))

    def kept(self, inputs: Sequence[Shape], output: Shape) -> Kept:
        if self.function == "max":
            return Kept(inputs=(0,), extra=INDEX * elements(output))
        return Kept(inputs=(0,) if self.cells > 1 else ())  # to one cell it is a mean, whose gradient needs sizes alone

    def emit(self, graph: fx.Graph, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        from torch.nn import functional

        target = functional.adaptive_avg_pool2d if self.function == "avg" else functional.adaptive_max_pool2d
        return graph.call_function(target, tuple(args), {"output_size": (self.cells, self.cells)})

    def windows(self, axis: int, inputs: Sequence[Shape], output: Shape) -> tuple[Window | None, ...]:
        # From floor(i * size / cells) up to ceil((i + 1) * size / cells), which does not belong to it.
        size = inputs[0][1 + axis]
        return (ALL if self.cells == 1 else Window(0, size - 1, step=size, over=self.cells),)

    @property
    def work(self) -> str:
        return "global pool"

    @property
    def label(self) -> str:
        return (
            f"global {self.function} pool" if self.cells == 1 else f"{self.function} pool to {self.cells}x{self.cells}"
        )
