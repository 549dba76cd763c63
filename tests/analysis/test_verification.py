"""PyTorch's flop counter and fvcore over every operation, and that each kind of disagreement is found."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import fx, nn

from mgcompile.analysis import verification_report
from mgcompile.analysis.cost import Audit, audit_graph
from mgcompile.analysis.verification import Reason, Reconciliation, verify_audit
from mgcompile.errors import MgcompileError
from mgcompile.graph import Graph, Value
from mgcompile.graph.ops import Input, Kind, Op, Sum
from mgcompile.lowering.lowering import lower
from tests.analysis.networks import every_op, node, small

SIZES = [(21, 26), (5, 5), (32, 17)]


def verified(graph: Graph, change: Callable[[Audit], Audit] = lambda audit: audit) -> Reconciliation:
    return verify_audit(change(audit_graph(graph)), graph, lower(graph))


def disagreements(result: Reconciliation) -> list[tuple[str, str, str, str, str]]:
    assert result.ok == (not [each for each in result.differences if each.reason is Reason.DIFFERENT])
    return [
        (each.tool, each.what, each.ours, each.theirs, each.unit)
        for each in result.differences
        if each.reason is Reason.DIFFERENT
    ]


@pytest.mark.parametrize("size", SIZES)
def test_every_operation_is_counted_as_pytorch_and_fvcore_count_it(size: tuple[int, int]) -> None:
    graph = every_op()
    audit = audit_graph(graph, size)
    result = verify_audit(audit, graph, lower(graph), size)
    assert disagreements(result) == []
    assert result.notes == ()
    assert result.macs == result.fvcore_macs == audit.macs
    assert result.torch_flops == 2 * audit.macs
    assert result.params == result.torch_params == audit.params
    assert all(line.agrees for line in result.lines)


def test_lines_are_the_nodes_with_work() -> None:
    lines = [(line.node, line.macs, line.torch_flops, line.fvcore_macs) for line in verified(small()).lines]
    assert lines == [
        ("stem.conv", 5184, 10368, 5184),
        ("body.0", 192, 384, 192),
        ("body.1", 192, 384, 192),
        ("head.linear", 40, 80, 40),
    ]


def fvcore_alone(model: fx.GraphModule, shape: tuple[int, ...]) -> Any:
    """fvcore as its manual says to use it, on the model as it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model.to_empty(device="cpu").eval(), (torch.zeros(shape),))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.total()
    return analysis


def test_the_total_is_what_fvcore_says_of_the_model_as_it_is() -> None:
    analysis = fvcore_alone(lower(small()), (1, 3, 8, 6))
    result = verified(small())
    assert result.fvcore_total == analysis.total()
    estimated = sum(int(each.theirs.replace(",", "")) for each in result.differences if each.tool == "fvcore")
    assert result.fvcore_total == result.macs + estimated


def test_fvcore_adds_up_the_calls_of_a_shared_module() -> None:
    analysis = fvcore_alone(lower(small()), (1, 3, 8, 6))
    assert analysis.by_module()["body.0"] == 2 * 192
    assert "body.1" not in analysis.by_module()


def test_elementwise_work_is_explained() -> None:
    result = verified(small())
    audit = audit_graph(small())
    ours = [each for each in result.differences if each.reason is Reason.NOT_COUNTED]
    assert sum(int(each.ours.replace(",", "")) for each in ours) == audit.flops - 2 * audit.macs
    theirs = {each.what: each.theirs for each in result.differences if each.reason is Reason.CONVENTION}
    assert theirs == {"batch_norm": "384", "adaptive_avg_pool2d": "48"}


def change_row(name: str, **changes: Any) -> Callable[[Audit], Audit]:
    def change(audit: Audit) -> Audit:
        return replace(audit, rows=tuple(replace(row, **changes) if row.node == name else row for row in audit.rows))

    return change


def test_other_macs_are_found_at_their_node() -> None:
    assert disagreements(verified(small(), change_row("body.1", macs=191))) == [
        ("PyTorch", "body.1", "382", "384", "flops of multiply-accumulates"),
        ("fvcore", "body.1", "191", "192", "MACs"),
    ]


def test_another_output_shape_is_found() -> None:
    result = verified(small(), change_row("pool", output=(4, 4, 4)))
    assert disagreements(result) == [("PyTorch", "pool", "(4, 4, 4)", "(4, 4, 3)", "output shape")]


def test_other_tensors_are_found() -> None:
    graph = small()
    model = lower(graph)
    model.get_submodule("head.linear").register_parameter("bias", None)
    model.get_submodule("stem.norm").register_parameter("bias", nn.Parameter(torch.empty(5, device="meta")))
    model.get_submodule("stem.norm").register_buffer("more", torch.empty(2, device="meta"))
    model.get_submodule("stem.norm").forward = lambda x: x  # type: ignore[method-assign]
    result = verify_audit(audit_graph(graph), graph, model)
    assert disagreements(result) == [
        ("PyTorch", "stem.norm.bias", "(4,)", "(5,)", "parameter shape"),
        ("PyTorch", "head.linear.bias", "(10,)", "absent", "parameter shape"),
        ("PyTorch", "stem.norm.more", "absent", "(2,)", "buffer shape"),
    ]


def test_a_node_that_the_model_does_not_call_is_found() -> None:
    graph = small()
    nodes = [each for each in graph if each.name != "head.linear"]
    model = lower(Graph("less", nodes, {"out": "head.flat"}, size=graph.size))
    found = disagreements(verify_audit(audit_graph(graph), graph, model))
    assert ("PyTorch", "head.linear", "a node", "no call", "nodes") in found
    assert ("PyTorch", "head.linear.weight", "(10, 4)", "absent", "parameter shape") in found


@dataclass(frozen=True)
class Gram(Op):
    """(c, h, w) -> the same, by products that it does not own up to."""

    kind: ClassVar[Kind] = Kind.CUSTOM

    def infer(self, *inputs: Value) -> Value:
        return inputs[0]

    def emit(self, graph: fx.Graph, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        return graph.call_function(torch.matmul, (args[0], args[0]))


def square(op: Op, *inputs: str) -> Graph:
    return Graph("square", [node("input", Input(2)), node("op", op, *inputs)], {"out": "op"}, size=(4, 4))


def test_work_that_an_operation_hides_in_a_function_is_found_at_its_node() -> None:
    assert disagreements(verified(square(Gram(), "input"))) == [
        ("PyTorch", "op", "0", "256", "flops of multiply-accumulates"),
        ("fvcore", "op", "0", "128", "MACs"),
    ]


def test_work_that_no_node_asked_for_is_found() -> None:
    graph = square(Sum(), "input", "input")
    model = lower(graph)
    last = next(each for each in model.graph.nodes if each.op == "output")
    with model.graph.inserting_before(last):
        last.args = (model.graph.call_function(torch.matmul, (last.args[0], last.args[0])),)
    model.recompile()
    last.args[0].meta.clear()  # type: ignore[union-attr]
    found = disagreements(verify_audit(audit_graph(graph), graph, model))
    assert found[0] == ("PyTorch", "(matmul)", "0", "256", "flops of multiply-accumulates")


def test_the_model_is_left_as_it_was() -> None:
    graph = small()
    model = lower(graph).to_empty(device="cpu").train()
    for tensor in model.state_dict().values():
        tensor.fill_(1)
    code = model.code
    assert verify_audit(audit_graph(graph), graph, model).ok
    assert model.training
    assert model.code == code
    assert all(bool((tensor == 1).all()) and tensor.device.type == "cpu" for tensor in model.state_dict().values())


def test_without_fvcore_the_rest_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fvcore.nn", None)
    result = verified(small())
    assert result.ok
    assert result.fvcore_macs is result.fvcore_total is None
    (note,) = result.notes
    assert note.startswith("fvcore is not installed, so it was not compared")
    assert note in verification_report.as_table([result], width=200)
    assert not verified(small(), change_row("body.1", macs=191)).ok


def untraceable(x: torch.Tensor) -> torch.Tensor:
    if torch.jit.is_tracing():
        raise KeyError("no tracing")
    return x


@dataclass(frozen=True)
class Untraceable(Gram):
    """A function that only torch.fx can take."""

    def emit(self, graph: fx.Graph, args: Sequence[fx.Node], *inputs: Value) -> fx.Node:
        return graph.call_function(untraceable, (args[0],))


def test_what_fvcore_cannot_trace_is_said() -> None:
    result = verified(square(Untraceable(), "input"))
    assert result.ok
    assert result.notes == ("fvcore cannot trace this model, so it was not compared ('no tracing')",)


def test_another_size_is_refused() -> None:
    graph = small()
    with pytest.raises(MgcompileError, match=r"the audit is of an input of \(8, 6\), not of \(9, 9\)"):
        verify_audit(audit_graph(graph), graph, lower(graph), (9, 9))


TABLE = """\
network  input   MACs  PyTorch flops  fvcore MACs  params  PyTorch params  verdict
------------------------------------------------------------------------------------
small      8x6  5,608         11,216        5,608     188             188  DIFFERENT
"""


def test_table_says_what_is_different_and_why() -> None:
    result = verified(small(), change_row("pool", output=(4, 4, 4)))
    text = verification_report.as_table([result], width=150)
    assert text.startswith(TABLE)
    line = next(line for line in text.splitlines() if "output shape" in line and "pool" in line)
    assert line.split()[:4] == ["DIFFERENT", "PyTorch", "pool", "1"]
    assert "convention (fvcore): fvcore adds its estimate of this elementwise work" in text
    assert "every node" not in text


def test_details_list_every_node_with_work() -> None:
    text = verification_report.as_markdown([verified(small())], details=True)
    assert "### small: every node with MACs" in text
    assert "| body.1 | conv 1x1 | 192 | 384 | 192 | agrees |" in text


def test_json() -> None:
    (record,) = json.loads(verification_report.as_json([verified(small())]))["reconciliations"]
    assert list(record) == [
        *("name", "size", "ok", "macs", "torch_flops", "fvcore_macs", "fvcore_total", "params", "torch_params"),
        *("lines", "differences", "notes"),
    ]
    assert record["ok"] is True
    assert record["lines"][-1] == {
        "node": "head.linear",
        "op": "linear",
        "macs": 40,
        "torch_flops": 80,
        "fvcore_macs": 40,
        "agrees": True,
    }
    assert record["differences"][-1]["reason"] == "convention"
