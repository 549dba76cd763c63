"""What is known of this machine, and where things are kept that hold for it alone."""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

__all__ = ["CACHE", "cache_folder", "machine", "processor", "processor_features", "threads"]

CACHE = "MGCOMPILE_CACHE"
"""The environment variable that names the folder of the cache."""


def processor() -> str:
    """What the system calls its processor."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def processor_features() -> str:
    """The sets of instructions, as the system names them; empty where it does not."""
    return _cpuinfo("flags") or _cpuinfo("Features")


@cache
def _cpuinfo(field: str) -> str:
    """The first value of a field of Linux's description of the processors."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == field:
                return value.strip()
    return ""


def machine() -> str:
    """What a choice by timing holds for."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{processor()}, {capability}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"


def cache_folder() -> Path:
    """`$MGCOMPILE_CACHE`, else a folder in the user's own for caches or, where there is none, in that for drafts."""
    if folder := os.environ.get(CACHE):
        return Path(folder)
    if os.path.isabs(base := os.environ.get("XDG_CACHE_HOME", "")):  # a relative one is to be ignored
        return Path(base) / "mgcompile"
    with contextlib.suppress(RuntimeError):  # no $HOME, and no user of this number
        home = Path.home()
        if os.environ.get("HOME") != "" and home.is_absolute() and home.is_dir():
            return home / ".cache" / "mgcompile"
    with contextlib.suppress(OSError):
        # Anyone may have made it before: `private` uses it where it is this user's own.
        return Path(tempfile.gettempdir()) / f"mgcompile-{os.geteuid() if os.name == 'posix' else 'user'}"
    return Path(os.devnull) / "mgcompile"  # where nothing can be


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """So many threads of PyTorch, if a number is given, and then as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
