"""The C++ kernels compute what PyTorch computes, are made where a compiler is, and are done without where none is."""

from __future__ import annotations

import ctypes
import math
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import mgcompile
from mgcompile.lowering.functional import channels_last, max_pool_2x2, upsample
from mgcompile.lowering.fused import FusedConv2d
from mgcompile.lowering.machine import CACHE
from mgcompile.lowering.machine import threads as machine_threads
from mgcompile.lowering.native import finish
from mgcompile.lowering.native import library as native
from mgcompile.lowering.native.finish import LIMIT, finisher
from mgcompile.lowering.native.library import NATIVE, library
from mgcompile.lowering.native.pool import pool_2x2
from mgcompile.lowering.native.winograd import Parts, Winograd, transformed

needs_compiler = pytest.mark.skipif(library() is None, reason="no C++ compiler whose code works here")
MANY = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
Pads = tuple[tuple[int, int], tuple[int, int]]
TYPES = st.sampled_from([torch.float32, torch.bfloat16])
AROUND: Pads = ((1, 1), (1, 1))


def winograd(
    found: ctypes.CDLL, parts: Parts, weight: torch.Tensor, bias: torch.Tensor | None, *, relu: bool
) -> Winograd:
    return Winograd(found, parts, transformed(found, parts, weight), weight.shape[0], bias, relu=relu)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[list[tuple[int, ...]], list[int], tuple[int, int], Pads, int]:
    """Shapes of parts, steps, fine size, pads, channels: down to one cell, channels that fill no vector."""
    batch = draw(st.integers(1, 5))
    size = draw(st.integers(1, 13)), draw(st.integers(1, 13))
    side = st.tuples(st.integers(0, 2), st.integers(0, 2))
    pads = draw(side), draw(side)
    pads = tuple((a, max(b, 3 - a - s)) for (a, b), s in zip(pads, size, strict=True))  # at least one output
    steps = draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    shapes = [(batch, draw(st.integers(1, 40)), *(-(-s // 2**step) for s in size)) for step in steps]
    return shapes, steps, size, pads, draw(st.integers(1, 70))  # type: ignore[return-value]


def noise(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@needs_compiler
@MANY
@given(convolutions(), st.tuples(st.booleans(), st.booleans(), st.booleans()), st.integers(1, 5), TYPES)
def test_winograd_is_the_convolution(
    case: tuple[list[tuple[int, ...]], list[int], tuple[int, int], Pads, int],
    around: tuple[bool, bool, bool],
    threads: int,
    dtype: torch.dtype,
) -> None:
    shapes, steps, size, pads, channels = case
    biased, added, relu = around
    found = library()
    assert found is not None
    depth = sum(shape[1] for shape in shapes)
    weight = noise((channels, depth, 3, 3)) / (9 * depth) ** 0.5
    bias = noise((channels,)) if biased else None
    parts = [channels_last(noise(shape, number).to(dtype)) for number, shape in enumerate(shapes)]
    fine = torch.cat([upsample(part, step, size) for part, step in zip(parts, steps, strict=True)], 1).double()
    (top, bottom), (left, right) = pads
    right_one = F.conv2d(
        F.pad(fine, (left, right, top, bottom)), weight.double(), None if bias is None else bias.double()
    )
    add = channels_last(noise(tuple(right_one.shape), 9).to(dtype)) if added else None
    if add is not None:
        right_one += add
    if relu:
        right_one = right_one.relu()
    with machine_threads(threads):
        conv = winograd(found, Parts(shapes, steps, size, pads, dtype), weight, bias, relu=relu)
        y = conv.run(parts, [] if add is None else [add])
    assert y is not None
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert y.dtype is dtype
    # Of bfloat16, the output alone is rounded: to eight bits.
    rounding = 2**-8 * 1.01 if dtype is torch.bfloat16 else 0
    torch.testing.assert_close(y.double(), right_one, rtol=1e-5 + rounding, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("channels", [64, 512])
@pytest.mark.parametrize("batch", [1, 8])
def test_the_error_is_near_that_of_the_plain_sum(channels: int, batch: int) -> None:
    found = library()
    assert found is not None
    x, weight = noise((batch, channels, 14, 14)).relu(), noise((channels, channels, 3, 3), 1) / (3 * channels**0.5)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    plain = (F.conv2d(x, weight, padding=1) - exact).square().mean().sqrt()
    ours = winograd(found, Parts([tuple(x.shape)], [0], (14, 14), AROUND), weight, None, relu=False)
    error = (ours.run([channels_last(x)], []) - exact).square().mean().sqrt()
    assert float(error / exact.square().mean().sqrt()) < 1.2e-6
    assert float(error) < 6 * float(plain)


@needs_compiler
@MANY
@given(
    convolutions(),
    st.sampled_from([math.nan, math.inf, -math.inf, 2.0**101, -(2.0**101)]),
    st.integers(1, 3),
    TYPES,
    st.data(),
)
def test_winograd_tells_of_numbers_beyond_the_limit(
    case: tuple[list[tuple[int, ...]], list[int], tuple[int, int], Pads, int],
    value: float,
    threads: int,
    dtype: torch.dtype,
    data: st.DataObject,
) -> None:
    shapes, steps, size, pads, channels = case
    found = library()
    assert found is not None
    weight = noise((channels, sum(shape[1] for shape in shapes), 3, 3)).sign()  # none is zero
    parts = [channels_last(noise(shape, number).to(dtype)) for number, shape in enumerate(shapes)]
    chosen = data.draw(st.sampled_from(parts))
    chosen[tuple(data.draw(st.integers(0, side - 1)) for side in chosen.shape)] = value
    fine = torch.cat([upsample(part, step, size) for part, step in zip(parts, steps, strict=True)], 1).double()
    (top, bottom), (left, right) = pads
    y = F.conv2d(F.pad(fine, (left, right, top, bottom)), weight.double())
    with machine_threads(threads):
        output = winograd(found, Parts(shapes, steps, size, pads, dtype), weight, None, relu=True).run(parts, [])
    seen = not bool((y.abs() < LIMIT).all())
    assert (output is None) == seen


@needs_compiler
@MANY
@given(st.integers(1, 70_000), st.booleans(), st.integers(1, 3), TYPES, st.data())
def test_finish_rectifies_and_looks(
    count: int, relu: bool, threads: int, dtype: torch.dtype, data: st.DataObject
) -> None:
    x = noise((count,)).to(dtype)
    value = data.draw(st.sampled_from([1.0, math.nan, math.inf, -math.inf, 2.0**101, -(2.0**101)]))
    x[data.draw(st.integers(0, count - 1))] = value
    for library_ in (library(), None):
        y = x.clone()
        with patch.object(finish, "library", lambda found=library_: found), machine_threads(threads):
            within = finisher(dtype, relu=relu)(y)
        assert within == (value == 1)
        torch.testing.assert_close(y, x.relu() if relu else x, rtol=0, atol=0, equal_nan=True)


@needs_compiler
def test_nothing_of_an_earlier_call_gets_into_the_next() -> None:
    found = library()
    assert found is not None
    for channels, value in [(160, float("nan")), (130, 1.0), (500, float("inf")), (402, 1.0)]:  # depths that are padded
        x = channels_last(noise((1, channels, 8, 8)) * value)
        weight = noise((3, channels, 3, 3)) / channels
        y = winograd(found, Parts([(1, channels, 8, 8)], [0], (8, 8), AROUND), weight, None, relu=False).run([x], [])
        if value == 1:
            torch.testing.assert_close(y, F.conv2d(x, weight, padding=1), rtol=1e-5, atol=1e-5)


@needs_compiler
@MANY
@given(st.tuples(*[st.integers(1, 40)] * 3), st.booleans(), TYPES)
def test_pool_is_the_maximum(shape: tuple[int, int, int], with_nan: bool, dtype: torch.dtype) -> None:
    x = channels_last(noise((3, *shape)).to(dtype))
    if with_nan:
        x[0, 0, shape[1] // 2, shape[2] // 2] = float("nan")
    found = pool_2x2(x)
    assert found is not None
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, F.max_pool2d(x, 2, ceil_mode=True), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(max_pool_2x2(x), found, rtol=0, atol=0, equal_nan=True)


@needs_compiler
def test_threads_of_python_share_a_convolution() -> None:
    found = library()
    assert found is not None
    weight = noise((64, 32, 3, 3))
    conv = winograd(found, Parts([(1, 32, 6, 6)], [0], (6, 6), AROUND), weight, None, relu=False)
    images = [channels_last(noise((1, 32, 6, 6), seed)) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda image: conv.run([image], []), images))
    for image, output in zip(images, outputs, strict=True):
        torch.testing.assert_close(output, F.conv2d(image, weight, padding=1), rtol=1e-3, atol=1e-3)


# --- making the library


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for what is compiled, and nothing loaded yet."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(NATIVE, raising=False)
    library.cache_clear()
    yield tmp_path / "cache"
    library.cache_clear()


def ways(name: str = "cifar100/mg-6") -> set[str]:
    model = mgcompile.compile(name, seed=0, optimize="inference")
    model(torch.randn(1, 3, 32, 32))
    modules = [module for module in model.modules() if isinstance(module, FusedConv2d)]
    return {packed.way for module in modules for packed in module.packed.values()}


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@needs_compiler
def test_it_is_compiled_once(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "winograd" in ways()
    (file,) = fresh.glob("native-*.so")
    monkeypatch.setattr(native, "_build", None)  # nothing is compiled again
    library.cache_clear()
    assert library() is not None
    assert [path for path in fresh.iterdir() if path.suffix != ".json"] == [file]


@needs_compiler
def test_another_source_or_processor_is_another_file(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library()
    monkeypatch.setattr(native, "processor_features", lambda: "none")
    library.cache_clear()
    library()
    assert len(list(fresh.glob("native-*.so"))) == 2


def test_turned_off(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NATIVE, "0")
    assert library() is None
    assert "winograd" not in ways()
    x = torch.randn(1, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    assert torch.equal(max_pool_2x2(x), F.max_pool2d(x, 2))
    assert not fresh.exists()


def test_without_a_compiler(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fresh))
    monkeypatch.delenv("CXX", raising=False)
    assert library() is None
    assert "winograd" not in ways()


@pytest.mark.parametrize(
    ("text", "said"),
    [("echo no OpenMP here >&2; exit 1", "no OpenMP here"), ("exit 0", "cannot be made"), ("sleep 60", "timed out")],
)
def test_a_compiler_that_fails(
    text: str, said: str, fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", script(fresh.parent / "cxx", text))
    monkeypatch.setattr(native, "SECONDS", 0.5)
    with caplog.at_level("INFO"):
        assert library() is None
    assert said in caplog.text
    assert not list(fresh.glob("*.so")) + list(fresh.glob(".*"))
    assert "winograd" not in ways()


@needs_compiler
def test_code_that_computes_nonsense_is_not_used(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "kernels.cpp"
    source.write_text(native.SOURCE.read_text().replace("A = 0.625f", "A = 0.5f").replace("{0, A, -A", "{0, 0.6, -0.6"))
    monkeypatch.setattr(native, "SOURCE", source)
    assert library() is None
    assert "nonsense" in caplog.text


@pytest.mark.parametrize("damage", [b"", b"not a library"])
@needs_compiler
def test_a_damaged_file_is_compiled_again(damage: bytes, fresh: Path) -> None:
    library()
    (file,) = fresh.glob("native-*.so")
    whole = file.read_bytes()
    draft = fresh / "draft"  # the one that is loaded must not change under the process
    draft.write_bytes(damage)
    draft.replace(file)
    library.cache_clear()
    assert library() is not None
    assert len(file.read_bytes()) == len(whole)


@needs_compiler
def test_a_folder_that_cannot_be_written(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE, str(tmp_path / "file" / "cache"))
    assert library() is not None  # compiled for this process alone


@needs_compiler
def test_several_processes_compile_at_once(fresh: Path) -> None:
    code = "from mgcompile.lowering.native.library import library; assert library() is not None"
    environment = {**os.environ, CACHE: str(fresh)}
    running = [subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], env=environment) for _ in range(2)]
    assert [process.wait(120) for process in running] == [0, 0]
    assert len(list(fresh.iterdir())) == 1
