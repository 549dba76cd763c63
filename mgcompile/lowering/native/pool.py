"""The maximum over 2x2 windows, in one pass over memory."""

from __future__ import annotations

import torch

from mgcompile.lowering.native.library import library

__all__ = ["pool_2x2"]


def pool_2x2(x: torch.Tensor) -> torch.Tensor | None:
    """(batch, channels, h, w) -> (batch, channels, h/2, w/2), both rounded up; None where there are no kernels.

    x is fp32 in channels-last memory. At an odd border a window sees the cells that exist.
    """
    found = library()
    if found is None:
        return None
    batch, channels, height, width = x.shape
    y = torch.empty((batch, channels, (height + 1) // 2, (width + 1) // 2), memory_format=torch.channels_last)
    found.mgcompile_pool_2x2(x.data_ptr(), y.data_ptr(), batch, height, width, channels, torch.get_num_threads())
    return y
