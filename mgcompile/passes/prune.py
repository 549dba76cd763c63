"""Nothing that no output needs."""

from __future__ import annotations

from dataclasses import replace

from mgcompile.graph import Graph, Node
from mgcompile.graph.ops import Reference
from mgcompile.passes.rewriting import rebuilt

__all__ = ["prune"]


def prune(graph: Graph) -> Graph:
    """Without the nodes that reach no output.

    Exact: bit for bit. The tensors of what is no longer computed stay, as references: the `state_dict` is the same.
    Running statistics of batch norms that are not computed do not move while training.
    """
    needed = set(graph.outputs.values()) | {graph.input.name}
    for node in reversed(list(graph)):  # every node comes after its inputs
        if node.name in needed:
            needed.update(node.inputs)
    owned = {node.weights for node in graph if node.name in needed}
    nodes: list[Node] = []
    for node in graph:
        if node.name in needed:
            nodes.append(node)
        elif node.weights not in owned and _has_tensors(graph, node):
            owned.add(node.weights)
            nodes.append(replace(node, op=Reference(node.op, graph.input_types(node)), inputs=()))
    return rebuilt(graph, nodes)


def _has_tensors(graph: Graph, node: Node) -> bool:
    values = graph.input_types(node)
    return bool(node.op.weights(*values) or node.op.buffers(*values))
