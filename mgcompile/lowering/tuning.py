"""Choosing by timing how each convolution is computed, and remembering the choice on disk.

The file holds names of ways alone, for one kind of processor, number of threads and version of PyTorch. It may be
deleted, damaged or written by several processes: what cannot be read is measured again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from mgcompile.lowering import private
from mgcompile.lowering.calls import Call
from mgcompile.lowering.machine import cache_folder, machine
from mgcompile.lowering.ways import Prepared, ways

__all__ = ["cache_file", "fastest", "forget"]

ROUNDS = 5
SECONDS = 0.3
"""For at most so long the ways of one convolution are compared."""

FILLER_BYTES = 48 << 20
"""More than the caches hold."""

_known: dict[Path, dict[str, str]] = {}


def fastest(call: Call, make: Callable[[str], Prepared]) -> str:
    """The way of a call that is fastest here: remembered, or else measured."""
    served = ways(call)
    known, key = _load(cache_file()), key_of(call, served)
    if known.get(key) in served:
        return known[key]
    parts, add = call.sample()
    runs = {way: make(way).run for way in served}
    before = partial(_evict, [*parts, *add]) if call.cold else _nothing
    times = measure({way: partial(run, parts, add) for way, run in runs.items()}, before)
    known[key] = min(times, key=times.__getitem__)
    _save(cache_file(), {key: known[key]})
    return known[key]


def measure(runs: Mapping[str, Callable[[], Any]], before: Callable[[], None]) -> dict[str, float]:
    """The median seconds of each, interleaved, after one call that does not count; `before` each, something else."""
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + SECONDS
    for number in range(4 * ROUNDS):
        for name, run in runs.items():
            before()
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
        if number + 1 >= ROUNDS and time.perf_counter() > end:
            break
    return {name: statistics.median(found) for name, found in seconds.items()}


def _nothing() -> None:
    pass


def _evict(inputs: Sequence[torch.Tensor]) -> None:
    """Fill the caches with something else, and then with the inputs: as when a large network has come to this layer."""
    _filler().add_(1)
    for each in inputs:
        each.add_(0)


@cache
def _filler() -> torch.Tensor:
    return torch.zeros(FILLER_BYTES // 4)


def key_of(call: Call, served: Sequence[str]) -> str:
    """A call and the ways that serve it here as the key of an entry: all fields, readable."""
    return f"{call!r} by {', '.join(sorted(served))}"


def cache_file() -> Path:
    """The file of this machine's choices."""
    return cache_folder() / f"tuning-{hashlib.blake2b(machine().encode(), digest_size=8).hexdigest()}.json"


def forget() -> None:
    """Drop what is held in memory, so that the file is read again."""
    _known.clear()


def _load(path: Path) -> dict[str, str]:
    if path not in _known:
        _known[path] = _read(path)
    return _known[path]


def _read(path: Path) -> dict[str, str]:
    try:
        data = json.loads(private.read(path))
    except (OSError, ValueError, RecursionError):
        return {}
    entries = data.get("ways") if isinstance(data, dict) and data.get("machine") == machine() else None
    if not isinstance(entries, dict):
        return {}
    return {key: way for key, way in entries.items() if isinstance(way, str)}


def _save(path: Path, new: dict[str, str]) -> None:
    """Add entries to what is in the file now. A folder that cannot be written is no error: it is measured again."""
    with contextlib.suppress(OSError), private.locked(path.with_suffix(".lock")):
        text = json.dumps({"machine": machine(), "ways": {**_read(path), **new}}, indent=1)
        private.write(path, text.encode())
