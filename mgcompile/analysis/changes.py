"""What makes one network differ from another, layer by layer; it adds up to the difference of their totals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from mgcompile.analysis.cost import Audit, Row, audit_graph
from mgcompile.analysis.subsequence import common_places
from mgcompile.analysis.tables import size_text
from mgcompile.graph.collecting import collection_paused
from mgcompile.graph.graph import Graph, Node
from mgcompile.graph.ops import Op
from mgcompile.graph.types import Size

__all__ = ["CHANGES", "Diff", "LayerChange", "diff_graphs"]

ChangeKind = Literal["added", "removed", "changed", "moved"]

CHANGES: Mapping[ChangeKind, str] = {
    "added": "added: only the second network has the layer",
    "removed": "removed: only the first network has it",
    "changed": "changed: both have a layer of this name that is another, reads something else, or shares other weights",
    "moved": "moved: an equal layer under another name",
}
"""What each kind of change means, in words."""


@dataclass(frozen=True, slots=True)
class LayerChange:
    """A layer that is not the same in both networks, or several that are one group of layers.

    `first` and `second` are its paths in each, None where it is not there. `details` say what differs. The figures are
    those of the second network less those of the first, for one sample; `layers` is how many layers these are.
    """

    kind: ChangeKind
    first: str | None
    second: str | None
    details: tuple[str, ...]
    params: int
    macs: int
    flops: int
    activation_bytes: int
    layers: int = 1


@dataclass(frozen=True, slots=True)
class Diff:
    """What makes the second network differ from the first; the largest changes first.

    The figures of all changes add up exactly to the difference of the totals. `equal` and `equal_nodes` count the
    layers, and their nodes, that are the same in both, under one name. `outputs` tells whether equal nodes are the
    outputs of both. `paths` are those of all layers of the first and of the second.
    """

    first: Audit
    second: Audit
    changes: tuple[LayerChange, ...]
    equal: int
    equal_nodes: int
    outputs: bool
    paths: tuple[tuple[str, ...], tuple[str, ...]]

    def grouped(self, depth: int = 1) -> tuple[LayerChange, ...]:
        """The changes, those of whole groups of layers as one each: a group all of whose layers changed in one way
        stands for them. `depth` is how many components of their paths are kept at least.
        """
        return _sorted(_grouped(self.changes, self.paths, depth), self.first, self.second)


def diff_graphs(first: Graph, second: Graph, size: Size | None = None) -> Diff:
    """What makes `second` differ from `first`, each for an input of `size`, of its nominal size where None.

    Layers of one path and of equal content belong together. Of the others, those of equal content do that follow in
    the same order in both, so that one inserted layer does not make all after it differ, whose names are numbered.
    Then those of one path. Equal content is equal operations, shapes and numbers of parameters. Linear in the number of
    nodes. Raises `ShapeError` where a grid would vanish.
    """
    audits = audit_graph(first, size), audit_graph(second, size)
    with collection_paused():
        one, other = _layers(first, audits[0]), _layers(second, audits[1])
        matched = _matched(one, other)
        nodes = {
            a.node.name: b.node.name
            for path, pair in matched.items()
            for a, b in _pairs(one[path], other[pair])
            if a and b
        }
        owners = _owners(one), _owners(other)
        changes, equal, equal_nodes = [], 0, 0
        for path, pair in matched.items():
            details = _details(_pairs(one[path], other[pair]), nodes, owners)
            if path == pair and not details:
                equal, equal_nodes = equal + 1, equal_nodes + len(one[path])
            else:
                kind: ChangeKind = "changed" if path == pair else "moved"
                changes.append(_change(kind, (path, pair), one[path], other[pair], details))
        changes += [_change("removed", (path, None), one[path], ()) for path in one if path not in matched]
        there = set(matched.values())
        changes += [_change("added", (None, path), (), other[path]) for path in other if path not in there]
    outputs = {name: nodes.get(node) for name, node in first.outputs.items()} == second.outputs
    paths = tuple(one), tuple(other)
    return Diff(*audits, _sorted(changes, *audits), equal, equal_nodes, outputs, paths)


@dataclass(frozen=True, slots=True)
class _Part:
    """A node and what it costs."""

    node: Node
    row: Row

    @property
    def content(self) -> tuple[object, ...]:
        row = self.row
        return self.node.op, row.level, row.inputs, row.output, row.params, row.shared


_Layers = Mapping[str, Sequence[_Part]]
"""The nodes of each layer by its path, in the order of the graph."""
_Pair = tuple[_Part | None, _Part | None]
_Way = tuple[ChangeKind, str | None, str | None]
"""A kind of change, and the path of a layer or of a group of layers in each network."""


def _layers(graph: Graph, audit: Audit) -> _Layers:
    layers: dict[str, list[_Part]] = {}
    for node, row in zip(graph, audit.rows, strict=True):
        layers.setdefault(node.layer or node.name, []).append(_Part(node, row))
    return layers


def _owners(layers: _Layers) -> Mapping[str, str]:
    """The first node that uses each set of learned tensors."""
    owners: dict[str, str] = {}
    for parts in layers.values():
        for part in parts:
            if part.row.params:
                owners[part.node.weights] = part.node.name
    return owners


def _matched(one: _Layers, other: _Layers) -> dict[str, str]:
    """Which layers belong together, in the order of the first."""
    numbers: dict[tuple[object, ...], int] = {}

    def content(parts: Sequence[_Part]) -> int:
        return numbers.setdefault(tuple([part.content for part in parts]), len(numbers))

    contents = {path: content(parts) for path, parts in one.items()}
    others = {path: content(parts) for path, parts in other.items()}
    matched = {path: path for path, found in contents.items() if others.get(path) == found}
    rest, there = [path for path in one if path not in matched], [path for path in other if path not in matched]
    # What one side alone has cannot be in both.
    both = {contents[path] for path in rest} & {others[path] for path in there}
    left, right = [p for p in rest if contents[p] in both], [p for p in there if others[p] in both]
    for i, j in common_places([contents[path] for path in left], [others[path] for path in right]):
        matched[left[i]] = right[j]
    taken = set(matched.values())
    matched |= {path: path for path in rest if path not in matched and path in other and path not in taken}
    return {path: matched[path] for path in one if path in matched}


def _pairs(one: Sequence[_Part], other: Sequence[_Part]) -> list[_Pair]:
    """The nodes of two layers that belong together: by their names in the layer, in their order where these differ."""
    there = {_place(part): part for part in other}
    if len(one) == len(other) and (len(there) < len(other) or there.keys() != {_place(part) for part in one}):
        return list(zip(one, other, strict=True))
    pairs: list[_Pair] = [(part, there.pop(_place(part), None)) for part in one]
    return [*pairs, *((None, part) for part in there.values())]


def _place(part: _Part) -> str:
    return part.node.name.removeprefix(part.node.layer)


def _details(
    pairs: Sequence[_Pair], nodes: Mapping[str, str], owners: tuple[Mapping[str, str], Mapping[str, str]]
) -> tuple[str, ...]:
    """What differs in a layer, in words: each thing once, with all its values."""
    values: dict[str, dict[tuple[str, str], None]] = {}
    wiring = weights = False
    for a, b in pairs:
        if a is None or b is None:
            continue
        for what, old, new in _differences(a, b):
            values.setdefault(what, {})[old, new] = None
        wiring |= tuple([nodes.get(source) for source in a.node.inputs]) != b.node.inputs
        if (a.row.params or a.row.shared) and (b.row.params or b.row.shared):
            owner, there = owners[0].get(a.node.weights, ""), owners[1].get(b.node.weights, "")
            weights |= nodes.get(owner, "") != there
    if any(a is None or b is None for a, b in pairs):
        ours, theirs = [a for a, _ in pairs if a], [b for _, b in pairs if b]
        levels = _levels(ours), _levels(theirs)
        counts = str(len(ours)), str(len(theirs))
        values = {**({"levels": {levels: None}} if levels[0] != levels[1] else {"nodes": {counts: None}}), **values}
    texts = [
        f"{what} {_listed(old for old, _ in each)} -> {_listed(new for _, new in each)}"
        for what, each in values.items()
    ]
    return (*texts, *["wiring"] * wiring, *["shared weights"] * weights)


def _differences(a: _Part, b: _Part) -> Iterator[tuple[str, str, str]]:
    if type(a.node.op) is not type(b.node.op):
        yield "op", a.row.op, b.row.op
    if a.row.output[0] != b.row.output[0]:
        yield "channels", str(a.row.output[0]), str(b.row.output[0])
    ours, theirs = ([shape[0] for shape in part.row.inputs] for part in (a, b))
    if ours != theirs:
        yield "input channels", " + ".join(map(str, ours)), " + ".join(map(str, theirs))
    if type(a.node.op) is type(b.node.op):
        for option in fields(a.node.op):
            old, new = getattr(a.node.op, option.name), getattr(b.node.op, option.name)
            if old != new and option.name != "channels":
                texts = _text(old), _text(new)
                yield (option.name.replace("_", " "), *(texts if texts[0] != texts[1] else (repr(old), repr(new))))
    if a.row.output[1:] != b.row.output[1:]:
        yield "size", size_text(a.row.output[1:]) or "1", size_text(b.row.output[1:]) or "1"
    if a.row.level != b.row.level:
        yield "level", _levels([a]), _levels([b])


def _text(value: object) -> str:
    if isinstance(value, Op):
        return value.label
    if isinstance(value, tuple) and value and all(type(each) is int for each in value):
        return size_text(value)
    return "by default" if value is None else str(value)


def _levels(parts: Iterable[_Part]) -> str:
    return _listed("none" if part.row.level is None else str(part.row.level) for part in parts)


def _listed(texts: Iterable[str]) -> str:
    found = list(dict.fromkeys(texts))
    return ", ".join(found if len(found) < 6 else [*found[:4], "...", found[-1]])


def _change(
    kind: ChangeKind,
    paths: tuple[str | None, str | None],
    one: Sequence[_Part],
    other: Sequence[_Part],
    details: tuple[str, ...] = (),
) -> LayerChange:
    old, new = [part.row for part in one], [part.row for part in other]
    return LayerChange(
        kind,
        *paths,
        details if one and other else tuple(dict.fromkeys(row.op for row in new or old)),
        params=sum(row.params for row in new) - sum(row.params for row in old),
        macs=sum(row.macs for row in new) - sum(row.macs for row in old),
        flops=sum(row.flops for row in new) - sum(row.flops for row in old),
        activation_bytes=sum(row.activation_bytes for row in new) - sum(row.activation_bytes for row in old),
    )


def _sorted(changes: Iterable[LayerChange], first: Audit, second: Audit) -> tuple[LayerChange, ...]:
    """The largest first, by their shares of parameters and of MACs together; others in the order that they have."""
    params, macs = max(first.params, second.params, 1), max(first.macs, second.macs, 1)
    return tuple(
        sorted(
            changes, key=lambda each: (-abs(each.params) * macs - abs(each.macs) * params, -abs(each.activation_bytes))
        )
    )


def _grouped(
    changes: Sequence[LayerChange], paths: tuple[tuple[str, ...], tuple[str, ...]], depth: int
) -> Iterator[LayerChange]:
    inside = Counter((side, start) for side in (0, 1) for path in paths[side] for start in _starts(path, depth))
    ways = [list(_ways(change, depth)) for change in changes]
    alike = Counter(way for each in ways for way in each)
    members: dict[_Way, list[LayerChange]] = {}
    for change, each in zip(changes, ways, strict=True):
        # The shortest paths below which there is nothing else, in either network.
        kind = change.kind
        whole = next(way for way in each if way == each[-1] or _is_whole(way, alike[way], inside))
        members.setdefault(whole, []).append(change)
    for (kind, first, second), group in members.items():
        yield LayerChange(
            kind,
            first,
            second,
            tuple(dict.fromkeys(text for change in group for text in change.details)),
            params=sum(change.params for change in group),
            macs=sum(change.macs for change in group),
            flops=sum(change.flops for change in group),
            activation_bytes=sum(change.activation_bytes for change in group),
            layers=len(group),
        )


def _is_whole(way: _Way, count: int, inside: Mapping[tuple[int, str], int]) -> bool:
    """Whether so many changes are all layers there are below its paths, each in its own network."""
    return all(path is None or inside[side, path] == count for side, path in enumerate(way[1:]))


def _starts(path: str, depth: int) -> Iterator[str]:
    """What a path begins with, from `depth` components on; the whole path last."""
    parts = path.split(".")
    for length in range(min(depth, len(parts)), len(parts) + 1):
        yield ".".join(parts[:length])


def _ways(change: LayerChange, depth: int) -> Iterator[_Way]:
    """The groups of layers, a path in each network, that a change may be part of; the change itself last."""
    if change.first is None or change.second is None:
        for start in _starts(change.first or change.second or "", depth):
            yield change.kind, start if change.first is not None else None, start if change.second is not None else None
        return
    one, other = change.first.split("."), change.second.split(".")
    same = 0
    while same < min(len(one), len(other)) - depth and one[-1 - same] == other[-1 - same]:
        same += 1
    for cut in range(same, -1, -1):
        yield change.kind, ".".join(one[: len(one) - cut]), ".".join(other[: len(other) - cut])
