"""Laws over generated specs: canonical form, written forms, model, counts."""

from __future__ import annotations

import contextlib
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
from mgcompile.spec import Spec, SpecLike, parse_spec
from mgcompile.spec.layers import LAYERS

from .specs import BLOCKS, OPTIONS, REQUIRED, specs

MANY = settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
FEW = settings(MANY, max_examples=40)
SLOW = settings(MANY, max_examples=150)


def outputs_of(result: Any, graph: Graph) -> dict[str, torch.Tensor]:
    """The results by name, a single one too."""
    return result if isinstance(result, dict) else {next(iter(graph.outputs)): result}


def check_language(spec: SpecLike) -> None:
    loaded = mgcompile.load(spec)
    verify(loaded.graph)
    expanded = loaded.expand()
    assert expanded.graph == loaded.graph
    text = expanded.to_yaml()
    reread = parse_spec(text, "canonical")
    assert reread.graph == loaded.graph
    assert reread.expand().to_yaml() == text
    assert parse_spec(loaded.to_yaml(), "written").graph == loaded.graph
    assert json.loads(json.dumps(loaded.data)) == loaded.data


def check_model(spec: SpecLike) -> None:
    loaded = mgcompile.load(spec)
    graph, audit = loaded.graph, mgcompile.audit(loaded)
    channels, height, width = graph.shapes()[graph.input.name]
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


PRELUDES = [
    [{"pyramid": 3}, {"id": "embed", "conv": {"channels": 4, "reach": 0}}],
    [{"id": "embed", "conv": {"channels": 4, "stride": 2}}],
    [{"id": "embed", "conv": {"channels": 4}}, "global_pool"],
    [{"id": "embed", "conv": {"channels": 4}}, "global_pool", "flatten"],
]
COMPANIONS = {
    ("up", "channels"): {"by": "transposed"},
    ("up", "kernel"): {"by": "transposed"},
    ("slice", "start"): {"stop": 4},
    ("norm", "groups"): {"by": "group"},
    ("predict", "by"): {"to": 0},
    ("up", "like"): {"by": "bilinear"},
    ("block", "width"): {"use": "plain"},
    **{(kind, "normalize"): {"fuse": "weighted"} for kind in ("conv", "exchange", "unit", "grow", "join", "parallel")},
    ("up", "bias"): {"by": "transposed"},
    ("act", "slope"): {"by": "leaky_relu"},
    ("act", "alpha"): {"by": "elu"},
    ("classify", "act"): {"hidden": [4]},
}
FITTING = {"per level": [2, 4, 6], "refs": ["embed"], "ref": "embed"}


def said(kind: str, option: str) -> list[Spec]:
    """Right specs in which a layer of a kind has an option, with each of its values and after several beginnings."""
    found = []
    for value in OPTIONS[kind][option]:
        given = {
            name: FITTING.get(str(first), first) for name in REQUIRED.get(kind, []) for first in OPTIONS[kind][name][:1]
        }
        given |= COMPANIONS.get((kind, option), {}) | {option: FITTING.get(str(value), value)}
        for prelude in PRELUDES:
            spec = {
                "input": {"channels": 3, "size": 17},
                "params": {"w": 2},
                "blocks": BLOCKS,
                "layers": [*prelude, {kind: given}],
            }
            with contextlib.suppress(mgcompile.SpecError):
                found.append(mgcompile.load(spec))
    return found


@pytest.mark.parametrize(("kind", "option"), [(kind, option) for kind in OPTIONS for option in OPTIONS[kind]])
def test_every_option_of_every_layer_keeps_the_laws(kind: str, option: str) -> None:
    specs_with_it = said(kind, option)
    assert specs_with_it
    for spec in specs_with_it:
        check_language(spec)
    check_model(specs_with_it[0])


def test_every_layer_and_option_is_known_to_the_strategy() -> None:
    assert OPTIONS.keys() == LAYERS.keys()
    for kind, cls in LAYERS.items():
        known = {name.removesuffix("_") for name in cls.model_fields}
        # Growth has a schedule in place of channels; a stride in it would part the grids.
        left_out = {"channels", "stride"} if kind == "grow" else set()
        assert known - left_out <= OPTIONS[kind].keys(), kind
