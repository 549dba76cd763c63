"""The peaks of this machine, measured in a few seconds, and kept on disk.

Speeds are those of small networks, each of one operation in several copies, compiled and run as every other network is.
One file is kept for a processor, a version of PyTorch, a precision and a number of threads. It may be deleted or
damaged: what cannot be read is not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

from mgcompile.analysis.machine import Curve, Machine, Precision, Rate, machine_text, parse_machine, value_at
from mgcompile.errors import MgcompileError
from mgcompile.lowering import private
from mgcompile.lowering.compiler import compile_graph
from mgcompile.lowering.machine import cache_folder, processor, processor_features
from mgcompile.lowering.machine import threads as using
from mgcompile.measuring.peak import convolution_peak
from mgcompile.measuring.probes import PROBES, Probe, work
from mgcompile.measuring.timing import Call

__all__ = ["kept_file", "kept_machine", "measure_machine"]

SECONDS = 0.03
"""For so long each network runs, and three times at least."""

ROUNDS = 4
"""So often computing and reading weights are told apart, each with what is known of the other."""

LEAST = 0.2
"""A part takes at least so much of the time of a probe that is to tell it."""

NUMBER = {"fp32": 4, "bf16": 2}
"""Bytes of a number by precision."""

Clock = Callable[[], float]
"""Tells seconds; only differences count."""

Progress = Callable[[int, int, str], object]
"""Told how many steps are done, of how many, and what is being measured."""


def kept_machine(precision: Precision = "fp32", threads: int | None = None) -> Machine | None:
    """The peaks that were measured of this machine, of the last number of threads that was, where None; or None."""
    pattern = kept_file(precision, threads).name if threads else f"machine-{_digest()}-{precision}-*.json"
    kept: list[tuple[float, Machine]] = []
    with contextlib.suppress(OSError):
        for path in cache_folder().glob(pattern):
            with contextlib.suppress(OSError, MgcompileError):
                machine = parse_machine(private.read(path), str(path))
                if (machine.name, machine.precision) == (processor(), precision):
                    kept.append((path.stat().st_mtime, machine))
    return max(kept, key=lambda each: each[0])[1] if kept else None


def kept_file(precision: Precision, threads: int) -> Path:
    """Where the peaks of this machine are kept."""
    return cache_folder() / f"machine-{_digest()}-{precision}-{threads}.json"


def measure_machine(
    precision: Precision = "fp32",
    threads: int | None = None,
    *,
    keep: bool = True,
    seconds: float = SECONDS,
    clock: Clock = time.perf_counter,
    progress: Progress = lambda done, total, what: None,
) -> Machine:
    """The peaks of this machine with so many threads of PyTorch, as many as it has where None.

    Takes a few seconds; `seconds` are those for each of the small networks, by the `clock`. With `keep` the result is
    kept on disk; a folder that cannot be written is no error.
    """
    with using(threads), torch.inference_mode():
        total = len(PROBES) + 1
        progress(0, total, "fastest convolution")
        peak = convolution_peak(precision)
        taken = _overheads(precision, seconds, clock)
        for number, probe in enumerate(PROBES, 1):
            progress(number, total, work(probe).sort)
            if probe not in taken:
                call = _call(probe, precision)
                taken[probe] = _fastest({probe: call}, seconds, clock)[probe] / probe.copies
        progress(total, total, "done")
        machine = _machine(taken, peak, precision)
    if keep:
        _keep(machine)
    return machine


def _overheads(precision: Precision, seconds: float, clock: Clock) -> dict[Probe, float]:
    """What a call of each sort takes, however small, where other sorts run before it, as in a network."""
    probes = [probe for probe in PROBES if probe.tells == "overhead"]
    found = _fastest({probe: _call(probe, precision) for probe in probes}, seconds * len(probes), clock)
    return {probe: taken / probe.copies for probe, taken in found.items()}


def _call(probe: Probe, precision: Precision) -> Call:
    """A forward pass, grids channels last, which has run twice: what is packed and planned then is there."""
    graph = probe.graph()
    model = compile_graph(graph, seed=0, optimize=probe.optimize, precision=precision).eval()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    channels, height, width = graph.shapes()[graph.input.name]
    images = torch.randn(1, channels, height, width).to(memory_format=torch.channels_last)
    model(images)
    model(images)
    return partial(model, images)


def _fastest(calls: Mapping[Probe, Call], seconds: float, clock: Clock) -> dict[Probe, float]:
    """The time of the fastest run of each, in turn for so many seconds: others wait for what else the machine does."""
    best = dict.fromkeys(calls, float("inf"))
    end, rounds = clock() + seconds, 0
    while rounds < 3 or clock() < end:
        for probe, call in calls.items():
            start = clock()
            call()
            best[probe] = min(best[probe], clock() - start)
        rounds += 1
    return best


def _machine(taken: dict[Probe, float], peak: float, precision: Precision) -> Machine:
    number = NUMBER[precision]
    rates = {sort: _rate(sort, taken, number) for sort in dict.fromkeys(work(probe).sort for probe in taken)}
    plain = rates["elementwise"]
    return Machine(
        name=processor(),
        threads=torch.get_num_threads(),
        precision=precision,
        convolution=peak,
        bandwidth=plain.bandwidth[-1][1],
        cache_bandwidth=max(y for _, y in plain.bandwidth),
        cache=_cache_bytes(),
        overhead=min(rate.overhead for rate in rates.values()),
        rates=rates,
    )


def _rate(sort: str, taken: Mapping[Probe, float], number: int) -> Rate:
    """From the times of a sort's probes: each tells the part that its name says, beside the others."""
    own = {probe: seconds for probe, seconds in taken.items() if work(probe).sort == sort}
    overhead = min(seconds for probe, seconds in own.items() if probe.tells == "overhead")
    curves: dict[str, Curve] = {"flops": (), "bandwidth": (), "tensors": ()}
    for _ in range(ROUNDS):
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in curves}
        for probe, seconds in own.items():
            did = work(probe)
            read, rest = did.tensors * number, seconds - overhead
            match probe.tells:
                case "tensors":
                    other = did.flops / value_at(curves["flops"], did.channels) if curves["flops"] else 0.0
                    at, amount = read * probe.copies, read
                case "flops":
                    other = read / value_at(curves["tensors"], read * probe.copies) if curves["tensors"] else 0.0
                    at, amount = did.channels, did.flops
                case _:
                    other, at, amount = 0.0, did.moved * number, did.moved * number
            if probe.tells != "overhead":
                found[probe.tells].append((at, amount / max(rest - other, LEAST * seconds)))
        curves = {name: tuple(sorted(points)) for name, points in found.items()}
    return Rate(overhead, **curves)


def _cache_bytes() -> int:
    """The size of the largest cache, as Linux says it; elsewhere a usual one."""
    sizes = []
    with contextlib.suppress(OSError, ValueError):
        for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
            text = path.read_text(encoding="ascii").strip()
            sizes.append(int(text.rstrip("KM")) * {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1))
    return max(sizes, default=8 << 20)


def _digest() -> str:
    """What the peaks hold for, besides precision and threads."""
    place = f"{processor()}, {processor_features()}, PyTorch {version('torch')}"
    return hashlib.blake2b(place.encode(), digest_size=8).hexdigest()


def _keep(machine: Machine) -> None:
    path = kept_file(machine.precision, machine.threads)
    with contextlib.suppress(OSError):
        private.write(path, machine_text(machine).encode())
