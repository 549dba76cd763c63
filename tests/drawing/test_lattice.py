"""Laws of the lattice, over hand-made networks; and what the paper's networks must look like."""

from __future__ import annotations

import pytest

from mgcompile.drawing import EdgeKind, Lattice, build_lattice
from mgcompile.drawing.contraction import operands
from mgcompile.errors import MgcompileError
from mgcompile.graph import Graph, verify
from mgcompile.graph.ops import Kind
from mgcompile.spec import load
from tests.drawing import networks

each_network = pytest.mark.parametrize("name", networks.NETWORKS)
each_fold = pytest.mark.parametrize("fold", [True, False])


def repeats(lattice: Lattice) -> list[tuple[str, int]]:
    return [(group.path, group.repeats) for group in lattice.repeats]


def kinds(lattice: Lattice) -> set[EdgeKind]:
    return {edge.kind for edge in lattice.edges}


def reached(graph: Graph, owner: dict[str, int], node: str) -> set[int]:
    """The cells that a node's value comes from."""
    found: set[int] = set()
    open_nodes = [node]
    while open_nodes:
        here = open_nodes.pop()
        if here in owner:
            found.add(owner[here])
        else:
            open_nodes += operands(graph[here])
    return found


@each_network
def test_the_networks_are_graphs(name: str) -> None:
    assert len(verify(networks.NETWORKS[name]())) > 1


@each_network
def test_each_node_that_computes_a_grid_is_in_exactly_one_cell(name: str) -> None:
    graph = networks.NETWORKS[name]()
    lattice = build_lattice(graph, fold=False)
    drawn = [node for cell in lattice.cells for node in cell.nodes]
    assert len(drawn) == len(set(drawn))
    weighted = {node.name for node in graph if node.op.kind in (Kind.CONV, Kind.LINEAR)}
    assert weighted <= set(drawn)
    convolutions = [cell for cell in lattice.cells if cell.kind in (Kind.CONV, Kind.LINEAR)]
    assert len(convolutions) == len(weighted)


@each_network
def test_the_edges_are_the_dependencies(name: str) -> None:
    graph = networks.NETWORKS[name]()
    lattice = build_lattice(graph, fold=False)
    owner = {node: number for number, cell in enumerate(lattice.cells) for node in cell.nodes}
    wanted = {
        (source, number)
        for number, cell in enumerate(lattice.cells)
        for node in cell.nodes
        for operand in operands(graph[node])
        for source in reached(graph, owner, operand)
        if source != number
    }
    assert {(edge.source, edge.target) for edge in lattice.edges} == wanted


@each_network
@each_fold
@pytest.mark.parametrize("detail", ["layer", "op"])
def test_edges_go_right_and_cells_have_places_of_their_own(name: str, fold: bool, detail: str) -> None:
    lattice = build_lattice(networks.NETWORKS[name](), fold=fold, detail=detail)
    for edge in lattice.edges:
        assert lattice.cells[edge.source].column < lattice.cells[edge.target].column
    places = [(cell.column, cell.level, cell.lane) for cell in lattice.cells]
    assert len(places) == len(set(places))
    assert {cell.column for cell in lattice.cells} == set(range(lattice.columns))


@each_network
@each_fold
def test_equal_graphs_give_equal_lattices(name: str, fold: bool) -> None:
    assert build_lattice(networks.NETWORKS[name](), fold=fold) == build_lattice(networks.NETWORKS[name](), fold=fold)


@each_network
def test_every_node_is_a_cell_in_full_detail(name: str) -> None:
    graph = networks.NETWORKS[name]()
    lattice = build_lattice(graph, fold=False, detail="op")
    assert [cell.nodes for cell in lattice.cells] == [(node.name,) for node in graph]


def test_r_pmg_30() -> None:
    lattice = build_lattice(networks.r_pmg(2))
    assert lattice.columns == 25
    grown = [(f"grow1.step{step}.unit", 2) for step in range(3)]
    assert repeats(lattice) == [*grown, *((f"unit{number}", 2) for number in range(1, 5))]
    assert lattice.levels == tuple((level, (32 >> level, 32 >> level)) for level in range(6))
    assert kinds(lattice) == set(EdgeKind)
    # The staircase: level 0 waits until the last step, and its embedding passes over the columns of the others.
    waiting = [edge for edge in lattice.edges if lattice.is_passing(edge) and lattice.cells[edge.source].level == 0]
    assert max(lattice.cells[edge.target].column - lattice.cells[edge.source].column for edge in waiting) == 5


def test_r_mg_34() -> None:
    lattice = build_lattice(networks.r_mg_34())
    assert repeats(lattice) == [("unit1", 3), ("unit2", 4), ("unit3", 6), ("unit4", 3)]
    assert lattice.columns == 19
    assert lattice.levels[0] == (0, (224, 224))
    assert lattice.levels[-1] == (5, (7, 7))


def test_u_mg_11() -> None:
    lattice = build_lattice(networks.u_mg_11())
    assert repeats(lattice) == []
    assert lattice.columns == 19
    skips = [edge for edge in lattice.edges if edge.kind is EdgeKind.SKIP]
    assert len(skips) == 3 + 3 + 2
    assert sum(lattice.cells[edge.target].label == "C" for edge in skips) == 3 + 2 + 1


def test_all_levels_of_a_layer_share_a_column() -> None:
    lattice = build_lattice(networks.r_pmg(2), fold=False)
    columns: dict[str, set[int]] = {}
    for cell in lattice.cells:
        columns.setdefault(cell.path, set()).add(cell.column)
    assert {path for path, found in columns.items() if len(found) > 1} == set()


def test_a_feature_pyramid_is_added_from_coarse_to_fine() -> None:
    lattice = build_lattice(networks.fpn())
    lateral = {cell.level: cell.column for cell in lattice.cells if cell.path == "lateral"}
    assert lateral[4] < lateral[3] < lateral[2]
    assert not any(cell.kind is Kind.FUSE for cell in lattice.cells)
    assert dict(lattice.outputs).keys() == {"p2", "p3", "p4"}
    assert EdgeKind.SHORTCUT not in kinds(lattice)


def test_an_exchange_with_convolutions_is_drawn_small_around_sums() -> None:
    lattice = build_lattice(networks.hrnet(levels=3, modules=1), fold=False)
    sums = [cell for cell in lattice.cells if cell.kind is Kind.FUSE]
    assert [cell.label for cell in sums] == ["+"] * 3
    assert len({cell.column for cell in sums}) == 1
    assert {cell.lane for cell in sums} == {0}
    small = [cell for cell in lattice.cells if cell.minor and cell.kind is Kind.CONV]
    assert len(small) == 3 + 4  # a 1x1 for each way up, a chain of strided ones for each way down
    assert all(cell.lane > 0 for cell in small)


def test_a_gate_of_one_cell_does_not_host_the_product() -> None:
    lattice = build_lattice(networks.gated())
    assert [cell.label for cell in lattice.cells if cell.kind is Kind.FUSE] == ["×", "+"]
    assert repeats(lattice) == [("unit1", 2)]


def test_parallel_branches_stand_beside_each_other() -> None:
    lattice = build_lattice(networks.inception(), fold=False)
    lanes: dict[str, set[int]] = {}
    for cell in lattice.cells:
        if "branch" in cell.path:
            lanes.setdefault(cell.path.split(".")[1], set()).add(cell.lane)
    assert lanes == {"branch0": {0}, "branch1": {1}, "branch2": {2}}
    assert EdgeKind.SKIP not in kinds(lattice)
    pair = {cell.column for cell in lattice.cells if cell.path.split(".")[0] in ("one", "other")}
    assert len(pair) == 1


def test_a_high_resolution_network_of_the_zoo() -> None:
    lattice = build_lattice(load("beyond/hrnet-w18").graph)
    outer = {path: times for path, times in repeats(lattice) if "." not in path}
    assert outer == {"stage1": 3, "stage3": 4, "stage4": 3}
    sums = {cell.column for cell in lattice.cells if cell.kind is Kind.FUSE and cell.path.startswith("stage4.")}
    assert len(sums) == 1  # all levels meet in one column


def test_nested_repeats_fold_from_the_inside() -> None:
    lattice = build_lattice(networks.hrnet(modules=3))
    assert repeats(lattice) == [("stage.0.branch", 2), ("stage", 3)]


def test_a_first_repeat_of_another_structure_stays_apart() -> None:
    lattice = build_lattice(networks.resnet((3, 4)))
    assert repeats(lattice) == [("stage1", 3), ("stage2", 3)]
    folded = [group for group in lattice.repeats if group.path == "stage2"]
    strided = [cell.column for cell in lattice.cells if cell.path.startswith("stage2.0.")]
    assert max(strided) < folded[0].first


def test_what_is_read_from_outside_is_not_folded_away() -> None:
    build = networks.Builder("early exit", 32)
    grids = build.conv("conv1", {0: "input"}, [8])
    for index in range(4):
        grids = build.residual(f"unit1.{index}", grids, [8])
        if index == 1:
            middle = grids[0]
    lattice = build_lattice(build.finish(middle=middle, last=grids[0]))
    assert repeats(lattice) == [("unit1", 2), ("unit1", 2)]


def test_layers_that_read_all_before_them_do_not_fold() -> None:
    lattice = build_lattice(networks.densenet(5))
    assert repeats(lattice) == []
    assert EdgeKind.SKIP in kinds(lattice)


def test_a_wide_concatenation_is_a_junction() -> None:
    build = networks.Builder("wide", 32)
    parts = [grid for n in range(80) for grid in build.conv(f"conv{n}", {0: "input"}, [2]).values()]
    joined = build.concat("join1", 0, parts)
    (last,) = build.conv("after", {0: joined}, [8]).values()
    lattice = build_lattice(build.finish(last))
    assert [cell.label for cell in lattice.cells if cell.kind is Kind.FUSE] == ["C"]
    assert len({cell.lane for cell in lattice.cells if cell.column == 1}) == 80


def test_a_long_network_stays_small_when_folded() -> None:
    build = networks.Builder("long", 64)
    grids = build.conv("conv1", build.pyramid(3), [8, 8, 8])
    grids = build.repeat("unit1", 400, grids, [8, 8, 8], networks.Builder.residual)
    graph = build.finish(grids[0])
    assert len(graph) > 10_000
    lattice = build_lattice(graph)
    assert repeats(lattice) == [("unit1", 400)]
    assert len(lattice.cells) == 12
    assert build_lattice(graph, fold=False).columns == 3 + 2 * 400


def test_an_unknown_detail_is_refused() -> None:
    with pytest.raises(MgcompileError, match="detail 'all' is none of layer, op"):
        build_lattice(networks.fpn(), detail="all")
