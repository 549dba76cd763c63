"""Optimised networks are drawn as they are written: the same cells and edges, without what no output needs."""

from __future__ import annotations

from collections import Counter

import pytest

import mgcompile
from mgcompile.drawing import Cell, EdgeKind, Lattice, build_lattice
from mgcompile.errors import MgcompileError
from mgcompile.graph import Graph
from mgcompile.graph.ops import ChannelsLast, FusedConv, Kind
from mgcompile.passes import MODES, optimize
from mgcompile.passes.prune import prune
from mgcompile.spec import parse_spec
from tests.drawing import networks

ZOO = [
    "cifar100/r-mg-12",
    "cifar100/r-pmg-16",
    "mnist-seg/u-mg-11",
    "mnist-seg/r-pmg-20",  # a projection is computed after what it is added to
    "beyond/drrn",  # an activation stands in the unit after the sum that it is taken into a convolution with
    "beyond/retinanet-r50-fpn",
    "beyond/unet-plus-plus",
]
SMALL = """\
input: {channels: 3, size: 16}
layers:
  - pyramid: 2
  - conv: {channels: [8, 8], reach: 0}
  - unit: {channels: [8, 8]}
    repeat: 3
  - drop: coarsest
  - classify: 4
"""

Place = tuple[int, int, int, Kind, int, str, bool]


def place(cell: Cell) -> Place:
    return cell.column, cell.level, cell.lane, cell.kind, cell.channels, cell.path, cell.minor


def edges(lattice: Lattice) -> Counter[tuple[Place, Place, EdgeKind, int]]:
    cells = lattice.cells
    return Counter(
        (place(cells[edge.source]), place(cells[edge.target]), edge.kind, edge.count) for edge in lattice.edges
    )


def check_same(graph: Graph, mode: str, *, fold: bool) -> None:
    plain = build_lattice(prune(graph), fold=fold)
    ours = build_lattice(optimize(graph, mode), fold=fold)
    assert Counter(map(place, ours.cells)) == Counter(map(place, plain.cells))
    assert edges(ours) == edges(plain)
    assert [(group.path, group.repeats) for group in ours.repeats] == [
        (group.path, group.repeats) for group in plain.repeats
    ]
    assert [(name, place(ours.cells[cell])) for name, cell in ours.outputs] == [
        (name, place(plain.cells[cell])) for name, cell in plain.outputs
    ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("name", ZOO)
def test_the_picture_is_that_of_the_plain_network(name: str, fold: bool, mode: str) -> None:
    check_same(mgcompile.load(name).graph, mode, fold=fold)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_a_network_by_hand(name: str) -> None:
    graph = networks.NETWORKS[name]()
    check_same(graph, "inference", fold=True)


def small() -> Graph:
    return parse_spec(SMALL, "small.yaml").graph


def test_a_residual_unit() -> None:
    graph = optimize(small(), "inference")
    lattice = build_lattice(graph)
    (unit,) = lattice.repeats
    assert unit.repeats == 2
    kinds = {edge.kind for edge in lattice.edges if edge.target in unit.cells}
    assert kinds == {EdgeKind.SAME, EdgeKind.DOWN, EdgeKind.UP, EdgeKind.SHORTCUT}
    second = next(lattice.cells[cell] for cell in unit.cells if lattice.cells[cell].path.endswith("conv2.conv"))
    assert second.label == "conv 3x3 + sub-pixel + norm + add + relu"
    assert graph[second.nodes[0]].op.label == second.label


def test_cells_have_names_of_the_graph() -> None:
    graph = optimize(mgcompile.load("mnist-seg/r-pmg-20").graph, "inference")
    names = [name for cell in build_lattice(graph, fold=False).cells for name in cell.nodes]
    assert len(names) == len(set(names))
    # A convolution that is drawn apart from the sum that it does is none of them.
    assert {name for name in names if name not in graph.nodes} == {"act1.level0.conv"}
    drawn = {node.name for node in graph if node.op.kind in (Kind.CONV, Kind.LINEAR)}
    assert drawn <= set(names)


@pytest.mark.parametrize("detail", ["layer", "op"])
def test_what_computes_nothing_is_not_drawn(detail: str) -> None:
    graph = optimize(mgcompile.load("mnist-seg/u-mg-11").graph, "inference")
    lattice = build_lattice(graph, fold=False, detail=detail)
    assert any(node.op.kind is Kind.REFERENCE for node in graph)
    kinds = {graph[cell.nodes[0]].op.kind for cell in lattice.cells}
    assert Kind.REFERENCE not in kinds
    assert not any(isinstance(graph[cell.nodes[0]].op, ChannelsLast) for cell in lattice.cells)


def test_every_operation() -> None:
    graph = optimize(small(), "inference")
    lattice = build_lattice(graph, fold=False, detail="op")
    computing = [
        node.name for node in graph if node.op.kind is not Kind.REFERENCE and not isinstance(node.op, ChannelsLast)
    ]
    assert [cell.nodes[0] for cell in lattice.cells] == computing
    fused = {number for number, cell in enumerate(lattice.cells) if isinstance(graph[cell.nodes[0]].op, FusedConv)}
    shortcuts = [edge for edge in lattice.edges if edge.kind is EdgeKind.SHORTCUT]
    assert len(shortcuts) == sum(node.op.addends for node in graph if isinstance(node.op, FusedConv))
    assert {edge.target for edge in shortcuts} <= fused


def test_every_format_and_the_figures() -> None:
    spec = parse_spec(SMALL, "small.yaml")
    for format in ("svg", "dot", "png"):
        assert mgcompile.draw(spec, format=format, optimize="inference", detail="op")
    svg = mgcompile.draw(spec, optimize="training").decode()
    macs = mgcompile.audit(spec, optimize="training").macs
    assert macs < mgcompile.audit(spec).macs
    assert f"{macs / 1e6:.2f} M MACs" in svg
    with pytest.raises(MgcompileError, match="optimize='fast': known are training, inference"):
        mgcompile.draw(spec, optimize="fast")  # type: ignore[arg-type]
    with pytest.raises(MgcompileError, match="optimize='fast': known are training, inference"):
        mgcompile.audit(spec, optimize="fast")  # type: ignore[arg-type]
