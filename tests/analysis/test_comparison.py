"""Networks beside each other, and what makes one differ from another: laws over generated specs, cases by hand."""

from __future__ import annotations

import csv
import json
import time
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mgcompile import load
from mgcompile.analysis import audit_graph, comparison_report, receptive_field, subsequence
from mgcompile.analysis.changes import Diff, LayerChange, diff_graphs
from mgcompile.analysis.comparison import Profile, compare_graphs, profile, ratio
from mgcompile.analysis.memory import memory
from mgcompile.analysis.subsequence import common_places
from mgcompile.errors import ShapeError, SpecError
from mgcompile.graph import Graph
from mgcompile.graph.builder import INPUT, GraphBuilder
from mgcompile.graph.ops import Conv
from mgcompile.passes import optimize
from mgcompile.spec import zoo_names
from tests.analysis.networks import every_op, small
from tests.laws.specs import specs
from tests.lowering.graphs import graphs

PAPER = [name for name in zoo_names() if not name.startswith("beyond/")]
FIGURES = ("params", "macs", "flops", "activation_bytes")
FEW = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


def network(*layers: Any, size: int = 16, **more: Any) -> Graph:
    return load({"name": "net", "input": {"size": size}, "layers": list(layers), **more}).graph


def conv(id: str, channels: int = 8, **options: Any) -> dict[str, Any]:
    return {"id": id, "conv": {"channels": channels, "norm": "none", "act": "none", **options}}


def check_sums(diff: Diff, first: Graph, second: Graph) -> None:
    """All that changed adds up to the difference of the totals, in layers and in groups of any depth."""
    one, other = audit_graph(first), audit_graph(second)
    for changes in (diff.changes, *(diff.grouped(depth) for depth in (1, 2, 5))):
        for figure in FIGURES:
            total = getattr(other, figure) - getattr(one, figure)
            assert sum(getattr(change, figure) for change in changes) == total, figure
        assert sum(change.layers for change in changes) == len(diff.changes)
    sides = (len(diff.paths[0]), "added"), (len(diff.paths[1]), "removed")
    for layers, absent in sides:
        assert sum(change.kind != absent for change in diff.changes) + diff.equal == layers


# --- the longest common subsequence


def longest(one: list[int], other: list[int]) -> int:
    """Its length, by the table of all beginnings."""
    row = [0] * (len(other) + 1)
    for a in one:
        before = row
        row = [0]
        for place, b in enumerate(other):
            row.append(before[place] + 1 if a == b else max(before[place + 1], row[place]))
    return row[-1]


SEQUENCES = st.lists(st.integers(0, 3), max_size=30)


def check_places(one: list[int], other: list[int]) -> list[tuple[int, int]]:
    places = list(common_places(one, other))
    assert all(a < c and b < d for (a, b), (c, d) in pairwise(places))
    assert all(one[a] == other[b] for a, b in places)
    return places


@given(SEQUENCES, SEQUENCES)
@settings(max_examples=150, deadline=None)
def test_a_common_subsequence_is_the_longest(one: list[int], other: list[int]) -> None:
    assert len(check_places(one, other)) == longest(one, other)


@given(SEQUENCES, SEQUENCES)
@settings(max_examples=100, deadline=None)
def test_a_search_that_starts_anew_finds_a_common_subsequence(one: list[int], other: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subsequence, "STEPS", 3)
        assert len(check_places(one, other)) <= longest(one, other)
        assert check_places(one, one) == [(place, place) for place in range(len(one))]


def test_one_that_is_far_from_the_other_takes_no_longer() -> None:
    start = time.process_time()
    assert not check_places(list(range(10_000)), list(range(10_000, 20_000)))
    assert len(check_places([*range(20), *range(10_000)], list(range(10_000)))) == 10_000
    assert time.process_time() - start < 30


# --- what differs


@given(specs(), specs())
@FEW
def test_changes_add_up_between_any_two_specs(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = load(one).graph, load(other).graph
    check_sums(diff_graphs(first, second), first, second)


@given(st.data(), specs())
@FEW
def test_changes_add_up_where_a_layer_is_left_out(data: st.DataObject, spec: dict[str, Any]) -> None:
    place = data.draw(st.integers(0, len(spec["layers"]) - 1))
    try:
        shorter = load({**spec, "layers": [*spec["layers"][:place], *spec["layers"][place + 1 :]]}).graph
    except SpecError:
        return
    first = load(spec).graph
    check_sums(diff_graphs(first, shorter), first, shorter)
    check_sums(diff_graphs(shorter, first), shorter, first)


@given(graphs(), graphs())
@FEW
def test_changes_add_up_between_graphs_by_chance(first: Graph, second: Graph) -> None:
    check_sums(diff_graphs(first, second), first, second)


@given(specs())
@FEW
def test_nothing_differs_from_itself(spec: dict[str, Any]) -> None:
    graph, again = load(spec).graph, load(spec).graph
    diff = diff_graphs(graph, again)
    assert not diff.changes
    assert diff.outputs
    assert diff.equal_nodes == len(graph)


def only(diff: Diff) -> LayerChange:
    (change,) = diff.changes
    return change


def test_a_wider_layer_and_what_reads_it() -> None:
    first = network(conv("a", 8), conv("b", 4, kernel=1))
    second = network(conv("a", 16), conv("b", 4, kernel=1))
    a, b = sorted(diff_graphs(first, second).changes, key=lambda change: change.first or "")
    cells = 16 * 16
    assert (a.kind, a.first, a.second, a.details) == ("changed", "a", "a", ("channels 8 -> 16",))
    assert (a.params, a.macs) == (8 * 27 + 8, 8 * 27 * cells)
    assert a.activation_bytes == 8 * cells * 4
    assert (b.details, b.params, b.macs, b.activation_bytes) == (("input channels 8 -> 16",), 8 * 4, 8 * 4 * cells, 0)


def test_the_largest_change_comes_first() -> None:
    first = network(conv("a", 8), conv("b", 4), conv("c", 4, kernel=1))
    second = network(conv("a", 8), conv("b", 4, bias=False), conv("c", 4))
    changes = diff_graphs(first, second).changes
    assert [change.first for change in changes] == ["c", "b"]
    assert [change.details for change in changes] == [("kernel 1x1 -> 3x3",), ("bias True -> False",)]


def test_options_size_and_operation() -> None:
    first = network(
        conv("a"), {"id": "b", "conv": {"channels": 8, "kernel": 1, "norm": "none", "act": "none"}}, conv("c")
    )
    second = network(conv("a", stride=2), {"id": "b", "act": "tanh"}, conv("c"))
    changes = {change.first: change.details for change in diff_graphs(first, second).changes}
    assert changes["a"] == ("stride 1 -> 2", "size 16x16 -> 8x8", "level 0 -> 1")
    assert changes["b"] == ("op conv 1x1 -> tanh", "size 16x16 -> 8x8", "level 0 -> 1")
    assert changes["c"] == ("size 16x16 -> 8x8", "level 0 -> 1")


def test_an_inserted_layer_leaves_numbered_names_alone() -> None:
    layers = [{"conv": {"channels": channels}} for channels in (4, 8, 12, 16, 20)]
    first, second = network(*layers), network(*layers[:1], {"conv": {"channels": 4}}, *layers[1:])
    diff = diff_graphs(first, second)
    added = [change.second for change in diff.changes if change.kind == "added"]
    assert added
    assert {path.split(".")[0] for path in added if path} == {"conv2"}
    assert all(change.params == 0 for change in diff.changes if change.kind != "added")
    grouped = [(change.kind, change.first, change.second) for change in diff.grouped()]
    assert ("added", None, "conv2") in grouped
    assert ("moved", "conv5", "conv6") in grouped


def test_another_input_and_another_output_are_seen() -> None:
    layers = [conv("a"), conv("b"), {**conv("c"), "from": "a"}]
    first = network(*layers[:2], conv("c"), outputs={"out": "c"})
    second = network(*layers, outputs={"out": "c"})
    change = only(diff_graphs(first, second))
    assert (change.kind, change.first, change.details, change.macs) == ("changed", "c", ("wiring",), 0)
    other = network(*layers, outputs={"out": "b"})
    diff = diff_graphs(second, other)
    assert not diff.changes
    assert not diff.outputs
    assert diff_graphs(second, second).outputs


def test_shared_weights_are_seen() -> None:
    own = network(conv("a"), conv("b"), conv("c"))
    shared = network(conv("a"), conv("b"), {**conv("c"), "share": {"with": "b"}})
    change = only(diff_graphs(own, shared))
    assert (change.first, change.details, change.params, change.macs) == ("c", ("shared weights",), -(8 * 9 * 8 + 8), 0)
    first, second = (
        network(conv("a"), conv("b"), conv("c"), {**conv("d"), "share": {"with": owner}}) for owner in ("b", "c")
    )
    change = only(diff_graphs(first, second))
    assert (change.first, change.details, change.params) == ("d", ("shared weights",), 0)


def test_a_grid_more() -> None:
    first, second = (
        network({"id": "image", "pyramid": levels}, conv("a", channels=4, reach=0), {"drop": "coarsest"})
        for levels in (2, 3)
    )
    (details,) = (change.details for change in diff_graphs(first, second).changes if change.first == "a")
    assert details == ("levels 0, 1 -> 0, 1, 2",)


def test_a_renamed_layer_has_moved() -> None:
    first, second = network(conv("a"), conv("b", 4)), network(conv("a"), conv("z", 4))
    change = only(diff_graphs(first, second))
    assert (change.kind, change.first, change.second, change.details) == ("moved", "b", "z", ())


def test_groups_stand_for_their_layers() -> None:
    def net(n: int) -> Graph:
        return load("cifar100/r-mg-12", params={"n": n}).graph

    diff = diff_graphs(net(1), net(2))
    grouped = diff.grouped()
    assert len(grouped) < len(diff.changes)
    added = [change.second for change in grouped if change.kind == "added"]
    assert sorted(path for path in added if path) == [
        "stage1.units.1", "stage2.1", "stage3.1", "stage4.1", "stage5.1",
    ]  # fmt: skip
    deep = diff.grouped(3)
    assert all(change.second is None or change.second.count(".") >= 2 for change in deep if change.kind == "added")
    check_sums(diff, net(1), net(2))


def test_a_group_of_which_a_part_is_the_same_is_not_one() -> None:
    first = network({"id": "g", "group": [conv("a"), conv("b")]})
    second = network({"id": "g", "group": [conv("a"), conv("b"), conv("c", 4), conv("d", 4)]})
    assert [(change.kind, change.second) for change in diff_graphs(first, second).grouped()] == [
        ("added", "g.c"),
        ("added", "g.d"),
    ]
    both = network({"id": "g", "group": [conv("a"), conv("b")]}, {"id": "h", "group": [conv("c", 4), conv("d", 4)]})
    grouped = diff_graphs(first, both).grouped()
    assert [(change.kind, change.second, change.layers) for change in grouped] == [("added", "h", 2)]
    assert grouped[0].details == ("conv 3x3",)


def test_optimised_graphs_differ_too() -> None:
    graph = load("mnist-seg/u-mg-11").graph
    fast = optimize(graph, "inference")
    diff = diff_graphs(graph, fast)
    assert diff.changes
    check_sums(diff, graph, fast)


def test_every_operation() -> None:
    check_sums(diff_graphs(every_op(), small()), every_op(), small())
    assert not diff_graphs(every_op(), every_op()).changes


@pytest.mark.parametrize(("one", "other"), list(pairwise(PAPER)))
def test_the_networks_of_the_paper(one: str, other: str) -> None:
    first, second = load(one).graph, load(other).graph
    check_sums(diff_graphs(first, second), first, second)


def chain(layers: int, channels: int = 4, prefix: str = "body") -> Graph:
    builder, last = GraphBuilder("chain", 3, (4, 4)), INPUT
    for number in range(layers):
        layer = f"{prefix}.{number}"
        last = builder.add(f"{layer}.conv", Conv(channels), [last], 0, layer=layer)
    return builder.graph({"out": last})


def test_ten_thousand_layers_take_ten_times_as_long_as_a_thousand() -> None:
    def seconds(layers: int) -> float:
        first, longer, renamed = chain(layers), chain(layers + 50), chain(layers, prefix="other")
        start = time.process_time()
        assert [change.kind for change in diff_graphs(first, longer).changes] == ["added"] * 50
        (change,) = diff_graphs(first, renamed).grouped()
        assert (change.kind, change.first, change.second) == ("moved", "body", "other")
        return time.process_time() - start

    assert seconds(10_000) < 100 * seconds(1_000)


# --- all figures


def test_the_figures_are_those_of_their_own_reports() -> None:
    graph = load("cifar100/mg-11").graph
    found = profile("net", graph, (40, 48), batch=3)
    audit, bytes_, field = (
        audit_graph(graph, (40, 48)),
        memory(graph, (40, 48), batch=3),
        receptive_field(graph, (40, 48)),
    )
    assert found.figures == {
        "params": audit.params,
        "macs": audit.macs,
        "flops": audit.flops,
        "activation_bytes": audit.activation_bytes,
        "inference_bytes": bytes_.inference_total,
        "training_bytes": bytes_.training_total,
        "field": None,
        "depth": field.depth,
        "nodes": len(graph),
        "levels": 6,
    }


def test_the_field_is_that_of_the_first_output() -> None:
    graph = network(conv("a"), conv("b", kernel="1x5"), outputs={"first": "b", "second": "a"})
    assert profile("net", graph).output.unclipped == (3, 7)
    assert profile("net", graph).figures["field"] == 7
    with pytest.raises(ShapeError, match=r"second: .* too small"):
        compare_graphs([("first", graph), ("second", network(conv("a", kernel=5, padding=0)))], (3, 3))


def test_a_ratio_is_exact_or_none() -> None:
    assert ratio(3, 7) == Fraction(3, 7)
    assert ratio(0, 7) == 0
    assert ratio(7, 0) is ratio(None, 7) is ratio(7, None) is None


# --- as text


def two() -> tuple[list[Profile], Diff]:
    first, second = network(conv("a", 8), conv("b", 4, kernel=1)), network(conv("a", 16), conv("b", 4, kernel=1))
    return [profile("one", first), profile("other", second, batch=2)], diff_graphs(first, second)


def test_a_table() -> None:
    profiles, _ = two()
    lines = comparison_report.as_table(profiles).splitlines()
    assert lines[0].split() == ["figure", "one", "other"]
    table = {line.split("  ")[0]: line.split() for line in lines[2:]}
    assert table["parameters"][-3:] == ["260", "516", "1.98x"]
    assert table["receptive field"][-3:] == ["3x3", "3x3", "1.00x"]
    assert table["input"][-3:] == ["3x16x16", "3x16x16", "-"]
    assert "parameters by level" in lines
    assert max(map(len, lines)) <= 120


def test_networks_that_do_not_fit_stand_below() -> None:
    profiles = [profile(f"network-{number}", small()) for number in range(9)]
    for width in (40, 80, 120):
        text = comparison_report.as_table(profiles, width=width)
        assert all(text.count(f"network-{number}\n") + text.count(f"network-{number} ") >= 4 for number in range(9))
        assert max(map(len, text.splitlines())) <= width
    assert comparison_report.as_markdown(profiles).count("| parameters |") == 1


def test_a_diff_as_a_table() -> None:
    profiles, diff = two()
    lines = comparison_report.as_table(profiles, diff).splitlines()
    start = lines.index("from one to other")
    assert lines[start + 3].split() == [
        "changed",
        "a",
        "channels",
        "8",
        "->",
        "16",
        "+224",
        "+55.30",
        "k",
        "+8.00",
        "KiB",
    ]
    assert lines[start + 5].split() == ["all", "-", "-", "+256", "+63.49", "k", "+8.00", "KiB"]
    assert "1 layer (1 nodes) are equal in both" in lines
    assert "| changed | a |" in comparison_report.as_markdown(profiles, diff)
    same = diff_graphs(small(), small())
    assert "no layer differs" in comparison_report.as_table([profile("a", small())] * 2, same)


def test_csv() -> None:
    profiles, diff = two()
    rows = list(csv.DictReader(comparison_report.as_csv(profiles).splitlines()))
    assert [row["params"] for row in rows] == ["260", "516"]
    assert [row["params_ratio"] for row in rows] == ["1.0000", "1.9846"]
    levels = list(csv.DictReader(comparison_report.as_csv(profiles, by="layer").splitlines()))
    assert {(row["name"], row["layer"]) for row in levels} == {
        (name, layer) for name in ("one", "other") for layer in ("input", "a", "b")
    }
    changes = list(csv.DictReader(comparison_report.as_csv(profiles, diff).splitlines()))
    assert [(row["kind"], row["first"], row["params"]) for row in changes] == [
        ("changed", "a", "224"),
        ("changed", "b", "32"),
    ]


def test_json() -> None:
    profiles, diff = two()
    document = json.loads(comparison_report.as_json(profiles, diff))
    assert [each["macs"] for each in document["networks"]] == [profile.audit.macs for profile in profiles]
    assert document["networks"][1]["ratios"]["params"] == 1.9846
    assert document["networks"][1]["receptive_field"] == [3, 3]
    assert sum(change["params"] for change in document["diff"]["changes"]) == 256
    assert document["diff"]["equal"] == 1
    assert json.loads(comparison_report.as_json(profiles))["diff"] is None


def test_what_is_unbounded_is_said() -> None:
    profiles = [profile(name, load(name).graph) for name in ("cifar100/vgg-6", "cifar100/mg-6")]
    assert "unbounded" in comparison_report.as_table(profiles)
    document = json.loads(comparison_report.as_json(profiles))
    assert document["networks"][0]["receptive_field"] == [None, None]
    assert document["networks"][0]["ratios"]["field"] is None


def test_layers_of_several_networks_keep_their_order() -> None:
    merged = comparison_report._merged([["a", "b", "d"], ["a", "c", "d"], ["x", "b", "y"]])
    assert merged == ["x", "a", "c", "b", "y", "d"]
    assert comparison_report._merged([["b"], ["a", "b"]]) == ["a", "b"]
