"""From specs to measured rows: every network in every form, precision and batch size, side by side in one process."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor, fx

from mgcompile import api
from mgcompile.analysis import audit_graph
from mgcompile.errors import MgcompileError, lack_of_memory
from mgcompile.graph.types import Shape, Size
from mgcompile.lowering.machine import processor, threads
from mgcompile.measuring.memory import peak_bytes, resident_bytes
from mgcompile.measuring.peak import convolution_peak
from mgcompile.measuring.timing import Call, Timing, interleaved
from mgcompile.passes import optimize
from mgcompile.spec import Spec

__all__ = ["Bench", "Candidate", "Options", "Row", "candidates", "measure"]

Mode = Literal["inference", "training"]
Optimize = Literal["none", "training", "inference", "auto"]
Precision = Literal["fp32", "bf16"]

Report = Callable[[str], AbstractContextManager[None]]
Progress = Callable[[int, int, str], object]
"""Told how many steps are done, of how many, and what is being done."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured. All combinations are; a value that is there twice counts once.

    `size` is the input's (height, width), each network's nominal one where None. "auto" optimises for the mode that is
    measured. `torch_compile` measures each form also through `torch.compile`, and `tune` each optimised form of
    inference also with tuned convolutions. `threads` are those of PyTorch, as many as it has where None.
    """

    batches: Sequence[int] = (1,)
    size: Size | None = None
    modes: Sequence[Mode] = ("inference",)
    optimize: Sequence[Optimize] = ("none", "auto")
    precisions: Sequence[Precision] = ("fp32",)
    torch_compile: bool = False
    tune: bool = False
    threads: int | None = None
    runs: int = 10
    warmup: int = 2
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to run a network. `extra` is what its form has besides the passes of `optimize`."""

    mode: Mode
    optimize: Literal["training", "inference"] | None
    extra: Literal["", "compile", "tune"]
    precision: Precision
    batch: int

    @property
    def form(self) -> str:
        """none, training or inference, and +compile or +tune."""
        return "+".join(filter(None, (self.optimize or "none", self.extra)))

    def __str__(self) -> str:
        return f"{self.mode}, {self.form}, {self.precision}, batch {self.batch}"


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one candidate.

    `time` is of one call for the whole batch. `peak_bytes` are the most that live at once during a call: parameters,
    buffers, the input and what the call allocates. `nominal_flops` of a call are 2 x MACs of the network as the spec
    says it, `executed_flops` those of the optimised graph; a training step counts as three forward passes.
    `peak_flops` is the machine's peak in FLOP/s in this precision.
    """

    network: str
    candidate: Candidate
    size: Size
    time: Timing
    peak_bytes: int
    nominal_flops: int
    executed_flops: int
    peak_flops: float


@dataclass(frozen=True, slots=True)
class Bench:
    """The rows that could be measured, in the order of specs and candidates, and where they were.

    `peaks` are the machine's peaks in FLOP/s by precision.
    """

    processor: str
    threads: int
    torch: str
    python: str
    runs: int
    warmup: int
    peaks: Mapping[str, float]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class _Prepared:
    network: str
    candidate: Candidate
    size: Size
    call: Call
    peak_bytes: int
    nominal_macs: int
    executed_macs: int

    def row(self, time: Timing, peak_flops: float) -> Row:
        samples = self.candidate.batch * (3 if self.candidate.mode == "training" else 1)
        return Row(
            self.network,
            self.candidate,
            self.size,
            time,
            self.peak_bytes,
            2 * self.nominal_macs * samples,
            2 * self.executed_macs * samples,
            peak_flops,
        )


def candidates(options: Options) -> tuple[Candidate, ...]:
    """All ways to run a network that the options ask for.

    The inference form cannot be trained: it has no rows in training. Raises `MgcompileError` where nothing is left to
    measure of a mode.
    """
    found: dict[Candidate, None] = {}
    for mode in options.modes:
        forms = [mode if form == "auto" else None if form == "none" else form for form in options.optimize]
        forms = [form for form in forms if (mode, form) != ("training", "inference")]
        if not forms:
            raise MgcompileError(
                "a network that is optimised for inference cannot be trained; nothing is left to train"
            )
        for precision, batch, form in product(options.precisions, options.batches, forms):
            found[Candidate(mode, form, "", precision, batch)] = None
            if options.torch_compile:
                found[Candidate(mode, form, "compile", precision, batch)] = None
            if options.tune and mode == "inference" and form is not None:
                found[Candidate(mode, form, "tune", precision, batch)] = None
    return tuple(found)


def measure(
    specs: Iterable[tuple[str, Spec]],
    options: Options,
    *,
    report: Report = lambda name: nullcontext(),
    progress: Progress = lambda done, total, what: None,
) -> Bench:
    """Measure each named spec.

    Each candidate is built, called once, in which it compiles, packs and tunes, and once more for its memory. Then all
    candidates of all specs run in rounds; so all their models are in memory together. Random weights and inputs hang on
    the seed alone. The machine's peaks are measured at the end.

    `report(name)` is a context in which a spec or one of its candidates is prepared; where it swallows the
    `MgcompileError` that is raised there, the others go on.
    """
    ways, named = candidates(options), list(specs)
    total = len(named) * len(ways) * (1 + options.warmup + options.runs)
    with threads(options.threads):
        prepared: list[_Prepared] = []
        for number, (name, spec) in enumerate(named):
            with report(name):
                later = _later(progress, number * len(ways), total)
                _prepare(name, spec, ways, options, prepared, report=report, progress=later)
        steps = _Steps(len(named) * len(ways), len(prepared), options, progress)
        calls = {number: each.call for number, each in enumerate(prepared)}
        times = interleaved(calls, runs=options.runs, warmup=options.warmup, progress=steps)
        peaks: dict[str, float] = {}
        for precision in dict.fromkeys(each.candidate.precision for each in prepared):
            progress(steps.total, steps.total, f"peak of the machine, {precision}")
            peaks[precision] = convolution_peak(precision)
        rows = [each.row(times[number], peaks[each.candidate.precision]) for number, each in enumerate(prepared)]
        return Bench(
            processor(),
            torch.get_num_threads(),
            torch.__version__,
            platform.python_version(),
            options.runs,
            options.warmup,
            peaks,
            tuple(rows),
        )


class _Steps:
    """Counts the runs of the rounds for `progress`, of those candidates that could be prepared."""

    def __init__(self, done: int, count: int, options: Options, progress: Progress) -> None:
        self.done, self.progress = done, progress
        self.total = done + count * (options.warmup + options.runs)
        self.what = f"{options.runs} rounds of {count}"

    def __call__(self, _: object) -> None:
        self.done += 1
        self.progress(self.done, self.total, self.what)


def _later(progress: Progress, done: int, total: int) -> Callable[[int, str], object]:
    return lambda more, what: progress(done + more, total, what)


def _prepare(
    name: str,
    spec: Spec,
    ways: Sequence[Candidate],
    options: Options,
    prepared: list[_Prepared],
    *,
    report: Report,
    progress: Callable[[int, str], object],
) -> None:
    """Add the candidates of a spec that run. Raises `ShapeError` where its input is too small for it."""
    figures = audit_graph(spec.graph, options.size)
    image = spec.graph.shapes(options.size)[spec.graph.input.name]
    executed = {
        form: audit_graph(optimize(spec.graph, form), options.size).macs for form in {way.optimize for way in ways}
    }
    models: dict[object, fx.GraphModule] = {}
    for number, way in enumerate(ways):
        progress(number, f"{name}: {way}")
        with report(f"{name}: {way}"), _refused():
            # A compiled model is made for one shape; any other serves all batch sizes.
            key = (way.mode, way.form, way.precision, way.batch if way.extra == "compile" else None)
            if key not in models:
                models[key] = _model(spec, way, options.seed)
            call, tensors = _call(models[key], way, image, options.seed)
            call()
            peak = resident_bytes(tensors) + peak_bytes(call)
            macs = figures.macs, executed[way.optimize]
            prepared.append(_Prepared(figures.name, way, figures.size, call, peak, *macs))


def _model(spec: Spec, way: Candidate, seed: int) -> fx.GraphModule:
    model = api.compile(
        spec,
        seed=seed,
        torch_compile=way.extra == "compile",
        optimize=way.optimize,
        precision=way.precision,
        tune=way.extra == "tune",
    )
    return model.train() if way.mode == "training" else model.eval()


def _call(model: fx.GraphModule, way: Candidate, image: Shape, seed: int) -> tuple[Call, list[Tensor]]:
    """What is timed, and the tensors that it finds."""
    images = torch.randn(way.batch, *image, generator=torch.Generator().manual_seed(seed))
    tensors = [*model.parameters(), *model.buffers(), images]

    def infer() -> object:
        with torch.inference_mode():
            return model(images)

    def train() -> None:
        output = model(images)
        outputs = output.values() if isinstance(output, dict) else [output]
        torch.stack([each.square().sum() for each in outputs]).sum().backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)

    return (train if way.mode == "training" else infer), tensors


@contextmanager
def _refused() -> Iterator[None]:
    """What PyTorch refuses (too little memory, statistics of a single value) as an error of mgcompile, in a line."""
    try:
        yield
    except (RuntimeError, ValueError, MemoryError) as error:
        if reason := lack_of_memory(error):
            raise MgcompileError(reason) from error
        lines = str(error).strip().splitlines()
        raise MgcompileError(lines[0] if lines else type(error).__name__) from error
