"""Where the names of points go: beside their points, none over another, nor over a point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import cos, pi, sin

__all__ = ["Box", "place_labels"]

GAP = 7.0
"""How far a name is from the middle of its point, at least."""
DOT = 5.5
"""Half the side of a point's marker, with some air."""
RINGS = (0, 6, 13, 22, 33, 46, 62)
"""How much farther off a name may be, where it has no place nearer."""
AIR = 1.5
"""How far names are from each other, at least."""
COVERED, CROSSED = 50.0, 2.0
"""What it costs to cover a unit of area of a name or a point, and of a line."""
SWEEPS = 12


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; `bottom` is the lesser y."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return width * height if width > 0 and height > 0 else 0.0

    def widened(self, by: float) -> Box:
        """The box with so much more on each side."""
        return Box(self.left - by, self.bottom - by, self.right + by, self.top + by)

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The place in the box that is nearest to another."""
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)


def place_labels(
    places: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    bounds: Box,
    lines: Sequence[Box] = (),
) -> list[Box]:
    """A box of each size (width, height) near each place, within `bounds`.

    Boxes do not overlap one another or the points if there is room, and the `lines` rather not. Each in turn takes the
    best place that the others leave, until none moves; the same for the same points.
    """
    dots = [Box(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in places]
    around = [_Around(place, size, bounds, dots, lines) for place, size in zip(places, sizes, strict=True)]
    chosen = [each.best(()) for each in around]
    for _ in range(SWEEPS):
        before = list(chosen)
        for number, each in enumerate(around):
            others = (*chosen[:number], *chosen[number + 1 :])
            chosen[number] = each.best([box.widened(AIR) for box in others])
        if chosen == before:
            break
    return chosen


class _Around:
    """The boxes around one point, those that are best for themselves first."""

    def __init__(
        self,
        place: tuple[float, float],
        size: tuple[float, float],
        bounds: Box,
        dots: Sequence[Box],
        lines: Sequence[Box],
    ) -> None:
        self.choices = sorted(_choices(place, size, bounds), key=lambda choice: choice[1])
        self.dots, self.lines = dots, lines
        self.fixed: dict[Box, float] = {}
        """How much of the points and of the lines a box covers, once it is known."""

    def best(self, others: Sequence[Box]) -> Box:
        """The box that costs least where the names of other points are at `others`."""
        chosen, least = self.choices[0][0], float("inf")
        for box, cost in self.choices:
            if cost >= least:
                break
            if box not in self.fixed:
                covered = sum(box.overlap(line) for line in self.lines)
                self.fixed[box] = COVERED * sum(box.overlap(dot) for dot in self.dots) + CROSSED * covered
            whole = cost + self.fixed[box] + COVERED * sum(box.overlap(other) for other in others)
            if whole < least:
                chosen, least = box, whole
        return chosen


def _choices(place: tuple[float, float], size: tuple[float, float], bounds: Box) -> Iterator[tuple[Box, float]]:
    """Boxes around a point, and how much worse each is for being farther off, or not to the right."""
    (x, y), (width, height) = place, size
    for ring in RINGS:
        for step in range(16):
            angle = step * pi / 8
            across, up = cos(angle), sin(angle)
            left = x + across * (GAP + ring) + (width / 2) * (max(-1.0, min(1.0, across * 1.5)) - 1)
            bottom = y + up * (GAP + ring) + (height / 2) * (max(-1.0, min(1.0, up * 1.5)) - 1)
            box = Box(left, bottom, left + width, bottom + height)
            inside = bounds.left <= box.left and box.right <= bounds.right and bounds.bottom <= box.bottom
            if inside and box.top <= bounds.top:
                yield box, 3 * ring + 2 * (1 - across) + (1 - up)
    yield Box(x, y, x + width, y + height), 1e6  # there is no room
