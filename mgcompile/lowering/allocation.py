"""Memory that is not there: known before it is asked for, and told in a line where an allocator says no."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch
from torch import nn

from mgcompile.errors import MgcompileError, lack_of_memory

__all__ = ["allocating", "require_memory"]

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Of the container that this runs in, where it has one."""


def require_memory(model: nn.Module, device: torch.device | str) -> None:
    """Raise `MgcompileError` where the tensors of a model, which may lie on the meta device, do not fit on a device."""
    there = _available(torch.device(device))
    needed = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if there is not None and needed > there:
        raise MgcompileError(f"its weights need {_amount(needed)} of memory, and there are {_amount(there)}")


@contextmanager
def allocating(what: str) -> Iterator[None]:
    """While it lasts, an allocator's refusal is a `MgcompileError` that names what was being made."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if reason := lack_of_memory(error):
            raise MgcompileError(f"{what}: {reason}") from error
        raise


def _available(device: torch.device) -> int | None:
    """Bytes that can be taken at most; None where that is not known."""
    if device.type == "meta":
        return None
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    bounds = [int(psutil.virtual_memory().available)]
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address_space != resource.RLIM_INFINITY:
        bounds.append(max(0, address_space - psutil.Process().memory_info().vms))
    with suppress(OSError, ValueError):  # no such limit; "max"
        bounds.append(int(CGROUP_LIMIT.read_text(encoding="ascii")))
    return min(bounds)


def _amount(number: int) -> str:
    return f"{number / 1e9:,.1f} GB"
