"""ReLU, and a look at what it rectifies, in one pass over memory."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mgcompile.lowering.native.library import library
from mgcompile.lowering.native.winograd import TYPES

__all__ = ["LIMIT", "finisher"]

LIMIT = 2.0**64
"""From here on, numbers may overflow in a sum, and what sums in another order than the plain form gives other ones."""


def finisher(dtype: torch.dtype, *, relu: bool) -> Callable[[torch.Tensor], bool]:
    """y -> whether all its numbers are within `LIMIT`; if asked for, it is rectified in place, and NaN stays.

    y must be dense: nothing between its numbers. Some millionths of the limit may be too much already.
    """
    found = library()
    if found is None or dtype not in TYPES:
        return _rectify if relu else _is_within
    call, half = found.mgcompile_finish, dtype is torch.bfloat16

    def run(y: torch.Tensor) -> bool:
        within: int = call(y.data_ptr(), y.numel(), relu, half, torch.get_num_threads())
        return bool(within)

    return run


def _is_within(y: torch.Tensor) -> bool:
    return bool(torch.linalg.vector_norm(y, torch.inf) < LIMIT)


def _rectify(y: torch.Tensor) -> bool:
    within = _is_within(y)
    y.relu_()
    return within
