"""The seam to what computes packed convolutions on a CPU: oneDNN's fused operations, or PyTorch's plain ones.

A back end turns weights into functions of the inputs. Grids are (batch, channels, height, width), channels last;
`shape` is that of the input. A function that takes `other` adds it; with `into`, it may overwrite it. Its attribute
`weight` is the packed weight, of which alone it may depend on `shape`. No activation is part of them: oneDNN's fused
ReLU makes zero of what is not a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Protocol, TypeVar

import torch
from torch.nn import functional as F

__all__ = ["Backend", "Geometry", "OneDNN", "Plain", "backend", "use_backend"]

Run = Callable[[torch.Tensor], torch.Tensor]
RunOnto = Callable[[torch.Tensor, torch.Tensor | None, bool], torch.Tensor]


@dataclass(frozen=True)
class Geometry:
    """How a convolution's kernel moves. Pads are (top and bottom, left and right)."""

    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    dilation: int = 1
    groups: int = 1


class Backend(Protocol):
    """What a back end can do."""

    def supports(self, dtype: torch.dtype) -> bool:
        """Whether it computes in this type here."""

    def conv(
        self, weight: torch.Tensor, bias: torch.Tensor | None, shape: tuple[int, ...], geometry: Geometry
    ) -> RunOnto:
        """(x, other, into) -> convolution of x + other."""

    def transposed(
        self, weight: torch.Tensor, bias: torch.Tensor | None, shape: tuple[int, ...], geometry: Geometry
    ) -> Run:
        """x -> transposed convolution of x; `weight` is (in, out, h, w)."""

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None, batch: int) -> Run:
        """x -> x @ weight.T + bias."""


class OneDNN:
    """oneDNN's operations that take prepacked weights and add in the same pass over memory."""

    def supports(self, dtype: torch.dtype) -> bool:
        return dtype is torch.float32 or (dtype is torch.bfloat16 and _has_bf16())

    def conv(
        self, weight: torch.Tensor, bias: torch.Tensor | None, shape: tuple[int, ...], geometry: Geometry
    ) -> RunOnto:
        pads, strides, dilations = list(geometry.padding), [geometry.stride] * 2, [geometry.dilation] * 2
        groups = geometry.groups
        packed = torch.ops.mkldnn._reorder_convolution_weight(weight, pads, strides, dilations, groups, list(shape))
        plain = torch.ops.mkldnn._convolution_pointwise.default
        onto = torch.ops.mkldnn._convolution_pointwise_.binary
        beside = torch.ops.mkldnn._convolution_pointwise.binary
        adds = groups == 1 or weight.dtype is torch.float32  # in bfloat16, a grouped one that adds is not there

        def run(x: torch.Tensor, other: torch.Tensor | None, into: bool) -> torch.Tensor:
            y: torch.Tensor
            if other is None or not adds:
                y = plain(x, packed, bias, pads, strides, dilations, groups, "none", [], "")
                y = y if other is None else y.add_(other)
            elif into:
                y = onto(other, x, packed, bias, pads, strides, dilations, groups, "add", None, None, [], None)
            else:
                y = beside(x, other, packed, bias, pads, strides, dilations, groups, "add", None, None, [], None)
            return y

        return _holding(run, packed)

    def transposed(
        self, weight: torch.Tensor, bias: torch.Tensor | None, shape: tuple[int, ...], geometry: Geometry
    ) -> Run:
        pads, strides = list(geometry.padding), [geometry.stride] * 2
        packed = torch.ops.mkldnn._reorder_convolution_transpose_weight(
            weight.contiguous(), pads, [0, 0], strides, [1, 1], 1, list(shape)
        )
        op = torch.ops.mkldnn._convolution_transpose_pointwise.default

        def run(x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = op(x, packed, bias, pads, [0, 0], strides, [1, 1], 1, "none", [], "")
            return y

        return _holding(run, packed)

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None, batch: int) -> Run:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), batch)
        op = torch.ops.mkldnn._linear_pointwise.default

        def run(x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = op(x, packed, bias, "none", [], "")
            return y

        return _holding(run, packed)


class Plain:
    """PyTorch's own operations: what runs where oneDNN is not built in."""

    def supports(self, dtype: torch.dtype) -> bool:
        return dtype in (torch.float32, torch.bfloat16)

    def conv(
        self, weight: torch.Tensor, bias: torch.Tensor | None, shape: tuple[int, ...], geometry: Geometry
    ) -> RunOnto:
        weight = weight.contiguous(memory_format=torch.channels_last)

        def run(x: torch.Tensor, other: torch.Tensor | None, into: bool) -> torch.Tensor:
            y = F.conv2d(x, weight, bias, geometry.stride, geometry.padding, geometry.dilation, geometry.groups)
            return y if other is None else y.add_(other)

        return _holding(run, weight)

    def transposed(
        self, weight: torch.Tensor, bias: torch.Tensor | None, shape: tuple[int, ...], geometry: Geometry
    ) -> Run:
        weight = weight.contiguous(memory_format=torch.channels_last)
        return _holding(lambda x: F.conv_transpose2d(x, weight, bias, geometry.stride, geometry.padding), weight)

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None, batch: int) -> Run:
        weight = weight.contiguous()
        return _holding(lambda x: F.linear(x, weight, bias), weight)


_Any = TypeVar("_Any", bound=Callable[..., torch.Tensor])


def _holding(run: _Any, weight: torch.Tensor) -> _Any:
    setattr(run, "weight", weight)  # noqa: B010 - functions declare no attributes
    return run


@cache
def _has_onednn() -> bool:
    """Whether oneDNN's fused operations are there and do as they say."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        x, weight = torch.ones(1, 8, 2, 2).to(memory_format=torch.channels_last), torch.ones(8, 8, 3, 3)
        run = OneDNN().conv(weight, None, (1, 8, 2, 2), Geometry(padding=(1, 1)))
        twice = run(x, run(x, None, False), True)
        line = OneDNN().linear(torch.ones(3, 8), torch.ones(3), 2)(torch.ones(2, 8))
        wide = OneDNN().transposed(torch.ones(8, 4, 2, 2), None, (1, 8, 2, 2), Geometry(stride=2))(x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return bool(twice.eq(64).all() and line.eq(9).all() and wide.eq(8).all())


@cache
def _has_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


_chosen: list[Backend] = []


def backend(dtype: torch.dtype = torch.float32) -> Backend:
    """The back end of this machine for a type: PyTorch's own operations where oneDNN does not compute in it here."""
    if _chosen:
        return _chosen[-1]
    fast = OneDNN()
    return fast if _has_onednn() and fast.supports(dtype) else Plain()


@contextmanager
def use_backend(other: Backend) -> Iterator[None]:
    """Pack weights for another back end, where they are not packed yet: for tests and comparisons."""
    _chosen.append(other)
    try:
        yield
    finally:
        _chosen.pop()
