"""What the whole suite shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the messages that are found as those expected")
    parser.addoption("--sequences", type=int, default=60, help="how many sequences laws/test_state_machine.py tries")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch on one thread, and then on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
