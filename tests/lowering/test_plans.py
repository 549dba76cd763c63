"""Plans run what the model computes, with nothing decided again, and give way where something has changed."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

import mgcompile
from mgcompile.graph import Graph
from mgcompile.lowering.compiler import compile_graph
from mgcompile.lowering.fused import FusedConv2d
from tests.lowering.graphs import graphs

MANY = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
NAME = mgcompile.load("cifar100/r-mg-12", params={"width": 16})


def made(spec: mgcompile.Spec = NAME, **options: Any) -> fx.GraphModule:
    model = mgcompile.compile(spec, seed=0, optimize="inference", **options)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean.uniform_(-0.1, 0.1, generator=generator)
    return model


def image(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def outputs(value: Any) -> list[torch.Tensor]:
    return list(value.values()) if isinstance(value, dict) else [value]


@pytest.fixture
def decisions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A line for every convolution that decides something; a plan decides nothing."""
    lines: list[str] = []
    before = FusedConv2d.prepared

    def prepared(self: FusedConv2d, *args: Any, **options: Any) -> Any:
        lines.append(str(self))
        return before(self, *args, **options)

    monkeypatch.setattr(FusedConv2d, "prepared", prepared)
    return lines


def planned(model: nn.Module, x: torch.Tensor) -> Any:
    """What a model gives when it has a plan for such images."""
    for _ in range(2):
        model(x)
    return model(x)


@pytest.mark.parametrize(
    "name",
    ["cifar100/r-mg-12", "cifar100/pmg-9", "mnist-seg/u-mg-11", "beyond/unet-plus-plus", "beyond/retinanet-r50-fpn"],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_plan_computes_the_same(name: str, precision: str, decisions: list[str]) -> None:
    spec = mgcompile.load(name)
    if "width" in spec.document.params:
        spec = mgcompile.load(spec, params={"width": 16})
    model = made(spec, precision=precision)
    x = image(2, spec.graph.input.op.channels, 64, 64)  # type: ignore[attr-defined]
    first, second = outputs(model(x)), outputs(model(x))
    decisions.clear()
    third = outputs(model(x))
    assert not decisions
    for a, b, c in zip(first, second, third, strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=0)
        torch.testing.assert_close(c, a, rtol=0, atol=0)


@MANY
@given(graphs())
def test_generated_graphs(graph: Graph) -> None:
    model = compile_graph(graph, seed=0, optimize="inference")
    x = image(2, graph.input.op.channels, *graph.size)  # type: ignore[attr-defined]
    kept = x.clone()
    first, again = outputs(model(x)), outputs(planned(model, x))
    other = outputs(model(x + 1))
    for a, b, c in zip(first, again, other, strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=0, equal_nan=True)
        assert c.data_ptr() != b.data_ptr()
    torch.testing.assert_close(x, kept, rtol=0, atol=0)


def scale(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)


def replace_head(model: nn.Module) -> None:
    name = next(name for name, module in model.named_modules() if isinstance(module, nn.Linear))
    parent, _, last = name.rpartition(".")
    torch.manual_seed(3)
    setattr(model.get_submodule(parent), last, nn.Linear(model.get_submodule(name).in_features, 7))  # type: ignore[arg-type]
    model.requires_grad_(False)


def replace_norm(model: nn.Module) -> None:
    name = next(name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d))
    parent, _, last = name.rpartition(".")
    new = copy.deepcopy(model.get_submodule(name))
    new.running_var.mul_(4)  # type: ignore[operator, union-attr]
    setattr(model.get_submodule(parent), last, new)


def train_a_norm(model: nn.Module) -> None:
    next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d)).train()


def load(model: nn.Module) -> None:
    model.load_state_dict(mgcompile.compile(NAME, seed=5).state_dict())


def assign(model: nn.Module) -> None:
    model.load_state_dict(mgcompile.compile(NAME, seed=6).state_dict(), assign=True)
    model.requires_grad_(False)


@pytest.mark.parametrize("change", [scale, replace_head, replace_norm, train_a_norm, load, assign])
def test_changes_are_seen(change: Callable[[nn.Module], None]) -> None:
    model, other, x = made(), made(), image(2, 3, 32, 32)
    before = planned(model, x)
    change(model)
    change(other)
    after, expected = model(x), other(x)  # of the other, it is the first call
    assert after.shape != before.shape or not torch.equal(after, before)
    torch.testing.assert_close(after, expected)


def test_hooks_are_called() -> None:
    model, x, seen = made(), image(1, 3, 32, 32), []
    before = planned(model, x)
    conv = next(module for module in model.modules() if isinstance(module, FusedConv2d))
    handle = conv.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    torch.testing.assert_close(model(x), before, rtol=1e-3, atol=1e-3)  # it runs as it is written
    assert len(seen) == 1
    handle.remove()
    torch.testing.assert_close(planned(model, x), before)
    with nn.modules.module.register_module_forward_hook(lambda module, *rest: seen.append(type(module))):
        model(x)
    assert FusedConv2d in seen


def test_gradients_flow_after_a_plan() -> None:
    model, x = made(), image(1, 3, 32, 32)
    planned(model, x)
    leaf = x.clone().requires_grad_()
    model(leaf).sum().backward()
    assert leaf.grad is not None
    model.requires_grad_(True)
    model(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_sizes_layouts_and_threads_have_plans_of_their_own() -> None:
    model, x = made(), image(2, 3, 32, 32)
    before = planned(model, x)
    torch.testing.assert_close(planned(model, x.contiguous(memory_format=torch.channels_last)), before)
    assert planned(model, x[:1]).shape[0] == 1
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        torch.testing.assert_close(planned(model, x), before)
    finally:
        torch.set_num_threads(threads)
    with torch.autocast("cpu", torch.bfloat16):
        error = (planned(model, x) - before).abs().max()
    assert 0 < float(error) < 0.1 * float(before.abs().max())
    with pytest.raises(ValueError, match="3 channels"):
        model(image(2, 4, 32, 32))


def test_what_watches_sees_plain_operations() -> None:
    model, x = made(), image(1, 3, 32, 32)
    before = planned(model, x)
    with FlopCounterMode(display=False) as counter:
        model(x)
    assert counter.get_total_flops() > 0
    exported = torch.export.export(model, (x,))
    torch.testing.assert_close(exported.module()(x), before, rtol=1e-4, atol=1e-4)


def test_copies_are_their_own_and_nothing_leaks() -> None:
    model, x = made(), image(1, 3, 32, 32)
    before = planned(model, x)
    twin = copy.deepcopy(model)
    scale(twin)
    assert not torch.equal(planned(twin, x), before)
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)
    watched = weakref.ref(model)
    del model
    gc.collect()
    assert watched() is None


def test_threads_of_python_share_a_plan() -> None:
    model = made()
    images = [image(batch, 3, 32, 32) for batch in (1, 2, 3) * 4]
    right = [model(x) for x in images]
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(model, images * 2), right * 2, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_graph_may_be_changed() -> None:
    model, x = made(), image(1, 3, 32, 32)
    before = planned(model, x)
    output = next(node for node in model.graph.nodes if node.op == "output")
    with model.graph.inserting_before(output):
        output.args = (model.graph.call_function(torch.neg, output.args),)
    model.recompile()
    torch.testing.assert_close(planned(model, x), -before)
