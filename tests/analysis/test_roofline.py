"""Bytes, intensity and predicted times: by hand, by laws over generated graphs, on all networks of the zoo."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

import mgcompile
from mgcompile.analysis import audit_graph
from mgcompile.analysis.machine import Machine, Rate, machine_text, read_machine, value_at
from mgcompile.analysis.roofline import ROOFLINE_CONVENTIONS, Roofline, roofline
from mgcompile.analysis.roofline_report import machine_csv, machine_sheets, roofline_record, roofline_sheets
from mgcompile.analysis.tables import as_text
from mgcompile.errors import ShapeError, SpecError
from mgcompile.graph import Graph
from mgcompile.graph.ops import Activation, BatchNorm, Conv, FusedConv, Input, PadChannels, Reference, Sum
from mgcompile.lowering.lowering import lower
from mgcompile.passes import optimize
from mgcompile.spec import zoo_names
from tests.analysis.networks import every_op, node, small
from tests.lowering.graphs import graphs

PEAKS = Machine("made up", 2, "fp32", 1e11, 1e10, 4e10, 1 << 20, 1e-6)
"""100 GFLOP/s, 10 GB/s and 40 in a cache of a MiB, a microsecond for a call."""


def rows(found: Roofline) -> dict[str, Any]:
    return {row.node: row for row in found.rows}


# --- bytes


def test_bytes_by_hand() -> None:
    found = rows(roofline(small()))
    # numbers read, its own tensors, numbers written
    expected = {
        "input": 0,
        "stem.conv": 3 * 48 + (4 * 3 * 9 + 4) + 4 * 48,
        "stem.norm": 4 * 48 + 4 * 4 + 4 * 48,
        "stem.act": 2 * 4 * 48,
        "pool": 4 * 48 + 4 * 12,
        "body.0": 48 + 16 + 48,
        "body.1": 48 + 16 + 48,  # the weights of another, read again
        "head.sum": 2 * 48 + 2 + 48,
        "head.pool": 48 + 4,
        "head.flat": 0,
        "head.linear": 4 + (4 * 10 + 10) + 10,
    }
    assert {name: row.bytes for name, row in found.items()} == {name: 4 * n for name, n in expected.items()}
    assert found["stem.act"].intensity == 4 * 48 / (4 * 2 * 4 * 48)
    assert found["head.flat"].intensity == 0.0


def test_a_size_reference_is_not_read_and_what_is_cut_is_written() -> None:
    found = rows(roofline(every_op()))
    shapes = every_op().shapes()
    assert shapes["b.pool"] == (8, 6, 7)
    assert shapes["b.twice"] == (8, 3, 4)
    assert found["c.near"].bytes == 4 * (8 * 6 * 7 + 8 * 11 * 13)
    assert found["c.up"].bytes == 4 * (8 * 3 * 4 + (8 * 8 * 4 + 8) + 8 * 6 * 8)
    assert [found[name].bytes for name in ("d.slice", "d.crop", "e.flat", "a.drop")] == [0, 0, 0, 0]


def test_an_optimised_convolution_reads_parts_where_they_are_and_no_norm() -> None:
    graph = optimize(mgcompile.load("cifar100/mg-6").graph, "inference")
    shapes, found = graph.shapes(), rows(roofline(graph))
    fused = [each for each in graph if isinstance(each.op, FusedConv) and any(each.op.steps) and each.op.norm]
    assert fused
    for each in fused:
        sources = [name for name in each.inputs if not isinstance(graph[name].op, Reference)]
        if each.op.like:
            continue
        channels = each.op.conv.channels
        depth = sum(shapes[name][0] for name in sources[: len(each.op.steps)])
        numbers = sum(size(shapes[name]) for name in [*sources, each.name]) + channels * depth * 9 + channels
        assert found[each.name].bytes == 4 * numbers
    assert all(found[each.name].bytes == 0 for each in graph if isinstance(each.op, Reference))


@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_norm_is_a_bias(bias: bool) -> None:
    graph = optimize(chain(Conv(16, bias=bias), BatchNorm(), Activation()), "inference")
    (fused,) = (each for each in roofline(graph).rows if each.op.startswith("conv"))
    assert fused.op == "conv 3x3 + norm + relu"
    assert fused.bytes == 4 * (2 * 16 * 1024 + 9 * 16 * 16 + 16)


def size(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_laws(graph: Graph) -> None:
    one, two, three = (roofline(graph, batch=batch, bytes_per_element=1) for batch in (1, 2, 3))
    halves = roofline(graph, bytes_per_element=2)
    figures = audit_graph(graph)
    own = {
        each.weights: first.bytes * 2 - second.bytes
        for each, first, second in zip(graph, one.rows, two.rows, strict=True)
    }
    state = lower(graph).state_dict()
    stored = sum(value.numel() for value in state.values() if value.dim())
    views = {each.node for each in one.rows if not each.bytes}
    assert sum(own.values()) == stored or views & {
        each.name for each in graph if each.op.weights(*graph.input_types(each))
    }
    for row, first, second, third, half in zip(figures.rows, one.rows, two.rows, three.rows, halves.rows, strict=True):
        assert first.flops == row.flops
        assert third.bytes - second.bytes == second.bytes - first.bytes
        assert (second.flops, half.bytes) == (2 * first.flops, 2 * first.bytes)
        assert first.intensity == (first.flops / first.bytes if first.bytes else 0.0)
        if first.bytes:
            assert first.bytes >= size(row.output)
    for key in ("layer", "level", "op"):
        groups = one.by(key)  # type: ignore[arg-type]
        assert sum(group.bytes for group in groups) == one.total.bytes
        assert sum(group.nodes for group in groups) == len(graph)
        assert sum(group.flops for group in groups) == figures.flops
        assert {group.name for group in groups} == {group.name for group in figures.by(key)}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", zoo_names())
def test_every_network(name: str) -> None:
    graph = mgcompile.load(name).graph
    plain, lean = roofline(graph, PEAKS, batch=2), roofline(optimize(graph, "inference"), PEAKS, batch=2)
    assert plain.total.flops == 2 * mgcompile.audit(name).flops
    assert 0 < lean.total.bytes < plain.total.bytes
    for found in (plain, lean):
        assert found.seconds is not None
        assert found.seconds == pytest.approx(sum(found.total.bounds.values()))
        assert all((row.bound is None) == (row.seconds == 0) for row in found.rows)
        levels = [group.name for group in found.by("level")]
        numbers = [int(level.split()[1]) for level in levels if level != "vectors"]
        assert numbers == sorted(numbers)
        assert levels.index("vectors") == len(levels) - 1 if "vectors" in levels else True
        times = [group.seconds for group in found.by("op")]
        assert all(one >= other for one, other in pairwise(times))  # type: ignore[operator]


# --- times


def chain(*ops: Any, channels: int = 16, side: int = 32) -> Graph:
    nodes = [node("input", Input(channels))]
    for number, op in enumerate(ops):
        nodes.append(node(f"n{number}", op, *[nodes[-1].name] * (3 if isinstance(op, Sum) else 1)))
    return Graph("chain", nodes, {"out": nodes[-1].name}, size=(side, side))


def test_times_by_hand() -> None:
    graph = chain(Conv(16, bias=False))
    flops, weights, moved = 2 * 9 * 16 * 16 * 1024, 4 * 9 * 16 * 16, 4 * 2 * 16 * 1024
    row = rows(roofline(graph, PEAKS))["n0"]
    assert row.seconds == pytest.approx(1e-6 + weights / 4e10 + max(flops / 1e11, moved / 4e10))
    assert row.bound == "compute"
    # Half a cache of bytes still come from it, two caches do not; between them speeds change evenly.
    large = rows(roofline(chain(Activation(), side=512), PEAKS))["n0"]
    assert large.seconds == pytest.approx(1e-6 + 4 * 2 * 16 * 512 * 512 / 1e10)
    assert large.bound == "memory"
    assert rows(roofline(chain(Activation(), side=2), PEAKS))["n0"].bound == "overhead"


def test_rates_hold_for_their_sort() -> None:
    rate = Rate(2e-6, flops=((16, 1e10), (64, 4e10)), bandwidth=((1000, 1e9),), tensors=((1000, 1e8),))
    machine = replace(PEAKS, rates={"conv": rate})
    conv, pointwise = Conv(16, bias=False), Conv(16, (1, 1), bias=False)
    found = rows(roofline(chain(conv, pointwise), machine))
    flops, weights = 2 * 9 * 16 * 16 * 1024, 4 * 9 * 16 * 16
    assert found["n0"].seconds == pytest.approx(2e-6 + weights / 1e8 + flops / 1e10)
    assert found["n1"].seconds == rows(roofline(chain(conv, pointwise), PEAKS))["n1"].seconds
    wide = rows(roofline(chain(Conv(64), Conv(32, bias=False)), machine))["n1"]
    assert wide.seconds == pytest.approx(2e-6 + 9 * 64 * 32 * 4 / 1e8 + 2 * 9 * 64 * 32 * 1024 / 2e10)


def test_several_steps_cost_several_calls() -> None:
    three = rows(roofline(chain(Sum()), PEAKS))["n0"]
    part = 4 * 16 * 1024
    assert three.bytes == 4 * part
    assert three.seconds == pytest.approx(2e-6 + 4 * part / 4e10 + 2 * part / 4e10)


def test_no_machine_no_times() -> None:
    found = roofline(small())
    assert found.machine is found.seconds is found.total.bound is None
    assert {(row.seconds, row.bound) for row in found.rows} == {(None, None)}


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="batch=0: must be at least 1"):
        roofline(small(), batch=0)
    with pytest.raises(ValueError, match="bytes_per_element=0"):
        roofline(small(), bytes_per_element=0)
    with pytest.raises(ValueError, match="cannot group by 'kind'"):
        roofline(small()).by("kind")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="too small"):
        roofline(mgcompile.load("beyond/u-net-2015").graph, size=(9, 9))


def test_linear_in_the_number_of_layers() -> None:
    def seconds(layers: int) -> float:
        graph = chain(*[Conv(16), Activation()] * (layers // 2))
        audit_graph(graph)  # types are inferred once
        start = time.process_time()
        roofline(graph, PEAKS)
        return time.process_time() - start

    few, many = min(seconds(1_000) for _ in range(3)), seconds(10_000)
    assert many < 100 * few  # 10 is linear
    assert many < 10


# --- machines in files


def full() -> Machine:
    rate = Rate(2e-6, flops=((16.0, 1e10), (64.0, 4e10)), bandwidth=((1000.0, 1e9),))
    return replace(PEAKS, rates={"conv": rate, "elementwise": Rate(1e-6)})


def test_a_machine_is_read_as_it_was_written(tmp_path: Path) -> None:
    for machine in (PEAKS, full()):
        path = tmp_path / "machine.json"
        path.write_text(machine_text(machine))
        assert read_machine(path) == machine


def written(path: Path, **changes: Any) -> Path:
    fields = json.loads(machine_text(full())) | changes
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bandwidth": "fast"}, 'bandwidth: found "fast", expected a valid number'),
        ({"bandwidth": 0}, "bandwidth: found 0, expected greater than 0"),
        ({"bandwidth": True}, "bandwidth: found true, expected a valid number"),
        ({"overhead": float("nan")}, "overhead: found NaN, expected"),
        ({"overhead": float("inf")}, "overhead: found Infinity, expected a finite number"),
        ({"threads": 0}, "threads: found 0, expected greater than or equal to 1"),
        ({"cache": 1.5}, "cache: found 1.5, expected a valid integer"),
        ({"precision": "fp16"}, "precision: found \"fp16\", expected 'fp32' or 'bf16'"),
        ({"convolution": None}, "convolution: missing; it must be there"),
        ({"bandwith": 3}, "bandwith: unknown field; did you mean bandwidth?"),
        ({"rates": {"conv": {"overhead": 1, "flop": []}}}, "rates.conv.flop: unknown field; did you mean flops?"),
        (
            {"rates": {"conv": {"overhead": 1, "flops": [[2, -1]]}}},
            "rates.conv.flops[0][1]: found -1, expected greater",
        ),
        ({"rates": {"conv": {"overhead": 1, "flops": [[2, 1], [2, 3]]}}}, "expected points whose first numbers rise"),
        ({"rates": [1]}, "rates: found [1], expected a valid dictionary"),
    ],
)
def test_a_wrong_machine_says_where(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = written(tmp_path / "machine.json", **changes)
    with pytest.raises(SpecError) as caught:
        read_machine(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def test_all_mistakes_are_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        read_machine(written(tmp_path / "machine.json", threads=0, bandwidth=-1))
    assert len(caught.value.errors) == 2


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", ":1:1: no JSON: Expecting value"),
        (b'{"name": 1,\n "threads" 2}', ":2:12: no JSON: "),
        (b"\xff\xfe\x00", "no JSON, expected what `mgcompile machine -o` writes"),
        (b"[" * 100_000, "no JSON"),
        (b"[1, 2]", "found [1, 2], expected a mapping of fields: name, threads, "),
        (b" " * (2 << 20), "this is no machine"),
    ],
)
def test_what_is_no_machine_at_all(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "machine.json"
    path.write_bytes(data)
    with pytest.raises(SpecError) as caught:
        read_machine(path)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.json: no such file"):
        read_machine(tmp_path / "none.json")
    with pytest.raises(SpecError, match="directory"):
        read_machine(tmp_path)


def test_between_points() -> None:
    curve = ((10.0, 1.0), (1000.0, 100.0))
    assert [round(value_at(curve, x), 9) for x in (1, 10, 100, 1000, 1e9)] == [1, 1, 10, 100, 100]
    assert value_at(((5.0, 7.0),), 100) == 7


# --- as text


@pytest.mark.parametrize("by", [None, "layer", "level", "op"])
def test_sheets(by: Any) -> None:
    for machine in (None, full()):
        found = roofline(mgcompile.load("imagenet/r-mg-34").graph, machine, batch=8)
        text = as_text(roofline_sheets(found, by))
        assert text.isascii()
        assert "E+" not in text
        assert max(map(len, text.splitlines())) <= 120
        assert ("ms" in text) == ("predicted time of a forward pass" in text) == (machine is not None)
        assert (f"by {by}" in text) == (by is not None)
        assert " ".join(text.split()).count(ROOFLINE_CONVENTIONS["bytes"]) == 1


def test_the_record_holds_exact_figures() -> None:
    found = roofline(small(), full(), batch=3)
    record = json.loads(json.dumps(roofline_record(found, "level")))
    assert record["bytes"] == sum(row.bytes for row in found.rows) == sum(group["bytes"] for group in record["groups"])
    assert record["seconds"] == found.seconds
    assert (record["batch"], record["size"], record["machine"]["threads"]) == (3, [8, 6], 2)
    assert [row["node"] for row in record["operations"]] == list(small().nodes)
    assert roofline_record(roofline(small()))["machine"] is None


def test_a_machine_as_tables() -> None:
    text = as_text(machine_sheets(full()))
    for part in ("made up, 2 threads, fp32", "GFLOP/s", "10 - 40", "1.00 MiB", "elementwise"):
        assert part in text
    lines = machine_csv(full()).splitlines()
    assert lines[0] == "operation,figure,at,value,unit"
    assert len(lines) == 1 + 5 + (1 + 2 + 1) + 1
    assert "conv,flops,16.0,10000000000.0,FLOP/s" in lines


def test_padding_moves_what_it_makes() -> None:
    found = rows(roofline(chain(PadChannels(20))))
    assert found["n0"].bytes == 4 * 1024 * (16 + 20)
