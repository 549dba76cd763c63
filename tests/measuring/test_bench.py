"""What is measured of which candidates, and what becomes of those that fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import fx

import mgcompile
from mgcompile import MgcompileError
from mgcompile.analysis import audit_graph
from mgcompile.measuring import Candidate, Options, bench, candidates, convolution_peak, measure, peak
from mgcompile.passes import optimize
from mgcompile.spec import Spec

SMALL = {
    "name": "small",
    "input": {"channels": 3, "size": 16},
    "layers": [{"pyramid": 2}, {"conv": {"channels": [8, 4]}}, {"drop": "coarsest"}, {"classify": 10}],
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A peak of the machine that is found at once, and choices of tuning that are not kept."""
    monkeypatch.setattr(peak, "PEAK_SHAPES", ((1, 8, 8),))
    monkeypatch.setattr(peak, "SECONDS", 0.0)
    monkeypatch.setenv("MGCOMPILE_CACHE", str(tmp_path))
    peak._peak.cache_clear()


@pytest.fixture
def small() -> Spec:
    return mgcompile.load(SMALL)


class Collected:
    """Keeps the errors that are reported, and goes on."""

    def __init__(self) -> None:
        self.errors: dict[str, MgcompileError] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        try:
            yield
        except MgcompileError as error:
            self.errors[name] = error


def forms(options: Options) -> list[str]:
    return [f"{way.mode}: {way.form}" for way in candidates(options)]


def test_auto_is_the_form_of_the_mode() -> None:
    found = forms(Options(modes=("inference", "training"), optimize=("none", "auto")))
    assert found == ["inference: none", "inference: inference", "training: none", "training: training"]


def test_a_form_that_is_asked_for_twice_is_measured_once() -> None:
    assert forms(Options(optimize=("auto", "inference"))) == ["inference: inference"]


def test_flags_add_forms() -> None:
    options = Options(modes=("inference", "training"), optimize=("none", "auto"), torch_compile=True, tune=True)
    assert forms(options) == [
        "inference: none",
        "inference: none+compile",
        "inference: inference",
        "inference: inference+compile",
        "inference: inference+tune",
        "training: none",
        "training: none+compile",
        "training: training",
        "training: training+compile",
    ]


def test_the_inference_form_has_no_rows_in_training() -> None:
    assert forms(Options(modes=("training",), optimize=("inference", "none"))) == ["training: none"]
    with pytest.raises(MgcompileError, match="nothing is left to train"):
        candidates(Options(modes=("inference", "training"), optimize=("inference",)))


def test_every_combination_is_a_row(small: Spec) -> None:
    options = Options(
        batches=(2, 3), modes=("inference", "training"), precisions=("fp32", "bf16"), tune=True, runs=2, warmup=0
    )
    result = measure([("small", small)], options)
    assert tuple(row.candidate for row in result.rows) == candidates(options)
    assert len(result.rows) == 2 * 2 * (3 + 2)
    assert set(result.peaks) == {"fp32", "bf16"}
    assert all(len(row.time.seconds) == 2 and min(row.time.seconds) > 0 for row in result.rows)
    assert all(row.peak_flops == result.peaks[row.candidate.precision] > 0 for row in result.rows)


def test_work_is_that_of_the_plain_and_of_the_optimised_graph(small: Spec) -> None:
    options = Options(batches=(2,), size=(24, 16), modes=("inference", "training"), runs=1, warmup=0)
    for row in measure([("small", small)], options).rows:
        times = 2 * 2 * (3 if row.candidate.mode == "training" else 1)
        assert row.size == (24, 16)
        assert row.nominal_flops == times * mgcompile.audit(small, size=(24, 16)).macs
        assert row.executed_flops == times * audit_graph(optimize(small.graph, row.candidate.optimize), (24, 16)).macs


def test_memory_holds_weights_and_grows_with_the_batch_and_in_training(small: Spec) -> None:
    options = Options(batches=(2, 16), modes=("inference", "training"), optimize=("none",), runs=1, warmup=0)
    infer, infer_more, train, train_more = [row.peak_bytes for row in measure([("small", small)], options).rows]
    weights = 4 * mgcompile.audit(small).params
    assert weights + 4 * 2 * 3 * 16 * 16 < infer < train
    assert infer_more > 4 * infer
    assert train_more > 4 * train


def test_what_fails_does_not_stop_the_others(small: Spec) -> None:
    one_value = {**SMALL, "input": {"channels": 3, "size": 2}}  # the coarse grid is one cell: no batch statistics
    tight = {**SMALL, "layers": [{"conv": {"channels": 4, "kernel": 5, "padding": 0}}]}
    specs = [("one", mgcompile.load(one_value)), ("tight", mgcompile.load(tight)), ("small", small)]
    report = Collected()
    options = Options(batches=(1, 2), size=(2, 2), modes=("training",), optimize=("none",), runs=1, warmup=0)
    result = measure(specs, options, report=report)
    assert [row.candidate.batch for row in result.rows] == [2, 2]
    assert set(report.errors) == {"one: training, none, fp32, batch 1", "tight", "small: training, none, fp32, batch 1"}
    assert "\n" not in str(report.errors["one: training, none, fp32, batch 1"])
    with pytest.raises(MgcompileError, match="more than 1 value per channel"):
        measure(specs[:1], options)


def test_nothing_left_is_no_rows(small: Spec) -> None:
    options = Options(size=(1, 1), modes=("training",), optimize=("none",), runs=1)
    assert measure([("small", small)], options, report=Collected()).rows == ()


def test_progress_counts_to_its_total(small: Spec) -> None:
    seen: list[tuple[int, int, str]] = []
    measure(
        [("a", small), ("b", small)],
        Options(runs=3, warmup=1),
        progress=lambda done, total, what: seen.append((done, total, what)),
    )
    done = [step[0] for step in seen]
    assert done == sorted(done)
    assert {total for _, total, _ in seen} == {2 * 2 * (1 + 1 + 3)}
    assert done[-1] == seen[-1][1]
    assert list(dict.fromkeys(what for _, _, what in seen)) == [
        "a: inference, none, fp32, batch 1",
        "a: inference, inference, fp32, batch 1",
        "b: inference, none, fp32, batch 1",
        "b: inference, inference, fp32, batch 1",
        "3 rounds of 4",
        "peak of the machine, fp32",
    ]


def test_threads_are_set_for_as_long_as_it_takes(small: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    wanted = 2 if before == 1 else 1
    result = measure([("small", small)], Options(optimize=("none",), threads=wanted, runs=1, warmup=0))
    assert result.threads == wanted
    assert torch.get_num_threads() == before


def test_the_peak_is_measured_once_for_each_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(peak, "_fastest", lambda call: asked.append(call) or 0.5)
    first = convolution_peak("fp32"), convolution_peak("bf16")
    count = len(asked)
    assert (convolution_peak("fp32"), convolution_peak("bf16")) == first
    assert len(asked) == count > 0
    assert first[0] == 2 * 9 * 8 * 8 * 8 * 8 / 0.5
    peak._peak.cache_clear()


def test_compiled_forms_of_many_batches_are_compiled_for_their_sizes(
    small: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[tuple[int | torch.SymInt, ...]] = []

    def backend(graph: fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        compiled.extend(each.shape for each in inputs if isinstance(each, torch.Tensor) and each.ndim == 4)
        return graph.forward

    def model(spec: Spec, way: Candidate, seed: int) -> fx.GraphModule:
        result = mgcompile.compile(spec, seed=seed).eval()
        if way.extra == "compile":
            result.compile(backend=backend)  # not Inductor, which takes seconds
        return result

    monkeypatch.setattr(bench, "_model", model)
    batches = tuple(range(2, 12))  # more than PyTorch compiles by itself
    options = Options(batches, optimize=("none",), torch_compile=True, runs=2, warmup=0)
    rows = measure([("small", small)], options).rows
    assert [row.candidate.form for row in rows] == ["none", "none+compile"] * 10
    assert [shape for shape in compiled if shape[1] == 3] == [(batch, 3, 16, 16) for batch in batches]
    assert all(type(side) is int for shape in compiled for side in shape)
