"""The lattice of a drawing: rows are levels, columns are depth, and nothing has a size in points yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile

from mgcompile.drawing.contraction import contract
from mgcompile.drawing.draft import Draft, Piece
from mgcompile.drawing.folding import fold_repeats
from mgcompile.drawing.placement import Slots, assign_columns, assign_lanes
from mgcompile.errors import MgcompileError
from mgcompile.graph import Graph, Size
from mgcompile.graph.ops import Kind

__all__ = ["DETAILS", "Cell", "Edge", "EdgeKind", "Group", "Lattice", "build_lattice"]

DETAILS = ("layer", "op")
"""What gets a cell of its own: what computes grids (the rest folds into wires), or every node."""

SHORTCUT_COLUMNS = 6
"""Where a sum stands in no group, an operand from farther away than so many columns is a skip between parts of a
network, not the shortcut of one residual unit."""


class EdgeKind(StrEnum):
    """Where a grid comes from, seen from the one that reads it."""

    SAME = "same"
    DOWN = "down"
    UP = "up"
    SHORTCUT = "shortcut"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Cell:
    """One grid (or vector, where `size` is None) that is computed: at a column and level, in a lane of that level.

    `label` says what computes it, `path` is the layer, `nodes` are the nodes of the graph that are drawn as this cell.
    A `minor` cell is a part of an exchange: the convolution of one of its edges, or a sum of what they bring.
    """

    column: int
    level: int
    lane: int
    kind: Kind
    channels: int
    size: Size | None
    label: str
    path: str
    nodes: tuple[str, ...]
    minor: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """Cell number `target` reads cell number `source`, `count` times."""

    source: int
    target: int
    kind: EdgeKind
    count: int = 1


@dataclass(frozen=True, slots=True)
class Group:
    """The columns `first` to `last` (inclusive) belong to the layer `path`.

    Of repeats, `cells` are those that are drawn once for `repeats` times.
    """

    path: str
    first: int
    last: int
    repeats: int = 1
    cells: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Lattice:
    """What a drawing shows. `levels` are (level, nominal size) from fine to coarse; `outputs` are (name, cell)."""

    name: str
    cells: tuple[Cell, ...]
    edges: tuple[Edge, ...]
    groups: tuple[Group, ...]
    repeats: tuple[Group, ...]
    levels: tuple[tuple[int, Size], ...]
    outputs: tuple[tuple[str, int], ...]
    columns: int

    def is_passing(self, edge: Edge) -> bool:
        """Whether a grid passes through columns in which its level is not active, along its own lane."""
        source, target = self.cells[edge.source], self.cells[edge.target]
        return edge.kind is EdgeKind.SAME and target.column - source.column > 1 and source.lane == target.lane


def build_lattice(graph: Graph, *, fold: bool = True, detail: str = "layer") -> Lattice:
    """Place a graph at its nominal size on the lattice; `fold` draws equal consecutive repeats once.

    Raises `MgcompileError` for an unknown detail.
    """
    if detail not in DETAILS:
        raise MgcompileError(f"detail {detail!r} is none of {', '.join(DETAILS)}")
    draft = contract(graph, every_node=detail == "op")
    if fold:
        draft = fold_repeats(draft)
    columns = assign_columns(draft)
    lanes = assign_lanes(draft, columns)
    slots = Slots(draft, columns, lanes)
    cells = tuple(_cell(*place) for place in zip(draft.pieces, columns, lanes, strict=True))
    return Lattice(
        name=graph.name,
        cells=cells,
        edges=tuple(_edges(draft, cells, slots)),
        groups=tuple(_groups(draft.pieces, columns)),
        repeats=tuple(_repeats(draft, columns)),
        levels=tuple(_levels(graph, cells)),
        outputs=tuple((name, piece) for name, pieces in draft.outputs.items() for piece in pieces),
        columns=max(columns, default=-1) + 1,
    )


def _cell(piece: Piece, column: int, lane: int) -> Cell:
    return Cell(
        column=column,
        level=piece.level,
        lane=lane,
        kind=piece.kind,
        channels=piece.channels,
        size=piece.size,
        label=piece.label,
        path=piece.path,
        nodes=piece.nodes,
        minor=piece.minor,
    )


def _edges(draft: Draft, cells: tuple[Cell, ...], slots: Slots) -> Iterable[Edge]:
    readers: dict[int, list[int]] = {}
    for target, reads in enumerate(draft.reads):
        for source in reads:
            readers.setdefault(source, []).append(target)
    first_reader = {source: min(cells[reader].column for reader in found) for source, found in readers.items()}
    for target, reads in enumerate(draft.reads):
        level = cells[target].level
        nearest = max((cells[source].column for source in reads if cells[source].level == level), default=-1)
        for source, wire in sorted(reads.items()):
            # What goes to a nearer source too is passed by this edge; an only reader is the end of a branch.
            passed = cells[source].column < nearest and first_reader[source] <= nearest
            kind = _edge_kind(cells[source], cells[target], passed, slots)
            if wire.sum_in is not None and kind in (EdgeKind.SAME, EdgeKind.SKIP):
                kind = _operand_kind(
                    cells[source], cells[target], wire.sum_in, [cells[reader].path for reader in readers[source]]
                )
            yield Edge(source, target, kind, wire.count)


def _edge_kind(source: Cell, target: Cell, passed: bool, slots: Slots) -> EdgeKind:
    if source.level != target.level:
        return EdgeKind.DOWN if source.level < target.level else EdgeKind.UP
    if target.minor:
        return EdgeKind.SAME
    blocked = not slots.free(source.level, source.lane, source.column, target.column)
    return EdgeKind.SKIP if passed or blocked else EdgeKind.SAME


def _operand_kind(source: Cell, target: Cell, sum_in: str, readers: Sequence[str]) -> EdgeKind:
    """The shortcut of a residual unit spans what the unit computes from the same grid; any other operand skips."""
    if target.kind is Kind.FUSE and target.column - source.column == 1:
        return EdgeKind.SAME
    if sum_in:
        inside = any(reader.startswith(f"{sum_in}.") for reader in readers)
    else:
        inside = target.column - source.column <= SHORTCUT_COLUMNS
    return EdgeKind.SHORTCUT if inside else EdgeKind.SKIP


def _groups(pieces: list[Piece], columns: list[int]) -> Iterable[Group]:
    """The outermost layers, and inside each those parts of it that are several and have several columns each."""
    outer: dict[str, list[tuple[list[str], int]]] = {}
    for piece, column in zip(pieces, columns, strict=True):
        names = piece.path.split(".")
        outer.setdefault(names[0], []).append((names, column))
    for path, members in outer.items():
        yield Group(path, min(column for _, column in members), max(column for _, column in members))
        # A layer may hold nothing but another; the first names that differ are those of the least and the greatest.
        ends = min(names for names, _ in members), max(names for names, _ in members)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*ends, strict=False)))
        spans: dict[str, list[int]] = {}
        for names, column in members:
            spans.setdefault(".".join(names[: shared + 1]), []).append(column)
        wide = [part for part, found in spans.items() if min(found) < max(found)]
        if len(wide) > 1:
            yield from (Group(part, min(spans[part]), max(spans[part])) for part in wide)


def _repeats(draft: Draft, columns: list[int]) -> Iterable[Group]:
    for fold in draft.folds:
        places = [columns[piece] for piece in fold.pieces]
        yield Group(fold.path, min(places), max(places), fold.repeats, fold.pieces)


def _levels(graph: Graph, cells: tuple[Cell, ...]) -> Iterable[tuple[int, Size]]:
    """The levels that have a cell, with the commonest size of their grids."""
    sizes: dict[int, dict[Size, int]] = {}
    for cell in cells:
        counts = sizes.setdefault(cell.level, {})
        if cell.size is not None:
            counts[cell.size] = counts.get(cell.size, 0) + 1
    for level, counts in sorted(sizes.items()):
        nominal = _halved(graph.size[0], level), _halved(graph.size[1], level)
        # The size that follows from the level, unless no grid of the level has it (convolutions without padding).
        yield level, nominal if nominal in counts or not counts else max(counts, key=lambda size: counts[size])


def _halved(cells: int, level: int) -> int:
    return -(-cells >> level) if level >= 0 else cells << -level
