"""Plots of figures: points with their Pareto front, curves. Numbers in, a picture out; matplotlib draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from mgcompile.drawing.canvas import (
    SMALL,
    as_page,
    as_png,
    as_svg,
    empty_plot,
    log_axis,
    number_text,
    settings,
    shortened,
)
from mgcompile.drawing.labels import Box, place_labels
from mgcompile.drawing.palette import INK, MUTED
from mgcompile.errors import MgcompileError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Curve", "PlotFormat", "Point", "curve_plot", "pareto_front", "plot_format", "scatter_plot"]

PlotFormat = Literal["svg", "png", "html"]

SUFFIXES: Mapping[str, PlotFormat] = {".svg": "svg", ".png": "png", ".html": "html", ".htm": "html"}
"""The format of a file by its suffix."""

# Okabe and Ito's colours but yellow, which is lost on white, dark and light ones in turn; each with a marker and with
# dashes of its own, for readers who see no colours.
STYLES: Sequence[tuple[str, str, Any]] = (
    ("#0072b2", "o", "-"),
    ("#e69f00", "s", (0, (5, 1.5))),
    ("#000000", "^", (0, (1.2, 1.2))),
    ("#56b4e9", "D", (0, (6, 1.5, 1.2, 1.5))),
    ("#d55e00", "v", (0, (3, 1, 1, 1, 1, 1))),
    ("#009e73", "P", (0, (8, 2))),
    ("#cc79a7", "X", (0, (2.5, 1))),
)
FRONT = "#777777"
FAR = 12
"""From how many points on a line leads from a point to its name."""


LONGEST = 40
"""Letters of a name in a plot; tooltips and tables have them all."""
LINE = 100
"""About how many letters of a legend fit beside each other."""


@dataclass(frozen=True, slots=True)
class Point:
    """A named point; those of one `series` share colour and marker."""

    name: str
    series: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A named polyline, x ascending."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def plot_format(path: str) -> PlotFormat:
    """The format that a file name asks for. Raises `MgcompileError` for an unknown suffix."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        found = f"the suffix {suffix!r}" if suffix else "no suffix"
        raise MgcompileError(f"{path}: {found} names no plot; known are {', '.join(SUFFIXES)}")
    return SUFFIXES[suffix]


def pareto_front(points: Sequence[Point], *, higher: bool = False) -> tuple[Point, ...]:
    """The points that no other is at least as good as in both axes and better in one, less being better, x ascending.

    With `higher`, more is better in y.
    """
    sign = -1 if higher else 1
    front: list[Point] = []
    for point in sorted(points, key=lambda each: (each.x, sign * each.y)):
        if not front or sign * point.y < sign * front[-1].y or (point.x, point.y) == (front[-1].x, front[-1].y):
            front.append(point)
    return tuple(front)


def scatter_plot(
    points: Sequence[Point],
    format: PlotFormat,
    *,
    x: str,
    y: str,
    title: str = "",
    log_x: bool = True,
    higher: bool = False,
    note: str = "",
) -> bytes:
    """The points with their names and their Pareto front; `x` and `y` name the axes. HTML is a page of its own.

    Less is better in both; with `higher`, more in y. A `note` is put below. The same for the same points, byte for
    byte. Raises `MgcompileError` for no points, an unknown format, and numbers that have no place on their axis.
    """
    _check(format, [(each.name, each.x, each.y) for each in points], log_x=log_x)
    front = pareto_front(points, higher=higher)
    styles = dict(zip(dict.fromkeys(point.series for point in points), cycle(STYLES), strict=False))
    with settings():
        figure, axes = empty_plot(title, x, y, note)
        if log_x:
            log_axis(axes, "x", 10)
        axes.margins(0.07, 0.09)
        for number, point in enumerate(points):
            axes.plot([point.x], [point.y], **_marker(*styles[point.series][:2]), gid=f"point{number}", zorder=3)
        _fix_limits(axes, log_x)
        steps = [*dict.fromkeys((point.x, point.y) for point in front), (axes.get_xlim()[1], front[-1].y)]
        across, up = zip(*steps, strict=True)
        axes.plot(across, up, drawstyle="steps-post", color=FRONT, linewidth=1.2, zorder=1, gid="front")
        _point_legend(axes, styles)
        _label(figure, axes, points, steps)
        if format == "png":
            return as_png(figure)
        titles = {
            f"point{number}": f"{point.name}: {y} {number_text(point.y)}, {x} {number_text(point.x)}"
            for number, point in enumerate(points)
        }
        svg = as_svg(figure, titles, title)
    if format == "svg":
        return svg.encode()
    rows = [
        (each.name, each.series, number_text(each.x), number_text(each.y), "yes" if each in front else "")
        for each in points
    ]
    return as_page(svg, title, ("name", "family", x, y, "on the front"), rows)


def curve_plot(
    curves: Sequence[Curve],
    format: PlotFormat,
    *,
    x: str,
    y: str,
    title: str = "",
    log_y: bool = False,
    line: tuple[float, str] | None = None,
    note: str = "",
) -> bytes:
    """The curves with a legend, and a dashed horizontal `line` (at y, with its text). HTML is a page of its own.

    A `note` is put below. The same for the same curves, byte for byte. Raises `MgcompileError` for no curves, an
    unknown format, and numbers that have no place on their axis.
    """
    _check(
        format, [(curve.name, *each) for curve in curves for each in zip(curve.x, curve.y, strict=True)], log_y=log_y
    )
    with settings():
        figure, axes = empty_plot(title, x, y, note)
        if log_y:
            log_axis(axes, "y", 2)
        handles = []
        for number, (curve, (colour, marker, dashes)) in enumerate(zip(curves, cycle(STYLES), strict=False)):
            handles += axes.plot(
                curve.x, curve.y, color=colour, linestyle=dashes, linewidth=1.8, marker=marker, markersize=4.5,
                markeredgecolor="white", markeredgewidth=0.4, label=shortened(curve.name, LONGEST),
                gid=f"curve{number}", zorder=3,
            )  # fmt: skip
        if not log_y:
            axes.set_ylim(bottom=0)
        if line is not None:
            _draw_line(axes, *line)
        _legend(axes, handles, length=3.2)
        if format == "png":
            return as_png(figure)
        svg = as_svg(figure, {f"curve{number}": curve.name for number, curve in enumerate(curves)}, title)
    if format == "svg":
        return svg.encode()
    columns = [dict(zip(curve.x, curve.y, strict=True)) for curve in curves]
    rows = [
        (number_text(place), *(number_text(each[place]) if place in each else "" for each in columns))
        for place in sorted({place for curve in curves for place in curve.x})
    ]
    return as_page(svg, title, (x, *(curve.name for curve in curves)), rows)


def _check(
    format: str, numbers: Sequence[tuple[str, float, float]], *, log_x: bool = False, log_y: bool = False
) -> None:
    if format not in get_args(PlotFormat):
        raise MgcompileError(f"{format!r} is no format of a plot; known are {', '.join(get_args(PlotFormat))}")
    if not numbers:
        raise MgcompileError("there is nothing to plot")
    for name, x, y in numbers:
        for axis, number, log in (("x", x, log_x), ("y", y, log_y)):
            if not isfinite(number) or (log and number <= 0):
                takes = "a logarithmic axis takes numbers above 0" if log else "an axis takes finite numbers"
                raise MgcompileError(f"{name}: {axis} is {number}; {takes}")


def _marker(colour: str, marker: str) -> dict[str, Any]:
    return {
        "color": colour,
        "marker": marker,
        "markersize": 6.6 if marker == "D" else 7.5 if marker in "PX" else 7.0,
        "markeredgecolor": "white",
        "markeredgewidth": 0.7,
        "alpha": 0.9,
        "linestyle": "",
    }


def _fix_limits(axes: Axes, log_x: bool) -> None:
    """Keep the limits, whatever is drawn later; a logarithmic axis is wide enough for three numbers on it."""
    low, high = axes.get_xlim()
    if log_x and high / low < 8:
        centre = (low * high) ** 0.5
        low, high = centre / 8**0.5, centre * 8**0.5
    axes.set_xlim(low, high)
    axes.set_ylim(axes.get_ylim())


def _point_legend(axes: Axes, styles: Mapping[str, tuple[str, str, Any]]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=shortened(name, LONGEST), **_marker(*style[:2])) for name, style in styles.items()]
    handles.append(Line2D([], [], color=FRONT, linewidth=1.2, label="Pareto front"))
    _legend(axes, handles, length=1.4)


def _legend(axes: Axes, handles: Sequence[Any], *, length: float) -> None:
    """What is what, in rows above the plot, where nothing is covered."""
    letters = [len(handle.get_label()) + 2 * length + 2 for handle in handles]
    rows = 1
    while sum(max(letters[start : start + rows]) for start in range(0, len(letters), rows)) > LINE and rows < len(
        letters
    ):
        rows += 1
    columns = -(-len(letters) // rows)
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False,
        fontsize=SMALL, labelcolor=INK, handlelength=length, columnspacing=1.5, borderaxespad=0.2,
    )  # fmt: skip


def _draw_line(axes: Axes, at: float, text: str) -> None:
    axes.axhline(at, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=2, gid="line")
    axes.annotate(
        shortened(text, LONGEST), (1, at), xycoords=axes.get_yaxis_transform(), xytext=(-4, -4),
        textcoords="offset points", ha="right", va="top", color=MUTED, fontsize=SMALL,
    )  # fmt: skip


def _label(figure: Figure, axes: Axes, points: Sequence[Point], steps: Sequence[tuple[float, float]]) -> None:
    """The names beside their points, where nothing else is; a thin line leads to those that are farther off."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer: Any = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what is measured here stays where it is
    sizes = []
    for point in points:
        text = axes.text(point.x, point.y, shortened(point.name, LONGEST), fontsize=SMALL)
        extent = text.get_window_extent(renderer)
        sizes.append((extent.width, extent.height))
        text.remove()
    places, corners = (
        [(float(x), float(y)) for x, y in axes.transData.transform(each)]
        for each in ([(point.x, point.y) for point in points], steps)
    )
    front = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        front += [Box(x0, y0 - 1, x1, y0 + 1), Box(x1 - 1, min(y0, y1), x1 + 1, max(y0, y1))]
    found = place_labels(places, sizes, Box(*axes.get_window_extent(renderer).extents), front)
    for point, place, box in zip(points, places, found, strict=True):
        end = box.nearest(*place)
        middle = (box.left + box.right) / 2, (box.bottom + box.top) / 2
        (x, y), *leader = axes.transData.inverted().transform([middle, place, end])
        if (end[0] - place[0]) ** 2 + (end[1] - place[1]) ** 2 > FAR**2:
            axes.plot(*zip(*leader, strict=True), color=MUTED, linewidth=0.5, zorder=2)
        axes.text(x, y, shortened(point.name, LONGEST), fontsize=SMALL, color=INK, zorder=4, ha="center", va="center")
