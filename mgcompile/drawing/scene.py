"""A drawing as positioned shapes, in points, y downwards. The writers turn these into a format and decide nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mgcompile.drawing.palette import INK, Line

__all__ = ["Curve", "Label", "Point", "Polygon", "Scene", "Shape", "Sheet", "Strand", "text_width"]

Point = tuple[float, float]

WIDE_CHARACTER = 0.6
"""The width of an average character of a sans-serif face by its size; fonts differ, so this is on the safe side."""


@dataclass(frozen=True, slots=True)
class Polygon:
    """A closed figure; no outline where `stroke` is empty."""

    points: tuple[Point, ...]
    fill: str
    stroke: str = ""
    width: float = 0.7


@dataclass(frozen=True, slots=True)
class Curve:
    """Cubic Bézier pieces: a start, then three points for each piece. An arrow ends at `tip`, past the last point."""

    points: tuple[Point, ...]
    line: Line
    tip: Point | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """A line of text; (x, y) is its baseline at the `anchor` (start, middle, end)."""

    x: float
    y: float
    text: str
    size: float = 10
    colour: str = INK
    anchor: str = "middle"
    bold: bool = False


Shape = Polygon | Curve | Label


@dataclass(frozen=True, slots=True)
class Sheet:
    """A cell: its front face around (x, y) and the faces behind it, or where `round` a circle with a text.

    `title` is its tooltip.
    """

    cell: int
    x: float
    y: float
    width: float
    height: float
    fill: str
    stroke: str
    faces: tuple[Polygon, ...]
    title: str
    round: bool = False
    text: str = ""
    text_size: float = 8.5


@dataclass(frozen=True, slots=True)
class Strand:
    """An edge of the lattice between two cells, as a curve."""

    source: int
    target: int
    curve: Curve
    title: str


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is drawn, in this order: back, strands, sheets, front."""

    name: str
    width: float
    height: float
    back: Sequence[Shape]
    strands: Sequence[Strand]
    sheets: Sequence[Sheet]
    front: Sequence[Shape]


def text_width(text: str, size: float) -> float:
    """About how wide a text is in a sans-serif face."""
    return len(text) * size * WIDE_CHARACTER
