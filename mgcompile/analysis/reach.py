"""Which pixels of the input the cells of a grid see along one axis: at a size, and on an image without borders.

What a cell sees is given by its first and its last pixel; all between count as seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mgcompile.errors import ShapeError
from mgcompile.graph.types import ALL, Window

__all__ = ["NOTHING", "Endless", "EndlessReaches", "Reach", "Reaches", "fits"]

Pixels = NDArray[np.int64]

MOST_CELLS: Final = 20_000_000
"""Along both axes, in all grids whose cells see something else; each takes 32 bytes."""

_OWN = Window()
_LATE, _EARLY = 1 << 62, -1  # the first and the last pixel of a cell that sees none: neutral where cells are united


@dataclass(frozen=True, eq=False, slots=True)
class Reach:
    """The first and the last pixel that each cell sees. Objects of one walk are the same where they are equal.

    `largest` is the most pixels that a cell sees, the first to the last.
    """

    first: Pixels
    last: Pixels
    largest: int

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, cell: int) -> tuple[int, int] | None:
        """The first and the last pixel that a cell sees; None where it sees none, such as one made of padding."""
        first, last = int(self.first[cell]), int(self.last[cell])
        return (first, last) if first <= last else None


class Reaches:
    """Makes what cells see from what the cells below them see; equal work is done once. Raises `ShapeError` where all
    that differs has more than `MOST_CELLS` cells.
    """

    def __init__(self) -> None:
        self._cells = 0
        self._made: dict[tuple[bytes, bytes], Reach] = {}
        self._done: dict[tuple[frozenset[tuple[Reach, Window]], int], Reach] = {}

    def image(self, size: int) -> Reach:
        """That of the image itself: each pixel sees itself."""
        pixels = np.arange(size)
        return self._make(pixels, pixels)

    def through(self, sources: Sequence[tuple[Reach, Window]], cells: int) -> Reach:
        """That of `cells` cells which see the cells of each of the sources through a window."""
        distinct = frozenset(sources)
        if len(distinct) == 1:
            ((reach, window),) = distinct
            if window == _OWN and len(reach) == cells:
                return reach
        key = (distinct, cells)
        if key not in self._done:
            first, last = np.full(cells, _LATE), np.full(cells, _EARLY)
            for reach, window in distinct:
                firsts, lasts = _look(reach, window, cells)
                first, last = np.minimum(first, firsts), np.maximum(last, lasts)
            self._done[key] = self._make(first, last)
        return self._done[key]

    def _make(self, first: Pixels, last: Pixels) -> Reach:
        key = (first.tobytes(), last.tobytes())
        if key not in self._made:
            self._cells += len(first)
            if self._cells > MOST_CELLS:
                raise ShapeError("a receptive field of so many cells takes too much memory; choose a smaller size")
            self._made[key] = Reach(first, last, max(0, int((last - first).max()) + 1))
        return self._made[key]


def _look(reach: Reach, window: Window, cells: int) -> tuple[Pixels, Pixels]:
    """The first and the last pixel that each of so many cells sees through a window on the cells of `reach`."""
    size = len(reach)
    if not window.step:  # all see the same
        start, stop = window.cells(0)
        seen = slice(max(0, start), max(0, stop + 1))
        first = np.min(reach.first[seen], initial=_LATE)
        return np.full(cells, first), np.full(cells, np.max(reach.last[seen], initial=_EARLY))
    place = window.step * np.arange(cells)
    starts, stops = (place + window.first) // window.over, (place + window.last) // window.over
    # Two cells that see nothing stand behind those that exist.
    firsts = np.concatenate([reach.first, (_LATE, _LATE)])
    lasts = np.concatenate([reach.last, (_EARLY, _EARLY)])
    if window.apart > 1:
        taps = (window.last - window.first) // window.apart + 1
        seen_cells = starts[:, None] + window.apart * np.arange(taps)
        seen_cells[(seen_cells < 0) | (seen_cells >= size)] = size
        return firsts[seen_cells].min(1), lasts[seen_cells].max(1)
    starts, stops = np.maximum(starts, 0), np.minimum(stops, size - 1)
    outside = starts > stops
    starts[outside] = stops[outside] = size
    # Pairs (from, up to): `reduceat` also gives what lies between one pair and the next, which is left out.
    bounds = np.stack([starts, stops + 1], 1).ravel()
    return np.minimum.reduceat(firsts, bounds)[::2], np.maximum.reduceat(lasts, bounds)[::2]


@dataclass(frozen=True, eq=False, slots=True)
class Endless:
    """What cells see of an image without borders, where cell i + period sees what cell i does, further on.

    `first` and `last` are the pixels of the cells 0 up to the period, `stride` the pixels from one cell to the next on
    average. A grid that was upsampled has a period above one: its cells differ by their place over a coarse one.
    """

    first: Pixels
    last: Pixels
    stride: Fraction
    largest: int

    @property
    def period(self) -> int:
        """After how many cells the pattern repeats."""
        return len(self.first)

    def at(self, cells: Pixels) -> tuple[Pixels, Pixels]:
        """The first and the last pixels that these cells see."""
        turn, place = np.divmod(cells, self.period)
        shift = turn * int(self.period * self.stride)
        return self.first[place] + shift, self.last[place] + shift


NOTHING: Final = Endless(np.zeros(0, np.int64), np.zeros(0, np.int64), Fraction(1), 0)
"""That of what no pixel reaches."""


class EndlessReaches:
    """Makes what cells see of an image without borders; equal work is done once. None is everything."""

    def __init__(self) -> None:
        self.image = Endless(np.zeros(1, np.int64), np.zeros(1, np.int64), Fraction(1), 1)
        self._done: dict[tuple[frozenset[tuple[Endless, Window]], Fraction], Endless | None] = {}

    def through(self, sources: Sequence[tuple[Endless | None, Window]], stride: Fraction) -> Endless | None:
        """That of cells `stride` pixels apart, which see the cells of each source through a window."""
        known: set[tuple[Endless, Window]] = set()
        for endless, window in sources:
            if endless is None or window == ALL:
                return None
            if endless is not NOTHING:
                known.add((endless, window))
        if len(known) == 1:
            ((endless, window),) = known
            if window == _OWN and endless.stride == stride:
                return endless
        key = (frozenset(known), stride)
        if key not in self._done:
            self._done[key] = _union(known, stride) if known else NOTHING
        return self._done[key]


def fits(source: Fraction, window: Window, stride: Fraction) -> bool:
    """Whether a window on cells `source` pixels apart moves `stride` pixels from one cell to the next."""
    if source is stride:  # mostly: a node beside another of its level
        return window.step == window.over
    return source * window.step == stride * window.over


def _union(sources: set[tuple[Endless, Window]], stride: Fraction) -> Endless | None:
    # A window that moves at another pace than the cells do is ever further away: together they see everything.
    if not all(fits(endless.stride, window, stride) for endless, window in sources):
        return None
    # The window of cell i + period must have moved by whole periods of the source.
    periods = [Fraction(window.step, window.over * endless.period).denominator for endless, window in sources]
    place = np.arange(lcm(*periods))
    first, last = np.full(len(place), _LATE), np.full(len(place), -_LATE)
    for endless, window in sources:
        firsts, _ = endless.at((window.step * place + window.first) // window.over)
        _, lasts = endless.at((window.step * place + window.last) // window.over)
        first, last = np.minimum(first, firsts), np.maximum(last, lasts)
    return Endless(first, last, stride, int((last - first).max()) + 1)
