"""A scene as SVG: plain text, no fonts or files of its own, the same for the same scene."""

from __future__ import annotations

from collections.abc import Iterator

from mgcompile.drawing.figure import compose
from mgcompile.drawing.lattice import Lattice
from mgcompile.drawing.scene import Curve, Label, Point, Polygon, Scene, Shape, Sheet
from mgcompile.escaping import for_html

__all__ = ["format_svg"]

FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"


def format_svg(lattice: Lattice, *, subtitle: str = "") -> str:
    """The drawing as an SVG document. Each cell and edge has a tooltip."""
    return "\n".join(_document(compose(lattice, subtitle))) + "\n"


def _document(scene: Scene) -> Iterator[str]:
    width, height = _number(scene.width), _number(scene.height)
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        f' font-family="{FONT}" role="img">'
    )
    yield f"<title>{_text(scene.name)}</title>"
    yield f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    yield from map(_shape, scene.back)
    for strand in scene.strands:
        yield f"<g><title>{_text(strand.title)}</title>{_curve(strand.curve)}</g>"
    yield from map(_sheet, scene.sheets)
    yield from map(_shape, scene.front)
    yield "</svg>"


def _shape(shape: Shape) -> str:
    match shape:
        case Polygon():
            return _polygon(shape)
        case Curve():
            return _curve(shape)
        case Label():
            return _label(shape)


def _polygon(polygon: Polygon) -> str:
    points = " ".join(map(_point, polygon.points))
    stroke = f' stroke="{polygon.stroke}" stroke-width="{_number(polygon.width)}"' if polygon.stroke else ""
    return f'<polygon points="{points}" fill="{polygon.fill}"{stroke} stroke-linejoin="round"/>'


def _curve(curve: Curve) -> str:
    start, *rest = curve.points
    path = f"M{_point(start)} C" + " ".join(map(_point, rest))
    dash = f' stroke-dasharray="{" ".join(map(_number, curve.line.dash))}"' if curve.line.dash else ""
    stroke = f'fill="none" stroke="{curve.line.colour}" stroke-width="{_number(curve.line.width)}"{dash}'
    return f'<path d="{path}" {stroke}/>' + (_arrowhead(curve, curve.tip) if curve.tip else "")


def _arrowhead(curve: Curve, tip: Point) -> str:
    base = curve.points[-1]
    # Half as broad as long; across is the direction of the arrow turned by a right angle.
    across = (base[1] - tip[1]) * 0.42, (tip[0] - base[0]) * 0.42
    corners = (base[0] + across[0], base[1] + across[1]), (base[0] - across[0], base[1] - across[1])
    return f'<polygon points="{_point(tip)} {_point(corners[0])} {_point(corners[1])}" fill="{curve.line.colour}"/>'


def _label(label: Label) -> str:
    anchor = f' text-anchor="{label.anchor}"' if label.anchor != "start" else ""
    weight = ' font-weight="bold"' if label.bold else ""
    place = f'x="{_number(label.x)}" y="{_number(label.y)}"'
    font = f'font-size="{_number(label.size)}" fill="{label.colour}"{anchor}{weight}'
    return f"<text {place} {font}>{_text(label.text)}</text>"


def _sheet(sheet: Sheet) -> str:
    stroke = f'fill="{sheet.fill}" stroke="{sheet.stroke}" stroke-width="0.7"'
    if sheet.round:
        front = f'<circle cx="{_number(sheet.x)}" cy="{_number(sheet.y)}" r="{_number(sheet.width / 2)}" {stroke}/>'
        size = sheet.text_size
        front += _label(Label(sheet.x, sheet.y + 0.35 * size, sheet.text, size, bold=True))
    else:
        corner = f'x="{_number(sheet.x - sheet.width / 2)}" y="{_number(sheet.y - sheet.height / 2)}"'
        front = f'<rect {corner} width="{_number(sheet.width)}" height="{_number(sheet.height)}" {stroke}/>'
    return f"<g><title>{_text(sheet.title)}</title>{''.join(map(_polygon, sheet.faces))}{front}</g>"


def _point(point: Point) -> str:
    return f"{_number(point[0])},{_number(point[1])}"


def _number(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")


def _text(text: str) -> str:
    return for_html(text, lines=True)
