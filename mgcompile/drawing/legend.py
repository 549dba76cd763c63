"""The legend: only the kinds of cells and edges that a drawing has."""

from __future__ import annotations

from collections.abc import Iterator
from math import cos, pi, sin

from mgcompile.drawing import palette
from mgcompile.drawing.lattice import EdgeKind, Lattice
from mgcompile.drawing.scene import Curve, Label, Polygon, Shape, text_width
from mgcompile.graph.ops import Kind

__all__ = ["lay_legend"]

SIZE = 8.5
LINE = 13.0
SWATCH = 22.0
SPACE = 12.0

FUSIONS = {"C": "concatenation", "+": "sum", "×": "product", "max": "maximum"}


def lay_legend(lattice: Lattice, left: float, top: float, right: float) -> tuple[list[Shape], float, float]:
    """The legend's shapes in lines no longer than to `right`, and its lower and right end."""
    shapes: list[Shape] = []
    x, y, widest = left, top + SIZE, left
    for text, swatch, width in _entries(lattice):
        end = x + width + 4 + text_width(text, SIZE)
        if x > left and end > right:
            x, y = left, y + LINE
            end = x + width + 4 + text_width(text, SIZE)
        shapes += [
            *(_moved(shape, x, y) for shape in swatch),
            Label(x + width + 4, y, text, SIZE, palette.MUTED, "start"),
        ]
        widest = max(widest, end)
        x = end + SPACE
    return shapes, y + 4, widest


def _entries(lattice: Lattice) -> Iterator[tuple[str, list[Shape], float]]:
    """What is explained: its name, its shapes from the foot of the line, their width."""
    kinds = {cell.kind for cell in lattice.cells}
    for kind, name in palette.KIND_NAMES.items():
        if kind in kinds and kind is not Kind.FUSE:
            yield name, [_box(kind)], 8.0
    symbols = {cell.label for cell in lattice.cells if cell.kind is Kind.FUSE}
    for symbol, name in FUSIONS.items():
        if symbol in symbols:
            yield name, _junction(symbol), 9.0
    edges = {edge.kind for edge in lattice.edges}
    for edge, name in palette.EDGE_NAMES.items():
        if edge in edges:
            yield name, [_stroke(palette.EDGE_LINES[edge], edge is EdgeKind.SHORTCUT)], SWATCH
    if any(map(lattice.is_passing, lattice.edges)):
        yield "passing through", [_stroke(palette.PASSING, False)], SWATCH


def _box(kind: Kind) -> Polygon:
    corners = ((0.0, -7.0), (8.0, -7.0), (8.0, 1.0), (0.0, 1.0))
    return Polygon(corners, palette.front_colour(kind), palette.tint(palette.KIND_COLOURS[kind], -0.55))


def _junction(symbol: str) -> list[Shape]:
    turns = [2 * pi * step / 24 for step in range(24)]
    circle = tuple((4.5 + 4.5 * cos(turn), -3 + 4.5 * sin(turn)) for turn in turns)
    size = 7.0 if len(symbol) == 1 else 4.0
    return [Polygon(circle, "#ffffff", palette.INK), Label(4.5, -3 + 0.35 * size, symbol, size, bold=True)]


def _stroke(line: palette.Line, bowed: bool) -> Curve:
    if bowed:
        points = ((1.0, 0.0), (4.0, -9.0), (SWATCH - 5, -9.0), (SWATCH - 2, -4.0))
        return Curve(points, line, (SWATCH - 1, 0.0))
    points = ((0.0, -3.0), (6.0, -3.0), (SWATCH - 10, -3.0), (SWATCH - 4.5, -3.0))
    return Curve(points, line, (SWATCH, -3.0))


def _moved(shape: Shape, x: float, y: float) -> Shape:
    match shape:
        case Polygon(points, fill, stroke, width):
            return Polygon(tuple((x + px, y + py) for px, py in points), fill, stroke, width)
        case Curve(points, line, tip):
            moved = tuple((x + px, y + py) for px, py in points)
            return Curve(moved, line, (x + tip[0], y + tip[1]) if tip else None)
        case Label():
            return Label(x + shape.x, y + shape.y, shape.text, shape.size, shape.colour, shape.anchor, shape.bold)
