"""Weights prepared for the sizes that a convolution sees, in evaluation on a CPU.

There are several ways to compute one convolution; `ways` says which serve a call, `prepare` makes one of them:

    whole   upsample, concatenate, one convolution
    split   one convolution of the fine parts, onto transposed convolutions of the coarse ones
    dense   one matrix product of all cells with all cells, for grids of a few cells
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mgcompile.lowering.backends import Backend, Geometry, backend

if TYPE_CHECKING:
    from mgcompile.lowering.fused import FusedConv2d

__all__ = ["Call", "Packed", "channels_last", "compute_type", "pack", "prepare", "ways"]

Run = Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor]], torch.Tensor]

MOST_CELLS = 4
"""Grids of up to so many cells may be computed as a dense matrix product: its weights grow with their square."""
WORTH = 5_000_000
"""Multiply-accumulates that `split` must save to pay for its additional steps; about 50 microseconds of two cores."""
WIDE_BATCH = 16
"""From this batch size on, a dense product over several cells pays for the larger weights that it reads."""


@dataclass(frozen=True)
class Call:
    """A convolution as it is called: all that its speed depends on.

    `shapes` are those of the parts; `size` is the fine (height, width); pads are ((top, bottom), (left, right)).
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
        output = (self.batch, self.channels, -(-self.size[0] // self.stride), -(-self.size[1] // self.stride))
        return [_noise(shape, self.dtype) for shape in self.shapes], [_noise(output, self.dtype)] * self.addends

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


_Source = tuple[dict[str, Any], str, torch.Tensor | None, int, int | None]
"""A tensor in its place: the dict of a module and the name in it, the tensor, its address, its version."""


@dataclass(frozen=True)
class Packed:
    """A way to compute a call, ready to run, and the tensors that it was made from."""

    way: str
    run: Run
    sources: tuple[_Source, ...]
    norm: nn.BatchNorm2d | None

    def holds(self) -> bool:
        """Whether every tensor is the one that it was, with the values that it had."""
        for tensors, name, tensor, place, version in self.sources:
            if tensors[name] is not tensor:
                return False
            if tensor is not None and (
                tensor.data_ptr() != place or (version is not None and tensor._version != version)
            ):
                return False
        return True


def compute_type(given: torch.dtype) -> torch.dtype | None:
    """The type in which an input of this type is computed, autocast or not; None where nothing is packed for it."""
    if torch.is_autocast_enabled("cpu"):
        given = torch.get_autocast_dtype("cpu")
    return given if backend().supports(given) else None


def ways(call: Call) -> tuple[str, ...]:
    """The ways that serve a call, the one that is best at a guess first."""
    found = ["whole"]
    if any(call.steps) and call.exact and call.keeps_size:
        cells = call.batch * prod(call.size) * call.channels * prod(call.kernel)
        coarse = sum(shape[1] for shape, step in zip(call.shapes, call.steps, strict=True) if step)
        found.insert(0 if cells * coarse * 5 // 9 >= WORTH else 1, "split")
    if call.exact and call.keeps_size and prod(call.size) <= MOST_CELLS:
        pays = prod(call.size) == 1 or call.batch >= WIDE_BATCH
        found.insert(0 if pays else len(found), "dense")
    return tuple(found)


@torch.no_grad()
def pack(
    conv: FusedConv2d,
    call: Call,
    norm: nn.BatchNorm2d | None,
    *,
    tune: bool,
) -> Packed:
    """The packed form of a call: the best way at a guess or, with `tune`, the one that is fastest here."""
    weight, bias = folded(conv, norm)
    chosen = ways(call)[0]
    if tune and len(ways(call)) > 1:
        from mgcompile.lowering.tuning import fastest

        chosen = fastest(call, lambda way: prepare(way, call, weight, bias))
    return Packed(chosen, prepare(chosen, call, weight, bias), tuple(_sources(conv, norm)), norm)


def _sources(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> Iterator[_Source]:
    places: list[tuple[dict[str, Any], str]] = [(conv._parameters, "weight"), (conv._parameters, "bias")]
    if norm is not None:
        places += [(norm._parameters, "weight"), (norm._parameters, "bias")]
        places += [(norm._buffers, "running_mean"), (norm._buffers, "running_var")]
    for tensors, name in places:
        tensor = tensors[name]
        if tensor is None:
            yield tensors, name, None, 0, None
        else:
            # Tensors that are made in inference mode count no versions, and cannot be changed outside of it.
            yield tensors, name, tensor, tensor.data_ptr(), None if tensor.is_inference() else tensor._version


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias in single precision, the norm's running statistics and affine vectors in them."""
    weight = conv.weight.detach().float()
    bias = None if conv.bias is None else conv.bias.detach().float()
    if norm is None:
        return weight, bias
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.float() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().float()
    shift = -norm.running_mean.float() * scale
    if bias is not None:
        shift = shift + bias * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().float()
    return weight * scale.view(-1, 1, 1, 1), shift


@torch.no_grad()
def prepare(way: str, call: Call, weight: torch.Tensor, bias: torch.Tensor | None) -> Run:
    """A function of the parts and the addends that computes a call in one of its `ways`."""
    bias = None if bias is None else bias.to(call.dtype)
    make = {"whole": _whole, "split": _split, "dense": _dense}[way]
    return make(call, weight, bias, backend())


def _whole(call: Call, weight: torch.Tensor, bias: torch.Tensor | None, engine: Backend) -> Run:
    from torch.nn import functional as F

    from mgcompile.lowering.fused import upsample

    (top, bottom), (left, right) = call.pads
    even = (top, left) == (bottom, right)
    size = (call.size[0] + (0 if even else top + bottom), call.size[1] + (0 if even else left + right))
    geometry = Geometry(call.stride, (top, left) if even else (0, 0), call.dilation, call.groups)
    finish = _Finish(call)
    conv = engine.conv(
        weight.to(call.dtype), bias, (call.batch, call.in_channels, *size), geometry, relu=finish.relu_inside
    )
    coarse = any(call.steps)

    def run(parts: Sequence[torch.Tensor], add: Sequence[torch.Tensor]) -> torch.Tensor:
        if coarse:
            parts = [upsample(part, step, call.size) for part, step in zip(parts, call.steps, strict=True)]
        x = _prepared(parts[0] if len(parts) == 1 else torch.cat(list(parts), 1), call.dtype)
        if not even:
            x = channels_last(F.pad(x, (left, right, top, bottom)))
        return finish(conv(x, _prepared(add[0], call.dtype) if finish.adds_inside else None, False), add)

    return run


def _split(call: Call, weight: torch.Tensor, bias: torch.Tensor | None, engine: Backend) -> Run:
    from mgcompile.lowering.fused import spread_kernel, upsample

    weights = torch.split(weight, [shape[1] for shape in call.shapes], 1)
    pads = (call.pads[0][0], call.pads[1][0])
    fine = [place for place, step in enumerate(call.steps) if not step]
    coarse = [place for place, step in enumerate(call.steps) if step]
    finish = _Finish(call, onto=True)
    terms: list[Callable[[torch.Tensor], torch.Tensor]] = []
    for number, place in enumerate(coarse):
        step, shape = call.steps[place], call.shapes[place]
        own_bias = bias if number == 0 else None
        if call.kernel == (1, 1):
            plain = engine.conv(weights[place].to(call.dtype), own_bias, shape, Geometry(), relu=False)
            terms.append(lambda x, plain=plain, step=step: upsample(plain(x, None, False), step, call.size))  # type: ignore[misc]
        else:
            kernel = spread_kernel(weights[place], 2**step).to(call.dtype)
            terms.append(engine.transposed(kernel, own_bias, shape, Geometry(2**step, pads)))
    conv = None
    if fine:
        channels = sum(call.shapes[place][1] for place in fine)
        fine_weight = torch.cat([weights[place] for place in fine], 1).to(call.dtype)
        shape = (call.batch, channels, *call.size)
        conv = engine.conv(
            fine_weight, None, shape, Geometry(padding=pads), relu=finish.relu_inside and not call.addends
        )

    def run(parts: Sequence[torch.Tensor], add: Sequence[torch.Tensor]) -> torch.Tensor:
        y: torch.Tensor | None = None
        for term, place in zip(terms, coarse, strict=True):
            value = term(_prepared(parts[place], call.dtype))
            y = value if y is None else y.add_(value)
        assert y is not None
        if conv is None:
            return finish.rest(y, add)
        x = parts[fine[0]] if len(fine) == 1 else torch.cat([parts[place] for place in fine], 1)
        y = conv(_prepared(x, call.dtype), y, True)
        return finish.rest(y, add) if call.addends or not finish.relu_inside else y

    return run


def _dense(call: Call, weight: torch.Tensor, bias: torch.Tensor | None, engine: Backend) -> Run:
    height, width = call.size
    blocks = []
    for shape, step, own in zip(
        call.shapes, call.steps, torch.split(weight, [shape[1] for shape in call.shapes], 1), strict=True
    ):
        block = torch.zeros(height, width, call.channels, shape[2], shape[3], shape[1])
        for y in range(height):
            for x in range(width):
                for above in range(height):
                    for beside in range(width):
                        a, b = above - y + call.pads[0][0], beside - x + call.pads[1][0]
                        if 0 <= a < call.kernel[0] and 0 <= b < call.kernel[1]:
                            block[y, x, :, above >> step, beside >> step] += own[:, :, a, b]
        blocks.append(block.view(height * width * call.channels, -1))
    matrix = torch.cat(blocks, 1).to(call.dtype)
    finish = _Finish(call)
    relu = finish.relu_inside and not call.addends
    linear = engine.linear(matrix, None if bias is None else bias.repeat(height * width), call.batch, relu)

    def run(parts: Sequence[torch.Tensor], add: Sequence[torch.Tensor]) -> torch.Tensor:
        flat = [part.permute(0, 2, 3, 1).reshape(call.batch, -1) for part in parts]
        x = flat[0] if len(flat) == 1 else torch.cat(flat, 1)
        y = linear(x if x.dtype is call.dtype else x.to(call.dtype))
        y = y.view(call.batch, height, width, call.channels).permute(0, 3, 1, 2)
        return y if relu else finish.rest(y, add)

    return run


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """x with the channels of each cell side by side in memory."""
    if x.shape[1] == 1:
        # With one channel both layouts are one in memory; the strides alone say which is meant, for what comes next.
        return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


def _prepared(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if x.dtype is not dtype:
        x = x.to(dtype)
    if x.shape[1] > 1 and x.is_contiguous(memory_format=torch.channels_last):
        return x
    return channels_last(x)


@dataclass(frozen=True)
class _Finish:
    """The additions and the activation of a call: what a convolution does of them, and what is left."""

    call: Call
    onto: bool = False

    @property
    def adds_inside(self) -> bool:
        return self.call.addends > 0 and not self.onto

    @property
    def relu_inside(self) -> bool:
        return self.call.act == "relu" and self.call.addends <= 1

    def __call__(self, y: torch.Tensor, add: Sequence[torch.Tensor]) -> torch.Tensor:
        """After a convolution that has added the first addend and, where `relu_inside`, has rectified."""
        return y if self.relu_inside else self.rest(y, add[1:])

    def rest(self, y: torch.Tensor, add: Sequence[torch.Tensor]) -> torch.Tensor:
        """All of it."""
        from mgcompile.lowering.fused import activate

        for other in add:
            y = y.add_(other)
        return activate(y, self.call.act, dict(self.call.options))
