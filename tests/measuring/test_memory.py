"""Peak memory, against allocations whose bytes are known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mgcompile.measuring import peak_bytes, resident_bytes

KIB = 1024
MIB = 1024 * KIB
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def fill(mib: int, device: str) -> torch.Tensor:
    return torch.empty(mib * MIB, dtype=torch.uint8, device=device)


@pytest.mark.parametrize("device", DEVICES)
def test_the_most_that_lives_at_once(device: str) -> None:
    def call() -> torch.Tensor:
        first, second = fill(4, device), fill(8, device)
        del first
        third = fill(2, device)  # beside 8, after 4 were given back
        del second
        return third

    call()
    assert peak_bytes(call, device) == pytest.approx(12 * MIB, abs=4 * KIB)
    assert peak_bytes(call, device) == pytest.approx(12 * MIB, abs=4 * KIB)


@pytest.mark.parametrize("device", DEVICES)
def test_what_lives_already_does_not_count(device: str) -> None:
    held = [fill(16, device)]

    def call() -> None:
        held.clear()
        held.append(fill(4, device))

    assert peak_bytes(call, device) <= 4 * MIB + 4 * KIB


def test_nothing_allocated_is_nothing() -> None:
    assert peak_bytes(lambda: None) == 0


def test_a_network_holds_two_grids_in_inference_and_all_in_training() -> None:
    grid = torch.zeros(1, 16, 64, 64)  # 256 KiB
    network = nn.Sequential(*[nn.Sigmoid() for _ in range(6)])

    def infer() -> None:
        with torch.inference_mode():
            network(grid)

    learned = grid.clone().requires_grad_()
    assert peak_bytes(infer) == pytest.approx(2 * 256 * KIB, abs=KIB)
    assert peak_bytes(lambda: network(learned)) == pytest.approx(6 * 256 * KIB, abs=KIB)


def test_the_profiler_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    peak_bytes(lambda: torch.ones(3) + 1)
    assert capfd.readouterr() == ("", "")


def test_memory_that_tensors_share_counts_once() -> None:
    whole = torch.zeros(4, 256)
    assert resident_bytes([whole, whole[1:], whole.t(), torch.zeros(256)]) == 5 * KIB
