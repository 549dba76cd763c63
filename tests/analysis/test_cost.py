"""Every figure of a small network by hand, and the laws that hold for any."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from mgcompile.analysis.cost import CONVENTIONS, Audit, Uncounted, audit_graph
from mgcompile.errors import ShapeError
from mgcompile.graph import Graph
from mgcompile.graph.ops import Activation, BatchNorm, Conv, Dropout, Input, Pool, Sum
from tests.analysis.networks import every_op, node, small

STEM = 4 * 8 * 6  # elements of the stem's output
BODY = 4 * 4 * 3


@pytest.fixture(scope="module")
def audit() -> Audit:
    return audit_graph(small())


def test_totals_by_hand(audit: Audit) -> None:
    assert audit.params == (4 * 3 * 9 + 4) + (4 + 4) + 4 * 4 + 2 + (10 * 4 + 10)
    assert audit.macs == STEM * 27 + 2 * BODY * 4 + 40
    elementwise = STEM + 2 * STEM + STEM + 3 * BODY + 3 * BODY + (BODY + 4) + 10
    assert audit.flops == 2 * audit.macs + elementwise
    assert audit.buffers == 4 + 4 + 1
    elements = 3 * 8 * 6 + 3 * STEM + 4 * BODY + 4 + 10
    assert audit.activation_bytes == 4 * elements
    assert (audit.size, audit.smallest_size, audit.outputs) == ((8, 6), (1, 1), {"classes": (10,)})


def test_figures_are_exact_integers(audit: Audit) -> None:
    for figures in (audit, *audit.rows, *audit.by("op")):
        for name in ("params", "macs", "flops", "activation_bytes"):
            assert type(getattr(figures, name)) is int


def test_a_row_says_what_goes_in_and_out(audit: Audit) -> None:
    row = next(row for row in audit.rows if row.node == "stem.conv")
    assert (row.layer, row.op, row.kind, row.level) == ("stem.conv", "conv 3x3", "conv", 0)
    assert (row.inputs, row.output) == (((3, 8, 6),), (4, 8, 6))
    assert [row.level for row in audit.rows[-2:]] == [None, None]


def test_shared_weights_count_once_and_work_at_each_use(audit: Audit) -> None:
    first, second = (row for row in audit.rows if row.layer.startswith("body"))
    assert (first.params, first.shared) == (16, False)
    assert (second.params, second.shared) == (0, True)
    assert first.macs == second.macs == BODY * 4


def test_shared_buffers_count_once_without_weights() -> None:
    graph = Graph(
        "g",
        [
            node("input", Input(2)),
            node("a", BatchNorm(affine=False), "input"),
            node("b", BatchNorm(affine=False), "a", weights="a"),
        ],
        {"out": "b"},
        size=(4, 4),
    )
    audit = audit_graph(graph)
    assert (audit.buffers, audit.params) == (5, 0)
    assert not any(row.shared for row in audit.rows)


def test_views_take_no_memory_and_appended_zeros_do() -> None:
    rows = {row.node: row for row in audit_graph(every_op()).rows}
    assert [rows[name].activation_bytes for name in ("d.slice", "d.crop", "e.flat")] == [0, 0, 0]
    assert rows["d.pad"].activation_bytes == 4 * 8 * 11 * 13
    assert all(row.activation_bytes for name, row in rows.items() if name not in {"d.slice", "d.crop", "e.flat"})


def test_bytes_per_element_scales_memory_alone(audit: Audit) -> None:
    half = audit_graph(small(), bytes_per_element=2)
    assert 2 * half.activation_bytes == audit.activation_bytes
    assert (half.params, half.macs, half.flops) == (audit.params, audit.macs, audit.flops)


def test_another_size(audit: Audit) -> None:
    double = audit_graph(small(), (16, 12))
    assert double.size == (16, 12)
    assert double.macs - 40 == 4 * (audit.macs - 40)
    assert double.params == audit.params


def test_a_size_at_which_a_grid_vanishes_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"4x4 is too small: a grid would vanish below 5x5"):
        audit_graph(every_op(), (4, 4))


def test_what_is_not_counted_is_listed(audit: Audit) -> None:
    why = "normalising the weights of a weighted sum (a few operations a node)"
    assert audit.uncounted == (Uncounted("weighted sum", why, 1),)


def test_groups_by_layer_keep_the_order_and_the_depth(audit: Audit) -> None:
    assert [group.name for group in audit.by("layer")] == ["input", "stem", "pool", "body", "head"]
    deeper = [group.name for group in audit.by("layer", depth=2)]
    assert deeper[:4] == ["input", "stem.conv", "stem.norm", "stem.act"]
    stem = audit.by("layer")[1]
    assert (stem.nodes, stem.params, stem.macs, stem.flops) == (3, 120, STEM * 27, STEM * 54 + 4 * STEM)
    assert stem.activation_bytes == 3 * 4 * STEM


def test_groups_by_level_run_from_fine_to_coarse_and_vectors_last() -> None:
    names = [group.name for group in audit_graph(every_op()).by("level")]
    assert names == ["level 0", "level 1", "level 2", "level 3", "vectors"]


def test_groups_by_op_put_the_most_work_first(audit: Audit) -> None:
    groups = audit.by("op")
    assert groups[0].name == "conv 3x3"
    assert [group.flops for group in groups] == sorted((group.flops for group in groups), reverse=True)


@pytest.mark.parametrize("key", ["layer", "level", "op"])
def test_groups_add_up_to_the_whole(key: str) -> None:
    audit = audit_graph(every_op())
    groups = audit.by(key)  # type: ignore[arg-type]
    assert sum(group.nodes for group in groups) == len(audit.rows)
    for name in ("params", "macs", "flops", "activation_bytes"):
        assert sum(getattr(group, name) for group in groups) == getattr(audit, name)


def test_another_key_is_refused(audit: Audit) -> None:
    with pytest.raises(ValueError, match="cannot group by 'colour'; it must be one of layer, level, op"):
        audit.by("colour")  # type: ignore[arg-type]


def test_an_audit_is_frozen(audit: Audit) -> None:
    with pytest.raises(FrozenInstanceError):
        audit.params = 0  # type: ignore[misc]


def test_the_printed_convention_is_what_the_operations_say() -> None:
    cell = (1, 1, 1)
    assert "bias 1, batch norm 2, ReLU 1, addition 1, k x k max pool k*k - 1" in CONVENTIONS["flops"]
    assert Conv(1).elementwise([cell], cell) == 1
    assert BatchNorm().elementwise([cell], cell) == 2
    assert Activation().elementwise([cell], cell) == 1
    assert Sum().elementwise([cell, cell], cell) == 1
    assert Pool("max", 3, 2).elementwise([cell], cell) == 8
    assert Dropout().elementwise([cell], cell) == 0
