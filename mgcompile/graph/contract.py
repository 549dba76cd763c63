"""The contract of a graph, checked."""

from __future__ import annotations

from collections.abc import Iterator

import networkx as nx

from mgcompile.errors import MgcompileError, ShapeError
from mgcompile.graph.graph import Graph, Node
from mgcompile.graph.names import clashes, path_fault, reserved
from mgcompile.graph.ops import Input, Op
from mgcompile.graph.types import Grid

__all__ = ["GraphError", "verify"]


class GraphError(MgcompileError):
    """A graph breaks its contract: a fault of the pass that made it, never of a user."""


def verify(graph: Graph) -> Graph:
    """The graph itself, if it keeps the contract; else `GraphError` with everything that is broken.

    1. There is exactly one input, and it is the first node.
    2. Every input of a node is an earlier node; so there is no cycle.
    3. There is at least one output, and every output names a node.
    4. All types follow.
    5. Nodes that share weights agree in operation and in the shapes of their tensors.
    6. Names of nodes, weights and outputs are dotted paths of plain words (see `names`), for they become code; a module
       is called by no word of Python's or PyTorch's, and none lies within another.
    """
    faults = [*_names(graph), *_order(graph), *_outputs(graph)]
    if not faults:
        faults = [*_types(graph)]
    if not faults:
        faults = [*_sharing(graph)]
    if faults:
        raise GraphError(f"graph {graph.name!r} breaks its contract: " + "; ".join(faults[:20]))
    return graph


def _names(graph: Graph) -> Iterator[str]:
    for name in graph.outputs:
        if fault := path_fault(name):
            yield f"the output {name!r}: {fault}"
    modules: set[str] = set()
    for node in graph:
        for name in {node.name, node.weights}:
            if fault := path_fault(name):
                yield f"the name {name!r}: {fault}"
        if not node.layer.isprintable():
            yield f"the layer {node.layer!r} is no text on one line"
        if type(node.op).module is not Op.module:
            modules.add(node.weights)
    for name in modules:
        first, *rest = name.split(".")
        for part in [first] * reserved(first, first=True) + [part for part in rest if reserved(part, first=False)]:
            yield f"{name!r}: no layer can be called {part!r}, a word of Python's or PyTorch's"
    for name, outer in clashes(modules):
        yield f"{name!r} lies within {outer!r}, a layer of its own"


def _order(graph: Graph) -> Iterator[str]:
    inputs = [node.name for node in graph if isinstance(node.op, Input)]
    if len(inputs) != 1 or next(iter(graph.nodes), None) not in inputs:
        yield f"the first node must be the only input; inputs are {inputs}"
    seen: set[str] = set()
    for node in graph:
        for source in node.inputs:
            if source not in seen:
                fault = "comes later" if source in graph.nodes else "does not exist"
                yield f"{node.name} reads {source}, which {fault}"
        seen.add(node.name)
    if not nx.is_directed_acyclic_graph(graph.structure):
        yield "there is a cycle"


def _outputs(graph: Graph) -> Iterator[str]:
    if not graph.outputs:
        yield "there is no output"
    for name, node in graph.outputs.items():
        if node not in graph.nodes:
            yield f"output {name} names {node}, which does not exist"


def _types(graph: Graph) -> Iterator[str]:
    try:
        types = graph.types
    except ShapeError as error:
        yield str(error)
        return
    for node in graph:
        value = types[node.name]
        if isinstance(value, Grid) and value.height.fixed is None and value.height.level != node.level:
            yield f"{node.name} says level {node.level} and is at level {value.height.level}"


def _sharing(graph: Graph) -> Iterator[str]:
    owners: dict[str, Node] = {}
    for node in graph:
        if not (weights := node.op.weights(*graph.input_types(node))):
            continue
        owner = owners.setdefault(node.weights, node)
        if (type(node.op), weights) != (type(owner.op), owner.op.weights(*graph.input_types(owner))):
            yield f"{node.name} and {owner.name} share {node.weights} and differ"
