"""Which grids there are: the image pyramid, pooling and upsampling, keeping, dropping and adding grids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from mgcompile.graph.ops import Pool as PoolOp
from mgcompile.graph.ops import Resize, TransposedConv
from mgcompile.spec.base import LayerError, LayerSpec, Place, Pyramid, Step
from mgcompile.spec.fields import (
    MOST_KERNEL,
    Bool,
    Channels,
    Kernel,
    LevelChoice,
    Levels,
    PerLevel,
    Reference,
    choice,
    integer,
    per_level,
)
from mgcompile.spec.items import Layers
from mgcompile.spec.layers.joining import Join

__all__ = ["Drop", "Extend", "ImagePyramid", "Pool", "Select", "Up"]

MOST_STEPS = 8


class ImagePyramid(LayerSpec):
    """The finest grid at several levels: level i is pooled by 2^i at once. `pyramid: 3` is a short form."""

    kind: ClassVar[str] = "pyramid"
    shorthand: ClassVar[str] = "levels"

    levels: Annotated[int, integer(1, MOST_STEPS)] = 3
    """How many levels, the finest included."""
    by: Annotated[str, choice("avg", "max", "nearest")] = "avg"
    """How coarser levels are made."""

    def unread(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        if self.levels == 1:
            yield "by", ("levels",), "there is no coarser level to make"

    def build(self, place: Place) -> Pyramid:
        finest = place.levels[0]
        pyramid = {finest: place.pyramid[finest]}
        for step in range(1, self.levels):
            op = PoolOp("max", 1, 2**step) if self.by == "nearest" else PoolOp(self.by, 2**step, 2**step)
            pyramid[finest + step] = place.add(op, [place.pyramid[finest]], finest + step)
        return pyramid


class Pool(LayerSpec):
    """Pooling of every grid: each goes down by the stride."""

    kind: ClassVar[str] = "pool"

    by: Annotated[str, choice("max", "avg")] = "max"
    """The maximum or the mean of the cells that exist."""
    kernel: Annotated[PerLevel, per_level(1, MOST_KERNEL)] = 2
    """The window's side."""
    stride: Annotated[int, integer(1, 2**MOST_STEPS)] = 2
    """A power of two; 2 goes one level down."""
    merge: Bool = False
    """Leave the coarsest grid where it is; the next finer one arrives at its level, and both are concatenated."""

    def check(self) -> None:
        check_stride(self.stride)

    def expand(self, place: Place) -> Sequence[Step] | None:
        if not self.merge:
            return None
        if len(place.levels) < 2:
            raise LayerError(f"merging needs two grids; there is one, at level {place.levels[0]}", "merge")
        kernels = self.kernel[:-1] if isinstance(self.kernel, list) else self.kernel
        pool = self.model_copy(update={"merge": False, "kernel": kernels})
        finer = [place.step(Select.made(levels=LevelChoice(place.levels[:-1])), "select"), place.step(pool, "pool")]
        return [
            place.group(finer, "finer"),
            place.step(Select.made(levels=LevelChoice(place.levels[-1:])), "coarsest", from_="start"),
            place.step(Join.made(with_=["coarsest"]), "join", from_="finer"),
        ]

    def build(self, place: Place) -> Pyramid:
        steps = self.stride.bit_length() - 1
        place.grids()
        kernels = place.each(self.kernel, "kernel")
        return {
            level + steps: place.add(PoolOp(self.by, kernels[level], self.stride), [node], level + steps)
            for level, node in place.pyramid.items()
        }


class Up(LayerSpec):
    """Upsampling of every grid: each goes up by `steps` levels."""

    kind: ClassVar[str] = "up"

    by: Annotated[str, choice("nearest", "bilinear", "transposed")] = "nearest"
    """Repeating cells, interpolating between them, or a transposed convolution."""
    steps: Annotated[int, integer(0, MOST_STEPS)] = 1
    """How many levels."""
    channels: Channels | None = None
    """Channels out of a transposed convolution; as many as before where it is not said."""
    kernel: Kernel | None = None
    """The kernel of a transposed convolution; its stride, 2^steps, where it is not said."""
    bias: Bool = True
    """Whether a transposed convolution has a bias."""
    like: Reference | None = None
    """The id of a pyramid: each grid, whatever its size (after a global pool, say), takes on the size of the one at its
    level there, by bilinear interpolation.
    """

    def check(self) -> None:
        if self.like is not None and (self.by != "bilinear" or "steps" in self.model_fields_set):
            raise LayerError("like is for by: bilinear alone, and leaves nothing to steps", "like")
        if self.by != "transposed":
            for option in ("channels", "kernel"):
                if getattr(self, option) is not None:
                    raise LayerError(f"{self.by} upsampling has no {option}; did you mean by: transposed?", option)
        elif not self.steps:
            raise LayerError(
                "a transposed convolution goes up by one step at least; a conv stays at its level", "steps"
            )

    def unread(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        if self.by != "transposed":
            yield "bias", ("by",), f"{self.by} upsampling has none; transposed has"

    def build(self, place: Place) -> Pyramid:
        grids = place.grids()
        if self.like is not None:
            return self._fitted(place, place.look(self.like, "like"))
        if not self.steps:
            return place.pyramid
        channels, kernels = place.each(self.channels, "channels"), place.each(self.kernel, "kernel")
        pyramid = {}
        for level, node in place.pyramid.items():
            if self.by == "transposed":
                kernel = kernels[level] or (2**self.steps, 2**self.steps)
                out = channels[level] or grids[level].channels
                op: Resize | TransposedConv = TransposedConv(out, kernel, self.steps, bias=self.bias)
            else:
                op = Resize(self.by, self.steps)
            pyramid[level - self.steps] = place.add(op, [node, "input"], level - self.steps)
        return pyramid

    def canonical(self, place: Place) -> LayerSpec:
        return self.model_copy(update={"like": place.absolute(self.like, "like")}) if self.like else self

    def _fitted(self, place: Place, like: Pyramid) -> Pyramid:
        if missing := place.pyramid.keys() - like.keys():
            raise LayerError(
                f"{self.like} has no grid at level {', '.join(map(str, sorted(missing)))}, whose size this one could "
                f"take on; it has level {', '.join(map(str, like))}",
                "like",
            )
        return {
            level: place.add(Resize("bilinear", 0), [node, like[level]], level) for level, node in place.pyramid.items()
        }


class _Choosing(LayerSpec):
    """A layer whose one option chooses levels, and may stand for it bare."""

    shorthand: ClassVar[str] = "levels"

    @classmethod
    def is_bare(cls, value: Any) -> bool:
        return super().is_bare(value) or (
            isinstance(value, Mapping) and bool(value) and value.keys() <= {"finest", "coarsest"}
        )


class Select(_Choosing):
    """Some of the grids. `select: finest` and `select: [0, 1]` are short forms."""

    kind: ClassVar[str] = "select"

    levels: Levels
    """The grids that stay."""

    def build(self, place: Place) -> Pyramid:
        return {level: place.pyramid[level] for level in place.pick(self.levels, "levels")}


class Drop(_Choosing):
    """Removes grids. `drop: coarsest` and `drop: [2]` are short forms."""

    kind: ClassVar[str] = "drop"

    levels: Levels
    """The grids that go."""

    def expand(self, place: Place) -> Sequence[Step] | None:
        gone = place.pick(self.levels, "levels")
        left = tuple(level for level in place.levels if level not in gone)
        if not left:
            raise LayerError("no grid would be left", "levels")
        return [place.step(Select.made(levels=LevelChoice(left)))]


class Extend(LayerSpec):
    """Adds a grid at one end, made from its neighbour there."""

    kind: ClassVar[str] = "extend"
    shorthand: ClassVar[str] = "at"

    at: Annotated[str, choice("coarser", "finer")] = "coarser"
    """At which end."""
    layers: Layers = []
    """The way from the neighbour to the new level; a max-pool down or nearest upsampling where it is not said."""

    def expand(self, place: Place) -> Sequence[Step] | None:
        level = place.levels[-1 if self.at == "coarser" else 0]
        way = place.steps(self.layers, "layers") or place.written(
            [{"pool": {}} if self.at == "coarser" else {"up": {}}]
        )
        new = [
            place.step(Select.made(levels=LevelChoice((level,))), "select"),
            place.group(way, "layers", user=True),
        ]
        lands = level + (1 if self.at == "coarser" else -1)
        return [
            place.group(new, "new", lands=lands),
            place.step(Join.made(with_=["new"], fuse="none"), "join", from_="start"),
        ]


def check_stride(stride: int) -> None:
    """Raise `LayerError` where a stride leads to no level."""
    if stride & (stride - 1):
        raise LayerError(f"a stride of {stride} leads to no level; expected a power of two", "stride")
