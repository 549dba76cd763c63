"""Additions that a convolution does as part of its own work, as nodes of their own: drawings show them as they are
written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mgcompile.drawing.exchanges import EXCHANGE_PART
from mgcompile.graph import Graph, Node
from mgcompile.graph.ops import FusedConv, Sum

__all__ = ["addition_layer", "additions_apart"]


def additions_apart(graph: Graph) -> Graph:
    """The graph with each convolution that adds as two nodes: `name.conv`, which convolves, and a sum `name`."""
    if not any(isinstance(node.op, FusedConv) and node.op.addends for node in graph):
        return graph
    nodes = [part for node in graph for part in _parts(graph, node)]
    return Graph(graph.name, nodes, graph.outputs, size=graph.size, layers=graph.layers)


def _parts(graph: Graph, node: Node) -> Iterator[Node]:
    op = node.op
    if not (isinstance(op, FusedConv) and op.addends):
        yield node
        return
    conv = replace(
        node, name=f"{node.name}.conv", op=replace(op, addends=0, act=None), inputs=node.inputs[: -op.addends]
    )
    yield conv
    # A sum is part of the last of several convolutions that it adds; written first is the one it is drawn with.
    operands = (*node.inputs[-op.addends :], conv.name)
    yield replace(node, op=Sum(), inputs=operands, layer=addition_layer(graph, node), weights=node.name)


def addition_layer(graph: Graph, node: Node) -> str:
    """The layer of the addition that is part of a convolution."""
    layer, part = graph.layers.get(node.layer), EXCHANGE_PART.match(node.layer)
    if layer and layer.kind == "exchange":
        return node.layer
    if part and not node.name.startswith(part[0]):
        return f"{part['exchange']}.level{node.level}.fuse"  # the convolution is the body of an edge
    path = node.name
    while path and path not in graph.layers:
        path = path.rpartition(".")[0]
    assert isinstance(node.op, FusedConv)
    if node.op.act is None or f"{node.layer}.".startswith(path[: path.rfind(".") + 1]):
        return path or node.layer
    # The activation belongs to what comes next: the addition most likely stands beside the layer of the convolution.
    return node.layer.rpartition(".")[0] or node.layer
