"""Batch normalisation over the examples of all processes, on any device: PyTorch's own runs on GPUs alone."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["synchronize"]


def synchronize(model: nn.Module) -> None:
    """Make every batch normalisation of a model take its statistics over all processes of the default group, which must
    be there and give each the same number of examples. Names, weights and buffers stay.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.__class__ = _Synchronized1d if isinstance(module, nn.BatchNorm1d) else _Synchronized2d


class _Summed(torch.autograd.Function):
    """The sum over all processes. Each of them goes on with it, so the gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def _normalized(norm: nn.BatchNorm1d | nn.BatchNorm2d, value: Tensor) -> Tensor:
    if not norm.training:
        return F.batch_norm(value, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    axes = [axis for axis in range(value.ndim) if axis != 1]
    shape = [-1 if axis == 1 else 1 for axis in range(value.ndim)]
    count = dist.get_world_size() * value.numel() // value.shape[1]
    single = value if value.dtype == torch.float64 else value.float()
    # The mean first: a mean of squares less a squared mean would lose digits.
    mean = _sum(single.sum(axes)) / count
    centred = single - mean.view(shape)
    variance = _sum(centred.square().sum(axes)) / count
    result = centred * torch.rsqrt(variance + norm.eps).view(shape)
    if norm.weight is not None:
        result = result * norm.weight.view(shape) + norm.bias.view(shape)
    if norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            momentum = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)  # type: ignore[arg-type]
            norm.running_mean.lerp_(mean, momentum)
            norm.running_var.lerp_(variance * (count / max(count - 1, 1)), momentum)
    return result.to(value.dtype)


def _sum(value: Tensor) -> Tensor:
    total: Tensor = _Summed.apply(value)  # type: ignore[no-untyped-call]
    return total


class _Synchronized1d(nn.BatchNorm1d):
    def forward(self, input: Tensor) -> Tensor:
        return _normalized(self, input)


class _Synchronized2d(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return _normalized(self, input)
