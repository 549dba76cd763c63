"""The graph: frozen nodes with ordered inputs over a networkx structure, and the walks over it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import networkx as nx

from mgcompile.errors import ShapeError
from mgcompile.graph.ops import Input, Op
from mgcompile.graph.types import Grid, Shape, Size, Value

__all__ = ["Graph", "Layer", "Node"]


@dataclass(frozen=True, slots=True)
class Node:
    """One operation at one place.

    `name` is unique and stable. `inputs` are names, in the order of the operands. `level` is the row in a drawing.
    `layer` is the path of the spec layer that made it (`unit2.0.conv1.norm`). `weights` names the module that owns the
    learned tensors: the node itself, or another node with which it shares them.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    level: int
    layer: str
    weights: str

    @property
    def shares(self) -> bool:
        """Whether the weights belong to another node."""
        return self.weights != self.name


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of the canonical spec: what kind it is (`conv`, `exchange`, `group`, ...) and the line it came from."""

    kind: str
    origin: str = field(default="", compare=False)


class Graph:
    """A network: nodes in an order in which every node comes after its inputs, named outputs, the table of layers.

    A graph is not changed after it is made; a pass makes a new one. Types are computed, never stored.
    """

    def __init__(
        self,
        name: str,
        nodes: Iterable[Node],
        outputs: Mapping[str, str],
        *,
        size: Size,
        layers: Mapping[str, Layer] | None = None,
    ) -> None:
        self.name = name
        self.nodes: Mapping[str, Node] = {node.name: node for node in nodes}
        self.outputs: Mapping[str, str] = dict(outputs)
        self.size = size
        """The nominal input size (height, width)."""
        self.layers: Mapping[str, Layer] = dict(layers or {})

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Graph):
            return NotImplemented
        same = self.nodes == other.nodes and self.outputs == other.outputs and self.layers == other.layers
        return (
            same
            and list(self.nodes) == list(other.nodes)
            and list(self.outputs) == list(other.outputs)
            and self.size == other.size
        )

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def structure(self) -> nx.DiGraph[str]:
        """The plain directed graph of names, frozen: for orders, ancestors, paths and cycles."""
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(self.nodes)
        graph.add_edges_from((source, node.name) for node in self for source in node.inputs)
        nx.freeze(graph)
        return graph

    @property
    def input(self) -> Node:
        """The node of the image."""
        return next(node for node in self if isinstance(node.op, Input))

    @cached_property
    def types(self) -> dict[str, Value]:
        """The symbolic output of every node, by one walk. Raises `ShapeError` where inputs do not fit."""
        types: dict[str, Value] = {}
        for node in self:
            try:
                types[node.name] = node.op.infer(*(types[source] for source in node.inputs))
            except ShapeError as error:
                raise ShapeError(f"{node.name}: {error}") from None
        return types

    def input_types(self, node: Node) -> tuple[Value, ...]:
        """The symbolic inputs of a node, in the order of the operands."""
        return tuple(self.types[source] for source in node.inputs)

    def shapes(self, size: Size | None = None) -> Mapping[str, Shape]:
        """The concrete output shape of every node for one sample of an input of `size`, or of the nominal size.

        Raises `ShapeError` that names the smallest size where a grid vanishes.
        """
        height, width = size or self.size
        least = self.smallest_size
        if height < least[0] or width < least[1]:
            raise ShapeError(
                f"an input of {height}x{width} is too small: a grid would vanish below {least[0]}x{least[1]}"
            )
        shapes: dict[str, Shape] = {}
        equal: dict[Shape, Shape] = {}
        for name, value in self.types.items():
            shape = value.at((height, width))
            shapes[name] = equal.setdefault(shape, shape)  # one object for equal shapes: a large graph has few
        return shapes

    @cached_property
    def smallest_size(self) -> Size:
        """The smallest input (height, width) at which every grid has a cell."""
        grids = [value for value in self.types.values() if isinstance(value, Grid)]
        heights, widths = {grid.height for grid in grids}, {grid.width for grid in grids}
        return max(extent.smallest() for extent in heights), max(extent.smallest() for extent in widths)

    def owners(self) -> Iterator[Node]:
        """One node for each set of learned tensors: the first that uses it."""
        seen: set[str] = set()
        for node in self:
            if node.weights not in seen and node.op.weights(*self.input_types(node)):
                seen.add(node.weights)
                yield node
