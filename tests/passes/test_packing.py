"""Packed convolutions compute what plain ones do, follow their weights, and choose by timing where they are told to."""

from __future__ import annotations

import copy
import io
import json
import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

import mgcompile
from mgcompile.graph import Graph
from mgcompile.lowering import backends, machine, packing, tuning, ways
from mgcompile.lowering.backends import OneDNN, Plain, backend, use_backend
from mgcompile.lowering.compiler import compile_graph
from mgcompile.lowering.fused import FusedConv2d
from mgcompile.lowering.native import finish, pool
from mgcompile.lowering.native.library import library
from mgcompile.lowering.ways import WAYS
from tests.lowering.graphs import graphs

MANY = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
NETWORKS = ["cifar100/r-mg-12", "cifar100/pmg-9", "mnist-seg/u-mg-11", "beyond/unet-plus-plus"]
ENGINES = [Plain(), OneDNN()] if backends._has_onednn() else [Plain()]
NOT_HERE = set() if library() else {"winograd"}


@contextmanager
def using(engine: backends.Backend) -> Iterator[None]:
    """That back end; with the plain one there are no C++ kernels either, as on a machine that has nothing fast."""
    with use_backend(engine), ExitStack() as stack:
        if isinstance(engine, Plain):
            for module in (ways, pool, finish):
                stack.enter_context(patch.object(module, "library", lambda: None))
        yield


each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: type(engine).__name__)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(machine.CACHE, str(tmp_path / "cache"))
    tuning.forget()


def statistics(model: nn.Module) -> None:
    """Give batch norms statistics as training would, so that activations stay near one."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.1, 0.1, generator=generator)
            module.running_var.uniform_(4.0, 6.0, generator=generator)


def two(name: str, *, width: int = 16, **options: Any) -> tuple[nn.Module, nn.Module]:
    """A plain network in double precision and an optimised one with equal weights, narrow."""
    spec = mgcompile.load(name, params={"width": width})
    plain = mgcompile.compile(spec, seed=0).eval()
    statistics(plain)
    ours = mgcompile.compile(spec, optimize="inference", **options)
    ours.load_state_dict(plain.state_dict())
    return plain.double(), ours


def check(plain: nn.Module, ours: nn.Module, *shape: int, tolerance: float = 2e-5) -> None:
    image = torch.randn(*shape)
    with torch.no_grad():
        right = plain(image.double())
    found = ours(image)
    for one, other in zip(*(x.values() if isinstance(x, dict) else [x] for x in (right, found)), strict=True):
        assert other.dtype is torch.float32
        assert float((other - one).abs().max()) <= tolerance * max(1.0, float(one.abs().max()))


def packed_ways(model: nn.Module) -> set[str]:
    return {
        packed.way for module in model.modules() if isinstance(module, FusedConv2d) for packed in module.packed.values()
    }


@each_engine
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str, engine: backends.Backend) -> None:
    plain, ours = two(name)
    channels = mgcompile.load(name).graph.input.op.channels  # type: ignore[attr-defined]
    with using(engine):
        for batch, height, width in [(1, 32, 32), (3, 33, 20), (17, 16, 16)]:
            check(plain, ours, batch, channels, height, width)
    assert packed_ways(ours) >= {"whole"}


@each_engine
@MANY
@given(graphs())
def test_generated_graphs(engine: backends.Backend, graph: Graph) -> None:
    plain = compile_graph(graph, seed=0).eval()
    ours = compile_graph(graph, seed=0, optimize="inference")
    image = torch.randn(2, graph.input.op.channels, *graph.size)  # type: ignore[attr-defined]
    with using(engine), torch.no_grad():
        right, found = plain(image), ours(image)
    if isinstance(right, torch.Tensor):
        right, found = {"out": right}, {"out": found}
    for key, value in right.items():
        torch.testing.assert_close(
            found[key], value, rtol=1e-4, atol=1e-4 * max(1.0, float(value.abs().max())), equal_nan=True
        )


def conv_calls() -> list[tuple[list[tuple[int, ...]], tuple[int, ...], dict[str, Any]]]:
    """Parts, steps and what follows: on 1 to 8 cells a side."""
    calls: list[tuple[list[tuple[int, ...]], tuple[int, ...], dict[str, Any]]] = []
    for size in (1, 2, 4, 8):
        calls.append(([(2, 3, size, size)], (0,), {"act": "relu"}))
        calls.append(([(2, 3, size, size), (2, 2, size, size)], (0, 0), {"act": "silu"}))
        if size > 1:
            coarse = (2, 4, size // 2, size // 2)
            calls.append(([(2, 3, size, size), coarse], (0, 1), {"act": "relu"}))
            calls.append(
                ([coarse, (2, 3, size, size), coarse], (1, 0, 1), {"act": "leaky_relu", "negative_slope": 0.3})
            )
    return calls


@each_engine
@pytest.mark.parametrize("addends", [0, 1, 2])
@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (3, 1)])
@pytest.mark.parametrize("normed", [False, True])
def test_every_way_of_every_call(
    engine: backends.Backend, addends: int, kernel: tuple[int, int], normed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    seen = set()
    for shapes, steps, options in conv_calls():
        channels = sum(shape[1] for shape in shapes)
        pads = tuple((size // 2, size // 2) for size in kernel)
        conv = FusedConv2d(channels, 5, kernel, padding=pads)  # type: ignore[arg-type]
        norm = nn.BatchNorm2d(5) if normed else None
        if norm is not None:
            statistics(norm)
        parts = [torch.randn(shape) for shape in shapes]
        fine = next(shape for shape, step in zip(shapes, steps, strict=True) if not step)
        add = [torch.randn(2, 5, *fine[2:]) for _ in range(addends)]
        kept = [each.clone() for each in add]
        nn.ModuleList([conv, *([norm] if norm else [])]).eval()
        right = conv(*parts, steps=steps, norm=norm, add=add, **options)  # with gradients: plain
        assert not conv.packed
        for way in WAYS:
            monkeypatch.setattr(
                packing, "ways", lambda call, way=way, all=packing.ways: (way,) if way in all(call) else all(call)
            )
            with using(engine), torch.no_grad():
                conv.packed.clear()
                found = conv(*parts, steps=steps, norm=norm, add=add, **options)
            monkeypatch.undo()
            (packed,) = conv.packed.values()
            seen.add(packed.way)
            torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(add, kept, rtol=0, atol=0)  # what is added belongs to others
    native = kernel == (3, 3) and isinstance(engine, OneDNN)
    assert seen == {way for way in WAYS if native or way != "winograd"} - NOT_HERE


def test_packed_weights_follow_the_weights() -> None:
    plain, ours = two("cifar100/r-mg-12")
    check(plain, ours, 2, 3, 16, 16)
    changes = [
        lambda model: model.load_state_dict(two("cifar100/r-mg-12", seed=5)[1].state_dict()),
        lambda model: [p.mul_(0.9) for p in model.parameters()],
        lambda model: [p.data.mul_(0.9) for p in model.eval().parameters()],
        lambda model: [m.running_var.add_(1) for m in model.modules() if isinstance(m, nn.BatchNorm2d)],
        lambda model: [setattr(p, "data", p.data * 1.1) for p in model.parameters()],
    ]
    for change in changes:
        for model in (plain, ours):
            with torch.no_grad():
                change(model)
        check(plain, ours, 2, 3, 16, 16)


def test_gradients_and_training_leave_the_packed_way() -> None:
    _, ours = two("cifar100/r-mg-12")
    image = torch.randn(2, 3, 16, 16)
    ours.requires_grad_(True)
    ours(image).sum().backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())
    ours.train()
    ours(image)
    assert not packed_ways(ours)
    leaf = image.clone().requires_grad_()
    ours.eval().requires_grad_(False)(leaf).sum().backward()
    assert leaf.grad is not None
    assert not packed_ways(ours)
    ours(image)
    assert packed_ways(ours)


def test_copies_pickles_and_inference_mode() -> None:
    plain, ours = two("cifar100/mg-6")
    check(plain, ours, 1, 3, 32, 32)
    twin = copy.deepcopy(ours)
    assert not any(m.packed for m in twin.modules() if isinstance(m, FusedConv2d))
    check(plain, twin, 1, 3, 32, 32)
    file = io.BytesIO()
    pickle.dump(ours.state_dict(), file)
    with torch.inference_mode():
        check(plain, ours, 1, 3, 32, 32)
        made = mgcompile.compile("cifar100/mg-6", seed=0, optimize="inference")
        made(torch.randn(1, 3, 32, 32))


def test_only_so_many_sizes_are_kept() -> None:
    conv = FusedConv2d(1, 1, (1, 1)).eval().requires_grad_(False)
    for side in range(1, 30):
        conv(torch.ones(1, 1, side, side))
    assert len(conv.packed) <= 16


def test_bf16() -> None:
    for options in ({"optimize": "inference"}, {"optimize": "training"}, {}):
        spec = mgcompile.load("cifar100/r-mg-12", params={"width": 16})
        plain = mgcompile.compile(spec, seed=0).eval()
        statistics(plain)
        ours = mgcompile.compile(spec, precision="bf16", **options)  # type: ignore[arg-type]
        ours.load_state_dict(plain.state_dict())
        ours.eval()
        assert all(p.dtype is torch.float32 for p in ours.parameters())
        image = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            right, found = plain(image), ours(image)
        assert found.dtype is torch.float32
        error = float((found - right).abs().max() / right.abs().max())
        assert 1e-5 < error < 0.05  # neither computed in single precision nor wrong
        twin = copy.deepcopy(ours)
        with torch.no_grad():
            torch.testing.assert_close(twin(image), found, rtol=0.05, atol=0.05)


def test_autocast_around_an_optimised_model() -> None:
    plain, ours = two("cifar100/mg-6")
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = ours(image)
    with torch.no_grad():
        right = plain(image.double())
    assert 1e-5 < float((found - right).abs().max() / right.abs().max()) < 0.05
    check(plain, ours, 2, 3, 32, 32)


# --- tuning


def entries() -> dict[str, str]:
    ways: dict[str, str] = json.loads(tuning.cache_file().read_text())["ways"]
    return ways


def test_tuning_computes_the_same_and_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, ours = two("cifar100/pmg-9", width=64, tune=True)  # so wide that its weights are read from memory
    check(plain, ours, 2, 3, 32, 32)
    found = entries()
    assert found
    assert set(found.values()) <= set(WAYS)
    tuning.forget()
    monkeypatch.setattr(tuning, "measure", None)  # nothing is measured again
    _, again = two("cifar100/pmg-9", width=64, tune=True)
    check(plain, again, 2, 3, 32, 32)
    assert entries() == found


def test_the_fastest_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for wanted in ("whole", "dense"):
        monkeypatch.setattr(tuning, "measure", lambda runs, before, wanted=wanted: {way: way != wanted for way in runs})
        tuning.cache_file().unlink(missing_ok=True)
        tuning.forget()
        conv = FusedConv2d(3, 3, (3, 3), padding=((1, 1), (1, 1))).eval().requires_grad_(False)
        conv.tune = True
        conv(torch.randn(1, 3, 2, 2))
        assert packed_ways(conv) == {wanted}


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", '{"machine": 3}', '{"machine": "other", "ways": {"a": "whole"}}', "\x00\xff",
        '{"ways": []}', "[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_cache_is_made_anew(text: str) -> None:
    path = tuning.cache_file()
    path.parent.mkdir(parents=True)
    path.write_text(text)
    plain, ours = two("cifar100/mg-6", tune=True)
    check(plain, ours, 1, 3, 8, 8)
    assert entries()


def test_entries_that_do_not_fit_are_measured_again() -> None:
    _, ours = two("cifar100/mg-6", tune=True)
    ours(torch.randn(1, 3, 8, 8))
    data = json.loads(tuning.cache_file().read_text())
    tuning.cache_file().write_text(json.dumps(data | {"ways": dict.fromkeys(data["ways"], "teleport") | {"x": 3}}))
    tuning.forget()
    plain, ours = two("cifar100/mg-6", tune=True)
    check(plain, ours, 1, 3, 8, 8)
    assert "teleport" not in {way for key, way in entries().items() if key in data["ways"]}


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(machine.CACHE, str(tmp_path / "file" / "cache"))
    plain, ours = two("cifar100/mg-6", tune=True)
    check(plain, ours, 1, 3, 8, 8)


def add_entry(number: int) -> None:
    tuning._save(tuning.cache_file(), {f"key {number}": "whole"})


def test_several_processes_write_one_cache() -> None:
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(add_entry, range(40)))
    assert entries().keys() == {f"key {number}" for number in range(40)}
    assert {path.suffix for path in tuning.cache_file().parent.iterdir()} == {".json", ".lock"}


def test_the_engine_is_checked() -> None:
    assert isinstance(backend(), OneDNN if backends._has_onednn() else Plain)
    with use_backend(Plain()):
        assert isinstance(backend(), Plain)
    assert not Plain().supports(torch.float64)


def test_grids_stay_channels_last_even_from_an_image_of_one_channel() -> None:
    _, ours = two("mnist-seg/pmg-11")
    layouts: list[bool] = []
    for module in ours.modules():
        if isinstance(module, FusedConv2d):
            module.register_forward_hook(
                lambda module, inputs, output: layouts.append(output.is_contiguous(memory_format=torch.channels_last))
            )
    ours(torch.randn(2, 1, 64, 64))
    assert layouts
    assert all(layouts)


def test_threads_share_a_model() -> None:
    plain, ours = two("cifar100/mg-6")
    images = [torch.randn(batch, 3, 32, 32) for batch in (1, 2, 3, 1, 2, 3)]
    with ThreadPoolExecutor(4) as pool, torch.no_grad():
        found = list(pool.map(ours, images))
        for image, output in zip(images, found, strict=True):
            torch.testing.assert_close(output.double(), plain(image.double()), rtol=1e-4, atol=1e-4)
