"""Convolution and what surrounds it: normalisation, activation, dropout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from typing import Annotated, Any, ClassVar

from mgcompile.graph.ops import ACTIVATIONS, Activation, BatchNorm, GroupNorm, InstanceNorm, LayerNorm, Op, PReLU
from mgcompile.graph.ops import Conv as ConvOp
from mgcompile.graph.ops import Dropout as DropoutOp
from mgcompile.spec.base import LayerError, LayerSpec, Place, Pyramid, Step
from mgcompile.spec.fields import (
    Bool,
    Channels,
    Count,
    Groups,
    Kernel,
    LevelChoice,
    PerLevel,
    Probability,
    choice,
    integer,
    per_level,
    real,
)
from mgcompile.spec.layers.exchange import Communication, Exchange
from mgcompile.spec.layers.levels import check_stride

__all__ = ["Act", "Conv", "ConvOptions", "Dropout", "Norm"]


class Norm(LayerSpec):
    """Normalisation of every grid. `norm: batch` is a short form."""

    kind: ClassVar[str] = "norm"
    shorthand: ClassVar[str] = "by"

    by: Annotated[str, choice("batch", "group", "instance", "layer", "none")] = "batch"
    """Over the batch, over groups of channels, over each channel of a sample, over the channels at each cell."""
    groups: Count = 32
    """How many groups of channels a group norm has."""
    eps: Annotated[float, real(0, 1)] = 1e-5
    """Added to the variance."""
    momentum: Probability = 0.1
    """The weight of a new batch in the running statistics of a batch norm."""
    affine: Bool = True
    """Whether there is a learned scale and shift for each channel."""

    @classmethod
    def spread(cls, value: Any) -> Any:
        return {"by": "none" if value is None else value}

    def check(self) -> None:
        if self.by == "batch" and not self.eps:
            raise LayerError("eps: 0 divides by zero in training; expected a positive number", "eps")

    def unread(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        if self.by != "group":
            yield "groups", ("by",), f"by: {self.by} has no groups; group has"
        if self.by != "batch":
            yield "momentum", ("by",), f"by: {self.by} has no running statistics; batch has"
        if self.by == "none":
            yield from ((option, ("by",), "by: none does nothing") for option in ("eps", "affine"))

    def build(self, place: Place) -> Pyramid:
        makers: dict[str, Callable[[], Op]] = {
            "batch": lambda: BatchNorm(self.eps, self.affine, self.momentum),
            "group": lambda: GroupNorm(self.eps, self.affine, self.groups),
            "instance": lambda: InstanceNorm(self.eps, self.affine),
            "layer": lambda: LayerNorm(self.eps, self.affine),
        }
        return place.pyramid if self.by == "none" else place.apply(lambda level: makers[self.by]())


class Act(LayerSpec):
    """An activation on every grid. `act: relu` is a short form."""

    kind: ClassVar[str] = "act"
    shorthand: ClassVar[str] = "by"

    by: Annotated[str, choice(*ACTIVATIONS, "prelu", "none")] = "relu"
    """Which function; `prelu` has a learned slope for each channel, `softmax` is over the channels."""
    slope: Annotated[float, real(-1e3, 1e3)] = 0.01
    """The slope of leaky_relu below zero."""
    alpha: Annotated[float, real(-1e3, 1e3)] = 1.0
    """The limit of elu."""

    @classmethod
    def spread(cls, value: Any) -> Any:
        return {"by": "none" if value is None else value}

    def unread(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        if self.by != "leaky_relu":
            yield "slope", ("by",), f"by: {self.by} has none; leaky_relu has"
        if self.by != "elu":
            yield "alpha", ("by",), f"by: {self.by} has none; elu has"

    def build(self, place: Place) -> Pyramid:
        if self.by == "none":
            return place.pyramid
        op = PReLU() if self.by == "prelu" else Activation(self.by, self.slope, self.alpha)
        return place.apply(lambda level: op)


class Dropout(LayerSpec):
    """Dropout on every grid, while training. `dropout: 0.1` is a short form."""

    kind: ClassVar[str] = "dropout"
    shorthand: ClassVar[str] = "p"

    p: Probability = 0.5
    """The probability that a unit is dropped."""
    unit: Annotated[str, choice("element", "channel", "sample")] = "element"
    """What is dropped: elements, whole channels, or the whole value of a sample (stochastic depth)."""

    def unread(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        if not self.p:
            yield "unit", ("p",), "p: 0 drops nothing"

    def build(self, place: Place) -> Pyramid:
        return place.apply(lambda level: DropoutOp(self.p, self.unit)) if self.p else place.pyramid


class ConvOptions(Communication):
    """What every layer that is a convolution can be told."""

    channels: Channels | None = None
    """Channels out: one number for all grids, or a list from fine to coarse. As many as before where it is not said."""
    kernel: Kernel = (3, 3)
    """The side of a square kernel, or HxW; one for all grids, or a list from fine to coarse."""
    stride: Annotated[int, integer(1, 256)] = 1
    """A power of two; 2 takes every grid one level down."""
    dilation: Annotated[PerLevel, per_level(1, 1024)] = 1
    """The distance of the kernel's taps, one for all grids or a list."""
    groups: Groups = 1
    """Groups of channels that do not see each other, one number or a list; `depthwise` is one group a channel."""
    bias: Bool = True
    """Whether there is a learned bias for each channel."""
    padding: Annotated[int, integer(0, 1024)] | None = None
    """Zeros on each side. Where it is not said, as many as keep the size (divided by the stride and rounded up)."""
    norm: Norm = Norm()
    """The normalisation that belongs to the convolution, or none."""
    act: Act = Act()
    """The activation that belongs to the convolution, or none."""
    order: Annotated[str, choice(*map("-".join, permutations(("conv", "norm", "act"))))] = "conv-norm-act"
    """In which order convolution, normalisation and activation come; an exchange comes before all."""
    dropout: Dropout = Dropout(p=0)
    """Dropout after all of it."""

    def check(self) -> None:
        check_stride(self.stride)
        self.check_edges()

    def unread(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        yield from super().unread()
        kernels = self.kernel if isinstance(self.kernel, list) else [self.kernel]
        if all(kernel == (1, 1) for kernel in kernels) and self.dilation != 1:
            yield "dilation", ("kernel",), "a kernel of one cell has no taps to part"
        if self.norm.by == self.act.by == "none":
            yield "order", ("norm", "act"), "there is neither norm nor act"


BARE = ("channels", "kernel", "stride", "dilation", "groups", "bias", "padding")
"""What is left of a convolution without its surroundings."""


class Conv(ConvOptions):
    """A convolution at every grid, after an exchange with the grids within `reach`, with its norm and activation.

    With reach 1 (the default) and fuse concat it is the multigrid convolution. `norm: none`, `act: none` and `reach: 0`
    leave the bare convolution.
    """

    kind: ClassVar[str] = "conv"

    def expand(self, place: Place) -> Sequence[Step] | None:
        grids = place.grids()
        alone = len(grids) == 1 and isinstance(self.up, str)
        exchanges = self.reach != 0 and not alone
        if not exchanges and self.norm.by == self.act.by == "none" and not self.dropout.p:
            return None
        if self.flow != "parallel" and exchanges:
            return self._in_sequence(place)
        return [*([place.step(self._exchange(), "exchange")] if exchanges else []), *self._parts(place)]

    def build(self, place: Place) -> Pyramid:
        grids = place.grids()
        channels, kernels = place.each(self.channels, "channels"), place.each(self.kernel, "kernel")
        dilations, groups = place.each(self.dilation, "dilation"), place.each(self.groups, "groups")
        steps = self.stride.bit_length() - 1
        pyramid = {}
        for level, node in place.pyramid.items():
            given = grids[level].channels
            op = ConvOp(
                channels[level] or given,
                kernels[level],
                self.stride,
                dilations[level],
                given if groups[level] == "depthwise" else groups[level],
                self.bias,
                self.padding,
            )
            pyramid[level + steps] = place.add(op, [node], level + steps)
        return pyramid

    def canonical(self, place: Place) -> LayerSpec:
        bare = type(self).made(reach=0, norm=Norm(by="none"), act=Act(by="none"))
        own = {name: getattr(self, name) for name in BARE} | {
            "channels": self.channels or list(place.channels.values())
        }
        return bare.model_copy(update=own)

    def _exchange(self) -> Exchange:
        return Exchange.made(**{name: getattr(self, name) for name in Communication.model_fields})

    def _parts(self, place: Place, level: int | None = None) -> list[Step]:
        """Convolution, norm and activation in their order, for all grids or for one."""
        update = {
            "reach": 0,
            "flow": "parallel",
            "norm": Norm(by="none"),
            "act": Act(by="none"),
            "dropout": Dropout(p=0),
        }
        update["channels"] = self.channels or list(place.channels.values())
        if level is not None:
            for option in ("channels", "kernel", "dilation", "groups"):
                update[option] = place.each(update.get(option, getattr(self, option)), option)[level]
        parts: dict[str, LayerSpec] = {"conv": self.model_copy(update=update), "norm": self.norm, "act": self.act}
        steps = [place.step(parts[name], name) for name in self.order.split("-") if not _is_none(parts[name])]
        return steps + ([place.step(self.dropout, "dropout")] if self.dropout.p else [])

    def _in_sequence(self, place: Place) -> list[Step]:
        """An exchange and the convolution of one level after the other."""
        steps = []
        for level, exchange in self._exchange().in_sequence(place.levels):
            steps.append(place.step(exchange, f"exchange{level}"))
            steps.append(place.group(self._parts(place, level), f"level{level}", on=LevelChoice((level,))))
        return steps


def _is_none(layer: LayerSpec) -> bool:
    return isinstance(layer, Norm | Act) and layer.by == "none"
