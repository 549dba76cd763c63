"""Convolutions that do the work of what follows them: normalisation, addition, activation.

Each pass takes a node into the convolution that it reads, if nothing else reads that; the result stands in the place
and under the name of the node that is taken in.
"""

from __future__ import annotations

from dataclasses import replace

from mgcompile.graph import Graph, Node
from mgcompile.graph.ops import Activation, BatchNorm, Conv, FusedConv, Reference, Sum
from mgcompile.passes.rewriting import replaced, uses

__all__ = ["fold", "fuse_activation", "fuse_conv", "fuse_sum"]


def fuse_conv(graph: Graph) -> Graph:
    """Every convolution as a `FusedConv`, so that those that share weights stay of one kind. Exact: nothing changes."""
    return replaced(
        graph, {node.name: [replace(node, op=FusedConv(node.op))] for node in graph if isinstance(node.op, Conv)}
    )


def fold(graph: Graph) -> Graph:
    """Batch norm as part of the convolution before it.

    Exact, up to rounding: in training the norm runs as it is; in evaluation its running statistics become part of the
    weights and the bias, which are computed anew when any of them changes. A convolution that several norms read, or
    that is shared, is folded with each of them apart.
    """
    counts = uses(graph)
    new: dict[str, list[Node]] = {}
    gone: set[str] = set()
    for node in graph:
        if not isinstance(node.op, BatchNorm):
            continue
        source = graph[node.inputs[0]]
        op = source.op
        if isinstance(op, FusedConv) and counts[source.name] == 1 and not (op.norm or op.addends or op.act):
            reference = replace(node, name=f"{node.name}.tensors", op=_reference(graph, node), inputs=())
            fused = replace(source, name=node.name, op=replace(op, norm=True), inputs=(*source.inputs, reference.name))
            new[node.name] = [reference, fused]
            gone.add(source.name)
    return replaced(graph, new, gone)


def _reference(graph: Graph, node: Node) -> Reference:
    return Reference(node.op, graph.input_types(node))


def fuse_sum(graph: Graph) -> Graph:
    """An addition as part of the last convolution among its operands. Exact up to rounding: the order may differ."""
    counts = uses(graph)
    order = {name: place for place, name in enumerate(graph.nodes)}
    new: dict[str, list[Node]] = {}
    gone: set[str] = set()
    for node in graph:
        if not isinstance(node.op, Sum):
            continue
        hosts = [name for name in node.inputs if counts[name] == 1 and _takes_addends(graph[name])]
        if not hosts:
            continue
        host = graph[max(hosts, key=order.__getitem__)]
        others = tuple(name for name in node.inputs if name != host.name)
        op = host.op
        assert isinstance(op, FusedConv)
        fused = replace(op, addends=op.addends + len(others))
        new[node.name] = [replace(host, name=node.name, op=fused, inputs=(*host.inputs, *others))]
        gone.add(host.name)
    return replaced(graph, new, gone)


def _takes_addends(node: Node) -> bool:
    return isinstance(node.op, FusedConv) and node.op.act is None and not node.op.addends


def fuse_activation(graph: Graph) -> Graph:
    """An activation as part of the convolution before it. Exact."""
    counts = uses(graph)
    new: dict[str, list[Node]] = {}
    gone: set[str] = set()
    for node in graph:
        if not isinstance(node.op, Activation) or node.op.function == "softmax":
            continue
        source = graph[node.inputs[0]]
        if isinstance(source.op, FusedConv) and source.op.act is None and counts[source.name] == 1:
            new[node.name] = [replace(source, name=node.name, op=replace(source.op, act=node.op))]
            gone.add(source.name)
    return replaced(graph, new, gone)
