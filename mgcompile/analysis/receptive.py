"""The receptive field: which pixels of the image each cell of each grid can depend on, exactly, from the graph alone.

What counts is where data can flow, whatever the weights are. A field is given by its first and its last pixel along
each axis; all between count as seen, and channels are not told apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Literal, get_args

from mgcompile.analysis.cost import group_name
from mgcompile.graph.collecting import collection_paused
from mgcompile.graph.graph import Graph, Node
from mgcompile.graph.ops import Input
from mgcompile.graph.types import ALL, Grid, Shape, Size, Value, Window

if TYPE_CHECKING:
    from mgcompile.analysis.reach import Endless, EndlessReaches, Reach, Reaches

__all__ = [
    "FIELD_CONVENTIONS",
    "CurvePoint",
    "FieldGroup",
    "FieldKey",
    "FieldRow",
    "OutputField",
    "ReceptiveField",
    "Unclipped",
    "receptive_field",
]

FieldKey = Literal["layer", "level"]
"""What nodes can be grouped by."""


Unclipped = tuple[int | None, int | None]
"""Pixels along each axis on an image without borders; None where they grow with the image, mostly all of it."""
Sources = tuple[list[tuple[str, Window]], list[tuple[str, Window]]]
"""Inputs and the windows through which they are seen, down and across."""

FIELD_CONVENTIONS: Mapping[str, str] = {
    "field": "field: the most pixels (height x width) that a cell depends on, the first to the last, in this image",
    "unclipped": "unclipped: the same on an image without borders; unbounded where it grows with the image (global "
    "pooling, group norm)",
    "depth": "depth: convolutions, transposed ones too, on the longest path from the image",
    "stride": "stride: pixels from one cell to the next",
    "centre": "centre: the middle of what the first cell depends on, on an image without borders; pixels count from 0",
    "covers": "covers: the cell in the middle depends on the first and the last row and column of the image; covered "
    "at: the least depth of a node that covers, among the node itself and those that it is made of, or of a group",
}
"""What each figure means, in words."""

_REFINED = 40
"""An ideal image has 2**40 pixels a side: enough levels for any network, and places in its grids fit into 64 bits."""


@dataclass(frozen=True, slots=True)
class FieldRow:
    """What the cells of one node see. All pairs are (height, width), in pixels of the image.

    `size` is the most that a cell sees of this image, `unclipped` of one without borders. `stride` is None for vectors
    and grids of a fixed number of cells. `centre` is the middle of what the first cell sees, the first pixel being 0,
    on an image without borders; None where that is all of it. `covers` tells whether the cell in the middle sees the
    whole image, `depth` counts the convolutions on the longest path from it. `covered_at` is the least depth of a node
    that covers, among this one and those that it is made of; None where there is none. `level` is None for a vector.
    """

    node: str
    layer: str
    op: str
    level: int | None
    size: Size
    unclipped: Unclipped
    stride: tuple[Fraction, Fraction] | None
    centre: tuple[Fraction | None, Fraction | None]
    covers: bool
    depth: int
    covered_at: int | None


@dataclass(frozen=True, slots=True)
class OutputField:
    """What a named output sees: the figures of its node, and by which node the image is covered at `covered_at`."""

    name: str
    node: str
    depth: int
    size: Size
    unclipped: Unclipped
    stride: tuple[Fraction, Fraction] | None
    centre: tuple[Fraction | None, Fraction | None]
    covered_at: int | None
    covered_by: str | None


@dataclass(frozen=True, slots=True)
class FieldGroup:
    """The nodes of one layer or level: the largest field among them, each axis by itself, and their largest depth.

    `covered_at` is the least depth of one that itself covers the image; None where none does.
    """

    name: str
    nodes: int
    depth: int
    size: Size
    unclipped: Unclipped
    covered_at: int | None


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The largest field up to a depth, each axis by itself."""

    depth: int
    size: Size
    unclipped: Unclipped


@dataclass(frozen=True)
class ReceptiveField:
    """The fields of a graph at one input size. `FIELD_CONVENTIONS` says what each figure means.

    `rows` has one entry a node, `curve` one a depth. `covered_at` and `covered_by` are those of `OutputField`, for the
    whole graph. `reaches` has, for each node, what its cells see along the height and along the width.
    """

    name: str
    size: Size
    rows: tuple[FieldRow, ...]
    outputs: tuple[OutputField, ...]
    covered_at: int | None
    covered_by: str | None
    curve: tuple[CurvePoint, ...]
    reaches: Mapping[str, tuple[Reach, Reach]] = field(repr=False, compare=False)

    @property
    def depth(self) -> int:
        """The convolutions on the longest path."""
        return max(row.depth for row in self.rows)

    def by(self, key: FieldKey, depth: int = 1) -> tuple[FieldGroup, ...]:
        """The rows by `layer` in the order of the graph (the first `depth` components of its path), or by `level` from
        fine to coarse and vectors last. Raises `ValueError` for another key.
        """
        if key not in get_args(FieldKey):
            raise ValueError(f"cannot group by {key!r}; it must be one of {', '.join(get_args(FieldKey))}")
        members: dict[str, list[FieldRow]] = {}
        for row in self.rows:
            members.setdefault(group_name(row, key, depth), []).append(row)
        groups = list(members.items())
        if key == "level":
            groups.sort(key=lambda named: _last_none(named[1][0].level))
        return tuple(_group(name, rows) for name, rows in groups)

    def sees(self, node: str, cell: tuple[int, int] = (0, 0)) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """The first and the last row, and the first and the last column of the image that a cell (row, column) of a
        node can depend on; None where it sees nothing. A vector is one cell.

        Exact but for cells of which one path sees nothing but padding along one axis alone: what that path would see
        along the other counts as seen.
        """
        down, across = self.reaches[node]
        rows, columns = down[cell[0]], across[cell[1]]
        return None if rows is None or columns is None else (rows, columns)


def receptive_field(graph: Graph, size: Size | None = None) -> ReceptiveField:
    """The fields of `graph` for an input of `size` (height, width), the nominal size where None.

    Batch normalisation counts as in inference, where a cell depends on itself; group and instance normalisation depend
    on all cells. One walk, linear in the number of nodes. Raises `ShapeError` where a grid would vanish at that size.
    """
    with collection_paused():
        return _Walk(graph, size or graph.size).result()


class _Walk:
    """One walk over a graph, and what it knows of the nodes that it has been at."""

    def __init__(self, graph: Graph, size: Size) -> None:
        from mgcompile.analysis.reach import EndlessReaches, Reaches  # numpy, which other figures do without

        self.graph, self.size = graph, size
        self.shapes, self.types = graph.shapes(size), graph.types
        self.clipped: Reaches = Reaches()
        self.unclipped: EndlessReaches = EndlessReaches()
        self.reaches: dict[str, tuple[Reach, Reach]] = {}
        self.endless: dict[str, tuple[Endless | None, Endless | None]] = {}
        self.depths: dict[str, int] = {}
        self.covered: dict[str, tuple[int, str] | None] = {}
        """The least depth at which the image is covered on the way to a node, and where."""

    def result(self) -> ReceptiveField:
        rows = tuple([self._row(node) for node in self.graph])
        covered = _least((row.depth, row.node) for row in rows if row.covers)
        outputs = []
        by_name = {row.node: row for row in rows if row.node in self.graph.outputs.values()}
        for name, node in self.graph.outputs.items():
            row, (at, by) = by_name[node], self.covered[node] or (None, None)
            outputs.append(OutputField(name, node, row.depth, row.size, row.unclipped, row.stride, row.centre, at, by))
        at, by = covered or (None, None)
        return ReceptiveField(
            self.graph.name, self.size, rows, tuple(outputs), at, by, tuple(_curve(rows)), self.reaches
        )

    def _row(self, node: Node) -> FieldRow:
        seen = self._seen(node, *self._shapes(node))
        down, across = self.reaches[node.name] = (self._reach(node, 0, seen), self._reach(node, 1, seen))
        endless = self.endless[node.name] = (self._endless(node, 0, seen), self._endless(node, 1, seen))
        names = {name for sources in seen for name, _ in sources}
        depths = [
            self.depths[name] + node.op.convolves(place) for place, name in enumerate(node.inputs) if name in names
        ]
        depth = self.depths[node.name] = max(depths, default=0)
        covers = _covers(down, self.size[0]) and _covers(across, self.size[1])
        before = [found for name in node.inputs if name in names and (found := self.covered[name])]
        covered = self.covered[node.name] = _least([*before, *[(depth, node.name)] * covers])
        value = self.types[node.name]
        return FieldRow(
            node.name,
            node.layer,
            node.op.label,
            node.level if isinstance(value, Grid) else None,
            (down.largest, across.largest),
            (_largest(endless[0]), _largest(endless[1])),
            _strides(value),
            (_centre(endless[0]), _centre(endless[1])),
            covers,
            depth,
            covered[0] if covered else None,
        )

    def _seen(self, node: Node, inputs: list[Shape], output: Shape) -> Sources:
        """The inputs of which data is seen, and through which window, along each axis."""
        down: list[tuple[str, Window]] = []
        across: list[tuple[str, Window]] = []
        for axis, sources in enumerate((down, across)):
            windows = node.op.windows(axis, inputs, output)
            for name, shape, window in zip(node.inputs, inputs, windows, strict=True):
                if window is not None and not self.graph[name].op.by_reference:
                    sources.append((name, window if len(shape) > 1 else ALL))
        return down, across

    def _reach(self, node: Node, axis: int, seen: Sources) -> Reach:
        if isinstance(node.op, Input):
            return self.clipped.image(self.size[axis])
        sources = [(self.reaches[name][axis], window) for name, window in seen[axis]]
        return self.clipped.through(sources, _cells(self.shapes[node.name], axis))

    def _endless(self, node: Node, axis: int, seen: Sources) -> Endless | None:
        from mgcompile.analysis.reach import fits

        if isinstance(node.op, Input):
            return self.unclipped.image
        sources = [(self.endless[name][axis], window) for name, window in seen[axis]]
        strides = _strides(self.types[node.name])
        if strides is None:  # one cell, or so many, of any image
            return self.unclipped.through([(endless, ALL) for endless, _ in sources], Fraction(1))
        stride = strides[axis]
        if all(endless is None or fits(endless.stride, window, stride) for endless, window in sources):
            return self.unclipped.through(sources, stride)
        # Interpolation to a size that was rounded: without borders nothing is rounded.
        ideal = self._seen(node, *self._ideal(node))[axis]
        return self.unclipped.through([(self.endless[name][axis], window) for name, window in ideal], stride)

    def _shapes(self, node: Node) -> tuple[list[Shape], Shape]:
        return [self.shapes[name] for name in node.inputs], self.shapes[node.name]

    def _ideal(self, node: Node) -> tuple[list[Shape], Shape]:
        """The shapes of inputs and output of a very large image, each level of which divides."""
        *inputs, output = (
            (value.channels, *(_ideal_cells(value, axis) for axis in (0, 1)))
            if isinstance(value, Grid)
            else value.at(self.size)
            for value in (*(self.types[name] for name in node.inputs), self.types[node.name])
        )
        return inputs, output


def _ideal_cells(grid: Grid, axis: int) -> int:
    extent = (grid.height, grid.width)[axis]
    return 1 << _REFINED - extent.level if extent.fixed is None else extent.fixed


def _cells(shape: Shape, axis: int) -> int:
    return shape[1 + axis] if len(shape) > 1 else 1


def _strides(value: Value) -> tuple[Fraction, Fraction] | None:
    if not isinstance(value, Grid) or value.height.fixed is not None or value.width.fixed is not None:
        return None
    return _stride(value.height.level), _stride(value.width.level)


@cache
def _stride(level: int) -> Fraction:
    return Fraction(2) ** level


def _largest(endless: Endless | None) -> int | None:
    return None if endless is None else endless.largest


def _centre(endless: Endless | None) -> Fraction | None:
    if endless is None or not endless.largest:
        return None
    return Fraction(int(endless.first[0] + endless.last[0]), 2)


def _covers(reach: Reach, size: int) -> bool:
    return reach.largest == size and reach[len(reach) // 2] == (0, size - 1)


def _least(found: Iterable[tuple[int, str]]) -> tuple[int, str] | None:
    """The first of the least depth."""
    return min(found, key=lambda place: place[0], default=None)


def _curve(rows: Iterable[FieldRow]) -> Iterable[CurvePoint]:
    by_depth: dict[int, list[FieldRow]] = {}
    for row in rows:
        by_depth.setdefault(row.depth, []).append(row)
    size: Size = (0, 0)
    unclipped: Unclipped = (0, 0)
    for depth in sorted(by_depth):
        size, unclipped = _most(by_depth[depth], size, unclipped)
        yield CurvePoint(depth, size, unclipped)


def _last_none(level: int | None) -> tuple[bool, int]:
    return level is None, level or 0


def _group(name: str, rows: list[FieldRow]) -> FieldGroup:
    covered = [row.depth for row in rows if row.covers]
    depth = max(row.depth for row in rows)
    return FieldGroup(name, len(rows), depth, *_most(rows), min(covered, default=None))


def _most(rows: Iterable[FieldRow], size: Size = (0, 0), unclipped: Unclipped = (0, 0)) -> tuple[Size, Unclipped]:
    """The largest fields of these rows and of what was before, each axis by itself."""
    height, width = size
    down, across = unclipped
    for row in rows:
        height, width = max(height, row.size[0]), max(width, row.size[1])
        down, across = _larger(down, row.unclipped[0]), _larger(across, row.unclipped[1])
    return (height, width), (down, across)


def _larger(one: int | None, other: int | None) -> int | None:
    """The larger field of two, None being all of an image."""
    return None if one is None or other is None else max(one, other)
