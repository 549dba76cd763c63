"""Integers that meet limits: the search behind `mgcompile fit`, over any function from integers to figures.

One axis: the largest value whose figures are all within the limits, by doubling steps from the value that it has now
and by bisection. Several axes: along the last one, the longest, as for one; over the others line by line, from small to
large, where no line is longer than those before it. So it takes at most (lines) x (2 log2(length) + patience) figures,
never the full product. Both rest on figures that grow along every axis. That is checked on all that was measured; where
a figure falls, every combination is measured if there are few enough.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, product
from math import prod
from typing import Literal

from mgcompile.errors import MgcompileError

__all__ = [
    "MOST_LINES",
    "MOST_TRIED",
    "Axis",
    "Fit",
    "IndependentError",
    "Measure",
    "OutOfReachError",
    "Point",
    "SearchError",
    "fit",
]

MOST_TRIED = 1000
"""So many combinations are measured at most where a figure falls."""
MOST_LINES = 256
"""So many lines are searched at most."""
FEW = 16
"""Where there are no more combinations, all are measured, whether figures fall or not."""
PATIENCE = 16
"""After so many values in a row without a network, none is expected beyond them."""
OTHERS = 4
"""So many of the next best combinations are given."""

Measure = Callable[[tuple[int, ...]], tuple[int, ...] | None]
"""The figures for a value of each axis; None where there is no network with these values."""


@dataclass(frozen=True, slots=True)
class Axis:
    """What may vary: its values, increasing and at least one, and the one that it has now."""

    name: str
    values: Sequence[int]
    default: int


@dataclass(frozen=True, slots=True)
class Point:
    """A value of each axis, and the figures there."""

    values: tuple[int, ...]
    found: tuple[int, ...]

    def used(self, limits: Sequence[int]) -> Fraction:
        """The part of the limit that is closest to being reached; more than one where it is exceeded."""
        return max(Fraction(found, limit) for found, limit in zip(self.found, limits, strict=True))


@dataclass(frozen=True, slots=True)
class Fit:
    """What was found: the point itself; for each axis the next value with a network, the others as they are (None at
    the end of the axis); the next best points, which are none for one axis; how many points were measured, and how.
    """

    chosen: Point
    beyond: tuple[Point | None, ...]
    others: tuple[Point, ...]
    measured: int
    way: Literal["bisection", "all"]


class OutOfReachError(MgcompileError):
    """No point is within the limits; `nearest` is the one that exceeds them least, `measured` how many were."""

    def __init__(self, nearest: Point, measured: int) -> None:
        super().__init__(f"{nearest.values} exceeds the limits least: {nearest.found}")
        self.nearest = nearest
        self.measured = measured


class IndependentError(MgcompileError):
    """No figure depends on an axis, as far as `tried` shows."""

    def __init__(self, axis: Axis, tried: Sequence[int]) -> None:
        super().__init__(f"no figure depends on {axis.name}: all are equal at {', '.join(map(str, tried))}")
        self.axis = axis


class SearchError(MgcompileError):
    """There is too much to look at; the message says what would help."""


def fit(axes: Sequence[Axis], measure: Measure, limits: Sequence[int]) -> Fit:
    """The values of `axes` whose figures are within `limits` (each at least one) and as close to them as can be.

    For one axis the largest value within them. For several the point that uses the largest part of the tightest limit;
    among equals the one whose values change by the most equal factors from the defaults, then the one with larger
    values.

    Raises:
        OutOfReachError: no point is within the limits.
        IndependentError: no figure depends on an axis.
        SearchError: too many lines, or a figure falls along an axis and there are too many points to measure all.
    """
    survey = _Survey(axes, measure, limits)
    survey.refuse_independent()
    way: Literal["bisection", "all"] = "bisection"
    if prod(len(axis.values) for axis in axes) <= FEW:
        within, way = survey.all_within(""), "all"
    else:
        within = survey.frontier()
        if fallen := survey.falls():
            within, way = survey.all_within(fallen), "all"
    if not within:
        raise OutOfReachError(survey.nearest(), len(survey.seen))
    if len(axes) == 1:
        best = [max(within, key=lambda point: point.values)]
    else:
        best = sorted(_without_smaller(within, limits), key=lambda point: _rank(axes, point, limits))
    chosen = best[0]
    beyond = tuple(survey.beyond(chosen, place) for place in range(len(axes)))
    return Fit(chosen, beyond, tuple(best[1 : 1 + OTHERS]), len(survey.seen), way)


class _Survey:
    """The points measured so far. Places on an axis are counted from 0; a point is given by its places."""

    def __init__(self, axes: Sequence[Axis], measure: Measure, limits: Sequence[int]) -> None:
        self.axes, self.measure, self.limits = axes, measure, limits
        self.seen: dict[tuple[int, ...], Point | None] = {}
        self.start = tuple(_at_most(axis.values, axis.default) for axis in axes)

    def point(self, places: tuple[int, ...]) -> Point | None:
        if places not in self.seen:
            values = tuple(axis.values[place] for axis, place in zip(self.axes, places, strict=True))
            found = self.measure(values)
            self.seen[places] = None if found is None else Point(values, found)
        return self.seen[places]

    def fits(self, places: tuple[int, ...]) -> bool | None:
        """Whether a point is within the limits; None where there is no network."""
        point = self.point(places)
        return None if point is None else point.used(self.limits) <= 1

    def refuse_independent(self) -> None:
        """Raise where figures are equal at the start, at the lowest value and at one beyond the start."""
        for number, axis in enumerate(self.axes):
            start = self.start[number]
            tried = sorted({0, start, min(2 * start + 1, len(axis.values) - 1)})
            points = [self.point(_replaced(self.start, number, place)) for place in tried]
            found = [point for point in points if point is not None]
            if len(found) > 1 and len({point.found for point in found}) == 1:
                raise IndependentError(axis, [point.values[number] for point in found])

    def frontier(self) -> list[Point]:
        """The last point within the limits of each line, where there is one."""
        last = max(range(len(self.axes)), key=lambda number: len(self.axes[number].values))
        outer = [number for number in range(len(self.axes)) if number != last]
        lengths = [len(self.axes[number].values) for number in outer]
        if prod(lengths) > MOST_LINES:
            names = " and ".join(self.axes[number].name for number in outer)
            raise SearchError(
                f"{names} come to {prod(lengths):,} combinations, more than {MOST_LINES}: a narrower range or a larger "
                "step leaves fewer"
            )
        ends: dict[tuple[int, ...], int] = {}
        for prefix in product(*map(range, lengths)):
            # Figures grow, so that a line ends no later than those below it.
            below = [ends[_replaced(prefix, at, place - 1)] for at, place in enumerate(prefix) if place]
            length = min([end + 1 for end in below], default=len(self.axes[last].values))
            ends[prefix] = self.end_of_line(prefix, last, length)
        places = [_inserted(prefix, last, end) for prefix, end in ends.items() if end >= 0]
        return [point for each in places if (point := self.point(each)) is not None]

    def end_of_line(self, prefix: tuple[int, ...], last: int, length: int) -> int:
        """The last place that fits of the first `length` along the axis `last`; `prefix` are the other places."""

        def fits(place: int) -> bool | None:
            return self.fits(_inserted(prefix, last, place))

        return _last_that_fits(fits, length, min(self.start[last], length - 1))

    def falls(self) -> str:
        """Where a figure falls along an axis among the points measured; empty where none does."""
        for number, axis in enumerate(self.axes):
            lines: dict[tuple[int, ...], list[tuple[int, Point]]] = {}
            for places, point in self.seen.items():
                if point is not None:
                    lines.setdefault(_replaced(places, number, 0), []).append((places[number], point))
            for line in lines.values():
                for (_, before), (_, after) in pairwise(sorted(line, key=lambda entry: entry[0])):
                    if any(more > less for more, less in zip(before.found, after.found, strict=True)):
                        return f"a figure falls from {axis.name}={before.values[number]} to {after.values[number]}"
        return ""

    def all_within(self, fallen: str) -> list[Point]:
        """Every point within the limits. Raises `SearchError` where there are too many to look at."""
        count = prod(len(axis.values) for axis in self.axes)
        if count > MOST_TRIED:
            raise SearchError(
                f"{fallen}, so that every value has to be looked at, and {count:,} are more than {MOST_TRIED:,}: a "
                "narrower range or a larger step leaves fewer"
            )
        every = product(*(range(len(axis.values)) for axis in self.axes))
        points = [point for places in every if (point := self.point(places)) is not None]
        return [point for point in points if point.used(self.limits) <= 1]

    def nearest(self) -> Point:
        """The point that exceeds the limits least, of those measured."""
        found = [point for point in self.seen.values() if point is not None]
        if not found:
            raise SearchError("there is no network at any value that was looked at")
        return min(found, key=lambda point: (point.used(self.limits), point.values))

    def beyond(self, chosen: Point, number: int) -> Point | None:
        """The next point along an axis, of those with a network."""
        places = tuple(_at_most(axis.values, value) for axis, value in zip(self.axes, chosen.values, strict=True))
        end = min(places[number] + 1 + PATIENCE, len(self.axes[number].values))
        points = (self.point(_replaced(places, number, place)) for place in range(places[number] + 1, end))
        return next((point for point in points if point is not None), None)


def _last_that_fits(fits: Callable[[int], bool | None], length: int, start: int) -> int:
    """The last place below `length` that fits, -1 where none does; places that fit come before those that do not.

    Steps from `start` double until the end lies between two places, then bisection. A place without a network says
    nothing: those after it are looked at instead.
    """
    low, high, at, step = -1, length, start, 1
    while low < at < high:
        answer = fits(at)
        if answer is False:
            high = at
        elif answer:
            low = at
        if low >= 0 and high < length:
            break
        at = high - step if high < length else at + step
        step *= 2
    while high - low > 1:
        middle = (low + high) // 2
        looked = range(middle, min(middle + PATIENCE, high))
        place, answer = next(((each, answer) for each in looked if (answer := fits(each)) is not None), (middle, None))
        if answer:
            low = place
        else:
            high = middle  # from here to where it does not fit there is no network
    return low


def _at_most(values: Sequence[int], value: int) -> int:
    """The place of the largest of some increasing values that is not above `value`; 0 where all are."""
    return max(bisect_right(values, value) - 1, 0)


def _inserted(places: tuple[int, ...], number: int, place: int) -> tuple[int, ...]:
    return (*places[:number], place, *places[number:])


def _replaced(places: tuple[int, ...], number: int, place: int) -> tuple[int, ...]:
    return (*places[:number], place, *places[number + 1 :])


def _without_smaller(points: Sequence[Point], limits: Sequence[int]) -> list[Point]:
    """The points without those that another exceeds along some axes and along none falls short of, using as much."""
    kept: list[tuple[Point, Fraction]] = []
    for point in sorted(points, key=lambda point: point.values, reverse=True):  # the larger ones first
        used = point.used(limits)
        if not any(
            most >= used and all(more >= less for more, less in zip(larger.values, point.values, strict=True))
            for larger, most in kept
        ):
            kept.append((point, used))
    return [point for point, _ in kept]


def _rank(axes: Sequence[Axis], point: Point, limits: Sequence[int]) -> tuple[Fraction, Fraction, tuple[int, ...]]:
    """Smaller for what is better."""
    return -point.used(limits), _unevenness(axes, point), tuple(-value for value in point.values)


def _unevenness(axes: Sequence[Axis], point: Point) -> Fraction:
    """How many times as large the largest change of a value is as the smallest; 1 where all change by one factor."""
    changes = []
    for axis, value in zip(axes, point.values, strict=True):
        shift = max(0, 1 - min(axis.default, axis.values[0]))  # zero and less have no factors
        changes.append(Fraction(value + shift, axis.default + shift))
    return max(changes) / min(changes)
