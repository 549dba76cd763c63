"""A scene as a Graphviz graph with every position given: `dot -Tpdf` draws what the SVG shows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import graphviz

from mgcompile.drawing.dashes import cut_dashes
from mgcompile.drawing.figure import compose
from mgcompile.drawing.lattice import Lattice
from mgcompile.drawing.routing import ARROW
from mgcompile.drawing.scene import Curve, Label, Point, Polygon, Scene, Sheet, Strand
from mgcompile.escaping import visible

__all__ = ["format_dot"]

FONT = "Helvetica"
CONTINUED = " \\\n"
"""A line break that is no part of a string: Graphviz reads at most 16,384 characters of one without a backslash."""

MOST_DASHES = 20_000
"""With more dashes than this a drawing takes those of Graphviz, which has three kinds of them."""

SPECIAL = re.compile(r"[:<>\"\\]")
"""What Graphviz would read as something else than a part of a node's name."""

ARROW_POINTS = 10.0
"""How long Graphviz draws an arrow of size 1."""


def format_dot(lattice: Lattice, *, subtitle: str = "") -> graphviz.Digraph:
    """The drawing as a Graphviz graph: a node for each cell, an edge for each edge, all else as its background."""
    scene = compose(lattice, subtitle)
    plane = _Plane(scene.height, cuts=sum(_dashes(strand.curve) for strand in scene.strands) <= MOST_DASHES)
    graph = graphviz.Digraph(
        _escaped(scene.name),
        graph_attr={
            "layout": "nop2",  # all positions of nodes and edges are given
            "outputorder": "edgesfirst",
            "pad": "0",
            "bb": f"0,0,{_number(scene.width)},{_number(scene.height)}",
            "tooltip": _escaped(scene.name),
            "_background": CONTINUED.join(plane.background(scene)),
        },
        node_attr={"shape": "box", "style": "filled", "label": "", "fixedsize": "true", "penwidth": "0.7"},
        edge_attr={"arrowsize": _number(ARROW / ARROW_POINTS)},
    )
    # What cannot be told from the picture stays in the text: the names are those of the compiled graph.
    names = [SPECIAL.sub("_", visible(cell.nodes[0])) for cell in lattice.cells]
    for sheet in scene.sheets:
        graph.node(names[sheet.cell], **plane.node(sheet))
    for strand in scene.strands:
        graph.edge(names[strand.source], names[strand.target], **plane.edge(strand))
    return graph


class _Plane:
    """Graphviz counts from the lower left corner. With `cuts`, dashed edges are drawn dash by dash."""

    def __init__(self, height: float, cuts: bool) -> None:
        self.height = height
        self.cuts = cuts

    def node(self, sheet: Sheet) -> dict[str, str]:
        return {
            "pos": self._place((sheet.x, sheet.y)) + "!",
            "width": _number(sheet.width / 72),
            "height": _number(sheet.height / 72),
            "fillcolor": sheet.fill,
            "color": sheet.stroke,
            "tooltip": _escaped(sheet.title),
            **self._junction(sheet),
        }

    def _junction(self, sheet: Sheet) -> dict[str, str]:
        if not sheet.round:
            return {}
        font = {"fontname": f"{FONT}-Bold", "fontsize": _number(sheet.text_size)}
        return {"shape": "circle", "label": _escaped(sheet.text), **font}

    def edge(self, strand: Strand) -> dict[str, str]:
        curve = strand.curve
        pieces = _visible(curve) if self.cuts else [curve.points]
        splines = [" ".join(map(self._place, piece)) for piece in pieces]
        if curve.tip:
            splines[-1] = f"e,{self._place(curve.tip)} {splines[-1]}"
        return {
            "pos": ";".join(splines),
            "color": curve.line.colour,
            "penwidth": _number(curve.line.width),
            "style": "solid" if self.cuts else curve.line.style,
            "tooltip": _escaped(strand.title),
        }

    def background(self, scene: Scene) -> Iterator[str]:
        """All that is neither node nor edge, in Graphviz' drawing language (xdot)."""
        corners = ((0.0, 0.0), (scene.width, 0.0), (scene.width, scene.height), (0.0, scene.height))
        yield from self._polygon(Polygon(corners, "#ffffff"))
        faces = [face for sheet in scene.sheets for face in sheet.faces]
        for shape in (*scene.back, *faces, *scene.front):
            match shape:
                case Polygon():
                    yield from self._polygon(shape)
                case Curve():
                    yield from self._curve(shape)
                case Label():
                    yield from self._label(shape)

    def _polygon(self, polygon: Polygon) -> Iterator[str]:
        yield f"S {_counted('solid')} S {_counted(f'setlinewidth({_number(polygon.width)})')}"
        yield f"C {_counted(polygon.fill)} c {_counted(polygon.stroke or polygon.fill)}"
        yield f"P {len(polygon.points)} {self._places(polygon.points)}"

    def _curve(self, curve: Curve) -> Iterator[str]:
        yield f"S {_counted('solid')} S {_counted(f'setlinewidth({_number(curve.line.width)})')}"
        yield f"c {_counted(curve.line.colour)}"
        yield from (f"B {len(piece)} {self._places(piece)}" for piece in _visible(curve))
        if curve.tip:
            (tx, ty), (bx, by) = curve.tip, curve.points[-1]
            across = (by - ty) * 0.35, (tx - bx) * 0.35
            corners = curve.tip, (bx + across[0], by + across[1]), (bx - across[0], by - across[1])
            yield from self._polygon(Polygon(corners, curve.line.colour))

    def _label(self, label: Label) -> Iterator[str]:
        font = f"{FONT}-Bold" if label.bold else FONT
        justify = {"start": -1, "middle": 0, "end": 1}[label.anchor]
        # A backslash would escape what follows it in a quoted string.
        text = _counted(visible(label.text).replace("\\", "\N{SET MINUS}"))
        yield f"F {_number(label.size)} {_counted(font)} c {_counted(label.colour)}"
        yield f"T {_number(label.x)} {_number(self.height - label.y)} {justify} 0 {text}"

    def _place(self, point: Point) -> str:
        return f"{_number(point[0])},{_number(self.height - point[1])}"

    def _places(self, points: tuple[Point, ...]) -> str:
        return " ".join(f"{_number(x)} {_number(self.height - y)}" for x, y in points)


def _visible(curve: Curve) -> list[tuple[Point, ...]]:
    return cut_dashes(curve.points, curve.line.dash) if curve.line.dash else [curve.points]


def _dashes(curve: Curve) -> float:
    """About how many dashes a curve has: edges are mostly horizontal."""
    return (curve.points[-1][0] - curve.points[0][0]) / sum(curve.line.dash) if curve.line.dash else 0


def _counted(text: str) -> str:
    """A text as the drawing language wants it: its length in bytes, a dash, itself."""
    return f"{len(text.encode())} -{text}"


def _escaped(text: str) -> str:
    """A text that Graphviz shows as it is: no HTML, no commands of its own."""
    escaped: str = graphviz.escape(visible(text))
    return escaped


def _number(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}".rstrip("0").rstrip(".")
