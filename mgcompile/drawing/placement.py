"""Columns and lanes: where the pieces of a draft stand."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Sequence

import networkx as nx

from mgcompile.drawing.draft import Draft, Piece
from mgcompile.graph.ops import Kind

__all__ = ["Slots", "assign_columns", "assign_lanes"]


def assign_columns(draft: Draft) -> list[int]:
    """The column of each piece: the longest path of layers to it, so that all levels of a layer share a column.

    Every piece stands right of all that it reads. A layer whose levels read each other (an exchange in sequence) takes
    a column for each step; so does a layer that is entangled with another.
    """
    depths = _depths(draft, range(len(draft.pieces)))
    inner = _inner_depths(draft)
    teams: list[Hashable] = [(_role(piece), depth) for piece, depth in zip(draft.pieces, inner, strict=True)]
    tangled = _tangled(draft, teams)
    # By its depth every piece is left of its readers, so that teams of equal depth cannot be entangled any more.
    teams = [(team, depths[number]) if team in tangled else team for number, team in enumerate(teams)]
    return _depths(draft, teams)


def _depths(draft: Draft, teams: Sequence[Hashable]) -> list[int]:
    """The longest path to the team of each piece, over the graph of teams (which has no cycle)."""
    graph = _team_graph(draft, teams)
    depth: dict[Hashable, int] = {}
    for team in nx.topological_sort(graph):
        depth[team] = max((depth[source] + 1 for source in graph.predecessors(team)), default=0)
    return [depth[team] for team in teams]


def _team_graph(draft: Draft, teams: Sequence[Hashable]) -> nx.DiGraph[Hashable]:
    graph: nx.DiGraph[Hashable] = nx.DiGraph()
    graph.add_nodes_from(teams)
    graph.add_edges_from((teams[source], teams[number]) for number, reads in enumerate(draft.reads) for source in reads)
    return graph


def _inner_depths(draft: Draft) -> list[int]:
    """The longest path to each piece through pieces of its own team and role."""
    depths = [0] * len(draft.pieces)
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(len(depths)))
    graph.add_edges_from((source, number) for number, reads in enumerate(draft.reads) for source in reads)
    for number in nx.topological_sort(graph):
        role = _role(draft.pieces[number])
        inner = [depths[source] + 1 for source in draft.reads[number] if _role(draft.pieces[source]) == role]
        depths[number] = max(inner, default=0)
    return depths


def _role(piece: Piece) -> tuple[str, bool]:
    """The fusions of an exchange stand in one column, however long the ways to them are."""
    return piece.team, piece.kind is Kind.FUSE


def _tangled(draft: Draft, teams: Sequence[Hashable]) -> set[Hashable]:
    graph = _team_graph(draft, teams)
    return {team for part in nx.strongly_connected_components(graph) if len(part) > 1 for team in part}


def assign_lanes(draft: Draft, columns: Sequence[int]) -> list[int]:
    """The lane of each piece: pieces of one column and level stand above each other, a branch keeps its lane.

    Lane 0 is the row itself; the main path, which comes first in the graph, has it. What works on the edges of an
    exchange leaves it to the grids that stay at their level.
    """
    lanes = [0] * len(draft.pieces)
    taken: dict[tuple[int, int], set[int]] = {}
    for number in sorted(range(len(draft.pieces)), key=lambda number: (columns[number], number)):
        piece = draft.pieces[number]
        used = taken.setdefault((columns[number], piece.level), set())
        sources = [source for source in draft.reads[number] if draft.pieces[source].level == piece.level]
        wanted = lanes[sources[0]] if len(sources) == 1 else 0
        least = int(piece.minor and piece.kind is not Kind.FUSE)
        lanes[number] = wanted if wanted not in used and wanted >= least else _first_free(used, least)
        used.add(lanes[number])
    return lanes


def _first_free(used: set[int], least: int) -> int:
    return next(lane for lane in range(least, least + len(used) + 1) if lane not in used)


class Slots:
    """Which columns of each lane of each level are taken."""

    def __init__(self, draft: Draft, columns: Sequence[int], lanes: Sequence[int]) -> None:
        self._taken: dict[tuple[int, int], list[int]] = {}
        for piece, column, lane in sorted(zip((p.level for p in draft.pieces), columns, lanes, strict=True)):
            self._taken.setdefault((piece, lane), []).append(column)

    def free(self, level: int, lane: int, first: int, last: int) -> bool:
        """Whether no cell stands in the lane strictly between two columns."""
        taken = self._taken.get((level, lane), [])
        return bisect_right(taken, first) >= bisect_left(taken, last)
