"""What passes make of the operations that specs are built of: the same functions in fewer and better steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from mgcompile.errors import ShapeError
from mgcompile.graph.ops.activation import Activation
from mgcompile.graph.ops.base import Kind, Op, one_grid
from mgcompile.graph.ops.conv import Conv, size_options
from mgcompile.graph.ops.fuse import Concat
from mgcompile.graph.ops.pool import Pool
from mgcompile.graph.ops.resize import Resize
from mgcompile.graph.types import Grid, Kept, Shape, Value, Vector, Window, elements

if TYPE_CHECKING:
    from torch import fx, nn

__all__ = ["ChannelsLast", "FusedConv", "HalvingPool", "Reference"]

WORTH_CELLS = 768
"""With so many cells, the training form convolves coarse parts where they are: that of `lowering.fused`."""

TILE, LANES = 4, 16
"""Cells along a side of a tile of Winograd's kernel, and channels in a group: those of `lowering.native.winograd`."""


@dataclass(frozen=True)
class Reference(Op):
    """An operation's tensors as a value: for a node that does the work of another, or to keep what is not computed.

    () -> a vector of all its numbers. `given` are the inputs that the operation had.
    """

    op: Op
    given: tuple[Value, ...]

    kind: ClassVar[Kind] = Kind.REFERENCE
    by_reference: ClassVar[bool] = True

    def infer(self, *inputs: Value) -> Vector:
        if inputs:
            raise ShapeError("a reference takes nothing")
        return Vector(sum(map(elements, [*self.weights().values(), *self.buffers().values()])))

    def weights(self, *inputs: Value) -> Mapping[str, Shape]:
        return self.op.weights(*self.given)

    def buffers(self, *inputs: Value) -> Mapping[str, Shape]:
        return self.op.buffers(*self.given)

    def module(self, *inputs: Value) -> nn.Module | None:
        return self.op.module(*self.given)

    @property
    def label(self) -> str:
        return f"tensors of {self.op.label}"


@dataclass(frozen=True)
class FusedConv(Op):
    """activation(batch norm(convolution(concatenated parts)) + addends), in one operation.

    The inputs are, in this order: the parts, each of which is first upsampled (nearest) by 2**steps; where `like`, a
    grid that gives the fine size; where `norm`, a `Reference` to a batch norm; the addends. MACs are those that are
    executed: where the fine size is f times the coarse one, a part counts as a transposed convolution of kernel
    k + f - 1 on its own grid.
    """

    conv: Conv
    steps: tuple[int, ...] = (0,)
    like: bool = False
    norm: bool = False
    addends: int = 0
    act: Activation | None = None

    kind: ClassVar[Kind] = Kind.CONV

    def infer(self, *inputs: Value) -> Grid:
        output = self.conv.infer(self._whole(inputs))
        for other in self._addends(inputs):
            if other != output:
                raise ShapeError(f"{self.label} of {output} and an addend of {other}: they must be equal")
        return output

    def weights(self, *inputs: Value) -> Mapping[str, Shape]:
        return self.conv.weights(self._whole(inputs))

    def macs(self, inputs: Sequence[Shape], output: Shape) -> int:
        positions, taps = prod(output[1:]), prod(self.conv.kernel)
        parts = list(zip(inputs, self.steps, strict=False))
        exact = all((part[1] << steps, part[2] << steps) == output[1:] for part, steps in parts if steps)
        total = 0
        for part, steps in parts:
            if steps and exact:
                spread = 2**steps - 1
                coarse = prod(size + spread for size in self.conv.kernel) if taps > 1 else 1
                total += elements(part) * coarse
            else:
                total += positions * part[0] * taps
        return total * self.conv.channels // self.conv.groups

    def elementwise(self, inputs: Sequence[Shape], output: Shape) -> int:
        act = self.act.elementwise([output], output) if self.act else 0
        return elements(output) * (self.addends + (self.conv.bias or self.norm)) + act

    def kept(self, inputs: Sequence[Shape], output: Shape) -> Kept:
        """What the training form keeps. Approximate: whether coarse parts are convolved where they are depends on the
        cells of the whole batch there, and here on those of one sample; the copies of small weights are not counted.
        """
        parts = list(zip(inputs, self.steps, strict=False))
        size = self._fine_size(inputs)
        whole = (sum(part[0] for part, _ in parts), *size)
        padded, numbers, per_batch = self.conv.padded(whole), 0, 0
        places: tuple[int, ...] = ()
        worth = prod(size) >= WORTH_CELLS
        if worth and any(self.steps) and all((part[1] << step, part[2] << step) == size for part, step in parts):
            fine = [place for place, step in enumerate(self.steps) if not step]
            places = tuple(place for place, step in enumerate(self.steps) if step or len(fine) == 1)
            if len(fine) > 1:
                numbers += sum(elements(inputs[place]) for place in fine)
                per_batch += sum(inputs[place][0] for place in fine) * self.conv.channels * prod(self.conv.kernel)
            if prod(self.conv.kernel) > 1:
                for part, step in parts:
                    wide = prod(side + 2**step - 1 for side in self.conv.kernel)
                    per_batch += wide * (part[0] * self.conv.channels + prod(self.conv.kernel)) if step else 0
        elif padded or len(parts) > 1 or any(self.steps):
            numbers += padded or elements(whole)
        else:
            places = (0,)
        if self.norm:
            numbers, per_batch = numbers + elements(output), per_batch + 2 * output[0]
        if self.act is None or self.act.function == "leaky_relu":  # in place, of the output
            return Kept(places, self.act is not None, 0, numbers, per_batch)
        after = self.act.kept([output], output)
        return Kept(places, after.output, 0, numbers + elements(output) * len(after.inputs), per_batch)

    def scratch(self, inputs: Sequence[Shape], output: Shape, number: int) -> int:
        """0: in evaluation parts are read where they are, and what follows the convolution is done in place."""
        return 0

    def moved(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Coarse parts are read where they are; a norm has become part of the weights."""
        read = (*inputs[: len(self.steps)], *inputs[len(self.steps) + self.like + self.norm :])
        return elements(output) + sum(map(elements, read))

    def effort(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Winograd's kernel reads coarse parts as if they were upsampled, and computes whole tiles of cells for whole
        groups of channels.
        """
        if not self._by_tiles:
            return super().effort(inputs, output)
        depth = sum([_rounded_up(part[0], LANES) for part in inputs[: len(self.steps)]])
        cells = prod(_rounded_up(side, TILE) for side in output[1:])
        return 2 * _rounded_up(output[0], LANES) * cells * depth * prod(self.conv.kernel)

    def tensors(self, *inputs: Value) -> int:
        return self.parameters(*inputs) + self.conv.channels * (self.norm and not self.conv.bias)

    def further(self, inputs: Sequence[Shape], output: Shape) -> tuple[int, ...]:
        """One addend, and a ReLU after it, are done by the convolution."""
        inside = self.act is None or (self.act.function == "relu" and self.addends < 2)
        return (2 * elements(output),) * (max(0, self.addends - 1) + (not inside))

    def module(self, *inputs: Value) -> nn.Module:
        from mgcompile.lowering import fused

        conv = self.conv
        return fused.FusedConv2d(
            self._whole(inputs).channels,
            conv.channels,
            conv.kernel,
            stride=conv.stride,
            padding=(conv.pads(0), conv.pads(1)),
            whole_windows=conv.fills_last_window,
            dilation=conv.dilation,
            groups=conv.groups,
            bias=conv.bias,
        )

    def call(self, args: Sequence[fx.Node], *inputs: Value) -> tuple[tuple[fx.Node, ...], dict[str, Any]]:
        options: dict[str, Any] = {}
        parts, rest = tuple(args[: len(self.steps)]), iter(args[len(self.steps) :])
        if any(self.steps):
            options["steps"] = self.steps
        if self.like:
            like = inputs[len(self.steps)]
            assert isinstance(like, Grid)
            options |= {"like": next(rest), **size_options(self._whole(inputs), like)}
        if self.norm:
            options["norm"] = next(rest)
        if addends := list(rest):
            options["add"] = addends
        if self.act:
            options |= {"act": self.act.function, **self.act.options}
        return parts, options

    def invoke(self, graph: fx.Graph, owner: str, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        """A function calls the module, so that any other may come to stand in its place."""
        from mgcompile.lowering import fused

        parts, options = self.call(args, *inputs)
        module = graph.create_node("get_attr", owner, name=f"{owner.replace('.', '_')}_module")
        return graph.call_function(fused.fused_conv, (module, *parts), options)

    def windows(self, axis: int, inputs: Sequence[Shape], output: Shape) -> tuple[Window | None, ...]:
        (fine,) = self.conv.windows(axis, inputs[:1], output)
        assert fine is not None
        # A part that is read where it is coarse has an undilated convolution of stride 1; see `passes.subpixel`.
        parts = [replace(fine, over=2**steps) if steps else fine for steps in self.steps]
        return (*parts, *(None,) * (self.like + self.norm), *(Window(),) * self.addends)

    def convolves(self, place: int) -> bool:
        return place < len(self.steps)

    def _whole(self, inputs: Sequence[Value]) -> Grid:
        """The parts at the fine size, concatenated."""
        parts: list[Value] = []
        for value, steps in zip(inputs, self.steps, strict=False):
            if steps and not isinstance(value, Grid):
                raise ShapeError(f"{self.label} takes grids, not {value}")
            parts.append(Resize("nearest", steps).infer(value, self._fine(inputs)) if steps else value)
        whole = Concat().infer(*parts)
        assert isinstance(whole, Grid)
        return whole

    def _fine(self, inputs: Sequence[Value]) -> Grid:
        for value, steps in zip(inputs, self.steps, strict=False):
            if not steps and isinstance(value, Grid):
                return value
        if self.like and isinstance(value := inputs[len(self.steps)], Grid):
            return value
        raise ShapeError(f"{self.label}: nothing gives the size of what is upsampled")

    def _fine_size(self, inputs: Sequence[Shape]) -> tuple[int, int]:
        """Height and width of the parts as the convolution sees them."""
        fine = [part for part, step in zip(inputs, self.steps, strict=False) if not step]
        if fine:
            return fine[0][1], fine[0][2]
        part, step = inputs[0], self.steps[0]
        like = inputs[len(self.steps)]
        # A size reference at level 0 gives sizes that are finer by whole levels; the parts' own are near enough then.
        near = (like[1] - 1) >> step == (part[1] - 1) and (like[2] - 1) >> step == (part[2] - 1)
        return (like[1], like[2]) if near else (part[1] << step, part[2] << step)

    def _addends(self, inputs: Sequence[Value]) -> Iterator[Value]:
        first = len(self.steps) + self.like + self.norm
        if len(inputs) != first + self.addends:
            raise ShapeError(f"{self.label} takes {first + self.addends} inputs, not {len(inputs)}")
        return iter(inputs[first:])

    @property
    def work(self) -> str:
        return "packed 3x3" if self._by_tiles else f"packed {self.conv.work}"

    @property
    def _by_tiles(self) -> bool:
        """Whether Winograd's kernel serves; see `lowering.ways`."""
        conv = self.conv
        return conv.kernel == (3, 3) and conv.stride == conv.dilation == conv.groups == 1

    @property
    def size_input(self) -> int | None:
        return len(self.steps) if self.like else None

    @property
    def uncounted(self) -> str:  # type: ignore[override]
        """Work on weights alone, which every part that is read on a coarse grid needs."""
        return "making the kernel of a sub-pixel convolution, at each training step" if any(self.steps) else ""

    @property
    def label(self) -> str:
        parts = [self.conv.label] + ["sub-pixel"] * any(self.steps) + ["norm"] * self.norm
        return " + ".join(parts + ["add"] * self.addends + ([self.act.label] if self.act else []))


@dataclass(frozen=True)
class HalvingPool(Pool):
    """The maximum over 2x2 windows, row pairs first and then column pairs: without the indices that gradients need."""

    def emit(self, graph: fx.Graph, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        from mgcompile.lowering import functional

        return graph.call_function(functional.max_pool_2x2, tuple(args))

    @property
    def work(self) -> str:
        return "pool of pairs"

    def scratch(self, inputs: Sequence[Shape], output: Shape, number: int) -> int:
        return 0


@dataclass(frozen=True)
class ChannelsLast(Op):
    """The same grid with the channels of each cell side by side in memory (NHWC), as convolutions are fastest."""

    kind: ClassVar[Kind] = Kind.SHAPE

    def infer(self, *inputs: Value) -> Grid:
        return one_grid(self, inputs)

    def stores(self, inputs: Sequence[Shape], output: Shape, *, training: bool) -> int:
        # With one channel the strides alone change. A copy otherwise, as of an image that is not channels last yet.
        return 0 if output[0] == 1 else elements(output)

    def emit(self, graph: fx.Graph, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        from mgcompile.lowering import functional

        return graph.call_function(functional.channels_last, tuple(args))

    @property
    def work(self) -> str:
        return "copy"

    @property
    def label(self) -> str:
        return "channels last"


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
