"""Laws over generated specs: canonical form, written forms, model, counts."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import mgcompile
from mgcompile.graph import Graph, verify
from mgcompile.lowering.compiler import compile_graph
from mgcompile.spec import parse_spec
from mgcompile.spec.layers import LAYERS

from .specs import OPTIONS, specs

MANY = settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
FEW = settings(MANY, max_examples=60)
SLOW = settings(MANY, max_examples=1000)


def outputs_of(result: Any, graph: Graph) -> dict[str, torch.Tensor]:
    """The results by name, a single one too."""
    return result if isinstance(result, dict) else {next(iter(graph.outputs)): result}


def check_language(spec: dict[str, Any]) -> None:
    loaded = mgcompile.load(spec)
    verify(loaded.graph)
    expanded = loaded.expand()
    assert expanded.graph == loaded.graph
    again = expanded.expand()
    assert again.to_yaml() == expanded.to_yaml()
    assert again.graph == expanded.graph
    assert parse_spec(expanded.to_yaml(), "canonical").graph == loaded.graph
    assert parse_spec(loaded.to_yaml(), "written").graph == loaded.graph
    assert mgcompile.load(json.loads(json.dumps(loaded.data))).graph == loaded.graph


def check_model(spec: dict[str, Any]) -> None:
    graph = mgcompile.load(spec).graph
    audit = mgcompile.audit(spec)
    channels, (height, width) = spec["input"]["channels"], graph.size
    meta = compile_graph(graph, device="meta")
    assert sum(parameter.numel() for parameter in meta.parameters()) == audit.params
    with FlopCounterMode(display=False) as counter:
        meta(torch.empty(2, channels, height, width, device="meta"))
    assert counter.get_total_flops() == 2 * 2 * audit.macs
    model = compile_graph(graph, seed=1)
    image = torch.randn(2, channels, height, width, requires_grad=True)
    outputs = outputs_of(model(image), graph)
    shapes = graph.shapes()
    assert {name: tuple(value.shape[1:]) for name, value in outputs.items()} == {
        name: shapes[node] for name, node in graph.outputs.items()
    }
    sum(value.square().mean() for value in outputs.values()).backward()
    assert image.grad is not None


@MANY
@given(specs())
def test_canonical_form_and_written_forms(spec: dict[str, Any]) -> None:
    check_language(spec)


@FEW
@given(specs())
def test_audit_is_the_module_and_the_flop_counter(spec: dict[str, Any]) -> None:
    check_model(spec)


@FEW
@given(specs(), st.integers(0, 9), st.integers(0, 9))
def test_every_size_from_the_smallest_on(spec: dict[str, Any], more_rows: int, more_columns: int) -> None:
    graph = mgcompile.load(spec).graph
    least = graph.smallest_size
    size = least[0] + more_rows, least[1] + more_columns
    model = compile_graph(graph, seed=1).eval()
    outputs = outputs_of(model(torch.randn(1, spec["input"]["channels"], *size)), graph)
    shapes = graph.shapes(size)
    assert {name: tuple(value.shape[1:]) for name, value in outputs.items()} == {
        name: shapes[node] for name, node in graph.outputs.items()
    }
    with pytest.raises(ValueError, match=f"at least {least[0]}x{least[1]}"):
        model(torch.randn(1, spec["input"]["channels"], least[0] - 1, least[1]))


@pytest.mark.slow
@SLOW
@given(specs(most_layers=10))
def test_all_laws_at_length(spec: dict[str, Any]) -> None:
    check_language(spec)
    check_model(spec)


@pytest.mark.slow
def test_every_layer_and_option_is_generated() -> None:
    assert OPTIONS.keys() == LAYERS.keys()
    for kind, cls in LAYERS.items():
        known = {name.removesuffix("_") for name in cls.model_fields}
        # Growth has a schedule in place of channels; a stride in it would part the grids.
        left_out = {"channels", "stride"} if kind == "grow" else set()
        assert known - left_out <= OPTIONS[kind].keys(), kind
    seen: set[tuple[str, str]] = set()

    @settings(MANY, max_examples=1500)
    @given(specs(most_layers=10))
    def look(spec: dict[str, Any]) -> None:
        for item in spec["layers"]:
            for kind, options in item.items():
                if isinstance(options, dict) and kind in OPTIONS:
                    seen.update({(kind, "")} | {(kind, option) for option in options})

    look()
    wanted = {(kind, option) for kind, options in OPTIONS.items() for option in ["", *options]}
    assert len(wanted - seen) <= len(wanted) // 20, sorted(wanted - seen)
    assert {kind for kind, option in seen if not option} == set(OPTIONS)
