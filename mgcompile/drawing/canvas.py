"""What all plots share: matplotlib with settings of our own, an empty plot, and the plot as SVG, PNG or a page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from mgcompile.drawing.palette import FAINT, INK, MUTED
from mgcompile.escaping import for_html, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SMALL", "as_page", "as_png", "as_svg", "empty_plot", "log_axis", "number_text", "settings", "shortened"]

WIDTH, HEIGHT = 7.6, 5.0  # inches, of 72 points
DOTS_PER_INCH = 160
PADDING = 0.085  # inches around everything
TEXT, SMALL = 10.5, 9.0
FONT = "DejaVu Sans"
FONTS = f"'{FONT}', Verdana, Helvetica, Arial, sans-serif"
"""For readers of SVG who lack the first: the others are no wider, or hardly."""
SETTINGS: Any = {
    "font.family": FONT,  # comes with matplotlib: the same picture everywhere
    "font.size": TEXT,
    "text.parse_math": False,  # a name is no formula
    "svg.fonttype": "none",
    "svg.hashsalt": "mgcompile",
}


@contextmanager
def settings() -> Iterator[None]:
    """matplotlib with its defaults and ours, whatever the user's are; theirs are back afterwards."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        # What our font lacks, that of an SVG's reader may have.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def empty_plot(title: str, x: str, y: str, note: str) -> tuple[Figure, Axes]:
    """A plot with a title, named axes and a note below, and nothing in it."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(
        figsize=(WIDTH, HEIGHT), dpi=72, facecolor="white", layout=ConstrainedLayoutEngine(w_pad=PADDING, h_pad=PADDING)
    )
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=SMALL, which="both")
    axes.grid(color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(shortened(x, 70), color=INK)
    axes.set_ylabel(shortened(y, 45), color=INK)
    if title:
        figure.suptitle(shortened(title, 60), color=INK, fontsize=TEXT + 1.5, fontweight="bold")
    if note:
        figure.supxlabel(shortened(note, 125), color=MUTED, fontsize=SMALL - 1.5)
    return figure, axes


def log_axis(axes: Axes, axis: Literal["x", "y"], base: int) -> None:
    """Make an axis logarithmic, with plain numbers: 1, 2, 5, 10 for base 10, powers of two for base 2."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    (axes.set_xscale if axis == "x" else axes.set_yscale)("log", base=base)
    found = axes.xaxis if axis == "x" else axes.yaxis
    found.set_major_locator(LogLocator(base, subs=(1, 2, 5) if base == 10 else (1,), numticks=20))
    found.set_major_formatter(FuncFormatter(lambda number, _: number_text(number)))
    found.set_minor_locator(NullLocator())


def number_text(number: float) -> str:
    """A number as it stands on an axis and in a table: six digits.

    >>> number_text(16.0), number_text(380.84096)
    ('16', '380.841')
    """
    return f"{number:.6g}" if abs(number) < 1e6 else f"{number:.0f}"


def as_png(figure: Figure) -> bytes:
    """The plot in pixels."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return file.getvalue()


def as_svg(figure: Figure, titles: Mapping[str, str], title: str) -> str:
    """The plot as SVG: text as text, no date; `titles` are tooltips for what is drawn, by its `gid`."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = file.getvalue().decode()
    svg = svg[svg.index("<svg") :].replace(f"'{FONT}'", FONTS)
    found = {gid: f"<title>{for_html(words)}</title>" for gid, words in titles.items()}
    svg = re.sub(r'<g id="([^"]*)">', lambda start: start[0] + found.get(start[1], ""), svg)
    return re.sub(r"(<svg[^>]*>)", lambda start: f"{start[1]}\n <title>{for_html(title)}</title>", svg, count=1)


def as_page(svg: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    """A page that needs nothing else: the plot, and the numbers in it as a table."""
    head = _cells("th", columns)
    body = "\n".join(_cells("td", row) for row in rows)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{for_html(title) or "plot"}</title>
<style>
body {{ margin: 1.5em auto; max-width: 60em; padding: 0 1em; color: {INK}; background: #ffffff;
  font: 15px/1.4 {FONTS}; }}
svg {{ width: 100%; height: auto; }}
table {{ border-collapse: collapse; margin-top: 1.5em; font-size: 14px; }}
th, td {{ padding: 0.2em 0.9em; text-align: right; border-bottom: 1px solid {FAINT}; }}
th:first-child, td:first-child {{ text-align: left; }}
[id^="point"]:hover, [id^="curve"]:hover {{ opacity: 0.6; }}
</style>
</head>
<body>
{svg}
<table>
<thead>{head}</thead>
<tbody>
{body}
</tbody>
</table>
</body>
</html>
""".encode()


def shortened(text: str, most: int) -> str:
    """The text as it stands in a plot: of so many letters at most."""
    text = visible(text)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{for_html(text)}</{tag}>" for text in texts) + "</tr>"
