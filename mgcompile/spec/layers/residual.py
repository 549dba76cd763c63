"""Residual layers, the multigrid unit, and progressive growth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from mgcompile.spec.base import LayerError, LayerSpec, Place, Step
from mgcompile.spec.fields import Channels, LevelChoice, Reference, Repeat, Several, choice, integer
from mgcompile.spec.items import Layers
from mgcompile.spec.layers.channels import Pad
from mgcompile.spec.layers.convolution import Act, Conv, ConvOptions
from mgcompile.spec.layers.joining import Join
from mgcompile.spec.layers.levels import MOST_STEPS, Pool, Select, Up

__all__ = ["Grow", "Residual", "Shortcut", "Unit"]

SHORTCUT = choice("auto", "identity", "pad", "project")


class Shortcut(LayerSpec):
    """Brings the pyramid at hand to the levels and channels of another: the second operand of a residual addition."""

    kind: ClassVar[str] = "shortcut"
    shorthand: ClassVar[str] = "like"

    like: Reference
    """The id of the pyramid to agree with."""
    by: Annotated[str, SHORTCUT] = "auto"
    """`identity` where nothing changes; `pad` appends zero channels (and skips cells); `project` is a 1x1 convolution
    with its norm; `auto` pads where channels grow and projects where they shrink or the level changes.
    """

    def expand(self, place: Place) -> Sequence[Step] | None:
        place.grids()
        target = place.widths(place.look(self.like, "like"))
        shift = self._shift(place, tuple(target))
        source = {level: place.channels[level - shift] for level in target}
        ways = {level: self._way(source[level], target[level], shift) for level in target}
        steps: list[Step] = []
        if len(target) < len(place.levels):
            steps.append(
                place.step(Select.made(levels=LevelChoice(tuple(level - shift for level in target))), "select")
            )
        if shift < 0:
            steps.append(place.step(Up.made(steps=-shift), "up"))
        if shift > 0 and "project" not in ways.values():
            steps.append(place.step(Pool.made(kernel=1, stride=2**shift), "subsample"))
        stride = 2 ** max(0, shift) if "project" in ways.values() else 1
        if projected := [level for level in target if ways[level] == "project"]:
            conv = Conv.made(
                channels=[target[level] for level in projected],
                kernel=(1, 1),
                stride=stride,
                reach=0,
                act=Act(by="none"),
            )
            on = LevelChoice(tuple(level - max(0, shift) for level in projected))
            steps.append(place.step(conv, "project", on=on, defaulted=True))
        if padded := [level for level in target if ways[level] == "pad"]:
            pad = Pad.made(channels=[target[level] for level in padded])
            steps.append(place.step(pad, "pad", on=LevelChoice(tuple(padded))))
        return steps

    def _shift(self, place: Place, target: Sequence[int]) -> int:
        """How many levels down the target is."""
        for shift in sorted(range(-MOST_STEPS, MOST_STEPS + 1), key=abs):
            if all(level - shift in place.pyramid for level in target):
                return shift
        ours, theirs = (", ".join(map(str, levels)) for levels in (place.levels, target))
        raise LayerError(f"no shortcut leads from levels {ours} to levels {theirs}")

    def _way(self, source: int, target: int, shift: int) -> str:
        if source == target and not shift:
            return "identity"
        if self.by == "project" or (self.by == "auto" and (shift > 0 or source > target)):
            return "project"
        if self.by == "identity" and (source != target or shift):
            levels = f" {shift} levels down and" if shift > 0 else f" {-shift} levels up and" if shift else ""
            raise LayerError(f"an identity does not lead{levels} from {source} channels to {target}; auto does")
        if source > target:
            raise LayerError(f"zero channels cannot lead from {source} channels to {target}; project does")
        return "pad" if source < target else "identity"


class Residual(LayerSpec):
    """Any layers, with a shortcut around them that is added to their result."""

    kind: ClassVar[str] = "residual"
    shorthand: ClassVar[str] = "body"

    body: Layers
    """The layers."""
    shortcut: Annotated[str, SHORTCUT] = "auto"
    """How the input meets the body's levels and channels (see `shortcut`)."""
    act_after: Act = Act()
    """The activation after the addition, or none."""

    def expand(self, place: Place) -> Sequence[Step] | None:
        body = place.group(place.steps(self.body, "body"), "body", user=True)
        return [body, *added(place, "body", self.shortcut, self.act_after)]


class Unit(ConvOptions):
    """The unit that a network repeats: two convolutions with a shortcut around them, or one without.

    Both convolutions take all options of a convolution; the second has no activation of its own.
    """

    kind: ClassVar[str] = "unit"
    follows: ClassVar[str] = "conv"

    by: Annotated[str, choice("residual", "conv")] = "residual"
    """Two convolutions and a shortcut, or one convolution."""
    shortcut: Annotated[str, SHORTCUT] = "auto"
    """How the input meets the unit's channels (see `shortcut`)."""
    act_after: Act | None = None
    """The activation after the addition, or after the one convolution; that of the convolutions where it is not said.
    """

    def unread(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        yield from super().unread()
        if self.by == "conv":
            yield "shortcut", ("by",), "by: conv has no shortcut"
            if self.act_after is not None:
                yield "act", ("by", "act_after"), "by: conv has one activation, which act_after says"

    def expand(self, place: Place) -> Sequence[Step] | None:
        options: dict[str, Any] = {name: getattr(self, name) for name in ConvOptions.model_fields}
        after = self.act_after or self.act
        if self.by == "conv":
            return [place.step(Conv.made(**options | {"act": after}))]
        second = options | {"act": Act(by="none"), "stride": 1}
        convs = [place.step(Conv.made(**options), "conv1"), place.step(Conv.made(**second), "conv2")]
        return [*convs, *added(place, "conv2", self.shortcut, after)]


class Grow(Unit):
    """Progressive growth: units on the coarsest grid alone, then on the two coarsest, and so on until all are active.

    Grids that are not active yet pass through untouched.
    """

    kind: ClassVar[str] = "grow"

    repeat: Repeat = 1
    """Units a step."""
    towards: Annotated[str, choice("finer", "coarser")] = "finer"
    """Which grids join later."""
    start: Annotated[int, integer(1, 64)] = 1
    """How many grids are active in the first step."""
    schedule: Annotated[list[Channels], Several] | None = None
    """The channels of each step, fine to coarse over the grids then active; those of the grids at hand where it is not
    said.
    """
    layers: Layers = []
    """What a step does instead of units; it knows `step` (from 0) and `channels` (a list)."""

    def unread(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        yield from super().unread()
        if self.layers:
            options = [*Unit.model_fields, "repeat"]
            yield from ((option, ("layers",), "layers says what a step does") for option in options)

    def check(self) -> None:
        super().check()
        if self.channels is not None:
            raise LayerError("growth has a schedule of channels, one entry a step", "channels")

    def expand(self, place: Place) -> Sequence[Step] | None:
        active = self._active(place.levels)
        if self.schedule is not None and len(self.schedule) != len(active):
            raise LayerError(f"{len(self.schedule)} entries for {len(active)} steps", "schedule")
        return [self._step(place, index, levels) for index, levels in enumerate(active)]

    def _active(self, levels: Sequence[int]) -> list[tuple[int, ...]]:
        counts = range(min(self.start, len(levels)), len(levels) + 1)
        return [tuple(levels[-count:] if self.towards == "finer" else levels[:count]) for count in counts]

    def _step(self, place: Place, index: int, levels: tuple[int, ...]) -> Step:
        given = self.schedule[index] if self.schedule is not None else [place.channels[level] for level in levels]
        channels = given if isinstance(given, list) else [given] * len(levels)
        if len(channels) != len(levels):
            raise LayerError(f"{len(channels)} values for {len(levels)} active grids", "schedule", index)
        names: Mapping[str, Any] = {"step": index, "channels": channels}
        body = place.steps(self.layers, "layers") or [self._units(place, channels, levels)]
        return place.group(body, f"step{index}", on=LevelChoice(levels), names=names, user=bool(self.layers))

    def _units(self, place: Place, channels: list[int], levels: Sequence[int]) -> Step:
        options: dict[str, Any] = {name: getattr(self, name) for name in Unit.model_fields} | {"channels": channels}
        for option in ("kernel", "dilation", "groups"):
            if isinstance(options[option], list):
                options[option] = [place.each(options[option], option)[level] for level in levels]
        return place.step(Unit.made(**options), "unit", repeat=self.repeat)


def added(place: Place, body: str, shortcut: str, act: Act) -> list[Step]:
    """The steps that add the start to what `body` names, and activate."""
    steps = [
        place.step(Shortcut.made(like=body, by=shortcut), "shortcut", from_="start"),
        place.step(Join.made(with_=["shortcut"], fuse="sum"), "add", from_=body),
    ]
    return steps if act.by == "none" else [*steps, place.step(act, "act")]
