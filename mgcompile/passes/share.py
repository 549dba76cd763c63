"""One node for equal work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mgcompile.graph import Graph, Node
from mgcompile.graph.ops import Dropout, Input
from mgcompile.passes.rewriting import rebuilt

__all__ = ["share"]


def share(graph: Graph) -> Graph:
    """Nodes with equal operation, inputs and weights become one: a grid that several read is resampled once.

    Exact: bit for bit, gradients up to the order of a sum. What draws random numbers stays apart; so does what keeps
    statistics, which each call moves on.
    """
    first: dict[Any, str] = {}
    names: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph:
        inputs = tuple(names[source] for source in node.inputs)
        values = graph.input_types(node)
        if isinstance(node.op, Input | Dropout) or node.op.buffers(*values) or _is_own(node):
            names[node.name] = node.name
            nodes.append(_reading(node, inputs))
            continue
        key = type(node.op), node.op, inputs, node.weights if node.op.weights(*values) else ""
        names[node.name] = first.setdefault(key, node.name)
        if names[node.name] == node.name:
            nodes.append(_reading(node, inputs))
    return rebuilt(graph, nodes, {output: names[node] for output, node in graph.outputs.items()})


def _reading(node: Node, inputs: tuple[str, ...]) -> Node:
    return replace(node, inputs=inputs) if inputs != node.inputs else node


def _is_own(node: Node) -> bool:
    """Whether the operation is a user's, of which nothing is known."""
    return not type(node.op).__module__.startswith("mgcompile.")
