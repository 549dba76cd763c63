"""What is measured of the machine: that it is complete, is kept, and predicts; no figure hangs on how fast it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mgcompile
from mgcompile.analysis.machine import Machine, machine_text, read_machine
from mgcompile.analysis.roofline import roofline
from mgcompile.graph import verify
from mgcompile.graph.ops import fused
from mgcompile.lowering.machine import CACHE
from mgcompile.lowering.native import winograd
from mgcompile.measuring import machine as measuring
from mgcompile.measuring.machine import kept_file, kept_machine, measure_machine
from mgcompile.measuring.probes import PROBES, work
from mgcompile.passes import optimize
from mgcompile.spec import zoo_names
from tests.analysis.networks import every_op


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def measured(folder: Path) -> Machine:
    """This machine, measured in haste, and kept."""
    steps: list[tuple[int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE, str(folder))
        found = measure_machine(threads=1, seconds=0.0, progress=lambda done, total, what: steps.append((done, total)))
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert steps[-1][0] == steps[-1][1]
    return found


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, str(folder))


def test_it_is_complete(measured: Machine) -> None:
    sorts = set()
    for name in zoo_names():
        graph = mgcompile.load(name).graph
        sorts |= {node.op.work for form in (None, "inference") for node in optimize(graph, form)}
    assert sorts | {node.op.work for node in every_op()} <= set(measured.rates)
    assert measured.threads == 1
    assert min(measured.convolution, measured.bandwidth, measured.cache_bandwidth, measured.cache) > 0
    for rate in measured.rates.values():
        assert 0 < rate.overhead < 1
    for sort in ("conv", "pointwise", "grouped", "packed 3x3", "packed conv", "packed pointwise"):
        assert measured.rates[sort].flops, sort


def test_it_is_kept(measured: Machine, folder: Path) -> None:
    assert kept_machine("fp32", 1) == kept_machine("fp32") == measured
    assert read_machine(kept_file("fp32", 1)) == measured
    assert kept_machine("bf16") is None
    assert kept_machine("fp32", 3) is None
    assert [path.name for path in folder.glob("*machine-*")] == [kept_file("fp32", 1).name]


def test_the_last_number_of_threads_is_taken(
    measured: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.setenv(CACHE, str(tmp_path))
    for threads in (3, 1, 2):
        path = kept_file("fp32", threads)
        path.write_text(machine_text(replace(measured, threads=threads)))
        os.utime(path, (threads, 1000 + (threads == 1)))
    found = kept_machine()
    assert found is not None
    assert found.threads == 1


def test_what_cannot_be_used_is_not_there(measured: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "none"))
    assert kept_machine() is None
    monkeypatch.setenv(CACHE, str(tmp_path))
    path = kept_file("fp32", 1)
    for text in ("", "{", "[]", '{"name": 3}', machine_text(replace(measured, name="another"))):
        path.write_text(text)
        assert kept_machine("fp32", 1) is None
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE, str(tmp_path / "file" / "below"))
    measuring._keep(measured)  # no folder can be made there, which is no error
    assert kept_machine() is None


def test_threads_are_as_before() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        measure_machine(threads=before + 1, seconds=0.0, keep=False, progress=lambda done, total, what: 1 // 0)
    assert torch.get_num_threads() == before


def test_probes_are_networks_of_one_operation() -> None:
    for probe in PROBES:
        graph = optimize(verify(probe.graph()), probe.optimize)
        assert sum(node.op.work == work(probe).sort for node in graph if node.name.startswith("copy")) == probe.copies
        assert probe.tells != "tensors" or work(probe).tensors > 1000
    for sort in {work(probe).sort for probe in PROBES}:
        tells = [probe.tells for probe in PROBES if work(probe).sort == sort]
        assert tells.count("overhead") == 1, sort


def test_rates_follow_from_times() -> None:
    """Times made of known rates give these rates."""
    overhead, flops, bandwidth, tensors = 3e-6, 2e10, 5e9, 1e9

    def seconds(probe: measuring.Probe) -> float:
        did = work(probe)
        moving = 4 * did.moved / bandwidth if probe.tells == "bandwidth" else 0.0
        computing = did.flops / flops if did.sort in computing_sorts and probe.tells in ("flops", "tensors") else 0.0
        own = 4 * did.tensors / tensors if probe.tells in ("tensors", "flops") else 0.0
        return overhead + moving + computing + own

    computing_sorts = {work(probe).sort for probe in PROBES if probe.tells == "flops"}
    taken = {probe: seconds(probe) for probe in PROBES}
    for sort in ("conv", "pointwise", "packed 3x3", "elementwise", "linear"):
        rate = measuring._rate(sort, taken, 4)
        assert rate.overhead == overhead
        expected = {"flops": flops, "bandwidth": bandwidth, "tensors": tensors}
        for name, value in expected.items():
            for _, found in getattr(rate, name):
                assert found == pytest.approx(value, rel=0.02), (sort, name)


def test_tiles_are_those_of_the_kernel() -> None:
    assert (fused.TILE, fused.LANES) == (winograd.TILE, winograd.LANES)


def test_it_predicts(measured: Machine) -> None:
    """Within a factor of 20 of a run, however busy the machine is."""
    import time

    spec = mgcompile.load("cifar100/vgg-6")
    found = roofline(spec.graph, measured, batch=8).seconds
    assert found is not None
    model = mgcompile.compile(spec, seed=0).eval().to(memory_format=torch.channels_last)
    images = torch.randn(8, 3, 32, 32).to(memory_format=torch.channels_last)
    times = []
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for _ in range(4):
                start = time.perf_counter()
                model(images)
                times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    assert min(times) / 20 < found < 20 * min(times)
