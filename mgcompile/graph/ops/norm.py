"""Normalisations. None changes a shape; all have an affine scale and shift for each channel unless told otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mgcompile.errors import ShapeError
from mgcompile.graph.ops.base import Kind, Op
from mgcompile.graph.types import ALL, Grid, Kept, Shape, Value, Window, elements

if TYPE_CHECKING:
    from torch import nn

__all__ = ["BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "Norm"]

# Over statistics of the sample itself: mean 1, variance 2, subtract and divide 2 for each element.
SAMPLE_STATISTICS = 5


@dataclass(frozen=True)
class Norm(Op):
    """Shared by all four: the shape stays, the affine tensors are (channels,)."""

    eps: float = 1e-5
    affine: bool = True

    kind: ClassVar[Kind] = Kind.NORM

    def infer(self, *inputs: Value) -> Value:
        _channels(self, inputs)
        return inputs[0]

    def weights(self, *inputs: Value) -> Mapping[str, Shape]:
        channels = _channels(self, inputs)
        return {"weight": (channels,), "bias": (channels,)} if self.affine else {}

    def elementwise(self, inputs: Sequence[Shape], output: Shape) -> int:
        return elements(output) * (SAMPLE_STATISTICS + 2 * self.affine)

    def averaged(self, shape: Shape, examples: int) -> int:
        """How many values share a mean and a variance, of an input of a shape and a batch of so many examples. Of a
        single one the output is the shift, whatever the input.
        """
        return elements(shape) // shape[0]

    @property
    def work(self) -> str:
        return "sample norm"

    @property
    def label(self) -> str:
        return type(self).__name__.removesuffix("Norm").lower() + " norm"


@dataclass(frozen=True)
class BatchNorm(Norm):
    """Batch normalisation over (batch, height, width); counted as in inference: one scale and one shift an element."""

    momentum: float = 0.1

    def averaged(self, shape: Shape, examples: int) -> int:
        return super().averaged(shape, examples) * examples

    def buffers(self, *inputs: Value) -> Mapping[str, Shape]:
        channels = _channels(self, inputs)
        return {"running_mean": (channels,), "running_var": (channels,), "num_batches_tracked": ()}

    def elementwise(self, inputs: Sequence[Shape], output: Shape) -> int:
        return 2 * elements(output)

    def kept(self, inputs: Sequence[Shape], output: Shape) -> Kept:
        return Kept(inputs=(0,), per_batch=2 * output[0])

    def module(self, *inputs: Value) -> nn.Module:
        from torch import nn

        make = nn.BatchNorm2d if isinstance(inputs[0], Grid) else nn.BatchNorm1d
        return make(_channels(self, inputs), eps=self.eps, momentum=self.momentum, affine=self.affine)

    @property
    def work(self) -> str:
        return "norm"


@dataclass(frozen=True)
class GroupNorm(Norm):
    """Group normalisation over `groups` groups of channels and all cells."""

    groups: int = 32

    def averaged(self, shape: Shape, examples: int) -> int:
        return elements(shape) // self.groups

    def windows(self, axis: int, inputs: Sequence[Shape], output: Shape) -> tuple[Window | None, ...]:
        return (ALL,)  # through mean and variance

    def infer(self, *inputs: Value) -> Value:
        channels = _channels(self, inputs)
        if channels % self.groups:
            raise ShapeError(f"group norm of {self.groups} groups over {channels} channels: they do not divide")
        return inputs[0]

    def kept(self, inputs: Sequence[Shape], output: Shape) -> Kept:
        return Kept(inputs=(0,), numbers=2 * self.groups)

    def module(self, *inputs: Value) -> nn.Module:
        from mgcompile.lowering import kernels

        return kernels.GroupNorm(self.groups, _channels(self, inputs), eps=self.eps, affine=self.affine)


@dataclass(frozen=True)
class InstanceNorm(Norm):
    """Instance normalisation: each channel of each sample over its cells. No running statistics."""

    def windows(self, axis: int, inputs: Sequence[Shape], output: Shape) -> tuple[Window | None, ...]:
        return (ALL,)  # through mean and variance

    def kept(self, inputs: Sequence[Shape], output: Shape) -> Kept:
        return Kept(inputs=(0,), numbers=2 * output[0])

    def module(self, *inputs: Value) -> nn.Module:
        from mgcompile.lowering import kernels

        # A group a channel: the same function, and defined for a single cell too, which nn.InstanceNorm2d refuses.
        channels = _channels(self, inputs)
        return kernels.GroupNorm(channels, channels, eps=self.eps, affine=self.affine)


@dataclass(frozen=True)
class LayerNorm(Norm):
    """Layer normalisation over the channels at each cell, as convolutional networks use it."""

    def averaged(self, shape: Shape, examples: int) -> int:
        return shape[0]

    def kept(self, inputs: Sequence[Shape], output: Shape) -> Kept:
        return Kept(inputs=(0,), numbers=2 * elements(output) // output[0])

    def module(self, *inputs: Value) -> nn.Module:
        from mgcompile.lowering import kernels

        return kernels.LayerNorm(_channels(self, inputs), eps=self.eps, affine=self.affine)


def _channels(op: Op, inputs: Sequence[Value]) -> int:
    if len(inputs) != 1:
        raise ShapeError(f"{op.label} takes one input, not {len(inputs)}")
    value = inputs[0]
    return value.channels if isinstance(value, Grid) else value.features
