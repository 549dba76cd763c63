"""Choosing by timing how each convolution is computed, and remembering the choice on disk.

The file holds names of ways alone, for one kind of processor, number of threads and version of PyTorch. It may be
deleted, damaged or written by several processes: what cannot be read is measured again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import secrets
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from mgcompile.lowering.packing import Call, Run, ways

__all__ = ["cache_file", "fastest", "forget", "machine"]

CACHE = "MGCOMPILE_CACHE"
"""The environment variable that names the folder of the cache."""
ROUNDS = 5
SECONDS = 0.3
"""For at most so long the ways of one convolution are compared."""

_known: dict[Path, dict[str, str]] = {}


def fastest(call: Call, make: Callable[[str], Run]) -> str:
    """The way of a call that is fastest here: remembered, or else measured."""
    known, key = _load(cache_file()), key_of(call)
    if known.get(key) in ways(call):
        return known[key]
    parts, add = call.sample()
    runs = {way: make(way) for way in ways(call)}
    times = measure({way: partial(run, parts, add) for way, run in runs.items()})
    known[key] = min(times, key=times.__getitem__)
    _save(cache_file(), {key: known[key]})
    return known[key]


def measure(runs: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """The median seconds of each, interleaved, after one call that does not count."""
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + SECONDS
    for number in range(4 * ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
        if number + 1 >= ROUNDS and time.perf_counter() > end:
            break
    return {name: statistics.median(found) for name, found in seconds.items()}


def key_of(call: Call) -> str:
    """A call as the key of an entry: all its fields, readable."""
    return repr(call)


@cache
def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine() -> str:
    """What a choice holds for."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{_processor()}, {capability}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"


def cache_file() -> Path:
    """The file of this machine's choices: in `$MGCOMPILE_CACHE`, else in the user's folder for caches."""
    folder = os.environ.get(CACHE)
    if not folder:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = str(Path(base) / "mgcompile")
    return Path(folder) / f"tuning-{hashlib.blake2b(machine().encode(), digest_size=8).hexdigest()}.json"


def forget() -> None:
    """Drop what is held in memory, so that the file is read again."""
    _known.clear()


def _load(path: Path) -> dict[str, str]:
    if path not in _known:
        _known[path] = _read(path)
    return _known[path]


def _read(path: Path) -> dict[str, str]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    entries = data.get("ways") if isinstance(data, dict) and data.get("machine") == machine() else None
    if not isinstance(entries, dict):
        return {}
    return {key: way for key, way in entries.items() if isinstance(way, str)}


def _save(path: Path, new: dict[str, str]) -> None:
    """Add entries to what is in the file now. A folder that cannot be written is no error: it is measured again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            text = json.dumps({"machine": machine(), "ways": {**_read(path), **new}}, indent=1)
            draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            try:
                draft.write_text(text, encoding="utf-8")
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time, where the system can; elsewhere the last one wins."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
