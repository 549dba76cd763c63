"""How the grids of a pyramid see each other: resampling and fusing, at once or in sequence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from mgcompile.graph.ops import Pool, Resize
from mgcompile.spec.base import LayerError, LayerSpec, Place, Pyramid, Step
from mgcompile.spec.fields import LevelChoice, Levels, Option, Reach, References, choice
from mgcompile.spec.items import LAYERS_SCHEMA, Item, ItemList, Layers
from mgcompile.spec.layers.joining import FUSE, NORMALIZE, Join, fuse_op
from mgcompile.spec.layers.levels import Select

__all__ = ["Communication", "Edge", "Exchange"]

DOWN = ("max", "avg", "nearest", "conv", "none")
UP = ("nearest", "bilinear", "transposed", "conv", "none")

# The named edges that have weights, in the language itself. HRNet's: strided convolutions on the way down, the last of
# which has the receiver's channels and no activation; on the way up a 1x1 convolution before the upsampling.
BODIES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "down conv": [
        {"conv": {"kernel": 3, "stride": 2, "reach": 0}, "repeat": "${distance - 1}"},
        {"conv": {"kernel": 3, "stride": 2, "reach": 0, "channels": "${target}", "act": "none"}},
    ],
    "up conv": [
        {"conv": {"kernel": 1, "reach": 0, "channels": "${target}", "act": "none"}},
        {"up": {"steps": "${distance}"}},
    ],
    "up transposed": [{"up": {"by": "transposed", "steps": "${distance}"}}],
}


def _edge(*names: str) -> Option:
    word = choice(*names)
    items = ItemList()

    def check(value: Any) -> Any:
        return items.validate(value) if isinstance(value, list) else word.check(value)

    return Option(check, {"anyOf": [word.schema, LAYERS_SCHEMA]})


Edge = Annotated[str | list[Item], _edge(*dict.fromkeys((*DOWN, *UP)))]
"""How a grid reaches another level: a name, or layers."""


class Communication(LayerSpec):
    """What every layer whose grids see each other can be told."""

    reach: Reach = 1
    """From how many levels away a grid receives; 0 is none, `all` is every one."""
    fuse: Annotated[str, FUSE] = "concat"
    """How a grid and what it receives become one, in order from fine to coarse."""
    normalize: Annotated[str, NORMALIZE] = "relu"
    """How the weights of `fuse: weighted` are normalised."""
    down: Edge = "max"
    """The way from a finer grid: max, avg or nearest pooling, `conv` (strided convolutions to the receiver's channels),
    none, or layers; they know `distance`, and the channels `source` and `target`.
    """
    up: Edge = "nearest"
    """The way from a coarser grid: nearest or bilinear upsampling, `transposed` convolution, `conv` (1x1 convolution
    to the receiver's channels, then nearest), none, or layers; they know `distance`, and the channels `source` and
    `target`.
    """
    flow: Annotated[str, choice("parallel", "top-down", "bottom-up")] = "parallel"
    """Whether all grids are computed at once, or one after the other from coarse to fine (top-down) or from fine to
    coarse (bottom-up), each then reading its neighbours' new values.
    """

    def sources(self, level: int, levels: Sequence[int]) -> list[int]:
        """The levels that a level reads, itself included, fine to coarse."""
        reach = len(range(min(levels), max(levels))) if self.reach == "all" else self.reach
        near = [other for other in levels if abs(other - level) <= reach]
        finer = self.down != "none" and self.flow != "top-down"
        coarser = self.up != "none" and self.flow != "bottom-up"
        return [other for other in near if other == level or (finer if other < level else coarser)]

    def unread(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        if self.fuse != "weighted":
            yield "normalize", ("fuse",), f"fuse: {self.fuse} has no weights to normalise; weighted has"
        if self.reach == 0:
            yield from ((option, ("reach",), "reach: 0 takes nothing from other levels") for option in self.ways)
        elif self.down == self.up == "none":
            none = "no way leads from level to level"
            yield from ((option, ("down", "up"), none) for option in ("fuse", "flow") if option in self.ways)
        elif self.flow != "parallel":
            option = "down" if self.flow == "top-down" else "up"
            yield option, ("flow",), f"with flow: {self.flow} nothing comes that way"

    @property
    def ways(self) -> tuple[str, ...]:
        """The options that say how a level takes from others."""
        return ("fuse", "down", "up", "flow")

    def check_edges(self) -> None:
        """Raise `LayerError` where a name does not fit the direction."""
        for option, names in (("down", DOWN), ("up", UP)):
            name = getattr(self, option)
            if isinstance(name, str) and name not in names:
                raise LayerError(
                    f"{name} does not lead {option}; expected one of {', '.join(names)}, or layers", option
                )


class Exchange(Communication):
    """Every grid receives its neighbours, resampled to its own size, and is fused with them.

    Order of the operands: from fine to coarse, then `with`.
    """

    kind: ClassVar[str] = "exchange"

    same: Layers = []
    """Layers on a grid's own way to the fusion."""
    body: Layers = []
    """Layers on every grid after the fusion; in a sequence they come before the next grid reads it."""
    with_: References = []
    """Ids of earlier pyramids that are fused in too, level by level where they have the level."""
    to: Levels | None = None
    """The levels that receive; the others pass through. All where it is not said."""

    def check(self) -> None:
        self.check_edges()

    @property
    def ways(self) -> tuple[str, ...]:
        """Other pyramids are fused in too, so that the fusion is needed without other levels."""
        return ("down", "up", "flow") if self.with_ else super().ways

    @property
    def is_plain(self) -> bool:
        """Whether nothing but pools, interpolation and one fusion is needed."""
        simple = self.down in ("max", "avg", "nearest", "none") and self.up in ("nearest", "bilinear", "none")
        return simple and self.flow == "parallel" and not (self.same or self.body or self.with_)

    def expand(self, place: Place) -> Sequence[Step] | None:
        place.grids()
        receivers = self._receivers(place)
        for index, other in enumerate(self.with_):
            if not place.look(other, "with", index).keys() & set(receivers):
                raise LayerError(f"{other} has none of the levels that are fused", "with", index)
        if self.flow != "parallel":
            steps = self.in_sequence(receivers)
            return [place.step(self._meeting(place, step, level), f"level{level}") for level, step in steps]
        if self.is_plain:
            return None
        fused = [place.group(self._ways(place, level), f"level{level}", from_="start") for level in receivers]
        if rest := [level for level in place.levels if level not in receivers]:
            fused.append(place.step(Select.made(levels=LevelChoice(tuple(rest))), "rest", from_="start"))
        return [*fused, place.step(Join.made(with_=[step.id for step in fused[:-1]], fuse="none"), "all")]

    def in_sequence(self, receivers: Sequence[int]) -> list[tuple[int, Exchange]]:
        """One exchange for each level, in the order of the flow; each sees what those before it made."""
        closed = {"down": "none"} if self.flow == "top-down" else {"up": "none"}
        order = receivers[::-1] if self.flow == "top-down" else receivers
        steps = {"flow": "parallel", **closed}
        return [(level, self.model_copy(update=steps | {"to": LevelChoice((level,))})) for level in order]

    @staticmethod
    def _meeting(place: Place, step: Exchange, level: int) -> Exchange:
        """The exchange of one level, with those pyramids that have it."""
        others = [other for index, other in enumerate(step.with_) if level in place.look(other, "with", index)]
        return step.model_copy(update={"with_": others})

    def build(self, place: Place) -> Pyramid:
        receivers = self._receivers(place)
        fused = {level: self._fused(place, level) for level in receivers}
        return {**place.pyramid, **fused}

    def _fused(self, place: Place, level: int) -> str:
        sources = self.sources(level, place.levels)
        if len(sources) == 1:
            return place.pyramid[level]
        operands = [self._resampled(place, source, level) for source in sources]
        return place.add(fuse_op(self.fuse, self.normalize), operands, level, "fuse")

    def _resampled(self, place: Place, source: int, level: int) -> str:
        node = place.pyramid[source]
        if source == level:
            return node
        if source < level:
            window = 2 ** (level - source)
            pool = Pool("max", 1, window) if self.down == "nearest" else Pool(str(self.down), window, window)
            return place.add(pool, [node], level, f"from{source}")
        return place.add(Resize(str(self.up), source - level), [node, place.pyramid[level]], level, f"from{source}")

    def _receivers(self, place: Place) -> tuple[int, ...]:
        return place.pick(self.to, "to") if self.to else place.levels

    def _ways(self, place: Place, level: int) -> list[Step]:
        """The branches that lead to a level, their fusion, and the body after it."""
        ways = [self._way(place, source, level) for source in self.sources(level, place.levels)]
        here = place.step(Select.made(levels=LevelChoice((level,))))
        ways += [
            place.group([here], f"with{index}", from_=place.absolute(other, "with", index))
            for index, other in enumerate(self.with_)
            if level in place.look(other, "with", index)
        ]
        first, *others = [way.id for way in ways]
        fuse = Join.made(with_=others, fuse=self.fuse, normalize=self.normalize)
        steps = [*ways, place.step(fuse, "fuse", from_=first)]
        return steps + ([place.group(place.steps(self.body, "body"), "body", user=True)] if self.body else [])

    def _way(self, place: Place, source: int, level: int) -> Step:
        """A branch from one level to another."""
        steps = [place.step(Select.made(levels=LevelChoice((source,))), "select")]
        option = "same" if source == level else "down" if source < level else "up"
        body = getattr(self, option)
        names = {"distance": abs(source - level), "source": place.channels[source], "target": place.channels[level]}
        if isinstance(body, str):
            steps.append(
                place.group(place.written(self._named(option, body, abs(source - level))), "body", names=names)
            )
        elif body:
            steps.append(place.group(place.steps(body, option), "body", names=names, user=True))
        return place.group(steps, f"from{source}", from_="start", lands=level)

    @staticmethod
    def _named(option: str, name: str, distance: int) -> Sequence[Mapping[str, Any]]:
        if (written := BODIES.get(f"{option} {name}")) is not None:
            return written
        if option == "up":
            return [{"up": {"by": name, "steps": distance}}]
        window = 2**distance
        kernel = 1 if name == "nearest" else window
        return [{"pool": {"by": "avg" if name == "avg" else "max", "kernel": kernel, "stride": window}}]
