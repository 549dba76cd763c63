"""What is not a number, or not finite, is where the plain form has it, in every form and wherever it comes from."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import mgcompile
from mgcompile.graph import Graph
from mgcompile.graph.ops import GroupNorm, InstanceNorm
from mgcompile.lowering import fused, packing, ways
from mgcompile.lowering.backends import Plain, use_backend
from mgcompile.lowering.compiler import compile_graph
from mgcompile.lowering.functional import upsample
from mgcompile.lowering.fused import FusedConv2d
from mgcompile.lowering.native import finish, pool
from mgcompile.lowering.ways import WAYS
from tests.lowering.graphs import graphs

MANY = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
VALUES = [math.nan, math.inf, -math.inf, 1e38, -1e38, 1e20]
ENGINES = ["onednn, native", "onednn", "plain"]
Damage = tuple[int, float, float]
"""Which tensor (0 is the image), where in it, what is written there."""


@contextmanager
def using(engine: str) -> Iterator[None]:
    """A back end, with the C++ kernels or without."""
    with ExitStack() as stack:
        if engine == "plain":
            stack.enter_context(use_backend(Plain()))
        if not engine.endswith("native"):
            for module in (ways, pool, finish):
                stack.enter_context(patch.object(module, "library", lambda: None))
        yield


each_engine = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture(autouse=True)
def _always_subpixel(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few cells there are."""
    monkeypatch.setattr(fused, "WORTH_CELLS", 0)


def depends_on_layout(graph: Graph) -> bool:
    """Whether PyTorch itself gives other values where numbers lie otherwise in memory.

    Its group norm of channels-last grids squares what it sums, and its gelu of infinity is infinity or NaN.
    """
    return any(
        isinstance(each.op, GroupNorm | InstanceNorm) or getattr(each.op, "function", "") == "gelu" for each in graph
    )


def outputs(value: Any) -> list[torch.Tensor]:
    return list(value.values()) if isinstance(value, dict) else [value]


def statistics(model: nn.Module) -> None:
    """Statistics and affine vectors as training would give them."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.uniform_(-0.1, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr, operator]


@st.composite
def damages(draw: st.DrawFn) -> list[Damage]:
    one = st.tuples(st.integers(0, 40), st.floats(0, 1, exclude_max=True), st.sampled_from(VALUES))
    return draw(st.lists(one, min_size=1, max_size=3))


@torch.no_grad()
def damaged(model: nn.Module, image: torch.Tensor, damage: list[Damage]) -> torch.Tensor:
    """The image, with what was written into it; the rest is written into the tensors of the model."""
    image = image.clone()
    tensors = [each for each in model.state_dict().values() if each.is_floating_point() and each.numel()]
    for number, place, value in damage:
        tensor = image if not number or not tensors else tensors[number % len(tensors)]
        tensor.view(-1)[int(place * tensor.numel())] = value
    return image


def check(plain: nn.Module, ours: nn.Module, image: torch.Tensor) -> None:
    """NaN where the plain form has it, and nowhere else; the same of infinities, at each of the first calls."""
    with torch.no_grad():
        right = outputs(plain(image))
        for _ in range(3):  # packs; records a plan; runs by it
            for found, expected in zip(outputs(ours(image)), right, strict=True):
                assert torch.equal(found.isnan(), expected.isnan())
                assert torch.equal(found.isinf(), expected.isinf())
                if expected.isfinite().all():
                    largest = max(1.0, float(expected.abs().max()))
                    torch.testing.assert_close(found / largest, expected / largest, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("engine", "mode"), [*((engine, "inference") for engine in ENGINES), (ENGINES[0], "training")])
@MANY
@given(graphs(), damages())
def test_generated_graphs(engine: str, mode: Any, graph: Graph, damage: list[Damage]) -> None:
    assume(not depends_on_layout(graph))
    plain = compile_graph(graph, seed=0).eval()
    statistics(plain)
    image = damaged(plain, torch.randn(2, graph.input.op.channels, *graph.size), damage)  # type: ignore[attr-defined]
    ours = compile_graph(graph, optimize=mode).eval()
    ours.load_state_dict(plain.state_dict())
    with using(engine):
        check(plain, ours, image)


class Written(nn.Module):
    """What a `FusedConv2d` computes, as it is written."""

    def __init__(self, conv: FusedConv2d, norm: nn.BatchNorm2d | None, act: str) -> None:
        super().__init__()
        self.conv, self.norm, self.act = conv, norm, act

    def forward(self, parts: list[torch.Tensor], steps: tuple[int, ...], add: list[torch.Tensor]) -> torch.Tensor:
        size = next(tuple(part.shape[2:]) for part, step in zip(parts, steps, strict=True) if not step)
        x = torch.cat([upsample(part, step, size) for part, step in zip(parts, steps, strict=True)], 1)  # type: ignore[arg-type]
        y = F.conv2d(x, self.conv.weight, self.conv.bias, padding=self.conv.padding)
        y = y if self.norm is None else self.norm(y)
        for other in add:
            y = y + other
        return y if not self.act else getattr(F, self.act)(y)  # type: ignore[no-any-return]


@st.composite
def calls(draw: st.DrawFn) -> tuple[Written, list[torch.Tensor], tuple[int, ...], list[torch.Tensor]]:
    """A module, its parts, their steps, its addends; numbers that are not finite, or large, in any of them."""
    torch.manual_seed(0)
    side, kernel = draw(st.sampled_from([1, 2, 4, 6, 9])), draw(st.sampled_from([(3, 3), (3, 3), (1, 1), (3, 1)]))
    steps = (0, *draw(st.lists(st.integers(0, 1 if side % 2 == 0 else 0), max_size=2)))
    parts = [torch.randn(2, 3, side >> step, side >> step) for step in steps]
    pads = tuple((each // 2, each // 2) for each in kernel)
    conv = FusedConv2d(3 * len(parts), 5, kernel, padding=pads)  # type: ignore[arg-type]
    norm = nn.BatchNorm2d(5) if draw(st.booleans()) else None
    written = Written(
        conv, norm, draw(st.sampled_from(["relu", "relu", "", "silu", "relu6", "hardswish", "leaky_relu"]))
    )
    statistics(written)
    add = [torch.randn(2, 5, side, side) for _ in range(draw(st.integers(0, 2)))]
    targets = [*parts, *parts, *add, *(each for each in written.state_dict().values() if each.is_floating_point())]
    for _ in range(draw(st.integers(1, 2))):
        target = draw(st.sampled_from(targets))
        with torch.no_grad():
            target.view(-1)[draw(st.integers(0, target.numel() - 1))] = draw(st.sampled_from(VALUES))
    return written.eval().requires_grad_(False), parts, steps, add


@each_engine
@pytest.mark.parametrize("way", WAYS)
@settings(MANY, max_examples=80)
@given(calls())
def test_every_way(
    engine: str, way: str, call: tuple[Written, list[torch.Tensor], tuple[int, ...], list[torch.Tensor]]
) -> None:
    written, parts, steps, add = call
    if way == "dense":
        assume(parts[0].shape[2] <= 2)
    right = written(parts, steps, add)
    chosen = [way] if way in WAYS else []
    with (
        using(engine),
        patch.object(packing, "ways", lambda call: [w for w in chosen if w in ways.ways(call)] or ["whole"]),
    ):
        found = written.conv(*parts, steps=steps, norm=written.norm, add=add, act=written.act)
    torch.testing.assert_close(found.isnan(), right.isnan(), rtol=0, atol=0)
    torch.testing.assert_close(found.isinf(), right.isinf(), rtol=0, atol=0)


@pytest.fixture(scope="module", params=["cifar100/r-mg-12", "mnist-seg/pmg-11"])
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """A plain network of the paper and an optimised one, with equal weights."""
    plain = mgcompile.compile(request.param, seed=0).eval()
    statistics(plain)
    ours = mgcompile.compile(request.param, optimize="inference")
    ours.load_state_dict(plain.state_dict())
    return plain, ours


def image_of(model: nn.Module) -> torch.Tensor:
    first = next(each for each in model.modules() if isinstance(each, nn.Conv2d))
    return torch.randn(1, first.in_channels, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("everywhere", [False, True])
def test_images(value: float, everywhere: bool, pair: tuple[nn.Module, nn.Module]) -> None:
    image = image_of(pair[0])
    image[:, :, 5:, 9:10] = value
    check(*pair, image.fill_(value) if everywhere else image)


def test_a_diverged_network(pair: tuple[nn.Module, nn.Module]) -> None:
    plain, ours = (copy.deepcopy(model) for model in pair)
    with torch.no_grad():
        for model in (plain, ours):
            for parameter in model.parameters():
                parameter.mul_(1e6)
        right = outputs(plain(image_of(plain)))
        for _ in range(3):
            for found, expected in zip(outputs(ours(image_of(plain))), right, strict=True):
                assert expected.isnan().any()
                assert torch.equal(found.isnan(), expected.isnan())


def test_weights_that_recover(pair: tuple[nn.Module, nn.Module]) -> None:
    plain, ours = (copy.deepcopy(model) for model in pair)
    image = image_of(plain)
    for value in (math.nan, 0.5, math.inf, -0.5):
        with torch.no_grad():
            for model in (plain, ours):
                next(each for each in model.modules() if isinstance(each, nn.BatchNorm2d)).weight[0] = value
        check(plain, ours, image)


def test_half_precision() -> None:
    plain = mgcompile.compile("cifar100/r-mg-12", seed=0, precision="bf16").eval()
    ours = mgcompile.compile("cifar100/r-mg-12", seed=0, precision="bf16", optimize="inference")
    for value in VALUES:
        image = image_of(plain)
        image[:, 1, 7, 9] = value
        with torch.no_grad():
            right = plain(image)
            for _ in range(3):
                assert torch.equal(ours(image).isnan(), right.isnan())
