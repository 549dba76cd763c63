"""Laws of the pictures: nothing overlaps, the formats agree, files are whole."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations, pairwise
from math import hypot
from pathlib import Path
from xml.etree import ElementTree

import graphviz
import pygraphviz
import pytest

from mgcompile.drawing import Lattice, build_lattice, draw_graph, format_dot, format_svg, render_lattice, write_file
from mgcompile.drawing import render as render_module
from mgcompile.drawing.dashes import cut_dashes
from mgcompile.drawing.figure import compose
from mgcompile.drawing.palette import EDGE_LINES
from mgcompile.drawing.scene import Label, Scene, text_width
from mgcompile.errors import MgcompileError
from mgcompile.spec import load, zoo_names
from tests.drawing import networks

SVG = "{http://www.w3.org/2000/svg}"

each_network = pytest.mark.parametrize("name", networks.NETWORKS)
each_fold = pytest.mark.parametrize("fold", [True, False])

Area = tuple[float, float, float, float]


def picture(name: str, fold: bool = True) -> Lattice:
    return build_lattice(networks.NETWORKS[name](), fold=fold)


def overlap(one: Area, other: Area) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def sheet_areas(scene: Scene) -> list[Area]:
    areas = []
    for sheet in scene.sheets:
        points = [point for face in sheet.faces for point in face.points]
        xs = [sheet.x - sheet.width / 2, sheet.x + sheet.width / 2, *(x for x, _ in points)]
        ys = [sheet.y - sheet.height / 2, sheet.y + sheet.height / 2, *(y for _, y in points)]
        areas.append((min(xs), min(ys), max(xs), max(ys)))
    return areas


def text_areas(scene: Scene) -> list[Area]:
    areas = []
    for label in (shape for shape in scene.front if isinstance(shape, Label)):
        width = text_width(label.text, label.size)
        left = label.x - {"start": 0.0, "middle": 0.5, "end": 1.0}[label.anchor] * width
        areas.append((left, label.y - 0.72 * label.size, left + width, label.y))
    return areas


@each_network
@each_fold
def test_no_two_cells_or_texts_overlap(name: str, fold: bool) -> None:
    scene = compose(picture(name, fold), "1.2 M parameters")
    areas = sheet_areas(scene) + text_areas(scene)
    assert [pair for pair in combinations(areas, 2) if overlap(*pair)] == []
    for left, top, right, bottom in areas:
        assert left >= 0
        assert top >= 0
        assert right <= scene.width
        assert bottom <= scene.height


@pytest.mark.parametrize("name", zoo_names())
def test_the_zoo_is_drawn_without_overlap(name: str) -> None:
    lattice = build_lattice(load(name).graph)
    for edge in lattice.edges:
        assert lattice.cells[edge.source].column < lattice.cells[edge.target].column
    scene = compose(lattice)
    areas = sheet_areas(scene) + text_areas(scene)
    assert [pair for pair in combinations(areas, 2) if overlap(*pair)] == []


@pytest.mark.parametrize("name", [*networks.NETWORKS, *zoo_names()])
def test_edges_keep_clear_of_texts(name: str) -> None:
    scene = compose(picture(name) if name in networks.NETWORKS else build_lattice(load(name).graph))
    texts = text_areas(scene)
    for strand in scene.strands:
        start, end = strand.curve.points[0], strand.curve.points[-1]
        for piece in cut_dashes(strand.curve.points, (1.0, 1.0)):
            x, y = piece[0]
            crossing = [area for area in texts if overlap((x, y, x, y), area)]
            assert crossing == [], (strand.title, start, end)


@each_network
@each_fold
def test_svg_is_well_formed_and_the_same_each_time(name: str, fold: bool) -> None:
    text = format_svg(picture(name, fold), subtitle="a < b & c")
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert [title.text for title in root.findall(f"{SVG}title")] == [networks.NETWORKS[name]().name]
    assert text == format_svg(picture(name, fold), subtitle="a < b & c")
    assert "href" not in text


def test_each_cell_has_a_tooltip() -> None:
    lattice = picture("r-pmg-30")
    root = ElementTree.fromstring(format_svg(lattice))
    titles = {title.text or "" for title in root.iter(f"{SVG}title")}
    for cell in lattice.cells:
        assert any(title.startswith(cell.nodes[0]) for title in titles)


def test_strange_names_are_harmless() -> None:
    build = networks.Builder('</svg> <b> "\\', 32)
    (grid,) = build.conv("conv1", {0: "input"}, [8]).values()
    lattice = build_lattice(build.finish(grid))
    title = ElementTree.fromstring(format_svg(lattice, subtitle="\x00\x1b")).find(f"{SVG}title")
    assert title is not None
    assert title.text == '</svg> <b> "\\'
    assert pygraphviz.AGraph(string=format_dot(lattice).source).number_of_nodes() == 2


@each_network
@each_fold
def test_dot_has_the_cells_and_edges(name: str, fold: bool) -> None:
    lattice = picture(name, fold)
    drawn = pygraphviz.AGraph(string=format_dot(lattice).source)
    assert set(drawn.nodes()) == {cell.nodes[0] for cell in lattice.cells}
    assert drawn.number_of_edges() == len(lattice.edges)
    assert all(node.attr["pos"] for node in drawn.nodes())
    assert all(edge.attr["pos"].rpartition(";")[2].startswith("e,") for edge in drawn.edges())


def test_edge_kinds_differ_without_colour() -> None:
    lines = [(line.dash, line.width) for line in EDGE_LINES.values()]
    assert len(lines) == len(set(lines))
    assert len({line.colour for line in EDGE_LINES.values()}) == len(lines)


def test_dashes_lie_on_the_curve() -> None:
    points = ((0.0, 0.0), (10.0, 0.0), (20.0, 0.0), (30.0, 0.0), (40.0, 0.0), (60.0, 0.0), (60.0, 30.0))
    pieces = cut_dashes(points, (4.0, 2.0))
    assert pieces[0][0] == points[0]
    assert pieces[-1][-1] == pytest.approx(points[-1], abs=0.05)
    gaps = [hypot(b[0][0] - a[-1][0], b[0][1] - a[-1][1]) for a, b in pairwise(pieces)]
    assert all(1.6 < gap < 2.4 for gap in gaps)
    assert len(pieces) > 8


@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<svg"), (".dot", b"digraph")]
)
def test_files(suffix: str, start: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"u{suffix}"
    data = draw_graph(networks.u_mg_11(), path, subtitle="5.90 M parameters")
    assert path.read_bytes() == data
    assert data.lstrip().startswith(start)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    assert capfd.readouterr() == ("", "")


def test_an_unknown_suffix_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(MgcompileError, match=r"the suffix '\.jpg' names no drawing; known are \.svg, \.png, \.pdf"):
        draw_graph(networks.fpn(), tmp_path / "x.jpg")
    with pytest.raises(MgcompileError, match="no suffix names no drawing"):
        draw_graph(networks.fpn(), tmp_path / "x")
    with pytest.raises(MgcompileError, match="'jpg' is no format of a drawing; known are dot, pdf, png, svg"):
        render_lattice(picture("fpn"), "jpg")


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(MgcompileError, match="cannot be written: No such file"):
        write_file(tmp_path / "no" / "x.svg", b"")


def test_a_link_is_followed_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "link.svg").symlink_to(tmp_path / "real.svg")
    write_file(tmp_path / "link.svg", b"new")
    assert (tmp_path / "link.svg").is_symlink()
    assert (tmp_path / "real.svg").read_bytes() == b"new"


def test_without_any_graphviz(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> bytes:
        raise graphviz.ExecutableNotFound(["dot"])

    monkeypatch.setattr(render_module.graphviz.Digraph, "pipe", missing)
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    with pytest.raises(MgcompileError, match="pdf drawings need Graphviz: install it, or pygraphviz"):
        render_lattice(picture("fpn"), "pdf")
    assert render_lattice(picture("fpn"), "svg")


def test_drawing_needs_neither_torch_nor_numpy() -> None:
    code = "import sys, mgcompile.drawing; print(sorted({'torch', 'numpy', 'pygraphviz'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
