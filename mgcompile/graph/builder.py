"""Making a graph node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from mgcompile.errors import ShapeError
from mgcompile.graph.graph import Graph, Layer, Node
from mgcompile.graph.ops import Input, Op
from mgcompile.graph.types import Grid, Shape, Size, Value, elements

__all__ = ["INPUT", "GraphBuilder"]

INPUT = "input"


MOST_CHANNELS = 1_000_000_000
MOST_LEVELS = 24
"""As many as a spec can name; the canonical form names all of them."""
MOST_NUMBERS = 10**14
"""Of one tensor of weights; a slip of the pen reaches more."""


def _check_value(op: Op, value: Value, level: int) -> None:
    """Raise `ShapeError` where the output of an operation is not of its level, or of no size that a network has."""
    width = value.channels if isinstance(value, Grid) else value.features
    if width > MOST_CHANNELS:
        raise ShapeError(f"{op.label} makes more than {MOST_CHANNELS:,} channels")
    if not isinstance(value, Grid):
        return
    if abs(level) > MOST_LEVELS:
        raise ShapeError(f"level {level} is out of reach; levels go from {-MOST_LEVELS} to {MOST_LEVELS}")
    for extent in (value.height, value.width):
        # Where sizes shrink at every step the smallest input grows; beyond reason it is a slip of the pen.
        extent.smallest()
        if extent.fixed is None and extent.level != level:
            raise ShapeError(f"{op.label} makes a grid of {value.size} cells, which is no grid of level {level}")


@dataclass
class GraphBuilder:
    """Collects nodes in order; knows the type of each. The input node is there from the start."""

    name: str
    channels: int
    size: Size
    nodes: dict[str, Node] = field(default_factory=dict)
    types: dict[str, Value] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)
    _equal_types: dict[Value, Value] = field(default_factory=dict)
    _tensors: dict[str, tuple[Op, Mapping[str, Shape], str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        op = Input(self.channels)
        self.nodes[INPUT] = Node(INPUT, op, (), 0, INPUT, INPUT)
        self.types[INPUT] = op.infer()
        self.layers[INPUT] = Layer(INPUT)

    def add(
        self, name: str, op: Op, inputs: Sequence[str], level: int, *, layer: str, weights: str = "", owned: bool = True
    ) -> str:
        """Add a node and return its name. `weights` names the owner of its learned tensors; unless `owned`, an earlier
        node must have made them. Raises `ShapeError` where the inputs or the shared tensors do not fit.
        """
        given = tuple(self.types[source] for source in inputs)
        value = op.infer(*given)
        _check_value(op, value, level)
        if shapes := op.weights(*given):
            self._check_tensors(name, op, shapes, weights or name, owned)
        self.types[name] = self._equal_types.setdefault(value, value)  # few differ, and a walk over few is quicker
        self.nodes[name] = Node(name, op, tuple(inputs), level, layer, weights or name)
        return name

    def has_tensors(self, weights: str) -> bool:
        """Whether there are learned tensors of this name."""
        return weights in self._tensors

    def graph(self, outputs: Mapping[str, str]) -> Graph:
        """The graph of all nodes so far."""
        graph = Graph(self.name, self.nodes.values(), outputs, size=self.size, layers=self.layers)
        graph.types = dict(self.types)
        return graph

    def _check_tensors(self, name: str, op: Op, shapes: Mapping[str, Shape], owner: str, owned: bool) -> None:
        if owner not in self._tensors and not owned:
            raise ShapeError(
                f"there are no weights {owner} to share; the layers must have equal structure and levels. Repeats that "
                "stand at different levels share with `share: {levels: true, repeats: true}`"
            )
        if (numbers := max(map(elements, shapes.values()))) > MOST_NUMBERS:
            raise ShapeError(f"weights of {numbers:,} numbers; at most {MOST_NUMBERS:,} are allowed")
        other, there, first = self._tensors.setdefault(owner, (op, shapes, name))
        if (type(other), there) != (type(op), shapes):
            here = ", ".join(f"{key} {shape}" for key, shape in shapes.items())
            those = ", ".join(f"{key} {shape}" for key, shape in there.items())
            raise ShapeError(f"weights shared with {first} differ: {here} here, {those} there")
        if other != op:
            options = ((each.name, getattr(op, each.name), getattr(other, each.name)) for each in fields(op))
            listed = ", ".join(
                f"{option} {here} here and {there} there" for option, here, there in options if here != there
            )
            raise ShapeError(f"weights are shared with {first}, so its options must be the same: {listed}")
