"""The maximum over 2x2 windows, in one pass over memory."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mgcompile.lowering.native.library import library

__all__ = ["bound_pool", "pool_2x2"]


def pool_2x2(x: torch.Tensor) -> torch.Tensor | None:
    """(batch, channels, h, w) -> (batch, channels, h/2, w/2), both rounded up; None where there are no kernels.

    x is fp32 or bf16, in channels-last memory. At an odd border a window sees the cells that exist.
    """
    run = bound_pool(tuple(x.shape), x.dtype)
    return None if run is None else run(x)


def bound_pool(shape: tuple[int, ...], dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """The pooling of grids of one shape and type, without a look at them."""
    found = library()
    if found is None:
        return None
    batch, channels, height, width = shape
    call, pooled = found.mgcompile_pool_2x2, (batch, channels, (height + 1) // 2, (width + 1) // 2)
    half = dtype is torch.bfloat16

    def run(x: torch.Tensor) -> torch.Tensor:
        y = torch.empty(pooled, dtype=dtype, memory_format=torch.channels_last)
        call(x.data_ptr(), y.data_ptr(), half, batch, height, width, channels, torch.get_num_threads())
        return y

    return run
