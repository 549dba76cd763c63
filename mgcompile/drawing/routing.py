"""The way of each edge: along its row, across a gap between two columns, or on a track above its row."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from mgcompile.drawing.geometry import GAP, Box, Geometry
from mgcompile.drawing.lattice import Cell, Edge, EdgeKind
from mgcompile.drawing.palette import EDGE_LINES, EDGE_NAMES, PASSING, Line
from mgcompile.drawing.scene import Curve, Point, Strand

__all__ = ["ARROW", "route"]

ARROW = 4.5
SHORT_ARC = 4
"""Arcs over at most so many columns are one bow; longer ones are flat between two bends."""


def route(geometry: Geometry) -> Iterator[Strand]:
    """Each edge of the lattice as a curve."""
    router = _Router(geometry)
    for number, edge in enumerate(geometry.lattice.edges):
        source, target = geometry.lattice.cells[edge.source], geometry.lattice.cells[edge.target]
        line = PASSING if geometry.lattice.is_passing(edge) else EDGE_LINES[edge.kind]
        times = f", {edge.count} times" if edge.count > 1 else ""
        title = f"{source.nodes[-1]} → {target.nodes[0]} ({EDGE_NAMES[edge.kind]}{times})"
        yield Strand(edge.source, edge.target, router.curve(number, edge, line), title)


class _Router:
    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        self.cells = geometry.lattice.cells
        self.taken: dict[tuple[int, int], list[int]] = {}
        for cell in sorted(self.cells, key=lambda cell: cell.column):
            self.taken.setdefault((cell.level, cell.lane), []).append(cell.column)
        self.highest: dict[tuple[int, int], int] = {}
        for cell in self.cells:
            place = cell.level, cell.column
            self.highest[place] = max(cell.lane, self.highest.get(place, 0))

    def curve(self, number: int, edge: Edge, line: Line) -> Curve:
        """The edge from the right (or top) of its source to the left (or top) of its target."""
        source, target = self.cells[edge.source], self.cells[edge.target]
        start, end = self.geometry.boxes[edge.source], self.geometry.boxes[edge.target]
        arc = self.geometry.arcs.get(number)
        if arc is not None:
            track = self.geometry.rows[source.level] - arc.rise
            if arc.joins_row and not self._covered(source) and not self._covered(target):
                return _bow(start, end, track, target.column - source.column, line)
            return self._over(edge, track, line)
        leaving, entering = _ports(edge.kind, start, end)
        here, there = (
            (start.x + start.width / 2 + start.depth[0], start.y + leaving),
            (end.x - end.width / 2, end.y + entering),
        )
        if source.level == target.level and here[1] == there[1]:
            return _arrow([here, *_straight(here, (there[0] - ARROW, there[1]))], there, line)
        gap = target.column if self._free(source, target) else source.column + 1
        return self._across(here, there, gap, line)

    def _covered(self, cell: Cell) -> bool:
        """Whether another lane's cell stands above."""
        return self.highest[cell.level, cell.column] > cell.lane

    def _free(self, source: Cell, target: Cell) -> bool:
        taken = self.taken.get((source.level, source.lane), [])
        return bisect_right(taken, source.column) >= bisect_left(taken, target.column)

    def _across(self, here: Point, there: Point, gap: int, line: Line) -> Curve:
        """Along the row to the gap left of column `gap`, across it, and along the other row."""
        spans = self.geometry.spans
        leave = max(here[0], spans[gap - 1][1])
        arrive = min(there[0], spans[gap][0]) - ARROW
        bend = (leave, here[1])
        points = [here, *_straight(here, bend), *_sway(bend, (arrive, there[1]))]
        points += _straight(points[-1], (there[0] - ARROW, there[1]))
        return _arrow(points, there, line)

    def _over(self, edge: Edge, track: float, line: Line) -> Curve:
        """Up to a track, along it to the gap before the target's column, and across that gap to the target.

        The way up begins on top of the source, or right of it where another cell stands above.
        """
        source, target = self.cells[edge.source], self.cells[edge.target]
        start, end = self.geometry.boxes[edge.source], self.geometry.boxes[edge.target]
        spans = self.geometry.spans
        if self._covered(source):
            side = start.x + start.width / 2 + start.depth[0]
            begin = (side, start.y - min(5.0, 0.2 * start.height))
            foot = (max(side, spans[source.column][1]), begin[1])
            points = [begin, *_straight(begin, foot), *_sway(foot, (foot[0] + GAP - ARROW, track))]
        else:
            begin = (start.x + 0.28 * start.width + start.depth[0], start.top)
            points = [begin, *_bend_up(begin, track)]
        if source.level == target.level and not self._covered(target):
            return _arrow([*points, *_descend(points[-1], end, track)], _landing(end), line)
        _, entering = _ports(EdgeKind.UP if end.y < start.y else EdgeKind.DOWN, start, end)
        there = (end.x - end.width / 2, end.y + entering)
        leave, arrive = spans[target.column - 1][1], spans[target.column][0] - ARROW
        points += _straight(points[-1], (max(points[-1][0], leave), track))
        points += _sway(points[-1], (max(arrive, points[-1][0] + 1), there[1]))
        points += _straight(points[-1], (there[0] - ARROW, there[1]))
        return _arrow(points, there, line)


def _ports(kind: EdgeKind, start: Box, end: Box) -> tuple[float, float]:
    """How far below the middles an edge leaves and enters, so that edges of different kinds part."""
    # The right end of the visible sides lies a little higher than the front.
    lowest = max(0.0, start.height / 2 - start.depth[1])
    if kind is EdgeKind.DOWN:
        return min(5.0, 0.2 * start.height, lowest), -min(5.0, 0.24 * end.height)
    if kind is EdgeKind.UP:
        return -min(5.0, 0.2 * start.height), min(5.0, 0.24 * end.height)
    return 0.0, 0.0


def _bow(start: Box, end: Box, track: float, columns: int, line: Line) -> Curve:
    """From the top of one cell over others of the row to the top of another."""
    begin = (start.x + 0.28 * start.width + start.depth[0], start.top)
    tip = _landing(end)
    stop = (tip[0], tip[1] - ARROW)
    if columns <= SHORT_ARC:
        # A cubic rises to three quarters of its handles.
        rise = max(begin[1], stop[1]) - track
        handle = max(begin[1], stop[1]) - rise / 0.75
        lean = 0.12 * (stop[0] - begin[0])
        return _arrow([begin, (begin[0] + lean, handle), (stop[0] - lean, handle), stop], tip, line)
    points = [begin, *_bend_up(begin, track)]
    return _arrow([*points, *_descend(points[-1], end, track)], tip, line)


def _landing(end: Box) -> Point:
    """Where an arc ends on top of a cell."""
    return end.x - 0.22 * end.width + end.depth[0], end.top


def _descend(begin: Point, end: Box, track: float) -> list[Point]:
    """Along a track and down to just above a cell."""
    x, y = _landing(end)
    stop = (x, y - ARROW)
    radius = _radius(stop, track)
    points = _straight(begin, (max(begin[0], x - radius), track))
    return [*points, (x - 0.45 * radius, track), (x, track + 0.45 * (stop[1] - track)), stop]


def _radius(foot: Point, track: float) -> float:
    return min(14.0, max(3.0, 0.8 * (foot[1] - track)))


def _bend_up(begin: Point, track: float) -> list[Point]:
    radius = _radius(begin, track)
    rise = begin[1] - track
    return [(begin[0], begin[1] - 0.55 * rise), (begin[0] + 0.55 * radius, track), (begin[0] + radius, track)]


def _straight(begin: Point, end: Point) -> list[Point]:
    """A line as a cubic; nothing where it has no length."""
    if begin == end:
        return []
    third = ((end[0] - begin[0]) / 3, (end[1] - begin[1]) / 3)
    return [(begin[0] + third[0], begin[1] + third[1]), (end[0] - third[0], end[1] - third[1]), end]


def _sway(begin: Point, end: Point) -> list[Point]:
    """From one horizontal to another."""
    half = 0.6 * (end[0] - begin[0])
    return [(begin[0] + half, begin[1]), (end[0] - half, end[1]), end]


def _arrow(points: list[Point], tip: Point, line: Line) -> Curve:
    return Curve(tuple(points), line, tip)
