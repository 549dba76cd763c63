"""The interactive page without a browser: what is in the file, and that the data in it are those of the graph."""

from __future__ import annotations

import json
import re
import time
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import mgcompile
from mgcompile.analysis import audit_graph, receptive_field
from mgcompile.cli import main
from mgcompile.drawing import draw_graph, render_lattice
from mgcompile.drawing.contraction import contract, operands
from mgcompile.drawing.folding import fold_repeats
from mgcompile.drawing.lattice import build_lattice
from mgcompile.drawing.page import ASSETS, D3, SCRIPTS, Measure, format_page
from mgcompile.drawing.page_data import page_data
from mgcompile.drawing.page_tree import Branch, layer_tree, preorder
from mgcompile.errors import MgcompileError
from mgcompile.escaping import visible
from mgcompile.graph import Graph, Layer, Node
from mgcompile.graph.ops import Conv, Input, Kind, Pool
from mgcompile.passes import optimize
from mgcompile.spec import load, zoo_names
from tests.drawing import networks

SOME = ["imagenet/r-mg-34", "cifar100/r-pmg-30", "mnist-seg/u-mg-11", "beyond/hrnet-w18", "beyond/lapsrn"]


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the texts of its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, dict[str, str | None], str]] = []
        self.inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style", "title", "h1"):
            self.texts.append((tag, dict(attrs), ""))

            self.inside = True
        else:
            self.inside = False

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            tag, attributes, text = self.texts[-1]
            self.texts[-1] = tag, attributes, text + data


def data_of(text: str) -> dict[str, Any]:
    (data,) = (body for tag, attributes, body in Elements(text).texts if attributes.get("id") == "data")
    found: dict[str, Any] = json.loads(data)
    return found


def names_of(data: dict[str, Any]) -> list[str]:
    """The full name of every cell: one that begins with a dot goes on from the path of its layer."""
    paths: list[str] = []
    for parent, name, _, _, path in data["layers"]:
        paths.append(path or (f"{paths[parent]}.{name}" if parent >= 0 else name))
    cells = data["cells"]
    return [
        paths[layer] + name if name.startswith(".") else name
        for name, layer in zip(cells["name"], cells["layer"], strict=True)
    ]


def drawn(graph: Graph) -> list[str]:
    return [piece.nodes[0] for piece in contract(graph, every_node=True).pieces]


def chain(layers: int, name: str = "chain") -> Graph:
    """An image and convolutions one after the other."""
    nodes = [Node("input", Input(3), (), 0, "input", "input")]
    for number in range(layers):
        node = f"conv{number}.level0"
        nodes.append(Node(node, Conv(3), (nodes[-1].name,), 0, f"conv{number}", node))
    table = {node.layer: Layer("conv", f"/somewhere/else/net.yaml:{place}") for place, node in enumerate(nodes, 1)}
    return Graph(name, nodes, {"output": nodes[-1].name}, size=(32, 32), layers=table)


# --- the file


@pytest.fixture(scope="module")
def page() -> str:
    return mgcompile.draw("imagenet/r-mg-34", format="html").decode()


def test_nothing_comes_from_outside(page: str) -> None:
    for tag, attributes in Elements(page).elements:
        assert tag not in {"iframe", "img", "object", "embed", "audio", "video", "base"}
        assert "src" not in attributes
        assert "style" not in attributes  # the policy would block it
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("href", "data:,") == "data:,"
    own = "".join(text for tag, attributes, text in Elements(page).texts if "type" not in attributes)
    for way in (
        "fetch(",
        "XMLHttpRequest",
        "WebSocket",
        "EventSource",
        "sendBeacon",
        "import(",
        "@import",
        "url(",
        "eval(",
    ):
        assert way not in own


def test_the_policy_names_the_scripts_and_the_style_by_their_hashes(page: str) -> None:
    found = Elements(page)
    (policy,) = (
        attributes["content"] or ""
        for tag, attributes in found.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == ["'none'"]
    assert rules["img-src"] == ["data:"]
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        texts = [text for kind, attributes, text in found.texts if kind == tag and "type" not in attributes]
        assert rules[f"{tag}-src"] == [
            f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts
        ]


def test_the_library_is_unchanged_and_its_licences_stand_in_the_page(page: str) -> None:
    for name in D3:
        assert (ASSETS / f"d3/d3-{name}.min.js").read_text().rstrip() in page
    for name in ("LICENSE", "LICENSE-d3-ease"):
        assert (ASSETS / "d3" / name).read_text() in page


def test_the_scripts_are_short_and_all_joined() -> None:
    assert {path.name for path in ASSETS.glob("*.js")} == set(SCRIPTS)
    for path in [*ASSETS.glob("*.js"), *ASSETS.glob("*.css"), *ASSETS.glob("*.html")]:
        assert len(path.read_text().splitlines()) < 400, path
        assert "{{data}}" not in path.read_text() or path.name == "page.html"


HOSTILE = '</script><script>alert(1)</script><!-- & "{{data}}" \u2028 '


def test_no_name_can_end_the_script() -> None:
    graph = chain(2, HOSTILE)
    measure = Measure("x", HOSTILE, HOSTILE, {"conv0.level0": 1.5})
    text = format_page(graph, measures=[measure], facts={HOSTILE: HOSTILE})
    data = data_of(text)
    assert data["name"] == data["measures"][0]["title"] == data["facts"][0][0] == HOSTILE
    assert data["measures"][0]["values"] == [None, 1.5, None]
    found = Elements(text)
    assert [tag for tag, _ in found.elements].count("script") == 3
    assert ("title", {}, visible(HOSTILE)) in found.texts


def test_figures_that_are_no_numbers_are_left_out() -> None:
    measure = Measure("x", "x", "", {"conv0.level0": float("inf"), "conv1.level0": float("nan"), "elsewhere": 1})
    assert page_data(chain(2), [measure], {})["measures"][0]["values"] == [None, None, None]


def test_lines_of_the_spec_without_folders() -> None:
    data = page_data(chain(2), [], {})
    assert [data["origins"][place] for place in data["cells"]["origin"]] == ["net.yaml:1", "net.yaml:2", "net.yaml:3"]
    assert "/somewhere" not in format_page(chain(2))


# --- the data are the graph


def check_data(graph: Graph) -> dict[str, Any]:
    data = page_data(graph, [], {})
    cells = data["cells"]
    names = names_of(data)
    assert names == drawn(graph)
    assert len({len(column) for column in cells.values()}) == 1
    # What a cell reads: its operands, through whatever is not drawn.
    ends: dict[str, set[str]] = {}
    for node in graph:
        read = set().union(*(ends[source] for source in operands(node)))
        ends[node.name] = {node.name} if node.name in set(names) else read
        if node.name in set(names):
            place = names.index(node.name)
            assert {names[source] for source in cells["inputs"][place]} == read
            assert all(cells["column"][source] < cells["column"][place] for source in cells["inputs"][place])
            assert cells["level"][place] == node.level
            assert tuple(data["shapes"][cells["shape"][place]]) == graph.shapes()[node.name]
    return data


@pytest.mark.parametrize("name", [*networks.NETWORKS])
def test_cells_are_those_of_the_graph(name: str) -> None:
    check_data(networks.NETWORKS[name]())


@pytest.mark.parametrize("form", [None, "training", "inference"])
@pytest.mark.parametrize("name", ["cifar100/r-mg-12", "mnist-seg/u-mg-11", "beyond/lapsrn"])
def test_cells_of_optimised_networks(name: str, form: str | None) -> None:
    graph = optimize(load(name).graph, form)
    data = check_data(graph)
    audit = audit_graph(graph)
    measures = [
        Measure("params", "", "", {row.node: row.params for row in audit.rows}),
        Measure("macs", "", "", {row.node: row.macs for row in audit.rows}),
        Measure("bytes", "", "", {row.node: row.activation_bytes for row in audit.rows}),
        Measure("field", "", "", {row.node: max(row.size) for row in receptive_field(graph).rows}, adds=False),
    ]
    params, macs, activations, field = page_data(graph, measures, {})["measures"]
    assert sum(value or 0 for value in params["values"]) == audit.params
    assert sum(value or 0 for value in macs["values"]) == audit.macs
    assert sum(value or 0 for value in activations["values"]) == audit.activation_bytes
    rows = {row.node: max(row.size) for row in receptive_field(graph).rows}
    assert field["values"] == [rows[name] for name in names_of(data)]


@pytest.mark.parametrize("name", zoo_names())
def test_every_network_of_the_zoo_has_a_page(name: str) -> None:
    spec = load(name)
    graph = spec.graph
    text = mgcompile.draw(spec, format="html").decode()
    assert len(text) < 1_000_000
    data = data_of(text)
    assert names_of(data) == drawn(graph)
    assert [measure["key"] for measure in data["measures"]] == ["macs", "params", "bytes", "field"]
    assert sum(data["measures"][1]["values"]) == audit_graph(graph).params
    assert {name for name, _ in data["outputs"]} == set(graph.outputs)
    check_twins(data)


def check_twins(data: dict[str, Any]) -> None:
    """What stands for what is equal to it, one for one."""
    cells, layers = data["cells"], data["layers"]
    inside: list[list[int]] = [[] for _ in layers]
    for cell, layer in enumerate(cells["layer"]):
        around = layer
        while around >= 0:
            inside[around].append(cell)
            around = layers[around][0]
    for number, (_, _, repeats, twins, _) in enumerate(layers):
        parts = [inside[child] for child, layer in enumerate(layers) if layer[0] == number]
        if repeats == 1:
            assert twins == []
            continue
        assert len(parts) == repeats
        for place, part in enumerate(parts[1:]):
            stand_for = twins[place] if twins else parts[0]
            assert len(set(stand_for)) == len(part)
            assert set(stand_for) <= set(parts[0])
            for cell, twin in zip(part, stand_for, strict=True):
                for key in ("kind", "label", "level"):
                    assert cells[key][cell] == cells[key][twin]


# --- the tree of layers


def tree_of(graph: Graph) -> Branch:
    return layer_tree(build_lattice(graph, fold=False, detail="op").cells, fold_repeats(contract(graph)))


def runs_of(root: Branch) -> dict[str, int]:
    return {branch.path: branch.repeats for branch, _ in preorder(root) if branch.repeats > 1}


def test_the_runs_are_those_of_the_drawing() -> None:
    assert runs_of(tree_of(load("imagenet/r-mg-34").graph)) == {"stage1": 3, "stage2": 4, "stage3": 6, "stage4": 3}
    # A part of a layer is a layer of its own; what is folded in the first of several is folded in the others.
    runs = runs_of(tree_of(load("beyond/hrnet-w18").graph))
    assert runs["stage1.1–3"] == 3
    assert runs["stage3"] == 4
    assert [runs[f"stage3.{index}.branch"] for index in range(4)] == [4] * 4


def test_a_repeat_that_has_more_than_the_first_is_no_part_of_a_run() -> None:
    def graph(extra: bool) -> Graph:
        build = networks.Builder("x", 32)
        here = "input"
        for number in range(3):
            if extra and number == 1:
                here = build.add(f"part.{number}.norm", networks.BatchNorm(), [here], 0, f"part.{number}", "norm", 3)
            here = build.add(f"part.{number}.conv", Conv(3), [here], 0, f"part.{number}", "conv", 3)
        return build.finish(here)

    assert runs_of(tree_of(graph(False))) == {"part": 3}
    assert runs_of(tree_of(graph(True))) == {}


def test_a_layer_that_holds_one_other_is_one_with_it() -> None:
    build = networks.Builder("x", 32)
    one = build.add("a.b.c", Conv(3), ["input"], 0, "a.b", "conv", 3)
    two = build.add("d.e", Conv(3), [one], 0, "d.e", "conv", 3)
    root = tree_of(build.finish(build.add("d.f", Pool("max", 2, 2), [two], 1, "d.f", "pool", 3)))
    assert [(branch.path, branch.name, parent) for branch, parent in preorder(root)] == [
        ("input", "input", -1),
        ("a.b", "a.b", -1),
        ("d", "d", -1),
        ("d.e", "e", 2),
        ("d.f", "f", 2),
    ]


def test_ten_thousand_layers_take_seconds() -> None:
    def seconds(layers: int) -> float:
        graph = chain(layers)
        start = time.process_time()
        text = format_page(graph, measures=[Measure("x", "x", "", dict.fromkeys(graph.nodes, 1))])
        assert len(data_of(text)["cells"]["name"]) == layers + 1
        return time.process_time() - start

    few, many = seconds(1000), seconds(10_000)
    assert many < 30
    assert many < 40 * few


# --- the ways to it


def test_draw_writes_a_page(tmp_path: Path) -> None:
    data = mgcompile.draw("cifar100/mg-6", tmp_path / "net.HTML")
    assert (tmp_path / "net.HTML").read_bytes() == data
    assert data.startswith(b"<!DOCTYPE html>")
    assert mgcompile.draw("cifar100/mg-6", format="html") == data
    assert data_of(data.decode())["start"] == {"mode": "", "every": False}
    every = mgcompile.draw("cifar100/mg-6", format="html", fold=False, detail="op").decode()
    assert data_of(every)["start"] == {"mode": "operations", "every": True}
    with pytest.raises(MgcompileError, match="detail 'unit' is none of layer, op"):
        mgcompile.draw("cifar100/mg-6", format="html", detail="unit")
    assert b"inference" in mgcompile.draw("cifar100/mg-6", format="html", optimize="inference")


def test_the_command_writes_a_page(tmp_path: Path) -> None:
    target = tmp_path / "net.html"
    result = CliRunner().invoke(main, ["draw", "cifar100/mg-6", "-o", str(target)])
    assert result.exit_code == 0, result.output
    assert re.fullmatch(r"wrote .*net\.html \(\d+\.\d KiB\)\n", result.output)
    assert target.read_bytes() == mgcompile.draw("cifar100/mg-6", format="html")


def test_a_page_is_made_of_a_graph() -> None:
    graph = networks.fpn()
    with pytest.raises(MgcompileError, match="'html' is no format of a drawing; known are dot, pdf, png, svg"):
        render_lattice(build_lattice(graph), "html")
    with pytest.raises(MgcompileError, match="'jpg' is no format of a drawing; known are dot, html, pdf, png, svg"):
        draw_graph(graph, format="jpg")
    assert draw_graph(graph, format="html").decode() == format_page(graph)


def test_every_kind_that_is_drawn_has_a_look() -> None:
    assert set(page_data(chain(1), [], {})["look"]["kinds"]) == {str(kind) for kind in Kind} - {"reference"}
