"""The functions of optimised models. Grids are (batch, channels, height, width); sizes are in cells."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

from mgcompile.lowering.native.pool import pool_2x2
from mgcompile.lowering.native.winograd import TYPES

__all__ = [
    "activate",
    "channels_last",
    "coarse_conv",
    "is_channels_last",
    "is_recorded",
    "is_traced",
    "is_transformed",
    "max_pool_2x2",
    "spread_kernel",
    "upsample",
]

IN_PLACE = ("relu", "leaky_relu")
"""Activations whose gradient needs the output alone."""
PROBABILITIES = ("sigmoid", "softmax")
HALF = (torch.bfloat16, torch.float16)


def is_traced() -> bool:
    """Whether `torch.jit.trace` runs, to which sizes are tensors."""
    return torch._C._get_tracing_state() is not None


def is_transformed() -> bool:
    """Whether operations compute something beside their values: `torch.func.vmap`, `grad`, `jvp`, dual numbers."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0


def is_recorded() -> bool:
    """Whether operations are recorded, to run later, or counted, or transformed: they must then be plain ones."""
    return (
        torch.compiler.is_compiling()
        or is_traced()
        or bool(torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack())
        or is_transformed()
    )


def upsample(x: torch.Tensor, steps: int, size: tuple[int, int]) -> torch.Tensor:
    """Repeats each cell 2**steps x 2**steps and cuts what reaches beyond `size`."""
    if not steps:
        return x
    factor = float(2**steps)
    output: torch.Tensor = torch.ops.aten.upsample_nearest2d.default(x, size, factor, factor)
    return output


def spread_kernel(weight: torch.Tensor, factor: int) -> torch.Tensor:
    """The kernel of the transposed convolution that is nearest upsampling by `factor` and then a convolution.

    (out, in, h, w), both odd -> (in, out, h + factor - 1, w + factor - 1): the sums over factor x factor boxes of the
    kernel, turned around.
    """
    out, channels, height, width = weight.shape
    # Row (a, b) of the turned kernel goes to the f x f places of the wide kernel from (a, b) on.
    rows, columns = range(height + factor - 1), range(width + factor - 1)
    sums = torch.tensor(
        [
            [float(0 <= y - a < factor and 0 <= x - b < factor) for y in rows for x in columns]
            for a in range(height)
            for b in range(width)
        ],
        dtype=weight.dtype,
        device=weight.device,
    )
    spread = weight.flip(2, 3).reshape(out * channels, height * width) @ sums
    return spread.view(out, channels, height + factor - 1, width + factor - 1).transpose(0, 1)


def coarse_conv(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, factor: int) -> torch.Tensor:
    """A convolution, odd and of the same size, of x upsampled (nearest) by `factor`, computed on the coarse grid."""
    height, width = weight.shape[2:]
    if height == width == 1:
        return F.interpolate(F.conv2d(x, weight, bias), scale_factor=float(factor))
    padding = ((height - 1) // 2, (width - 1) // 2)
    return F.conv_transpose2d(x, spread_kernel(weight, factor), bias, factor, padding)


def activate(x: torch.Tensor, act: str, options: Mapping[str, float], *, fresh: bool = True) -> torch.Tensor:
    """An activation of `torch.nn.functional`; in place where the gradient does not need the input and x is `fresh`."""
    if not act:
        return x
    function = getattr(F, act)
    if act in PROBABILITIES and x.dtype in HALF and torch.is_autocast_enabled(x.device.type):
        x = x.float()  # in half, a sigmoid is 1 from 6 on, and has no gradient there
    if act in IN_PLACE and fresh:
        output: torch.Tensor = function(x, inplace=True, **options)
        return output
    output = function(x, **options)
    return output


def max_pool_2x2(x: torch.Tensor) -> torch.Tensor:
    """The maximum over 2x2 windows, a window that reaches over the border sees the cells that exist."""
    if has_torch_function_unary(x):  # torch.fx traces it as it is
        output: torch.Tensor = handle_torch_function(max_pool_2x2, (x,), x)
        return output
    if (
        is_recorded()  # before anything looks at the size
        or not x.is_cpu
        or (torch.is_grad_enabled() and x.requires_grad)
    ):
        return F.max_pool2d(x, 2, ceil_mode=True)
    if type(x) is torch.Tensor and x.dtype in TYPES and is_channels_last(x):
        pooled = pool_2x2(x)
        if pooled is not None:
            return pooled
    if x.shape[2] % 2 or x.shape[3] % 2:
        return F.max_pool2d(x, 2, ceil_mode=True)
    rows = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
    return torch.maximum(rows[:, :, :, ::2], rows[:, :, :, 1::2])


def is_channels_last(x: torch.Tensor) -> bool:
    """Whether the channels of each cell lie side by side, with nothing between cells and rows, and strides say so."""
    return x.shape[1] > 1 and x.is_contiguous(memory_format=torch.channels_last)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """x with the channels of each cell side by side in memory."""
    if has_torch_function_unary(x):  # torch.fx traces it as it is
        output: torch.Tensor = handle_torch_function(channels_last, (x,), x)
        return output
    if is_transformed():  # vmap knows no layouts; nothing but time depends on them
        return x
    if x.shape[1] == 1:
        # With one channel both layouts are one in memory; the strides alone say which is meant, for what comes next.
        return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)
