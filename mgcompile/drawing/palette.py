"""What things look like: colours (Okabe and Ito's, told apart by colour-blind readers) and lines, by kind alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mgcompile.drawing.lattice import EdgeKind
from mgcompile.graph.ops import Kind

__all__ = [
    "BAND",
    "EDGE_LINES",
    "EDGE_NAMES",
    "FAINT",
    "INK",
    "KIND_COLOURS",
    "KIND_NAMES",
    "MUTED",
    "PASSING",
    "Line",
    "front_colour",
    "tint",
]

INK = "#222222"
MUTED = "#666666"
FAINT = "#e4e4e4"
BAND = "#f4f4f2"

KIND_COLOURS: Mapping[Kind, str] = {
    Kind.INPUT: "#b0b0b0",
    Kind.CONV: "#56b4e9",
    Kind.LINEAR: "#cc79a7",
    Kind.POOL: "#e69f00",
    Kind.UP: "#009e73",
    Kind.FUSE: "#ffffff",
    Kind.CUSTOM: "#f0e442",
    Kind.NORM: "#d9d9d9",
    Kind.ACT: "#f7c6a5",
    Kind.SHAPE: "#eeeeee",
}
KIND_NAMES: Mapping[Kind, str] = {
    Kind.INPUT: "image",
    Kind.CONV: "convolution",
    Kind.POOL: "pooling",
    Kind.UP: "upsampling",
    Kind.LINEAR: "linear",
    Kind.FUSE: "fusion",
    Kind.CUSTOM: "custom",
    Kind.NORM: "norm",
    Kind.ACT: "activation",
    Kind.SHAPE: "reshaping",
}


@dataclass(frozen=True, slots=True)
class Line:
    """How an edge is drawn. `dash` are the lengths on and off; `style` is the nearest that Graphviz has a word for."""

    colour: str
    width: float
    dash: tuple[float, float] | None = None
    style: str = "solid"


# Each differs from the others in its dashes or its width besides its colour; shortcuts and skips are arcs besides.
EDGE_LINES: Mapping[EdgeKind, Line] = {
    EdgeKind.SAME: Line("#333333", 1.1),
    EdgeKind.DOWN: Line("#d55e00", 1.0, (4, 2.2), "dashed"),
    EdgeKind.UP: Line("#0072b2", 1.2, (1.2, 1.8), "dotted"),
    EdgeKind.SHORTCUT: Line("#007a59", 0.8),
    EdgeKind.SKIP: Line("#a2477a", 1.6, (9, 2.5), "dashed"),
}
PASSING = Line("#8c8c8c", 0.6)
"""A grid that only passes through: an edge along its own level over columns where the level is not active."""

EDGE_NAMES: Mapping[EdgeKind, str] = {
    EdgeKind.SAME: "same level",
    EdgeKind.DOWN: "from a finer level",
    EdgeKind.UP: "from a coarser level",
    EdgeKind.SHORTCUT: "residual shortcut",
    EdgeKind.SKIP: "skip",
}


def front_colour(kind: Kind) -> str:
    """The colour of a cell's front."""
    return KIND_COLOURS[kind] if kind in (Kind.FUSE, Kind.LINEAR) else tint(KIND_COLOURS[kind], 0.42)


def tint(colour: str, share: float) -> str:
    """The colour mixed with white (`share` > 0) or black (`share` < 0).

    >>> tint("#000000", 0.5)
    '#808080'
    """
    target = 255 if share > 0 else 0
    parts = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    mixed = [round(part + (target - part) * abs(share)) for part in parts]
    return "#" + "".join(f"{part:02x}" for part in mixed)
