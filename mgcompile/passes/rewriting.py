"""What the passes have in common: who reads what, and a graph with some nodes replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from mgcompile.graph import Graph, Node

__all__ = ["rebuilt", "replaced", "uses"]


def uses(graph: Graph) -> Counter[str]:
    """How often the value of each node is read; being an output counts as once."""
    counts = Counter(source for node in graph for source in node.inputs)
    counts.update(graph.outputs.values())
    return counts


def rebuilt(graph: Graph, nodes: Iterable[Node], outputs: Mapping[str, str] | None = None) -> Graph:
    """A graph of the same name, size and layers with other nodes."""
    return Graph(graph.name, nodes, outputs or graph.outputs, size=graph.size, layers=graph.layers)


def replaced(graph: Graph, new: Mapping[str, Iterable[Node]], gone: Collection[str] = ()) -> Graph:
    """The graph with the nodes in `new` replaced, each by some that stand in its place, and without those in `gone`."""
    if not new and not gone:
        return graph
    nodes: list[Node] = []
    for node in graph:
        if node.name in new:
            nodes += new[node.name]
        elif node.name not in gone:
            nodes.append(node)
    return rebuilt(graph, nodes)
