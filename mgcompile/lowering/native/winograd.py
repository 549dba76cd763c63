"""3x3 convolutions over several grids by Winograd's F(4x4, 3x3): a quarter of the multiplications."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mgcompile.lowering.native.library import ConvArgs, PartArgs

__all__ = ["LANES", "MOST_CHANNELS", "POINTS", "TILE", "TYPES", "Parts", "Winograd", "transformed"]

TILE = 4
"""Cells of the output, along each side, that are made together."""
TYPES = (torch.float32, torch.bfloat16)
"""What grids may be."""
LANES = 16
"""Channels are computed in multiples of this, or of 8 without AVX-512."""
MOST_CHANNELS = 1 << 14
"""Of one part."""
POINTS = 36
"""Products for each tile, input channel and output channel."""


@dataclass(frozen=True)
class Parts:
    """What a convolution reads: grids of (batch, channels, height, width), each made finer by 2**step.

    `size` is the fine (height, width), pads are ((top, bottom), (left, right)). The type is one of `TYPES`.
    """

    shapes: Sequence[tuple[int, ...]]
    steps: Sequence[int]
    size: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]
    dtype: torch.dtype = torch.float32


def transformed(library: ctypes.CDLL, parts: Parts, weight: torch.Tensor) -> torch.Tensor:
    """A kernel (channels, channels of all parts, 3, 3) as `Winograd` reads it: it depends on no size, and takes four
    times the memory.
    """
    weight = weight.detach().float().contiguous()
    own, count, channels = _args_of(parts), len(parts.shapes), weight.shape[0]
    kernel = torch.empty(library.mgcompile_winograd_size(own, count, channels), dtype=torch.float32)
    library.mgcompile_winograd_kernel(
        weight.data_ptr(), own, count, channels, kernel.data_ptr(), torch.get_num_threads()
    )
    return kernel


def _args_of(parts: Parts) -> ctypes.Array[PartArgs]:
    own = (PartArgs * len(parts.shapes))()
    for args, shape, step in zip(own, parts.shapes, parts.steps, strict=True):
        args.channels, args.height, args.width, args.step = *shape[1:], step
    return own


class Winograd:
    """relu?(convolution of the parts, concatenated, + bias + addend).

    Grids lie in channels-last memory; what is computed is fp32. The transformed kernel takes four times the memory of
    the kernel. The rounding error is four to five times that of the plain sum: less than 1e-6 of the output, in the
    root mean square. `kernel` is one that has been `transformed`.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        parts: Parts,
        kernel: torch.Tensor,
        channels: int,
        bias: torch.Tensor | None,
        *,
        relu: bool,
    ) -> None:
        own, count = _args_of(parts), len(parts.shapes)
        self._kernel = kernel
        self._bias = None if bias is None else bias.detach().float().contiguous()
        batch = parts.shapes[0][0]
        height, width = (fine + sum(pad) - 2 for fine, pad in zip(parts.size, parts.pads, strict=True))
        self._dtype = parts.dtype
        self._shape = (batch, channels, height, width)
        pointers = self._kernel.data_ptr(), None if self._bias is None else self._bias.data_ptr(), own
        sizes = count, batch, *parts.size, height, width, channels, parts.pads[0][0], parts.pads[1][0]
        self._args = ConvArgs(*pointers, *sizes, relu, parts.dtype is torch.bfloat16)
        self._call = library.mgcompile_winograd
        self._place = ctypes.addressof(self._args)
        self._addresses = ctypes.c_void_p * count

    def run(self, parts: Sequence[torch.Tensor], add: Sequence[torch.Tensor]) -> torch.Tensor | None:
        """The output of (batch, channels, height, width); of the addends, the first is added.

        The parts and the addend must have the layout and shapes. None where the output is not within `LIMIT` before
        ReLU: the cells of a tile share what is not a number, and there is no infinity in a sum of products.
        """
        y = torch.empty(self._shape, dtype=self._dtype, memory_format=torch.channels_last)
        within = self._call(
            self._place,
            self._addresses(*[part.data_ptr() for part in parts]),
            add[0].data_ptr() if add else None,
            y.data_ptr(),
            torch.get_num_threads(),
        )
        return y if within else None
