"""What passes make of the operations that specs are built of: the same functions in fewer and better steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from mgcompile.errors import ShapeError
from mgcompile.graph.ops.activation import Activation
from mgcompile.graph.ops.base import Kind, Op, one_grid
from mgcompile.graph.ops.conv import Conv, size_options
from mgcompile.graph.ops.fuse import Concat
from mgcompile.graph.ops.pool import Pool
from mgcompile.graph.ops.resize import Resize
from mgcompile.graph.types import Grid, Shape, Value, Vector, elements

if TYPE_CHECKING:
    from torch import fx, nn

__all__ = ["ChannelsLast", "FusedConv", "HalvingPool", "Reference"]


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

    def _addends(self, inputs: Sequence[Value]) -> Iterator[Value]:
        first = len(self.steps) + self.like + self.norm
        if len(inputs) != first + self.addends:
            raise ShapeError(f"{self.label} takes {first + self.addends} inputs, not {len(inputs)}")
        return iter(inputs[first:])

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


@dataclass(frozen=True)
class ChannelsLast(Op):
    """The same grid with the channels of each cell side by side in memory (NHWC), as convolutions are fastest."""

    kind: ClassVar[Kind] = Kind.SHAPE

    def infer(self, *inputs: Value) -> Grid:
        return one_grid(self, inputs)

    def emit(self, graph: fx.Graph, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        from mgcompile.lowering import functional

        return graph.call_function(functional.channels_last, tuple(args))

    @property
    def label(self) -> str:
        return "channels last"
