"""What a network costs: parameters, multiply-accumulates, FLOPs and activation memory, from the graph alone.

All figures are exact integers for one sample. What an operation costs is asked of the operation itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from mgcompile.graph.collecting import collection_paused
from mgcompile.graph.graph import Graph, Node
from mgcompile.graph.ops.base import Kind, Op
from mgcompile.graph.types import Shape, Size, elements

__all__ = ["CONVENTIONS", "Audit", "Group", "GroupKey", "Row", "Uncounted", "audit_graph", "group_name", "level_name"]

GroupKey = Literal["layer", "level", "op", "node"]
"""What nodes can be grouped by; `op` is the kind of operation, and of a `node` each is a group of its own."""

CONVENTIONS: Mapping[str, str] = {
    "params": "parameters: weights, biases and the affine vectors of normalisations, shared ones once; "
    "running statistics are buffers and do not count",
    "macs": "MACs: multiply-accumulates of convolutions and linear layers, padding counted like data, one sample",
    "flops": "FLOPs: 2 x MACs + elementwise work of one sample (an element: bias 1, batch norm 2, ReLU 1, addition 1, "
    "k x k max pool k*k - 1); batch norm as in inference",
    "activation_bytes": "activations: bytes of the outputs of all nodes, the input's too, of one sample, as if none "
    "were freed; slices, crops and flattened grids are views of memory that is counted already",
}
"""What each figure means, in words."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one node costs for one sample.

    `level` is None for a vector. `params` is 0 where `shared`: the tensors were counted at the first node that uses
    them. `activation_bytes` is 0 where the output is a view.
    """

    node: str
    layer: str
    op: str
    kind: Kind
    level: int | None
    inputs: tuple[Shape, ...]
    output: Shape
    params: int
    shared: bool
    macs: int
    flops: int
    activation_bytes: int


@dataclass(frozen=True, slots=True)
class Group:
    """The sums over the nodes of one layer, level or kind of operation, or one node."""

    name: str
    nodes: int
    params: int
    macs: int
    flops: int
    activation_bytes: int


@dataclass(frozen=True, slots=True)
class Uncounted:
    """Work that no figure counts: the operation, what of its work, and how many nodes have it."""

    op: str
    why: str
    nodes: int


@dataclass(frozen=True, slots=True)
class Audit:
    """The figures of a graph at one input size (height, width), for one sample. `CONVENTIONS` says what each means.

    `buffers` is the number of elements that are kept but not learned. `smallest_size` is the smallest input (height,
    width) at which no grid vanishes. `outputs` are the shapes of the named outputs. `rows` has one entry a node.
    """

    name: str
    size: Size
    params: int
    macs: int
    flops: int
    activation_bytes: int
    buffers: int
    rows: tuple[Row, ...]
    uncounted: tuple[Uncounted, ...]
    smallest_size: Size
    outputs: Mapping[str, Shape]
    bytes_per_element: int

    def by(self, key: GroupKey, depth: int = 1) -> tuple[Group, ...]:
        """The rows summed: by `layer` in the order of the graph (the first `depth` components of its path), by `level`
        from fine to coarse and vectors last, by `op`, the most work first, or by `node`, each alone, in the graph's
        order. Raises `ValueError` for another key.
        """
        groups = _summed((group_name(row, key, depth), row) for row in self.rows)
        if key == "level":
            order = {level_name(level): level for level in {row.level for row in self.rows} if level is not None}
            return tuple(sorted(groups, key=lambda group: order.get(group.name, max(order.values(), default=0) + 1)))
        if key == "op":
            return tuple(sorted(groups, key=lambda group: (-group.flops, group.name)))
        return groups


def audit_graph(graph: Graph, size: Size | None = None, *, bytes_per_element: int = 4) -> Audit:
    """What `graph` costs for one sample of an input of `size` (height, width), the nominal size where None.

    One walk, linear in the number of nodes. Raises `ShapeError` where a grid would vanish at that size.
    """
    with collection_paused():
        return _audit(graph, size, bytes_per_element)


def _audit(graph: Graph, size: Size | None, bytes_per_element: int) -> Audit:
    shapes, types = graph.shapes(size), graph.types
    counted: set[str] = set()
    uncounted: Counter[tuple[str, str]] = Counter()
    buffers = 0
    rows = []
    equal: dict[tuple[Shape, ...], tuple[Shape, ...]] = {}
    for node in graph:
        values = [types[source] for source in node.inputs]
        params = node.op.parameters(*values)
        shared = params > 0 and node.weights in counted
        if node.weights not in counted:
            counted.add(node.weights)
            buffers += sum(map(elements, node.op.buffers(*values).values()))
        inputs = tuple([shapes[source] for source in node.inputs])
        inputs = equal.setdefault(inputs, inputs)  # few differ, and rows are many
        rows.append(
            _row(
                node,
                inputs,
                shapes[node.name],
                0 if shared else params,
                shared=shared,
                bytes_per_element=bytes_per_element,
            )
        )
        if node.op.uncounted:
            uncounted[node.op.label, node.op.uncounted] += 1
    return Audit(
        name=graph.name,
        size=size or graph.size,
        params=sum(row.params for row in rows),
        macs=sum(row.macs for row in rows),
        flops=sum(row.flops for row in rows),
        activation_bytes=sum(row.activation_bytes for row in rows),
        buffers=buffers,
        rows=tuple(rows),
        uncounted=tuple(Uncounted(op, why, nodes) for (op, why), nodes in uncounted.items()),
        smallest_size=graph.smallest_size,
        outputs={name: shapes[node] for name, node in graph.outputs.items()},
        bytes_per_element=bytes_per_element,
    )


def _row(
    node: Node, inputs: tuple[Shape, ...], output: Shape, params: int, *, shared: bool, bytes_per_element: int
) -> Row:
    op = node.op
    macs = op.macs(inputs, output)
    return Row(
        node.name,
        node.layer,
        op.label,
        op.kind,
        node.level if len(output) > 1 else None,
        inputs,
        output,
        params,
        shared,
        macs,
        2 * macs + op.elementwise(inputs, output),
        0 if _is_view(op, inputs, output) else elements(output) * bytes_per_element,
    )


def _is_view(op: Op, inputs: Sequence[Shape], output: Shape) -> bool:
    if op.by_reference:
        return True
    # An operation that only moves data, and of which nothing is new, shows a part of its input; appending zeros copies.
    return op.kind is Kind.SHAPE and elements(output) <= elements(inputs[0])


class Placed(Protocol):
    """A row of a table of nodes."""

    @property
    def node(self) -> str: ...

    @property
    def layer(self) -> str: ...

    @property
    def op(self) -> str: ...

    @property
    def level(self) -> int | None: ...


def group_name(row: Placed, key: GroupKey, depth: int) -> str:
    """The group of a row; `depth` is that of `Audit.by`. Raises `ValueError` for an unknown key."""
    match key:
        case "layer":
            # A node that no layer made (the input) stands for itself.
            return ".".join((row.layer or row.node).split(".")[:depth])
        case "level":
            return level_name(row.level)
        case "op":
            return row.op
        case "node":
            return row.node
    raise ValueError(f"cannot group by {key!r}; it must be one of {', '.join(get_args(GroupKey))}")


def level_name(level: int | None) -> str:
    """What a level is called in tables; None is that of vectors."""
    return "vectors" if level is None else f"level {level}"


def _summed(named: Iterable[tuple[str, Row]]) -> tuple[Group, ...]:
    members: dict[str, list[Row]] = {}
    for name, row in named:
        members.setdefault(name, []).append(row)
    return tuple(
        Group(
            name,
            nodes=len(rows),
            params=sum(row.params for row in rows),
            macs=sum(row.macs for row in rows),
            flops=sum(row.flops for row in rows),
            activation_bytes=sum(row.activation_bytes for row in rows),
        )
        for name, rows in members.items()
    )
