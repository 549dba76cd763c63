"""Every network of the paper: the audit, the module, PyTorch's flop counter and fvcore agree, at any size."""

from __future__ import annotations

import pytest
import torch
from torch import fx
from torch.utils.flop_counter import FlopCounterMode

from mgcompile.analysis import audit_graph, verify_audit
from mgcompile.graph import Graph
from mgcompile.lowering.compiler import compile_graph
from mgcompile.spec import load, zoo_names

NAMES = [name for name in zoo_names() if not name.startswith("beyond/")]
ODD = {"cifar100": [(33, 47), (19, 6)], "imagenet": [(65, 97), (33, 50)], "mnist-seg": [(33, 47), (9, 70)]}
ODD["mnist-spatial"] = ODD["mnist-seg"]


def check(graph: Graph, model: fx.GraphModule, size: tuple[int, int] | None) -> None:
    result = verify_audit(audit_graph(graph, size), graph, model, size)
    assert result.ok, result.differences
    assert result.params == result.torch_params == sum(tensor.numel() for tensor in model.parameters())
    assert result.torch_flops == 2 * result.macs
    assert result.fvcore_macs == result.macs


def check_total(graph: Graph, model: fx.GraphModule, size: tuple[int, int]) -> None:
    """Without fvcore, which takes most of the time."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.empty(1, *graph.types[graph.input.name].at(size), device="meta"))
    assert counter.get_total_flops() == 2 * audit_graph(graph, size).macs


def test_all_forty_are_here() -> None:
    assert len(NAMES) == 40


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_at_the_nominal_size(name: str) -> None:
    graph = load(name).graph
    check(graph, compile_graph(graph, device="meta"), None)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "name"), list(enumerate(NAMES)))
def test_at_odd_sizes(number: int, name: str) -> None:
    """Of a quarter of the channels. One network is traced at the one size, the next at the other; both are counted."""
    graph = load(name, params={"width": 16}).graph
    model = compile_graph(graph, device="meta")
    sizes = ODD[name.partition("/")[0]]
    check(graph, model, sizes[number % 2])
    check_total(graph, model, sizes[1 - number % 2])
