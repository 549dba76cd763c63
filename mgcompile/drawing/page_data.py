"""What the page is told: everything about a graph that its scripts fold, place and colour, as plain lists."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Generic, TypeVar

from mgcompile.drawing import palette
from mgcompile.drawing.contraction import contract
from mgcompile.drawing.folding import fold_repeats
from mgcompile.drawing.lattice import Cell, EdgeKind, build_lattice
from mgcompile.drawing.page_tree import Branch, layer_tree, preorder
from mgcompile.graph import Graph
from mgcompile.graph.ops import Kind

__all__ = ["Measure", "page_data"]

Item = TypeVar("Item", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of nodes to colour cells by. `adds` tells whether that of a group is the sum of its nodes', else it is
    the largest. `unit` is written behind the number; `binary` numbers are bytes (KiB, MiB).
    """

    key: str
    title: str
    unit: str
    values: Mapping[str, float]
    adds: bool = True
    binary: bool = False


def page_data(graph: Graph, measures: Sequence[Measure], facts: Mapping[str, str]) -> dict[str, Any]:
    """The document of the page. A cell is a node that computes; lists under `cells` have one entry each.

    `name` begins with a dot where the layer's path comes before it. `inputs` are numbers of cells, `label`, `shape`
    and `origin` are places in `labels`, `shapes` and `origins`. `added` are pairs of which the second, a convolution,
    adds the first. `layers` are [parent, name, repeats, twins, path], a
    parent before its children; twins are as in `Branch`, without those that just follow the order of the cells, and
    the path is empty where it is that of the parent with the name.
    """
    lattice = build_lattice(graph, fold=False, detail="op")
    cells = lattice.cells
    branches = list(preorder(layer_tree(cells, fold_repeats(contract(graph)))))
    layer_of = {cell: number for number, (branch, _) in enumerate(branches) for cell in branch.cells}
    inputs: list[list[int]] = [[] for _ in cells]
    added: list[list[int]] = []
    for edge in lattice.edges:
        inputs[edge.target].append(edge.source)
        if edge.kind is EdgeKind.SHORTCUT and cells[edge.target].kind is not Kind.FUSE:
            added.append([edge.source, edge.target])
    labels, shapes, origins = _Table[tuple[str, str]](), _Table[tuple[int, ...]](), _Table[str]()
    return {
        "name": graph.name,
        "size": list(graph.size),
        "facts": [[name, value] for name, value in facts.items()],
        "levels": [[level, *size] for level, size in lattice.levels],
        "outputs": [[name, number] for name, number in lattice.outputs],
        "cells": {
            "name": [_name(cell, branches[layer_of[number]][0].path) for number, cell in enumerate(cells)],
            "layer": [layer_of[number] for number in range(len(cells))],
            "kind": [str(cell.kind) for cell in cells],
            "label": [labels.place((graph[cell.nodes[0]].op.label, cell.label)) for cell in cells],
            "level": [cell.level for cell in cells],
            "column": [cell.column for cell in cells],
            "shape": [shapes.place((cell.channels, *(cell.size or ()))) for cell in cells],
            "origin": [origins.place(_origin(graph, cell)) for cell in cells],
            "minor": [int(cell.minor) for cell in cells],
            "inputs": inputs,
        },
        "added": added,
        "labels": labels.items(),
        "shapes": shapes.items(),
        "origins": origins.items(),
        "layers": list(_layers(branches)),
        "measures": _measures(graph, cells, measures),
        "look": _look(),
    }


class _Table(Generic[Item]):
    """Numbers for things, equal ones having the same."""

    def __init__(self) -> None:
        self._places: dict[Item, int] = {}

    def place(self, item: Item) -> int:
        return self._places.setdefault(item, len(self._places))

    def items(self) -> list[Item]:
        """The things in the order of their numbers."""
        return list(self._places)


def _name(cell: Cell, path: str) -> str:
    name = cell.nodes[0]
    return name.removeprefix(path) if name.startswith(f"{path}.") else name


def _origin(graph: Graph, cell: Cell) -> str:
    """The file and line of the spec, without the folders, which are those of one machine."""
    layer = graph.layers.get(cell.path)
    return layer.origin.replace("\\", "/").rpartition("/")[2] if layer else ""


def _layers(branches: Sequence[tuple[Branch, int]]) -> Iterator[list[Any]]:
    for branch, parent in branches:
        usual = f"{branches[parent][0].path}.{branch.name}" if parent >= 0 else branch.name
        yield [parent, branch.name, branch.repeats, _twins(branch), "" if branch.path == usual else branch.path]


def _twins(branch: Branch) -> list[list[int]]:
    """Nothing where the cells of all parts follow each other as those of the first do."""
    if branch.repeats == 1:
        return []
    first = tuple(branch.children[0].every_cell())
    return [] if all(part == first for part in branch.twins) else [list(part) for part in branch.twins]


def _measures(graph: Graph, cells: Sequence[Cell], measures: Sequence[Measure]) -> list[dict[str, Any]]:
    owner = _owners(graph, cells)
    found = []
    for measure in measures:
        values: list[float | None] = [None] * len(cells)
        for node, value in measure.values.items():
            place = owner.get(node)
            if place is None or not isfinite(value):
                continue
            known = values[place]
            if known is None:
                values[place] = value
            else:
                values[place] = known + value if measure.adds else max(known, value)
        found.append(
            {
                "key": measure.key,
                "title": measure.title,
                "unit": measure.unit,
                "adds": measure.adds,
                "binary": measure.binary,
                "values": values,
            }
        )
    return found


def _owners(graph: Graph, cells: Sequence[Cell]) -> Mapping[str, int]:
    """The cell that shows a node's figures. A node that is not drawn (a reference to tensors, a layout in memory) is
    shown by the cell that it is a part of, else by the first that reads it, else by the last before it.
    """
    owner = {name: number for number, cell in enumerate(cells) for name in cell.nodes}
    last = 0
    for node in graph:
        for source in node.inputs:
            if source not in owner and node.name in owner:
                owner[source] = owner[node.name]
    for node in graph:
        last = owner.setdefault(node.name, last)
    return owner


def _look() -> dict[str, Any]:
    """Colours, lines and names, the same as in the other drawings."""
    kinds = {str(kind): [name, palette.KIND_COLOURS[kind]] for kind, name in palette.KIND_NAMES.items()}
    lines = {
        str(kind): [palette.EDGE_NAMES[kind], line.colour, line.width, list(line.dash or ())]
        for kind, line in palette.EDGE_LINES.items()
    }
    passing = ["passing through", palette.PASSING.colour, palette.PASSING.width, []]
    return {"kinds": kinds, "lines": {**lines, "passing": passing}}
