"""Convolutions, transposed convolutions and the linear layer: all that counts as multiply-accumulates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, prod
from typing import TYPE_CHECKING, Any, ClassVar

from mgcompile.errors import ShapeError
from mgcompile.graph.ops.base import Kind, Op, one_grid, one_vector
from mgcompile.graph.types import Extent, Grid, Kept, Shape, Size, Value, Vector, Window, elements

if TYPE_CHECKING:
    from torch import fx, nn

__all__ = ["Conv", "Linear", "TransposedConv"]


@dataclass(frozen=True)
class Conv(Op):
    """2-D convolution: (n, h, w) -> (channels, ceil(h / stride), ceil(w / stride)).

    `padding` None keeps that size for every kernel and dilation; a number pads so many zeros on all four sides. MACs
    are `kernel_h * kernel_w * n / groups` for each output element.
    """

    channels: int
    kernel: Size = (3, 3)
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    bias: bool = True
    padding: int | None = None

    kind: ClassVar[Kind] = Kind.CONV

    def infer(self, *inputs: Value) -> Grid:
        grid = one_grid(self, inputs)
        _check_groups(self.groups, grid.channels, self.channels)
        return Grid(self.channels, self._extent(grid.height, 0), self._extent(grid.width, 1))

    def weights(self, *inputs: Value) -> Mapping[str, Shape]:
        grid = one_grid(self, inputs)
        shapes: dict[str, Shape] = {"weight": (self.channels, grid.channels // self.groups, *self.kernel)}
        return shapes | {"bias": (self.channels,)} if self.bias else shapes

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        return elements(output) * (inputs[0][0] // self.groups) * prod(self.kernel)

    def elementwise(self, inputs: Sequence[Shape], output: Shape) -> int:
        return elements(output) * self.bias

    def kept(self, inputs: Sequence[Shape], output: Shape) -> Kept:
        padded = self.padded(inputs[0])
        return Kept(numbers=padded) if padded else Kept(inputs=(0,))

    def module(self, *inputs: Value) -> nn.Module:
        from mgcompile.lowering import kernels

        return kernels.conv(
            one_grid(self, inputs).channels,
            self.channels,
            self.kernel,
            stride=self.stride,
            padding=(self.pads(0), self.pads(1)),
            whole_windows=self.fills_last_window,
            dilation=self.dilation,
            groups=self.groups,
            bias=self.bias,
        )

    def windows(self, axis: int, inputs: Sequence[Shape], output: Shape) -> tuple[Window | None, ...]:
        before = self.pads(axis)[0]
        last = self.dilation * (self.kernel[axis] - 1) - before
        return (Window(-before, last, step=self.stride, apart=self.dilation),)

    def pads(self, axis: int) -> tuple[int, int]:
        """Zeros before and after the data along an axis, at every size."""
        if self.padding is not None:
            return self.padding, self.padding
        spread = self.dilation * (self.kernel[axis] - 1)
        # An even kernel whose stride is even too has whole windows: it is centred on them, as pooling is.
        total = max(0, spread + 1 - self.stride) if self.fills_last_window else spread
        return total // 2, total - total // 2

    def padded(self, shape: Shape) -> int:
        """The numbers of one sample in the padded copy of an input: where zeros before and after differ; else 0."""
        channels, *sides = shape
        spreads = [self.dilation * (size - 1) for size in self.kernel]
        pads = [self.pads(axis) for axis in (0, 1)]
        if self.fills_last_window:  # see `kernels.conv_pads`
            pads = [(before, spread - before) for (before, _), spread in zip(pads, spreads, strict=True)]
        if all(before == after for before, after in pads):
            return 0
        return channels * prod(side + sum(pad) for side, pad in zip(sides, pads, strict=True))

    @property
    def fills_last_window(self) -> bool:
        """Whether zeros are added at the far end until the last window is whole: sizes that do not divide round up."""
        even = all(self.dilation * (size - 1) % 2 for size in self.kernel)
        return self.padding is None and self.stride % 2 == 0 and even

    def _extent(self, extent: Extent, axis: int) -> Extent:
        if self.padding is None:
            return extent.shift(self.stride.bit_length() - 1)
        spread = self.dilation * (self.kernel[axis] - 1)
        return extent.grow(2 * self.padding - spread).shift(self.stride.bit_length() - 1)

    @property
    def work(self) -> str:
        if self.groups > 1:
            return "grouped"
        return "pointwise" if self.kernel == (1, 1) else "conv"

    @property
    def label(self) -> str:
        parts = [f"conv {_kernel_text(self.kernel)}"]
        parts += [f"stride {self.stride}"] * (self.stride > 1) + [f"dilation {self.dilation}"] * (self.dilation > 1)
        return ", ".join(parts + [f"groups {self.groups}"] * (self.groups > 1))


@dataclass(frozen=True)
class TransposedConv(Op):
    """Transposed convolution with stride 2**steps: (n, h, w), like -> (channels, like's height, like's width).

    The second input gives the size (see `Resize`); what reaches beyond it is cut. The kernel is at least the stride.
    MACs are `kernel_h * kernel_w * channels / groups` for each *input* element.
    """

    channels: int
    kernel: Size = (2, 2)
    steps: int = 1
    groups: int = 1
    bias: bool = True

    kind: ClassVar[Kind] = Kind.UP

    def infer(self, *inputs: Value) -> Grid:
        grid, like = grid_and_like(self, inputs)
        _check_groups(self.groups, grid.channels, self.channels)
        if min(self.kernel) < self.stride:
            raise ShapeError(
                f"a transposed convolution of kernel {_kernel_text(self.kernel)} and stride {self.stride} leaves holes"
            )
        output = Grid(self.channels, grid.height.shift(-self.steps), grid.width.shift(-self.steps))
        target_size(output, like)
        return output

    def weights(self, *inputs: Value) -> Mapping[str, Shape]:
        grid, _ = grid_and_like(self, inputs)
        shapes: dict[str, Shape] = {"weight": (grid.channels, self.channels // self.groups, *self.kernel)}
        return shapes | {"bias": (self.channels,)} if self.bias else shapes

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        return elements(inputs[0]) * (self.channels // self.groups) * prod(self.kernel)

    def elementwise(self, inputs: Sequence[Shape], output: Shape) -> int:
        return elements(output) * self.bias

    def kept(self, inputs: Sequence[Shape], output: Shape) -> Kept:
        return Kept(inputs=(0,))

    def stores(self, inputs: Sequence[Shape], output: Shape, *, training: bool) -> int:
        # What reaches beyond the size reference is cut, and stays in memory.
        return self.channels * prod(side * self.stride for side in inputs[0][1:])

    def module(self, *inputs: Value) -> nn.Module:
        from mgcompile.lowering import kernels

        grid, _ = grid_and_like(self, inputs)
        return kernels.TransposedConv(
            grid.channels, self.channels, self.kernel, stride=self.stride, groups=self.groups, bias=self.bias
        )

    def call(self, args: Sequence[fx.Node], *inputs: Value) -> tuple[tuple[fx.Node, ...], dict[str, Any]]:
        _, like = grid_and_like(self, inputs)
        return tuple(args), size_options(self.infer(*inputs), like)

    def windows(self, axis: int, inputs: Sequence[Shape], output: Shape) -> tuple[Window | None, ...]:
        # What the input's cell c adds to starts at c * stride - padding; see `kernels.TransposedConv` for the padding.
        rest = self.kernel[axis] - self.stride
        padding = (rest + 1) // 2
        return Window(padding - rest, padding, over=self.stride), None

    def convolves(self, place: int) -> bool:
        return place == 0

    @property
    def stride(self) -> int:
        """How many times finer the output is."""
        return int(2**self.steps)

    @property
    def size_input(self) -> int:
        return 1

    @property
    def work(self) -> str:
        return "transposed"

    @property
    def label(self) -> str:
        return f"transposed conv {_kernel_text(self.kernel)}, x{self.stride}"


@dataclass(frozen=True)
class Linear(Op):
    """Fully connected layer: (n,) -> (features,)."""

    features: int
    bias: bool = True

    kind: ClassVar[Kind] = Kind.LINEAR

    def infer(self, *inputs: Value) -> Vector:
        one_vector(self, inputs)
        return Vector(self.features)

    def weights(self, *inputs: Value) -> Mapping[str, Shape]:
        shapes: dict[str, Shape] = {"weight": (self.features, one_vector(self, inputs).features)}
        return shapes | {"bias": (self.features,)} if self.bias else shapes

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        return elements(inputs[0]) * self.features

    def elementwise(self, inputs: Sequence[Shape], output: Shape) -> int:
        return self.features * self.bias

    def kept(self, inputs: Sequence[Shape], output: Shape) -> Kept:
        return Kept(inputs=(0,))

    def module(self, *inputs: Value) -> nn.Module:
        from torch import nn

        return nn.Linear(one_vector(self, inputs).features, self.features, bias=self.bias)

    @property
    def work(self) -> str:
        return "linear"

    @property
    def label(self) -> str:
        return "linear"


def target_size(output: Grid, like: Grid) -> tuple[Extent, Extent] | None:
    """How to find the output's size from the size reference: None where both are equal, else as a function of it.

    Raises `ShapeError` where the reference is neither of the output's size nor at level 0, from which any size follows.
    """
    if output.same_size(like):
        return None
    origin = Extent()
    if (like.height, like.width) != (origin, origin) or output.height.fixed is not None:
        raise ShapeError(f"upsampling to {output.size} cells does not meet a grid of {like.size} cells")
    return output.height, output.width


def size_options(output: Grid, like: Grid) -> dict[str, Any]:
    """What the size reference asks of the kernels: nothing where it has the output's size, else `level` and `offset`.

    The offsets (down, across) are whole cells of the input, or of the output where that is finer than the input.
    """
    if (target := target_size(output, like)) is None:
        return {}
    level = target[0].level
    finer = Fraction(2) ** max(0, -level)
    return {"level": level, "offset": tuple(ceil(extent.offset * finer) for extent in target)}


def grid_and_like(op: Op, inputs: Sequence[Value]) -> tuple[Grid, Grid]:
    match inputs:
        case [Grid() as grid, Grid() as like]:
            return grid, like
    raise ShapeError(
        f"{op.label} takes a grid and one whose size it takes on, not {', '.join(map(str, inputs)) or 'nothing'}"
    )


def _check_groups(groups: int, given: int, wanted: int) -> None:
    if given % groups or wanted % groups:
        raise ShapeError(f"{groups} groups must divide the channels evenly, {given} in and {wanted} out")


def _kernel_text(kernel: Size) -> str:
    return f"{kernel[0]}x{kernel[1]}"
