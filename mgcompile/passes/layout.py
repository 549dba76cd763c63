"""How grids lie in memory."""

from __future__ import annotations

from dataclasses import replace

from mgcompile.graph import Graph, Node
from mgcompile.graph.ops import ChannelsLast, HalvingPool, Pool
from mgcompile.passes.rewriting import rebuilt, replaced

__all__ = ["channels_last", "pool_pairs"]


def channels_last(graph: Graph) -> Graph:
    """The image, and with it all grids, with the channels of a cell side by side.

    Exact: only the layout changes. Dropout draws in the order of memory, so one seed gives other, equally random masks.
    """
    image = graph.input
    if all(isinstance(node.op, ChannelsLast) for node in graph if image.name in node.inputs):
        return graph
    node = Node(f"{image.name}.channels_last", ChannelsLast(), (image.name,), 0, image.layer, "")
    node = replace(node, weights=node.name)
    nodes: list[Node] = []
    for other in graph:
        inputs = tuple(node.name if source == image.name else source for source in other.inputs)
        nodes.append(replace(other, inputs=inputs) if inputs != other.inputs else other)
        nodes += [node] if other is image else []
    return rebuilt(graph, nodes)


def pool_pairs(graph: Graph) -> Graph:
    """2x2 maxima by pairs of rows and columns, where no gradient is needed. Exact: bit for bit."""
    new = {
        node.name: [replace(node, op=HalvingPool())]
        for node in graph
        if type(node.op) is Pool and node.op == Pool("max", 2, 2)
    }
    return replaced(graph, new)
