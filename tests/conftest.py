"""What the whole suite shares."""

from __future__ import annotations

import ctypes
import gc
import mmap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOM = 192 << 20
"""How many bytes a process may grow before what its tests have left is looked for."""
LIMIT = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the messages that are found as those expected")
    parser.addoption("--sequences", type=int, default=60, help="how many sequences laws/test_state_machine.py tries")


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported stays for good: later collections need not walk it."""
    gc.collect()
    gc.freeze()
    session.stash[LIMIT] = _resident() + ROOM


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Give back what tests have left. Graphs of torch.fx are cycles, which Python lets lie until many objects have been
    made, however large their tensors; and glibc keeps what was freed.
    """
    result = yield
    if _resident() > item.session.stash[LIMIT]:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        item.session.stash[LIMIT] = _resident() + ROOM
    return result


def _resident() -> int:
    """The memory of this process in bytes; 0 where there is no /proc, and with it no glibc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch on one thread, and then on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def plain_inductor() -> Iterator[None]:
    """Inductor's code without vectors, made in this process: no trial of what the compiler can do, no pool of workers
    that import PyTorch first.
    """
    from torch._inductor import config

    with config.patch({"cpp.simdlen": 1, "compile_threads": 1}):
        yield
