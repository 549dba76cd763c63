"""Sizes and places in points: how large a grid is drawn, where each column and level lies."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2

from mgcompile.drawing.lattice import Cell, Edge, EdgeKind, Lattice
from mgcompile.drawing.scene import Point, text_width
from mgcompile.drawing.tracks import Tracks
from mgcompile.graph import Size
from mgcompile.graph.ops import Kind

__all__ = ["GAP", "Arc", "Box", "Geometry", "caption_size", "measure", "size_text"]

SIDES = (9.0, 27.0)
"""The side of a grid of one cell, and of one as large as the finest; between them by the logarithm."""

GAP = 18.0
TEXT = 10.0
TRACK = 6.0
TRACKS = 16
"""Arcs of a level lie on so many tracks; more of them than that share the last."""


@dataclass(frozen=True, slots=True)
class Box:
    """A cell in points: the front face around (x, y), and the way to its back face, which shows its channels."""

    x: float
    y: float
    width: float
    height: float
    depth: Point

    @property
    def top(self) -> float:
        """The upper end of the back face."""
        return self.y - self.height / 2 - self.depth[1]

    @property
    def bottom(self) -> float:
        return self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class Arc:
    """An edge that leaves its level's row and runs on a track above it, at `rise` points above the row's middle."""

    rise: float
    joins_row: bool
    """Whether it ends on top of a cell of the row; else it leaves for another row before its last column."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """A measured lattice. `columns` and `rows` are the middles, `spans` the left and right ends of the columns."""

    lattice: Lattice
    boxes: tuple[Box, ...]
    texts: tuple[tuple[str, ...], ...]
    arcs: Mapping[int, Arc]
    columns: tuple[float, ...]
    spans: tuple[tuple[float, float], ...]
    rows: Mapping[int, float]
    bounds: Mapping[int, tuple[float, float]]
    """The upper and lower end of each row."""


def measure(lattice: Lattice, left: float, top: float) -> Geometry:
    """Give everything its place; the first column begins at `left`, the first row at `top`."""
    finest = max((max(size) for _, size in lattice.levels), default=1)
    flat = [_box(cell, finest) for cell in lattice.cells]
    texts = captions(lattice)
    below = [_room_below(*each) for each in zip(lattice.cells, flat, texts, strict=True)]
    lanes = _lane_rises(lattice, flat, below)
    arcs = _arcs(lattice, flat, lanes)
    columns, spans = _columns(lattice, flat, texts, left)
    rows, bounds = _rows(lattice, top, above=_heights(lattice, flat, lanes, arcs), below=_depths(lattice, below, lanes))
    boxes = tuple(
        Box(columns[cell.column], rows[cell.level] - lanes[cell.level, cell.lane], box.width, box.height, box.depth)
        for cell, box in zip(lattice.cells, flat, strict=True)
    )
    return Geometry(lattice, boxes, texts, arcs, columns, spans, rows, bounds)


def _box(cell: Cell, finest: int) -> Box:
    if cell.kind is Kind.FUSE:
        return Box(0, 0, 11, 11, (0, 0))
    if cell.size is None:
        return Box(0, 0, 6, min(38.0, 12 + 2.6 * log2(max(1, cell.channels))), (0, 0))
    scale = 0.55 if cell.minor else 1.0
    height, width = (_side(cells, finest) * scale for cells in cell.size)
    # Flattened beside the face: a sheet seen a little from the right and from above.
    thickness = (0.6 + 0.62 * log2(max(1, cell.channels))) * scale
    return Box(0, 0, width, height, (thickness, thickness * 0.55))


def _side(cells: int, finest: int) -> float:
    least, most = SIDES
    return least + (most - least) * min(1.0, log2(max(1, cells)) / max(1.0, log2(finest)))


def captions(lattice: Lattice) -> tuple[tuple[str, ...], ...]:
    """The lines of text below each cell: its channels, its size where the row's is another, its names as an output."""
    sizes = dict(lattice.levels)
    names: dict[int, list[str]] = {}
    for name, place in lattice.outputs:
        names.setdefault(place, []).append(name)
    several = len({name for name, _ in lattice.outputs}) > 1
    lines: list[tuple[str, ...]] = []
    for number, cell in enumerate(lattice.cells):
        channels = [str(cell.channels)] if cell.kind is not Kind.FUSE else []
        differs = cell.size is not None and cell.size != sizes[cell.level]
        size = [size_text(cell.size)] if cell.size and differs else []
        lines.append((*channels, *size, *(names.get(number, []) if several else [])))
    return tuple(lines)


def size_text(size: Size) -> str:
    """Height and width for readers.

    >>> size_text((7, 7))
    '7×7'
    """
    return f"{size[0]}×{size[1]}"


def caption_size(cell: Cell) -> float:
    """The size of the text below a cell."""
    return TEXT * (0.8 if cell.minor else 1)


def _room_below(cell: Cell, box: Box, lines: Sequence[str]) -> float:
    return box.height / 2 + len(lines) * (caption_size(cell) + 0.5) + 2


def _lane_rises(lattice: Lattice, boxes: Sequence[Box], rooms: Sequence[float]) -> dict[tuple[int, int], float]:
    """How far above the middle of its row each lane lies."""
    heights: dict[tuple[int, int], tuple[float, float]] = {}
    for cell, box, room in zip(lattice.cells, boxes, rooms, strict=True):
        above, below = heights.get((cell.level, cell.lane), (0.0, 0.0))
        heights[cell.level, cell.lane] = max(above, -box.top), max(below, room)
    rises: dict[tuple[int, int], float] = {}
    for level, lane in sorted(heights):
        under = rises.get((level, lane - 1), 0.0) + heights.get((level, lane - 1), (0.0, 0.0))[0]
        rises[level, lane] = under + heights[level, lane][1] + 3 if lane else 0.0
    return rises


def _arcs(lattice: Lattice, boxes: Sequence[Box], lanes: Mapping[tuple[int, int], float]) -> dict[int, Arc]:
    """The edges that take a track above their source's row: short ones below long ones, none through another."""
    rows = _Rows(lattice, boxes, lanes)
    needed: list[tuple[int, int, int]] = []
    for number, edge in enumerate(lattice.edges):
        source, target = lattice.cells[edge.source], lattice.cells[edge.target]
        if _takes_track(edge, source, target, rows):
            needed.append((target.column - source.column, source.column, number))
    tracks: dict[int, Tracks] = {}
    arcs: dict[int, Arc] = {}
    for _, _, number in sorted(needed):
        edge = lattice.edges[number]
        source, target = lattice.cells[edge.source], lattice.cells[edge.target]
        track = tracks.setdefault(source.level, Tracks(TRACKS)).take(source.column, target.column)
        base = rows.skyline(source.level, source.column, target.column)
        arcs[number] = Arc(base + TRACK * (track + 1), source.level == target.level)
    return arcs


def _takes_track(edge: Edge, source: Cell, target: Cell, rows: _Rows) -> bool:
    if source.level == target.level:
        if edge.kind is EdgeKind.SHORTCUT:
            return target.column - source.column > 1
        return not rows.free(source.level, source.lane, source.column, target.column)
    if target.column - source.column == 1:
        return False
    along_source = rows.free(source.level, source.lane, source.column, target.column)
    return not along_source and not rows.free(target.level, target.lane, source.column, target.column)


class _Rows:
    """What stands where in each level: for finding free ways and the height of the cells under an arc."""

    def __init__(self, lattice: Lattice, boxes: Sequence[Box], lanes: Mapping[tuple[int, int], float]) -> None:
        self._tops: dict[int, dict[int, float]] = {}
        self._taken: dict[tuple[int, int], list[int]] = {}
        for cell, box in sorted(zip(lattice.cells, boxes, strict=True), key=lambda pair: pair[0].column):
            tops = self._tops.setdefault(cell.level, {})
            top = lanes[cell.level, cell.lane] - box.top
            tops[cell.column] = max(top, tops.get(cell.column, 0.0))
            self._taken.setdefault((cell.level, cell.lane), []).append(cell.column)

    def free(self, level: int, lane: int, first: int, last: int) -> bool:
        """Whether no cell stands in the lane strictly between two columns."""
        taken = self._taken.get((level, lane), [])
        return bisect_right(taken, first) >= bisect_left(taken, last)

    def skyline(self, level: int, first: int, last: int) -> float:
        """The highest top of the level's cells from one column to another, above the middle of the row."""
        tops = self._tops[level]
        if last - first > len(tops):
            return max(tops.values())
        return max(tops.get(column, 0.0) for column in range(first, last + 1))


def _columns(
    lattice: Lattice, boxes: Sequence[Box], texts: Sequence[Sequence[str]], left: float
) -> tuple[tuple[float, ...], tuple[tuple[float, float], ...]]:
    halves = [[4.0, 4.0] for _ in range(lattice.columns)]
    for cell, box, lines in zip(lattice.cells, boxes, texts, strict=True):
        half = halves[cell.column]
        text = max((text_width(line, caption_size(cell)) / 2 for line in lines), default=0.0)
        half[0] = max(half[0], box.width / 2, text)
        half[1] = max(half[1], box.width / 2 + box.depth[0], text)
    middles: list[float] = []
    spans: list[tuple[float, float]] = []
    here = left
    for before, after in halves:
        middles.append(here + before)
        spans.append((here, here + before + after))
        here += before + after + GAP
    return tuple(middles), tuple(spans)


def _heights(
    lattice: Lattice, boxes: Sequence[Box], lanes: Mapping[tuple[int, int], float], arcs: Mapping[int, Arc]
) -> Mapping[int, float]:
    """How far each row reaches above its middle."""
    above = {level: 10.0 for level, _ in lattice.levels}
    for cell, box in zip(lattice.cells, boxes, strict=True):
        above[cell.level] = max(above[cell.level], lanes[cell.level, cell.lane] - box.top)
    for number, arc in arcs.items():
        level = lattice.cells[lattice.edges[number].source].level
        above[level] = max(above[level], arc.rise)
    return above


def _depths(lattice: Lattice, rooms: Sequence[float], lanes: Mapping[tuple[int, int], float]) -> Mapping[int, float]:
    """How far each row reaches below its middle."""
    below = {level: 10.0 for level, _ in lattice.levels}
    for cell, room in zip(lattice.cells, rooms, strict=True):
        below[cell.level] = max(below[cell.level], room - lanes[cell.level, cell.lane])
    return below


def _rows(
    lattice: Lattice, top: float, *, above: Mapping[int, float], below: Mapping[int, float]
) -> tuple[dict[int, float], dict[int, tuple[float, float]]]:
    middles: dict[int, float] = {}
    bounds: dict[int, tuple[float, float]] = {}
    here = top
    for level, _ in lattice.levels:
        middles[level] = here + 7 + above[level]
        end = middles[level] + below[level] + 5
        bounds[level] = (here, end)
        here = end
    return middles, bounds
