"""Networks beside each other: all that is known about each, and how many times as much it is as of the first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from mgcompile.analysis.cost import Audit, audit_graph
from mgcompile.analysis.memory import Memory, memory
from mgcompile.analysis.receptive import OutputField, receptive_field
from mgcompile.errors import ShapeError
from mgcompile.graph.graph import Graph
from mgcompile.graph.types import Size

__all__ = ["Profile", "compare_graphs", "profile", "ratio"]


@dataclass(frozen=True, slots=True)
class Profile:
    """All figures of a network at one input size: those of one sample, the memory of a batch, what the first output
    sees. `depth` counts the convolutions on the longest path.
    """

    name: str
    audit: Audit
    memory: Memory
    output: OutputField
    depth: int

    @property
    def figures(self) -> dict[str, int | None]:
        """The figures that can be compared, exact. `field` is the longer side of what the first output sees, in pixels
        of an image without borders; None where that is unbounded.
        """
        height, width = self.output.unclipped
        return {
            "params": self.audit.params,
            "macs": self.audit.macs,
            "flops": self.audit.flops,
            "activation_bytes": self.audit.activation_bytes,
            "inference_bytes": self.memory.inference_total,
            "training_bytes": self.memory.training_total,
            "field": None if height is None or width is None else max(height, width),
            "depth": self.depth,
            "nodes": len(self.audit.rows),
            "levels": len({row.level for row in self.audit.rows} - {None}),
        }


def profile(name: str, graph: Graph, size: Size | None = None, *, batch: int = 1) -> Profile:
    """The figures of a graph for inputs of `size` (height, width), of its nominal size where None.

    Memory is that of a batch, everything else that of one sample. Linear in the number of nodes. Raises `ShapeError`
    where a grid would vanish at that size.
    """
    field = receptive_field(graph, size)
    return Profile(name, audit_graph(graph, size), memory(graph, size, batch=batch), field.outputs[0], field.depth)


def compare_graphs(
    graphs: Iterable[tuple[str, Graph]], size: Size | None = None, *, batch: int = 1
) -> tuple[Profile, ...]:
    """The profile of each named graph. Raises `ShapeError`, with the name, where a grid would vanish at that size."""
    profiles = []
    for name, graph in graphs:
        try:
            profiles.append(profile(name, graph, size, batch=batch))
        except ShapeError as error:
            raise ShapeError(f"{name}: {error}") from None
    return tuple(profiles)


def ratio(figure: int | None, first: int | None) -> Fraction | None:
    """How many times as much as the first; None where that is nothing or either is unbounded."""
    return Fraction(figure, first) if figure is not None and first else None
