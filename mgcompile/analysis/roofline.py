"""The roofline: bytes that each operation moves, its arithmetic intensity, and how long a machine takes at the least."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mgcompile.analysis.machine import Machine
from mgcompile.graph.graph import Graph
from mgcompile.graph.types import Size

__all__ = ["ROOFLINE_CONVENTIONS", "Bound", "Roofline", "RooflineRow", "roofline"]

Bound = Literal["compute", "memory", "overhead"]
"""What takes the most of an operation's time."""

ROOFLINE_CONVENTIONS: Mapping[str, str] = {}
"""What each figure means, in words."""


@dataclass(frozen=True, slots=True)
class RooflineRow:
    """One node, for a whole batch. `bytes` are those read (inputs, weights) and written (output), each once; views move
    none. `intensity` is FLOPs a byte. `seconds` is None, and `bound` too, without a machine.
    """

    node: str
    layer: str
    op: str
    level: int | None
    flops: int
    bytes: int
    intensity: float
    seconds: float | None
    bound: Bound | None


@dataclass(frozen=True, slots=True)
class Roofline:
    """The rows of a graph at one input size (height, width) and batch, and their sums."""

    name: str
    size: Size
    batch: int
    bytes_per_element: int
    machine: Machine | None
    rows: tuple[RooflineRow, ...]

    @property
    def seconds(self) -> float | None:
        """The predicted time of a forward pass."""
        raise NotImplementedError


def roofline(
    graph: Graph, machine: Machine | None = None, size: Size | None = None, *, batch: int = 1, bytes_per_element: int = 4
) -> Roofline:
    """The roofline of `graph` for a batch of inputs of `size`, the nominal size where None.

    One walk, linear in the number of nodes. Raises `ShapeError` where a grid would vanish at that size, `ValueError`
    for a batch below one.
    """
    raise NotImplementedError
