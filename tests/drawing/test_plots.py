"""Plots: the front is the front, names stay apart, the same in gives the same out, whatever the names are."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgcompile.drawing.labels import Box, place_labels
from mgcompile.drawing.plots import STYLES, Curve, Point, curve_plot, pareto_front, plot_format, scatter_plot
from mgcompile.errors import MgcompileError
from mgcompile.escaping import visible

SVG = "{http://www.w3.org/2000/svg}"
POINTS = [
    Point("MG-6", "MG", 116.6, 67.9),
    Point("MG-11", "MG", 391.9, 71.6),
    Point("VGG-6", "VGG", 67.9, 67.8),
    Point("VGG-11", "VGG", 228.3, 69.7),
    Point("VGG-16", "VGG", 388.8, 69.5),
]
CURVES = [Curve("VGG", [0, 1, 2, 3], [1, 3, 5, 7]), Curve("MG", [0, 1, 2], [4, 20, 70])]
COORDINATES = st.integers(1, 6)
CLOUDS = st.lists(st.builds(Point, st.just("p"), st.just("s"), COORDINATES, COORDINATES), min_size=1, max_size=12)


def texts(svg: bytes) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def tooltips(svg: bytes) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}title")]


# --- the front


@given(CLOUDS, st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_front_is_what_no_point_beats(points: list[Point], higher: bool) -> None:
    sign = -1 if higher else 1

    def beaten(point: Point) -> bool:
        return any(
            other.x <= point.x and sign * other.y <= sign * point.y and (other.x, other.y) != (point.x, point.y)
            for other in points
        )

    front = pareto_front(points, higher=higher)
    assert sorted(front, key=lambda each: (each.x, each.y)) == sorted(
        (point for point in points if not beaten(point)), key=lambda each: (each.x, each.y)
    )
    assert [point.x for point in front] == sorted(point.x for point in front)


def test_a_front_by_hand() -> None:
    assert [point.name for point in pareto_front(POINTS, higher=True)] == ["VGG-6", "MG-6", "VGG-11", "MG-11"]
    assert [point.name for point in pareto_front(POINTS)] == ["VGG-6"]
    assert pareto_front([]) == ()


# --- names


@given(st.lists(st.tuples(st.floats(60, 440), st.floats(60, 240)), min_size=1, max_size=12))
@settings(max_examples=15, deadline=None)
def test_names_stay_within_bounds_and_near(places: list[tuple[float, float]]) -> None:
    sizes = [(30.0, 10.0)] * len(places)
    bounds = Box(0, 0, 500, 300)
    boxes = place_labels(places, sizes, bounds)
    assert boxes == place_labels(places, sizes, bounds)
    for (x, y), (width, height), box in zip(places, sizes, boxes, strict=True):
        assert (box.right - box.left, box.top - box.bottom) == (pytest.approx(width), pytest.approx(height))
        assert min(box.left, box.bottom) >= 0
        assert box.right <= 500
        assert box.top <= 300
        near = box.nearest(x, y)
        assert abs(near[0] - x) + abs(near[1] - y) < 100


def test_names_do_not_overlap_where_there_is_room() -> None:
    places = [(100.0 + 14 * column, 100.0 + 14 * row) for column in range(5) for row in range(4)]
    boxes = place_labels(places, [(40.0, 10.0)] * len(places), Box(0, 0, 400, 300))
    assert all(one.overlap(other) == 0 for one, other in combinations(boxes, 2))
    single = place_labels([(100.0, 100.0)], [(40.0, 10.0)], Box(0, 0, 400, 300))[0]
    assert single.left > 100


def test_a_name_without_room_is_put_on_its_point() -> None:
    (box,) = place_labels([(5.0, 5.0)], [(100.0, 10.0)], Box(0, 0, 20, 20))
    assert (box.left, box.bottom) == (5, 5)


def test_boxes_overlap_by_their_common_area() -> None:
    assert Box(0, 0, 4, 4).overlap(Box(3, 2, 9, 9)) == 2
    assert Box(0, 0, 4, 4).overlap(Box(4, 0, 9, 9)) == 0


# --- points


def test_every_point_has_its_name_and_a_tooltip() -> None:
    svg = scatter_plot(POINTS, "svg", x="MACs", y="accuracy", title="all & sundry", higher=True)
    assert set(texts(svg)) >= {point.name for point in POINTS} | {
        "MACs",
        "accuracy",
        "all & sundry",
        "Pareto front",
        "VGG",
    }
    assert "MG-11: accuracy 71.6, MACs 391.9" in tooltips(svg)
    assert tooltips(svg)[0] == "all & sundry"
    assert len(svg) < 60_000


@pytest.mark.parametrize("format", ["svg", "png", "html"])
def test_the_same_points_give_the_same_bytes(format: str) -> None:
    once, again = (scatter_plot(POINTS, format, x="x", y="y") for _ in range(2))  # type: ignore[arg-type]
    assert once == again
    once, again = (curve_plot(CURVES, format, x="x", y="y", line=(9, "here")) for _ in range(2))  # type: ignore[arg-type]
    assert once == again


def test_another_process_gives_the_same_bytes_and_loads_no_more_than_it_needs() -> None:
    code = (
        "import sys; from tests.drawing.test_plots import POINTS; from mgcompile.drawing.plots import scatter_plot; "
        "assert 'matplotlib' not in sys.modules; svg = scatter_plot(POINTS, 'svg', x='x', y='y'); "
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules; sys.stdout.buffer.write(svg)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == scatter_plot(POINTS, "svg", x="x", y="y")


def test_no_date_and_a_white_ground() -> None:
    for svg in (scatter_plot(POINTS, "svg", x="x", y="y"), curve_plot(CURVES, "svg", x="x", y="y")):
        assert b"<metadata" not in svg
        assert not re.search(rb"20\d\d-\d\d-\d\d", svg)
        assert b"fill: #ffffff" in svg[:1500]


def test_the_front_is_a_stepped_line() -> None:
    root = ET.fromstring(scatter_plot(POINTS, "svg", x="x", y="y", higher=True))
    (path,) = (group[0].get("d", "") for group in root.iter(f"{SVG}g") if group.get("id") == "front")
    corners = [tuple(map(float, pair)) for pair in re.findall(r"[ML] (\S+) (\S+)", path)]
    assert len(corners) >= 8
    for (x0, y0), (x1, y1) in pairwise(corners):
        assert abs(x0 - x1) < 1e-3 or abs(y0 - y1) < 1e-3


def test_series_differ_by_colour_and_by_marker() -> None:
    colours, markers, dashes = zip(*STYLES, strict=True)
    assert len(set(colours)) == len(set(markers)) == len({str(each) for each in dashes}) == len(STYLES)
    many = [Point(f"p{number}", f"family {number}", number + 1, number % 5) for number in range(20)]
    assert set(texts(scatter_plot(many, "svg", x="x", y="y"))) >= {f"family {number}" for number in range(20)}


@pytest.mark.parametrize(
    "name", ["$x_1$ a<b>&\"c' {}%s\\n", "\x00\x1b[31m", "μικρό 漢字", "_hidden", "x" * 200, "", "🙂" * 30]
)
def test_any_name(name: str) -> None:
    points = [Point(name, name, 1, 1), Point("other", "other", 20, 3)]
    shown = visible(name)
    page = scatter_plot(points, "html", x=name, y="y", title=name, note=name)
    svg = page[page.index(b"<svg") : page.index(b"</svg>") + 6]
    assert shown[:37] in texts(svg) or [text for text in texts(svg) if text.startswith(shown[:37])]
    assert tooltips(svg)[0] == shown
    assert Page(page).cells[5] == shown
    assert curve_plot([Curve(name, [0, 1], [1, 2])], "png", x="x", y=name, line=(1, name)).startswith(b"\x89PNG")


def test_many_long_names_leave_room_for_the_plot() -> None:
    curves = [Curve(f"{number} {'long ' * 30}", [0, 1], [1, number + 2]) for number in range(8)]
    assert curve_plot(curves, "png", x="x", y="y").startswith(b"\x89PNG")


def test_one_point_and_equal_points() -> None:
    for points in ([Point("a", "s", 5, 5)], [Point("a", "s", 5, 5), Point("b", "s", 5, 5)], [Point("z", "s", 3, 0)]):
        assert set(texts(scatter_plot(points, "svg", x="x", y="y"))) >= {point.name for point in points}
    assert scatter_plot([Point("a", "s", 0, -5)], "svg", x="x", y="y", log_x=False)


# --- curves


def test_curves_have_a_legend_and_a_line() -> None:
    svg = curve_plot(CURVES, "svg", x="depth", y="field", line=(32, "image: 32x32"), note="below")
    assert set(texts(svg)) >= {"VGG", "MG", "depth", "field", "image: 32x32", "below"}
    assert set(tooltips(svg)) >= {"VGG", "MG"}
    assert b'id="line"' in svg
    assert b'id="line"' not in curve_plot(CURVES, "svg", x="depth", y="field")


def test_a_logarithmic_axis_has_powers_of_two() -> None:
    shown = texts(curve_plot(CURVES, "svg", x="depth", y="field", log_y=True))
    assert {"1", "2", "4", "8", "16", "32", "64"} <= set(shown)
    assert "64" not in texts(curve_plot(CURVES, "svg", x="depth", y="field"))


# --- pages


class Page(HTMLParser):
    """The cells of the table, and what the page asks for from elsewhere."""

    inside = False

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.outside: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("td", "th"):
            self.cells.append("")
        self.inside = tag in ("td", "th")
        if tag in ("script", "link", "img", "iframe"):
            self.outside.append(tag)
        self.outside += [
            value for name, value in attrs if name in ("src", "href", "xlink:href") and value and value[0] != "#"
        ]

    def handle_data(self, data: str) -> None:
        if self.inside and self.cells:
            self.cells[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.inside = False


def test_a_page_has_the_plot_its_numbers_and_needs_nothing_else() -> None:
    text = scatter_plot(POINTS, "html", x="MACs", y="accuracy", title="t", higher=True)
    page = Page(text)
    rows = [page.cells[place : place + 5] for place in range(0, len(page.cells), 5)]
    assert rows[0] == ["name", "family", "MACs", "accuracy", "on the front"]
    assert rows[2] == ["MG-11", "MG", "391.9", "71.6", "yes"]
    assert rows[5] == ["VGG-16", "VGG", "388.8", "69.5", ""]
    assert not page.outside
    assert b"<title>MG-11: accuracy 71.6, MACs 391.9</title>" in text
    assert b"<?xml" not in text
    assert b"<!DOCTYPE svg" not in text
    curves = Page(curve_plot(CURVES, "html", x="depth", y="field"))
    assert curves.cells[:3] == ["depth", "VGG", "MG"]
    assert curves.cells[-3:] == ["3", "7", ""]
    assert not curves.outside


# --- what is refused


@pytest.mark.parametrize("x", [0, -1, float("nan"), float("inf")])
def test_numbers_without_a_place(x: float) -> None:
    with pytest.raises(MgcompileError, match="bad: x is"):
        scatter_plot([Point("bad", "s", x, 1)], "svg", x="x", y="y")
    with pytest.raises(MgcompileError, match="bad: y is"):
        curve_plot([Curve("bad", [1], [x])], "svg", x="x", y="y", log_y=True)


def test_nothing_and_an_unknown_format() -> None:
    with pytest.raises(MgcompileError, match="nothing to plot"):
        scatter_plot([], "svg", x="x", y="y")
    with pytest.raises(MgcompileError, match="nothing to plot"):
        curve_plot([Curve("empty", [], [])], "svg", x="x", y="y")
    with pytest.raises(MgcompileError, match="known are svg, png, html"):
        scatter_plot(POINTS, "pdf", x="x", y="y")  # type: ignore[arg-type]


def test_the_suffix_says_the_format() -> None:
    assert [plot_format(f"a/b.{suffix}") for suffix in ("svg", "PNG", "html", "htm")] == ["svg", "png", "html", "html"]
    for path, said in (("a.pdf", r"'\.pdf'"), ("a", "no suffix")):
        with pytest.raises(MgcompileError, match=said):
            plot_format(path)


def test_the_settings_of_others_stay() -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 31, "svg.fonttype": "path", "axes.facecolor": "black"}):
        svg = scatter_plot(POINTS, "svg", x="x", y="y")
        assert matplotlib.rcParams["font.size"] == 31
        assert matplotlib.rcParams["svg.fonttype"] == "path"
    assert svg == scatter_plot(POINTS, "svg", x="x", y="y")
