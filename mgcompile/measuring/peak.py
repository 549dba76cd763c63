"""What the machine can do at best: the rate of its fastest convolution."""

from __future__ import annotations

import time
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from mgcompile.lowering.backends import OneDNN, backend
from mgcompile.measuring.timing import Call

__all__ = ["DTYPES", "PEAK_SHAPES", "convolution_peak"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""What convolutions compute in, by precision."""

PEAK_SHAPES = ((1, 64, 56), (2, 256, 14), (8, 64, 56), (8, 128, 28), (8, 256, 14))
"""Batch, channels in and out, and side of the grids of convolutions that oneDNN computes well; kernels are 3x3."""

SECONDS = 0.08
"""For so long, and twice at least, each of them runs each way: about two seconds for both precisions."""


def convolution_peak(precision: Literal["fp32", "bf16"] = "fp32") -> float:
    """FLOP/s of the fastest run of several single convolutions on the CPU, a multiply-accumulate being two FLOPs.

    With the number of threads that is set now; measured once for each number and precision in a process.
    """
    return _peak(DTYPES[precision], torch.get_num_threads())


@cache
def _peak(dtype: torch.dtype, threads: int) -> float:
    # `threads` is part of what is remembered; PyTorch already has it.
    best = 0.0
    with torch.inference_mode():
        for batch, channels, side in PEAK_SHAPES:
            grid = torch.randn(batch, channels, side, side).to(dtype, memory_format=torch.channels_last)
            weight = torch.randn(channels, channels, 3, 3).to(dtype, memory_format=torch.channels_last)
            flops = 2 * 9 * batch * channels * channels * side * side
            for call in _ways(grid, weight):
                best = max(best, flops / _fastest(call))
    return best


def _ways(grid: Tensor, weight: Tensor) -> list[Call]:
    """By PyTorch, and by oneDNN, where it computes in this type here, on a weight that already lies as it wants it."""

    def plain() -> Tensor:
        return functional.conv2d(grid, weight, padding=1)

    if not isinstance(backend(grid.dtype), OneDNN):
        return [plain]
    one = (1, 1)
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight, one, one, one, 1, grid.shape)

    def prepacked() -> object:
        return torch.ops.mkldnn._convolution_pointwise(grid, packed, None, one, one, one, 1, "none", [], "")

    return [plain, prepacked]


def _fastest(call: Call) -> float:
    """The seconds of the fastest run, after one that does not count."""
    call()
    best, runs, end = float("inf"), 0, time.perf_counter() + SECONDS
    while runs < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return best
