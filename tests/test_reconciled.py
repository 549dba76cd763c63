"""Every network of the paper: the audit, the module, PyTorch's flop counter and fvcore agree, at any size."""

from __future__ import annotations

import pytest

from mgcompile.analysis import audit_graph, verify_audit
from mgcompile.lowering.compiler import compile_graph
from mgcompile.spec import load, zoo_names

NAMES = [name for name in zoo_names() if not name.startswith("beyond/")]
ODD = {"cifar100": [(33, 47), (19, 6)], "imagenet": [(65, 97), (33, 50)], "mnist-seg": [(33, 47), (9, 70)]}
ODD["mnist-spatial"] = ODD["mnist-seg"]


def check(name: str, size: tuple[int, int] | None) -> None:
    graph = load(name).graph
    model = compile_graph(graph, device="meta")
    result = verify_audit(audit_graph(graph, size), graph, model, size)
    assert result.ok, result.differences
    assert result.params == result.torch_params == sum(tensor.numel() for tensor in model.parameters())
    assert result.torch_flops == 2 * result.macs
    assert result.fvcore_macs == result.macs


def test_all_forty_are_here() -> None:
    assert len(NAMES) == 40


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_at_the_nominal_size(name: str) -> None:
    check(name, None)


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_at_odd_sizes(name: str, size: int) -> None:
    check(name, ODD[name.split("/", maxsplit=1)[0]][size])
