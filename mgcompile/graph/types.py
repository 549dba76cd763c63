"""What flows along the edges of a graph: grids and vectors, with sizes that are functions of the input size.

Sizes are symbolic. Every halving rounds up, and a convolution that pads too little or too much adds a constant, so the
size of any grid is ``ceil((s + offset) / 2**level)`` for an input of ``s`` cells; that form is closed under all
operations, which is why one graph serves every input size and equality of sizes is decided without trying any.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, prod

from mgcompile.errors import ShapeError

__all__ = ["ALL", "Extent", "Grid", "Kept", "Shape", "Size", "Value", "Vector", "Window", "elements"]

Shape = tuple[int, ...]
"""The concrete shape of one sample: (channels, height, width), or (features,)."""

Size = tuple[int, int]
"""Height and width in cells."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The number of cells along one axis: ``ceil((s + offset) / 2**level)`` of the input's `s`, or `fixed` cells.

    >>> Extent(level=2).at(13)
    4
    """

    level: int = 0
    offset: int | Fraction = 0
    fixed: int | None = None

    def at(self, size: int) -> int:
        """The cells along this axis for an input of `size` cells; below 1 the grid has vanished."""
        if self.fixed is not None:
            return self.fixed
        if self.level >= 0 and isinstance(self.offset, int):
            return -((-size - self.offset) >> self.level)
        return ceil((size + self.offset) / Fraction(2) ** self.level)

    def grow(self, cells: int) -> Extent:
        """This extent with `cells` more cells (fewer, where negative)."""
        if not cells:
            return self
        if self.fixed is not None:
            return Extent(fixed=self.fixed + cells)
        step = cells << self.level if self.level >= 0 else cells * Fraction(2) ** self.level
        return Extent(self.level, self.offset + step)

    def shift(self, levels: int) -> Extent:
        """This extent `levels` levels coarser (rounded up), or finer where negative."""
        if self.fixed is None:
            return Extent(self.level + levels, self.offset)
        fixed = -(-self.fixed >> levels) if levels >= 0 else self.fixed << -levels
        return Extent(fixed=fixed)

    def smallest(self) -> int:
        """The smallest input size at which at least one cell is left."""
        if self.fixed is None:
            return max(1, floor(-self.offset) + 1)
        if self.fixed < 1:
            raise ShapeError(
                f"a grid whose size is fixed would have {self.fixed} cells a side; pad it or use a smaller kernel"
            )
        return 1

    def __str__(self) -> str:
        if self.fixed is not None:
            return str(self.fixed)
        sign = "+" if self.offset > 0 else ""
        size = f"(s{sign}{self.offset})" if self.offset else "s"
        if self.level < 0:
            return f"{size}*{2**-self.level}"
        return f"ceil({size}/{2**self.level})" if self.level else size.strip("()")


@dataclass(frozen=True, slots=True)
class Grid:
    """A feature map: (channels, height, width) for each sample."""

    channels: int
    height: Extent = Extent()
    width: Extent = Extent()

    def at(self, size: Size) -> Shape:
        """The concrete shape for an input of `size` (height, width)."""
        return self.channels, self.height.at(size[0]), self.width.at(size[1])

    def same_size(self, other: Grid) -> bool:
        """Whether both have equal sizes for every input size."""
        return self.height == other.height and self.width == other.width

    def __str__(self) -> str:
        return f"{self.channels} channels of {self.size}"

    @property
    def size(self) -> str:
        """The size in words, as a function of the input size s (or h and w where the axes differ)."""
        if self.height == self.width:
            return str(self.height)
        return f"{self.height} x {self.width}".replace("s", "h", 1)


@dataclass(frozen=True, slots=True)
class Vector:
    """(features,) for each sample."""

    features: int

    def at(self, size: Size) -> Shape:
        """The concrete shape; the input size plays no part."""
        return (self.features,)

    def __str__(self) -> str:
        return f"a vector of {self.features}"


Value = Grid | Vector


def elements(shape: Shape) -> int:
    """How many numbers a sample of this shape has."""
    return prod(shape)


@dataclass(frozen=True, slots=True)
class Window:
    """Which cells of an input a cell i of the output sees along one axis, of those that exist.

    From floor((step * i + first) / over) to floor((step * i + last) / over); all between, or every `apart`-th of them.

    >>> Window(-1, 1, step=2).cells(3)  # a 3-cell kernel of stride 2
    (5, 7)
    """

    first: int = 0
    last: int = 0
    step: int = 1
    over: int = 1
    apart: int = 1

    def cells(self, i: int) -> tuple[int, int]:
        """The first and the last cell, which may lie outside of the input."""
        return (self.step * i + self.first) // self.over, (self.step * i + self.last) // self.over


ALL = Window(0, 1 << 40, step=0)
"""Every cell."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What autograd keeps of one operation until the backward pass, of one sample and besides its weights.

    `inputs` are the places of the inputs that are kept, `output` tells whether the output is; `extra` are bytes of
    tensors of its own, which do not depend on the type of number (indices). `numbers` are those in tensors of its own,
    `per_batch` in such as do not grow with the batch. `partials` tells whether all but the last of what it computes on
    the way are kept (see `Op.partials`), `crossed` that an input is kept for the gradients of the others alone.
    """

    inputs: tuple[int, ...] = ()
    output: bool = False
    extra: int = 0
    numbers: int = 0
    per_batch: int = 0
    partials: bool = False
    crossed: bool = False
