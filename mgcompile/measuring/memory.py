"""Bytes that tensors take. What libraries allocate by themselves, as oneDNN its packed weights, no allocator sees."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch._C._autograd import DeviceType
from torch.autograd.profiler import profile

__all__ = ["peak_bytes", "resident_bytes"]

LOG_LEVEL = "KINETO_LOG_LEVEL"


def peak_bytes(call: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """The most bytes alive at once among those that one run of `call` allocates, what it returns included.

    What was alive before does not count, nor does the memory that it gives back. On a CPU the allocator is watched by
    PyTorch's profiler, which slows the run; on CUDA the allocator counts by itself.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _quiet(), profile(use_cpu=True, profile_memory=True) as found:
        call()
    results = found.kineto_results
    events = [] if results is None else results.events()
    changes = sorted(
        (event.start_ns(), number, event.nbytes())
        for number, event in enumerate(events)
        if event.name() == "[memory]" and event.device_type() == DeviceType.CPU
    )
    alive = peak = 0
    for _, _, change in changes:
        alive += change
        peak = max(peak, alive)
    return peak


def resident_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """The bytes of the memory that tensors lie in; memory that several of them share counts once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines that the profiler writes to standard error when it begins and ends.

    It reads its log level from the environment, when it is first used.
    """
    if LOG_LEVEL in os.environ:
        yield
        return
    os.environ[LOG_LEVEL] = "99"
    try:
        yield
    finally:
        del os.environ[LOG_LEVEL]
