"""Images of all kinds that a model may be called with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

SIZES = [(16, 16), (8, 8), (5, 7), (33, 17), (2, 2), (1, 1), (4, 12)]


def noise(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def with_cell(x: torch.Tensor, value: float) -> torch.Tensor:
    x[..., x.shape[-2] // 2, x.shape[-1] // 2] = value
    return x


def in_inference_mode(x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return x.clone()


KINDS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "plain": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every second column": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "expanded": lambda x: x[:1, :1].expand(x.shape),
    "negated view": torch._neg_view,
    "of no batch": lambda x: x[:0],
    "a leaf": lambda x: x.requires_grad_(),
    "a parameter": nn.Parameter,
    "made in inference mode": in_inference_mode,
    "with a NaN": lambda x: with_cell(x, float("nan")),
    "with an infinity": lambda x: with_cell(x, float("inf")),
    "all NaN": lambda x: x.fill_(float("nan")),
    "with too many channels": lambda x: torch.cat([x, x], 1),
    "without a batch": lambda x: x[0],
    "of integers": lambda x: x.long(),
    "of another precision": lambda x: x.float() if x.dtype is torch.float64 else x.double(),
    "in half precision": lambda x: x.bfloat16(),
}
BROKEN = ("with a NaN", "with an infinity", "all NaN")
"""Not in training: they would stay in the statistics."""
UNLEARNED = ("made in inference mode",)
"""Not for gradients: autograd refuses to save them, which a model need not have wished."""
