"""What a packed convolution is called with."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from mgcompile.lowering.backends import backend

if TYPE_CHECKING:
    from mgcompile.lowering.fused import FusedConv2d

__all__ = ["Call", "compute_type"]


@dataclass(frozen=True)
class Call:
    """A convolution as it is called: all that its speed depends on.

    `shapes` are those of the parts; `size` is the fine (height, width); pads are ((top, bottom), (left, right)). `cold`
    tells that the weights come from main memory at each call, since those of the whole network fill the caches.
    """

    shapes: tuple[tuple[int, ...], ...]
    steps: tuple[int, ...]
    size: tuple[int, int]
    channels: int
    kernel: tuple[int, int]
    stride: int
    pads: tuple[tuple[int, int], tuple[int, int]]
    dilation: int
    groups: int
    cold: bool
    addends: int
    act: str
    options: tuple[tuple[str, float], ...]
    dtype: torch.dtype

    @classmethod
    def of(
        cls,
        conv: FusedConv2d,
        shapes: tuple[tuple[int, ...], ...],
        steps: tuple[int, ...],
        size: tuple[int, int] | None,
        *rest: Any,
    ) -> Call:
        """The call of a module with such parts; see `FusedConv2d.forward`."""
        steps = steps or (0,) * len(shapes)
        if size is None:
            size = next((shape[2], shape[3]) for shape, step in zip(shapes, steps, strict=True) if not step)
        shapes = tuple(tuple(shape) for shape in shapes)
        kernel = conv.kernel_size[0], conv.kernel_size[1]
        return cls(
            shapes,
            steps,
            size,
            conv.out_channels,
            kernel,
            conv.stride[0],
            conv.pads,
            conv.dilation[0],
            conv.groups,
            conv.cold,
            *rest,
        )

    @property
    def batch(self) -> int:
        return self.shapes[0][0]

    @property
    def in_channels(self) -> int:
        return sum(shape[1] for shape in self.shapes)

    def sample(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Parts and addends of these shapes, to try a way on."""
        output = (self.batch, self.channels, *self.output_size)
        return [_noise(shape, self.dtype) for shape in self.shapes], [_noise(output, self.dtype)] * self.addends

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width)."""
        height, width = (
            (side + sum(pad) - self.dilation * (kernel - 1) - 1) // self.stride + 1
            for side, pad, kernel in zip(self.size, self.pads, self.kernel, strict=True)
        )
        return height, width

    @property
    def cells(self) -> int:
        """Of the output, in the whole batch."""
        return self.batch * prod(self.output_size)

    @property
    def exact(self) -> bool:
        """Whether each coarse part has exactly the fine size divided by its factor."""
        return all(
            (shape[2] << step, shape[3] << step) == self.size
            for shape, step in zip(self.shapes, self.steps, strict=True)
        )

    @property
    def keeps_size(self) -> bool:
        """Whether the output has the fine size, for an odd kernel that is centred."""
        centred = all(
            pad == (size // 2, size // 2) and size % 2 for pad, size in zip(self.pads, self.kernel, strict=True)
        )
        return self.stride == self.dilation == self.groups == 1 and centred


def _noise(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    # Drawn apart, so that the random numbers of a program do not depend on whether it tunes.
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last)


def compute_type(given: torch.dtype) -> torch.dtype | None:
    """The type in which an input of this type is computed, autocast or not; None where nothing is packed for it."""
    if torch.is_autocast_enabled("cpu"):
        given = torch.get_autocast_dtype("cpu")
    return given if backend(given).supports(given) else None
