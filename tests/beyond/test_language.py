"""What writing down other people's networks forced out of the language."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mgcompile.errors import SpecError
from mgcompile.graph import Graph
from mgcompile.graph.ops import BatchNorm, Conv, Resize, WeightedSum
from mgcompile.lowering.compiler import compile_graph
from mgcompile.spec import load


def spec_of(layers: list[Any], **rest: Any) -> dict[str, Any]:
    return {"version": 1, "input": {"channels": 3, "size": 32}, "layers": layers, **rest}


def graph_of(layers: list[Any], **rest: Any) -> Graph:
    """The graph of some layers, of which the canonical form must mean the same."""
    spec = load(spec_of(layers, **rest))
    assert spec.expand().graph == spec.graph
    return spec.graph


BARE = {"kernel": 1, "norm": "none", "act": "none", "reach": 0}


@pytest.mark.parametrize("item", ["norm", {"norm": None}, {"norm": {}}])
def test_a_bare_layer_has_its_defaults(item: Any) -> None:
    assert [node.op for node in graph_of([item])][1:] == [BatchNorm()]
    assert len(graph_of([{"norm": "none"}])) == 1


def test_a_repeat_knows_which_it_is() -> None:
    layer = {"conv": {**BARE, "channels": "${8 * (index + 1)}", "stride": "${2 if index == 0 else 1}"}, "repeat": 3}
    convs = [node.op for node in graph_of([layer]) if isinstance(node.op, Conv)]
    assert [(op.channels, op.stride) for op in convs] == [(8, 2), (16, 1), (24, 1)]


def test_each_of_two_repeats_is_named_by_its_layer() -> None:
    inner = {"id": "inner", "conv": {**BARE, "channels": "${4 * outer.index + inner.index + 1}"}, "repeat": 2}
    graph = graph_of([{"id": "outer", "group": [inner], "repeat": 2}])
    convs = [node.op for node in graph if isinstance(node.op, Conv)]
    assert [op.channels for op in convs] == [1, 2, 5, 6]


@pytest.mark.parametrize("name", ["expand", "build", "given", "kind", "copy"])
def test_a_parameter_of_a_block_may_be_called_as_it_likes(name: str) -> None:
    block = {"params": {name: 4}, "layers": [{"conv": {**BARE, "channels": f"${{{name}}}"}}]}
    outer = {"params": {name: 5}, "layers": [{"block": {"use": "inner", name: f"${{{name} + 1}}"}}]}
    graph = graph_of([{"block": {"use": "outer", name: 6}}], blocks={"inner": block, "outer": outer})
    assert [node.op.channels for node in graph if isinstance(node.op, Conv)] == [7]


def test_sugar_hides_no_names_in_the_canonical_form() -> None:
    # Growing a pyramid makes a layer called `select` beside the one that is meant.
    layers = [{"join": {"with": ["select"], "fuse": "sum"}}, "pool"]
    conv = {"channels": 8, **BARE}
    graph = graph_of([{"id": "select", "conv": conv}, {"conv": conv}, {"extend": {"layers": layers}}])
    fuse = next(node for node in graph if node.name.endswith("fuse"))
    assert fuse.inputs == ("conv1.level0", "select.level0")


def test_an_exchange_fuses_others_where_they_have_the_level() -> None:
    layers = [
        {"pyramid": 3},
        {"id": "middle", "select": [1]},
        {"from": "pyramid1", "exchange": {"fuse": "weighted", "up": "none", "with": ["middle"]}},
    ]
    sums = {node.level: len(node.inputs) for node in graph_of(layers) if isinstance(node.op, WeightedSum)}
    assert sums == {1: 3, 2: 2}


@pytest.mark.parametrize("size", [(32, 32), (17, 40)])
def test_a_grid_of_fixed_size_meets_one_that_follows_the_input(size: tuple[int, int]) -> None:
    # Pyramid pooling (Zhao et al., 2017) in two bins.
    bins = [[{"global_pool": {"cells": cells}}, {"up": {"by": "bilinear", "like": "stem"}}] for cells in (1, 3)]
    stem = {"id": "stem", "conv": {**BARE, "channels": 4, "stride": 2}}
    graph = graph_of([stem, {"parallel": {"branches": [[], *bins]}}])
    assert [node.op.label for node in graph if isinstance(node.op, Resize)] == ["bilinear to size"] * 2
    model = compile_graph(graph, seed=0)
    output = model(torch.randn(2, 3, *size))
    assert tuple(output.shape[1:]) == graph.shapes(size)[graph.outputs["output"]]
    mean = output[:, :4].mean((2, 3), keepdim=True)
    torch.testing.assert_close(output[:, 4:8], mean.expand_as(output[:, 4:8]))


def test_a_size_to_take_on_must_be_there() -> None:
    with pytest.raises(SpecError, match="no grid at level 1"):
        load(spec_of([{"id": "a", "act": "relu"}, "pool", {"up": {"by": "bilinear", "like": "a"}}]))
    with pytest.raises(SpecError, match="by: bilinear alone"):
        load(spec_of([{"id": "a", "act": "relu"}, {"up": {"like": "a"}}]))
