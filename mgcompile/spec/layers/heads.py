"""From a pyramid to results: vectors and maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

from mgcompile.graph import Vector
from mgcompile.graph.ops import Flatten as FlattenOp
from mgcompile.graph.ops import GlobalPool as GlobalPoolOp
from mgcompile.graph.ops import Linear as LinearOp
from mgcompile.spec.base import LayerError, LayerSpec, Place, Pyramid, Step
from mgcompile.spec.fields import Bool, Count, Kernel, LevelChoice, Levels, Probability, Several, choice, integer
from mgcompile.spec.layers.convolution import Act, Conv, Dropout, Norm
from mgcompile.spec.layers.levels import MOST_STEPS, Select, Up

__all__ = ["Classify", "Flatten", "GlobalPool", "Linear", "Predict"]


class GlobalPool(LayerSpec):
    """Every grid becomes one cell, or a fixed number of them, whatever its size."""

    kind: ClassVar[str] = "global_pool"
    shorthand: ClassVar[str] = "by"

    by: Annotated[str, choice("avg", "max")] = "avg"
    """The mean or the maximum."""
    cells: Annotated[int, integer(1, 64)] = 1
    """Cells along each axis."""

    @classmethod
    def spread(cls, value: Any) -> Any:
        return {} if value is None else {"by": value}

    def build(self, place: Place) -> Pyramid:
        return place.apply(lambda level: GlobalPoolOp(self.by, self.cells))


class Flatten(LayerSpec):
    """Every grid of a fixed size becomes a vector."""

    kind: ClassVar[str] = "flatten"

    def build(self, place: Place) -> Pyramid:
        return place.apply(lambda level: FlattenOp())


class Linear(LayerSpec):
    """A fully connected layer on every vector."""

    kind: ClassVar[str] = "linear"
    shorthand: ClassVar[str] = "features"

    features: Count
    """Features out."""
    bias: Bool = True
    """Whether there is a learned bias."""

    def build(self, place: Place) -> Pyramid:
        if any(not isinstance(place.value(level), Vector) for level in place.levels):
            raise LayerError("linear acts on vectors and receives grids: flatten comes before, or use classify")
        return place.apply(lambda level: LinearOp(self.features, self.bias))


class Classify(LayerSpec):
    """The classifier: global pooling of one grid, hidden layers if any, a linear layer to the classes."""

    kind: ClassVar[str] = "classify"
    shorthand: ClassVar[str] = "classes"

    classes: Count
    """How many classes."""
    level: Levels | None = None
    """Which grid; it must be said where there are several."""
    pool: Annotated[str, choice("avg", "max")] = "avg"
    """How the grid is pooled."""
    cells: Annotated[int, integer(1, 64)] = 1
    """Cells along each axis that the pooling leaves."""
    hidden: Annotated[list[Count], Several] = []
    """The widths of hidden linear layers, each with an activation and dropout."""
    act: Act = Act()
    """The activation of the hidden layers."""
    dropout: Probability = 0.0
    """Dropout after each hidden layer; before the linear layer where there is none."""

    def unread(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        if not self.hidden:
            yield "act", ("hidden",), "there are no hidden layers"

    def expand(self, place: Place) -> Sequence[Step] | None:
        steps = one_grid(place, self.level)
        steps += [
            place.step(GlobalPool.made(by=self.pool, cells=self.cells), "pool"),
            place.step(Flatten.made(), "flatten"),
        ]
        for index, features in enumerate(self.hidden):
            steps += [place.step(Linear.made(features=features), f"hidden{index}"), place.step(self.act, f"act{index}")]
            steps += [place.step(Dropout.made(p=self.dropout), f"dropout{index}")] if self.dropout else []
        if self.dropout and not self.hidden:
            steps.append(place.step(Dropout.made(p=self.dropout), "dropout"))
        return [*steps, place.step(Linear.made(features=self.classes), "linear")]


class Predict(LayerSpec):
    """A dense head: a convolution to output maps on one grid, an activation, upsampling if wanted."""

    kind: ClassVar[str] = "predict"
    shorthand: ClassVar[str] = "classes"

    classes: Count
    """How many maps."""
    level: Levels | None = None
    """Which grid; it must be said where there are several."""
    kernel: Kernel = (1, 1)
    """The convolution's kernel."""
    bias: Bool = True
    """Whether the convolution has a bias."""
    act: Act = Act(by="none")
    """The activation of the maps."""
    to: Annotated[int, integer(-MOST_STEPS, MOST_STEPS)] | None = None
    """The level to upsample the maps to; 0 is the input's size."""
    by: Annotated[str, choice("nearest", "bilinear")] = "bilinear"
    """How they are upsampled."""

    def unread(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        if self.to is None:
            yield "by", ("to",), "the maps are not upsampled where to is not said"

    def expand(self, place: Place) -> Sequence[Step] | None:
        steps = one_grid(place, self.level)
        level = place.pick(self.level, "level")[0] if self.level else place.levels[0]
        conv = Conv.made(
            channels=self.classes,
            kernel=self.kernel,
            bias=self.bias,
            reach=0,
            norm=Norm(by="none"),
            act=Act(by="none"),
        )
        steps += [place.step(conv, "conv")]
        steps += [place.step(self.act, "act")] if self.act.by != "none" else []
        if self.to is None or self.to == level:
            return steps
        if self.to > level:
            raise LayerError(f"level {self.to} is coarser than the grid at level {level}", "to")
        if level - self.to > MOST_STEPS:
            raise LayerError(f"level {self.to} is more than {MOST_STEPS} levels above the grid at level {level}", "to")
        return [*steps, place.step(Up.made(by=self.by, steps=level - self.to), "up")]


def one_grid(place: Place, level: LevelChoice | None) -> list[Step]:
    """The step that selects the grid to read. Raises `LayerError` where it is not clear which."""
    if level and len(place.pick(level, "level")) == 1:
        return [place.step(Select.made(levels=level), "select")]
    if level or len(place.levels) > 1:
        levels = ", ".join(map(str, place.levels))
        raise LayerError(f"there are grids at levels {levels}; say which one to read with level", "level")
    return []
