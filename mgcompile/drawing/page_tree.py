"""The tree of layers that the page folds and opens: dotted paths as branches, runs of equal repeats marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mgcompile.drawing.draft import Draft
from mgcompile.drawing.lattice import Cell

__all__ = ["Branch", "layer_tree", "preorder"]

Run = tuple[str, int, int]
"""The path of the parent, the index of the first repeat, how many there are."""


@dataclass(slots=True, eq=False)
class Branch:
    """A layer with the layers in it and the numbers of its own cells, each in the order of the graph.

    `name` is what of the path the parent does not say. A run has `repeats` equal parts as children, and nothing else;
    `twins` says, for each part but the first and each of its cells in their order, which cell of the first part it
    equals. `repeats` is 1 where the branch is no run.
    """

    path: str
    name: str
    children: list[Branch] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)
    repeats: int = 1
    twins: tuple[tuple[int, ...], ...] = ()

    def every_cell(self) -> list[int]:
        """Its cells and those of all layers in it, in the order of the graph."""
        found: list[int] = []
        stack = [self]
        while stack:
            branch = stack.pop()
            found += branch.cells
            stack += branch.children
        return sorted(found)


def layer_tree(cells: Sequence[Cell], folded: Draft) -> Branch:
    """The tree of the layers of `cells`, below a root without a name. The folds of a drawing are its runs, as far as
    whatever a repeat has the first of them has too.
    """
    root, branches = _branches(cells)
    for path, first, repeats in _every_run(folded):
        if path in branches:
            _mark_run(cells, branches[path], first, repeats)
    _join_single(root)
    return root


def preorder(root: Branch) -> Iterator[tuple[Branch, int]]:
    """Every branch below the root after its parent, with the number of the parent in this order, -1 for the root."""
    stack = [(child, -1) for child in reversed(root.children)]
    number = 0
    while stack:
        branch, parent = stack.pop()
        yield branch, parent
        stack += [(child, number) for child in reversed(branch.children)]
        number += 1


def _branches(cells: Sequence[Cell]) -> tuple[Branch, dict[str, Branch]]:
    root = Branch("", "")
    branches: dict[str, Branch] = {}
    for number, cell in enumerate(cells):
        path = cell.path or cell.nodes[0]
        if path not in branches:
            parent, names = root, path.split(".")
            for depth, name in enumerate(names, 1):
                here = ".".join(names[:depth])
                if here not in branches:
                    branches[here] = Branch(here, name)
                    parent.children.append(branches[here])
                parent = branches[here]
        branches[path].cells.append(number)
    return root, branches


def _every_run(folded: Draft) -> list[Run]:
    """Each run, outer ones first. A fold names the first repeat; what is folded in that is folded in its equals."""
    runs: list[Run] = []
    for fold in folded.folds:
        below = folded.pieces[fold.pieces[0]].path.removeprefix(f"{fold.path}.")
        runs.append((fold.path, int(below.split(".")[0]), fold.repeats))
    found: list[Run] = []
    for path, first, repeats in sorted(set(runs), key=lambda run: (-run[0].count("."), run)):
        start = f"{path}.{first}"
        inner = [run for run in found if f"{run[0]}.".startswith(f"{start}.")]
        found.append((path, first, repeats))
        found += [
            (f"{path}.{index}{below.removeprefix(start)}", least, times)
            for index in range(first + 1, first + repeats)
            for below, least, times in inner
        ]
    return sorted(found, key=lambda run: (run[0].count("."), run))


def _mark_run(cells: Sequence[Cell], parent: Branch, first: int, repeats: int) -> None:
    """Make the repeats a run; nothing where one of them has what the first has not."""
    wanted = {f"{parent.path}.{index}" for index in range(first, first + repeats)}
    parts = [child for child in parent.children if child.path in wanted]
    if len(parts) != repeats:
        return
    names = [_names_inside(cells, part) for part in parts]
    places = {name: cell for cell, name in names[0].items()}
    twins = tuple(tuple(places.get(name, -1) for name in part.values()) for part in names[1:])
    if any(-1 in part for part in twins):
        return
    if len(parts) == len(parent.children) and not parent.cells:
        parent.repeats, parent.twins = repeats, twins
        return
    name = f"{first}–{first + repeats - 1}"
    run = Branch(f"{parent.path}.{name}", name, parts, repeats=repeats, twins=twins)
    place = parent.children.index(parts[0])
    parent.children = [child for child in parent.children if child.path not in wanted]
    parent.children.insert(place, run)


def _names_inside(cells: Sequence[Cell], part: Branch) -> Mapping[int, tuple[str, str, int]]:
    """What each cell of a repeat is called inside of it."""
    found: dict[int, tuple[str, str, int]] = {}
    for number in part.every_cell():
        cell = cells[number]
        name = cell.nodes[0].removeprefix(f"{part.path}.")
        found[number] = cell.path.removeprefix(part.path), name, cell.level
    return found


def _join_single(root: Branch) -> None:
    """A layer that holds nothing but one other is one with it, unless it is a run."""
    stack = [root]
    while stack:
        branch = stack.pop()
        for child in branch.children:
            while len(child.children) == 1 and not child.cells and child.repeats == 1:
                (only,) = child.children
                child.path, child.name = only.path, f"{child.name}.{only.name}"
                child.children, child.cells = only.children, only.cells
                child.repeats, child.twins = only.repeats, only.twins
        stack += branch.children
