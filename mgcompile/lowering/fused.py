"""The convolution of optimised models; in training it computes what the plain ones compute, in few steps.

Grids are (batch, channels, height, width); sizes are in cells. In evaluation on a CPU, convolutions run on weights that
are packed for the sizes that they see; see `packing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function

from mgcompile.lowering import kernels
from mgcompile.lowering.calls import Call, compute_type
from mgcompile.lowering.functional import (
    activate,
    channels_last,
    coarse_conv,
    is_recorded,
    is_traced,
    is_transformed,
    upsample,
)
from mgcompile.lowering.packing import Packed, packed_for
from mgcompile.lowering.storage import Shelf
from mgcompile.lowering.watching import has_global_hooks, is_hooked, is_plain_norm

__all__ = ["FusedConv2d", "fused_conv"]

WORTH_CELLS = 768
"""With so many cells of a batch, the wide kernel of a transposed convolution pays for making it at each call."""

SMALL_WEIGHT, SMALL_PART = 160_000, 8
"""A weight of at most so many numbers, and of so much fewer than what it is applied to, is laid channels-last for each
step of training: that saves more time than it takes, and little memory is kept. Parameters stay as the plain form has
them, for `parameters_to_vector` and the like take them as they lie.
"""


def fused_conv(conv: nn.Module, *parts: torch.Tensor, **options: Any) -> torch.Tensor:
    """What `FusedConv2d.forward` computes; as the plain form does where somebody would notice the difference.

    That is where a module was replaced or made another (by `parametrize`, say), and where it or its norm has hooks:
    they are called, and see what they see in the plain form.
    """
    if has_torch_function(parts):  # torch.fx traces it as it is
        traced: torch.Tensor = handle_torch_function(fused_conv, parts, conv, *parts, **options)
        return traced
    norm = options.get("norm")
    if type(conv) is FusedConv2d and conv.is_as_made() and not is_transformed():
        hooked = is_hooked(conv) or not (norm is None or is_plain_norm(norm))
        if not hooked and is_recorded():
            output: torch.Tensor = conv(*parts, **options)  # what counts by modules sees one
            return output
        if not hooked and not has_global_hooks():
            return conv.forward(*parts, **options)
    return _as_written(conv, parts, **options)


def _as_written(
    conv: nn.Module,
    parts: Sequence[torch.Tensor],
    *,
    steps: tuple[int, ...] = (),
    like: torch.Tensor | None = None,
    norm: nn.Module | None = None,
    add: Sequence[torch.Tensor] = (),
    act: str = "",
    level: int | None = None,
    offset: tuple[int, int] = (0, 0),
    **options: float,
) -> torch.Tensor:
    """`FusedConv2d.forward` by the modules of the plain form, one after the other, and nothing in place."""
    if any(steps):
        size = _fine_size(parts, steps) if like is None else kernels.target_size(like, level, offset)
        parts = [upsample(part, step, size) for part, step in zip(parts, steps, strict=True)]
    y: torch.Tensor = conv(parts[0] if len(parts) == 1 else torch.cat(list(parts), 1))
    if norm is not None:
        y = norm(y)
    for other in add:
        y = y + other
    return activate(y, act, options, fresh=False)


class FusedConv2d(nn.Conv2d):
    """activation(norm(convolution(concatenated parts)) + addends), with the parameters of an `nn.Conv2d`.

    `padding` and `whole_windows` are those of `kernels.conv`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
        whole_windows: bool = False,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        self.pads = kernels.conv_pads(kernel, padding, whole_windows=whole_windows, dilation=dilation)
        (top, bottom), (left, right) = self.pads
        self.even_pads = (top, left) == (bottom, right)
        super().__init__(
            in_channels, channels, kernel, stride, (top, left) if self.even_pads else 0, dilation, groups, bias
        )
        self.packed = Shelf()
        self.tune = False
        self.cold = False
        self._made = self.options

    def forward(  # type: ignore[override]
        self,
        *parts: torch.Tensor,
        steps: tuple[int, ...] = (),
        like: torch.Tensor | None = None,
        norm: nn.BatchNorm2d | None = None,
        add: Sequence[torch.Tensor] = (),
        act: str = "",
        level: int | None = None,
        offset: tuple[int, int] = (0, 0),
        **options: float,
    ) -> torch.Tensor:
        """The output of (batch, channels, height, width).

        Args:
            parts: grids, concatenated in this order; each is first made finer by 2**`steps`.
            like: gives the fine size where all parts are coarse; see `kernels.target_size` for `level` and `offset`.
            norm: normalises what the convolution gives.
            add: grids of the output's shape.
            act: a function of `torch.nn.functional`, with its `options`.
        """
        packed = self.prepared(
            *parts, steps=steps, like=like, norm=norm, add=add, act=act, level=level, offset=offset, **options
        )
        if packed is not None:
            return packed.run(parts, add)
        size = None if like is None else kernels.target_size(like, level, offset)
        y = self._convolve(parts, steps, size)
        if norm is not None:
            y = norm(y)
        for other in add:
            y = y.add_(other)  # fresh, and neither convolution nor norm needs its output for the gradient
        return activate(y, act, options)

    def prepared(
        self,
        *parts: torch.Tensor,
        steps: tuple[int, ...] = (),
        like: torch.Tensor | None = None,
        norm: nn.BatchNorm2d | None = None,
        add: Sequence[torch.Tensor] = (),
        act: str = "",
        level: int | None = None,
        offset: tuple[int, int] = (0, 0),
        **options: float,
    ) -> Packed | None:
        """The packed form that serves a call of `forward`, up to date; None where plain operations must run."""
        if is_recorded() or not self._may_pack(parts, norm, add):
            return None
        # Everything that the packed form depends on but the tensors, which it watches itself.
        key = (
            tuple([part.shape for part in parts]),
            None if like is None else like.shape,
            len(add),
            id(norm),
            compute_type(parts[0].dtype),
            act,
            steps,
            *options.values(),
        )
        packed = self.packed.get(key)
        if packed is None or not packed.holds(self):
            size = None if like is None else kernels.target_size(like, level, offset)
            after = len(add), act, tuple(options.items()), compute_type(parts[0].dtype)
            packed = packed_for(
                self, key, Call.of(self, tuple(part.shape for part in parts), steps, size, *after), norm
            )
        return packed

    def plainly(
        self, parts: Sequence[torch.Tensor], call: Call, norm: nn.BatchNorm2d | None, add: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """The output of a call in evaluation, as it is written: each infinity and NaN in its place."""
        dtype = self.weight.dtype
        fine = [upsample(part.to(dtype), step, call.size) for part, step in zip(parts, call.steps, strict=True)]
        y = self._plain(fine[0] if len(fine) == 1 else torch.cat(fine, 1))
        if norm is not None:
            y = norm(y)
        for other in add:
            y = y.add_(other)
        return channels_last(activate(y, call.act, dict(call.options)).to(call.dtype))

    @property
    def options(self) -> tuple[Any, ...]:
        """All that the output depends on, beside the tensors."""
        return self.stride, self.padding, self.dilation, self.groups, self.padding_mode, self.pads

    def is_as_made(self) -> bool:
        """Whether stride, padding and the like are those that the graph asks for: nobody has set others since."""
        return type(self) is FusedConv2d and self.options == self._made

    def _convolve(
        self, parts: tuple[torch.Tensor, ...], steps: tuple[int, ...], size: tuple[int, int] | None
    ) -> torch.Tensor:
        if not any(steps):
            return self._plain(parts[0] if len(parts) == 1 else torch.cat(parts, 1))
        if size is None:
            size = _fine_size(parts, steps)
        if not _rewrites(parts, steps, size):
            return self._plain(torch.cat([upsample(p, s, size) for p, s in zip(parts, steps, strict=True)], 1))
        y: torch.Tensor | None = None
        fine_weights, bias = [], self.bias
        weights = torch.split(self.weight, [part.shape[1] for part in parts], 1)
        for part, step, weight in zip(parts, steps, weights, strict=True):
            if step:
                term = coarse_conv(part, weight, bias, 2**step)
                y, bias = (term if y is None else y.add_(term)), None
            else:
                fine_weights.append(weight)
        if fine_weights:
            fine_parts = [part for part, step in zip(parts, steps, strict=True) if not step]
            x = fine_parts[0] if len(fine_parts) == 1 else torch.cat(fine_parts, 1)
            weight = fine_weights[0] if len(fine_weights) == 1 else torch.cat(fine_weights, 1)
            term = F.conv2d(x, weight, None, padding=self.padding)
            y = term if y is None else y.add_(term)
        assert y is not None
        return y

    def _plain(self, x: torch.Tensor) -> torch.Tensor:
        if not self.even_pads:
            (top, bottom), (left, right) = self.pads
            x = F.pad(x, (left, right, top, bottom))
        weight = self.weight
        if self.training and x.is_cpu and not is_recorded() and _is_small(weight, x):
            weight = weight.contiguous(memory_format=torch.channels_last)
        output: torch.Tensor = self._conv_forward(x, weight, self.bias)
        return output

    def _may_pack(
        self, parts: Sequence[torch.Tensor], norm: nn.BatchNorm2d | None, add: Sequence[torch.Tensor]
    ) -> bool:
        x = parts[0]
        if self.training or not x.is_cpu or type(x) is not torch.Tensor or not x.numel():
            return False
        if not self.is_as_made() or not _is_plain(self._parameters.get("weight")) or "bias" not in self._parameters:
            return False
        if self.weight.dtype is not x.dtype and not torch.is_autocast_enabled("cpu"):
            return False  # the plain form says what is wrong
        if norm is not None and not _folds(norm):
            return False
        if torch.is_grad_enabled():
            learned = [self.weight, self.bias, *(() if norm is None else (norm.weight, norm.bias))]
            if any(each is not None and each.requires_grad for each in (*learned, *parts, *add)):
                return False
        return compute_type(x.dtype) is not None

    def train(self, mode: bool = True) -> FusedConv2d:
        """Training or evaluation mode; either drops what is packed, since nothing tells of changes through `.data`."""
        self.packed.clear()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> FusedConv2d:
        self.packed.clear()  # it is of no use in another type or on another device
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        # What is packed belongs to this module: a shallow copy must not share it.
        return self.__dict__ | {"packed": Shelf(self.packed.store)}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, pads={self.pads}"  # type: ignore[no-untyped-call]


def _is_small(weight: torch.Tensor, x: torch.Tensor) -> bool:
    return weight.numel() <= SMALL_WEIGHT and SMALL_PART * weight.numel() <= x.numel()


def _fine_size(parts: Sequence[torch.Tensor], steps: Sequence[int]) -> tuple[int, int]:
    """Height and width of the parts that are not made finer."""
    fine = next(part for part, step in zip(parts, steps, strict=True) if not step)
    return fine.shape[2], fine.shape[3]


def _folds(norm: nn.BatchNorm2d) -> bool:
    """Whether a norm multiplies and adds what is known before, and tells when that changes."""
    if not is_plain_norm(norm) or norm.training:
        return False
    buffers = norm._buffers
    # The number of batches is the sign that training has moved the statistics.
    return all(_is_plain(buffers.get(name)) for name in ("running_mean", "running_var", "num_batches_tracked")) and (
        norm._parameters.keys() >= {"weight", "bias"}
    )


def _is_plain(tensor: torch.Tensor | None) -> bool:
    return type(tensor) in {torch.Tensor, nn.Parameter} and tensor.is_cpu  # type: ignore[union-attr]


def _rewrites(parts: Sequence[torch.Tensor], steps: Sequence[int], size: tuple[int, int]) -> bool:
    """Whether coarse parts are convolved where they are. What is exported for all sizes upsamples, as it is written."""
    if is_traced() or torch.compiler.is_exporting():
        return False
    if torch.is_grad_enabled() and torch.is_autocast_enabled("cpu") and parts[0].is_cpu:
        return False  # oneDNN's gradients of transposed convolutions are slow in bfloat16: it lost 5 % of a step
    if parts[0].shape[0] * size[0] * size[1] < WORTH_CELLS:
        return False
    return _doubles(parts, steps, size)


def _doubles(parts: Sequence[torch.Tensor], steps: Sequence[int], size: tuple[int, int]) -> bool:
    """Whether the fine size is exactly 2**steps times that of each coarse part."""
    for part, step in zip(parts, steps, strict=True):
        if step and (part.shape[2] << step != size[0] or part.shape[3] << step != size[1]):
            return False
    return True
