"""The ways to compute one convolution in evaluation on a CPU: one class each, with all that is to say of it.

A way says which calls it serves, guesses how long it takes, and makes a function of the parts and the addends. The
guesses need only be right in their order: they are those of two cores with AVX-512, and `tuning` replaces them.

What is not finite, or so large that a sum of it may overflow, depends on the order of the sums: where the output of a
convolution holds such numbers, it is computed again `otherwise`, as it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, prod
from typing import Protocol, TypeAlias

import torch
from torch.nn import functional as F

from mgcompile.lowering.backends import Geometry
from mgcompile.lowering.calls import Call
from mgcompile.lowering.functional import activate, channels_last, is_channels_last, spread_kernel, upsample
from mgcompile.lowering.native.finish import finisher
from mgcompile.lowering.native.library import library
from mgcompile.lowering.native.winograd import LANES, MOST_CHANNELS, POINTS, TILE, TYPES, Parts, Winograd, transformed
from mgcompile.lowering.storage import Make, Sharing

__all__ = ["WAYS", "Prepared", "Run", "Way", "way_called", "ways"]

Run: TypeAlias = Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class Prepared:
    """A function of the parts and the addends that computes a call; `bound`, for channels-last of its type."""

    run: Run
    bound: Run | None = None


MOST_CELLS = 4
"""Grids of up to so many cells may be computed as a dense matrix product: its weights grow with their square."""
FLOPS = {torch.float32: 220.0, torch.bfloat16: 440.0}
"""Floating-point operations a nanosecond of a direct convolution."""
DENSE_SPEED = 1.3
"""The speed of a large matrix product, times that of a direct convolution."""
WINOGRAD_FLOPS = 200.0
BYTES = {True: 30.0, False: 100.0}
"""Bytes of weights that are read in a nanosecond, where they are `cold` and where they are not."""
CALL, NATIVE_CALL = 12_000.0, 4_000.0
"""Nanoseconds of one operation of PyTorch's, and of ours, however small it is."""


class Way(Protocol):
    """A way to compute a call."""

    name: str
    about: str
    """A line for the user who sees the name."""

    def serves(self, call: Call) -> bool:
        """Whether it computes such a call here."""

    def nanoseconds(self, call: Call) -> float:
        """How long it takes, at a guess."""

    def content(self, call: Call) -> Hashable:
        """All of the call on which the packed weights, and the functions that hold them, depend."""

    def prepare(self, call: Call, weight: Make, bias: torch.Tensor | None, engine: Sharing, otherwise: Run) -> Prepared:
        """What computes the call, or leaves it to `otherwise`."""


class Whole:
    """Upsample, concatenate, one convolution."""

    name = "whole"
    about = "one convolution; coarse parts are upsampled and concatenated before it"

    def serves(self, call: Call) -> bool:
        return True

    def nanoseconds(self, call: Call) -> float:
        weights = call.in_channels * call.channels * prod(call.kernel) / call.groups
        copied = call.in_channels * call.batch * prod(call.size) * 8 if len(call.shapes) > 1 else 0
        calls = 1 + (len(call.shapes) > 1) + sum(map(bool, call.steps))
        return calls * CALL + copied / 20 + _work(call, call.cells * weights, weights)

    def content(self, call: Call) -> Hashable:
        return _of_any_size(call)

    def prepare(self, call: Call, weight: Make, bias: torch.Tensor | None, engine: Sharing, otherwise: Run) -> Prepared:
        (top, bottom), (left, right) = call.pads
        even = (top, left) == (bottom, right)
        size = (call.size[0] + (0 if even else top + bottom), call.size[1] + (0 if even else left + right))
        geometry = Geometry(call.stride, (top, left) if even else (0, 0), call.dilation, call.groups)
        finish = _Finish(call, otherwise)
        conv = engine.conv(lambda: weight().to(call.dtype), bias, (call.batch, call.in_channels, *size), geometry)
        coarse = any(call.steps)

        def run(parts: Sequence[torch.Tensor], add: Sequence[torch.Tensor]) -> torch.Tensor:
            fine: Sequence[torch.Tensor] = parts
            if coarse:
                fine = [upsample(part, step, call.size) for part, step in zip(parts, call.steps, strict=True)]
            x = _prepared(fine[0] if len(fine) == 1 else torch.cat(list(fine), 1), call.dtype)
            if not even:
                x = channels_last(F.pad(x, (left, right, top, bottom)))
            return finish(conv(x, _prepared(add[0], call.dtype) if add else None, False), parts, add, 1)

        return Prepared(run)


class Split:
    """One convolution of the fine parts, onto transposed convolutions of the coarse ones."""

    name = "split"
    about = "coarse parts are read where they are, by transposed convolutions"

    def serves(self, call: Call) -> bool:
        return any(call.steps) and call.exact and call.keeps_size

    def nanoseconds(self, call: Call) -> float:
        calls, macs, weights = 1.0, 0.0, 0.0
        for shape, step in zip(call.shapes, call.steps, strict=True):
            spread = 2**step - 1 if prod(call.kernel) > 1 else 0
            own = shape[1] * call.channels * prod(side + spread for side in call.kernel)
            weights += own
            macs += own * call.batch * prod(shape[2:] if step else call.size)
            calls += bool(step) * 1.5  # what it writes is read again
        return calls * CALL + _work(call, macs, weights)

    def content(self, call: Call) -> Hashable:
        return _of_any_size(call)

    def prepare(self, call: Call, weight: Make, bias: torch.Tensor | None, engine: Sharing, otherwise: Run) -> Prepared:
        widths = [shape[1] for shape in call.shapes]
        pads = (call.pads[0][0], call.pads[1][0])
        fine = [place for place, step in enumerate(call.steps) if not step]
        coarse = [place for place, step in enumerate(call.steps) if step]
        finish = _Finish(call, otherwise)

        def part(place: int) -> torch.Tensor:
            return torch.split(weight(), widths, 1)[place].to(call.dtype)

        def spread(place: int) -> torch.Tensor:
            return spread_kernel(torch.split(weight(), widths, 1)[place], 2 ** call.steps[place]).to(call.dtype)

        terms: list[Callable[[torch.Tensor], torch.Tensor]] = []
        for number, place in enumerate(coarse):
            step, shape = call.steps[place], call.shapes[place]
            own_bias = bias if number == 0 else None
            if call.kernel == (1, 1):
                plain = engine.conv(partial(part, place), own_bias, shape, Geometry())
                terms.append(lambda x, plain=plain, step=step: upsample(plain(x, None, False), step, call.size))  # type: ignore[misc]
            else:
                terms.append(engine.transposed(partial(spread, place), own_bias, shape, Geometry(2**step, pads)))
        conv = None
        if fine:
            shape = (call.batch, sum(widths[place] for place in fine), *call.size)
            conv = engine.conv(
                lambda: torch.cat([part(place) for place in fine], 1).to(call.dtype),
                None,
                shape,
                Geometry(padding=pads),
            )

        def run(parts: Sequence[torch.Tensor], add: Sequence[torch.Tensor]) -> torch.Tensor:
            y: torch.Tensor | None = None
            for term, place in zip(terms, coarse, strict=True):
                value = term(_prepared(parts[place], call.dtype))
                y = value if y is None else y.add_(value)
            assert y is not None
            if conv is not None:
                x = parts[fine[0]] if len(fine) == 1 else torch.cat([parts[place] for place in fine], 1)
                y = conv(_prepared(x, call.dtype), y, True)
            return finish(y, parts, add, 0)

        return Prepared(run)


class Dense:
    """One matrix product of all cells with all cells, for grids of a few cells."""

    name = "dense"
    about = "one matrix product of all cells with all cells"

    def serves(self, call: Call) -> bool:
        return call.exact and call.keeps_size and prod(call.size) <= MOST_CELLS

    def nanoseconds(self, call: Call) -> float:
        weights = sum(prod(shape[1:]) for shape in call.shapes) * call.channels * prod(call.size)
        calls = 2 if len(call.shapes) > 1 else 1
        return calls * CALL + _work(call, call.batch * weights / DENSE_SPEED, weights)

    def content(self, call: Call) -> Hashable:
        return (_of_any_size(call), tuple([shape[2:] for shape in call.shapes]), call.size)

    def prepare(self, call: Call, weight: Make, bias: torch.Tensor | None, engine: Sharing, otherwise: Run) -> Prepared:
        height, width = call.size
        finish = _Finish(call, otherwise)
        linear = engine.linear(
            lambda: self._matrix(call, weight()), None if bias is None else bias.repeat(height * width), call.batch
        )

        def run(parts: Sequence[torch.Tensor], add: Sequence[torch.Tensor]) -> torch.Tensor:
            flat = [part.permute(0, 2, 3, 1).reshape(call.batch, -1) for part in parts]
            x = flat[0] if len(flat) == 1 else torch.cat(flat, 1)
            y = linear(x if x.dtype is call.dtype else x.to(call.dtype))
            y = y.view(call.batch, height, width, call.channels).permute(0, 3, 1, 2)
            return finish(y, parts, add, 0)

        return Prepared(run)

    @staticmethod
    def _matrix(call: Call, weight: torch.Tensor) -> torch.Tensor:
        """(cells and channels of the output, cells and channels of all parts)"""
        height, width = call.size
        blocks = []
        for shape, step, own in zip(
            call.shapes, call.steps, torch.split(weight, [shape[1] for shape in call.shapes], 1), strict=True
        ):
            block = torch.zeros(height, width, call.channels, shape[2], shape[3], shape[1], dtype=weight.dtype)
            for y in range(height):
                for x in range(width):
                    for above in range(height):
                        for beside in range(width):
                            a, b = above - y + call.pads[0][0], beside - x + call.pads[1][0]
                            if 0 <= a < call.kernel[0] and 0 <= b < call.kernel[1]:
                                block[y, x, :, above >> step, beside >> step] += own[:, :, a, b]
            blocks.append(block.view(height * width * call.channels, -1))
        return torch.cat(blocks, 1).to(call.dtype)


class WinogradWay:
    """3x3 kernels in a quarter of the multiplications, on the parts where they are; its kernel is four times larger."""

    name = "winograd"
    about = "a quarter of the multiplications, by compiled C++; parts are read where they are"

    def serves(self, call: Call) -> bool:
        return (
            call.kernel == (3, 3)
            and call.stride == call.dilation == call.groups == 1
            and call.dtype in TYPES
            and max(shape[1] for shape in call.shapes) <= MOST_CHANNELS
            and library() is not None
        )

    def nanoseconds(self, call: Call) -> float:
        tiles = call.batch * prod(ceil(side / TILE) for side in call.output_size)
        depth = sum(_up(shape[1], LANES) for shape in call.shapes)
        channels = _up(call.channels, LANES)
        products = POINTS * depth * channels
        around = tiles * (1.7 * depth + 1.5 * channels)  # to the 36 points and back
        busy = 2 * tiles * products / WINOGRAD_FLOPS
        return NATIVE_CALL + around + max(busy, 4 * products / BYTES[call.cold])

    def content(self, call: Call) -> Hashable:
        return _of_any_size(call)

    def prepare(self, call: Call, weight: Make, bias: torch.Tensor | None, engine: Sharing, otherwise: Run) -> Prepared:
        found = library()
        assert found is not None, "only ways that serve are prepared"
        own = Parts(call.shapes, call.steps, call.size, call.pads, call.dtype)
        relu_inside = call.act == "relu" and call.addends <= 1
        kernel = engine.tensor(lambda: transformed(found, own, weight()))
        conv = Winograd(found, own, kernel, call.channels, bias, relu=relu_inside)
        finish = _Finish(call, otherwise)

        def bound(parts: Sequence[torch.Tensor], add: Sequence[torch.Tensor]) -> torch.Tensor:
            y = conv.run(parts, add)
            if y is None:
                return otherwise(parts, add)
            return y if relu_inside else finish.rest(y, add[1:])

        def run(parts: Sequence[torch.Tensor], add: Sequence[torch.Tensor]) -> torch.Tensor:
            parts = [_prepared(part, call.dtype) for part in parts]
            return bound(parts, [_prepared(each, call.dtype) for each in add])

        return Prepared(run, bound)


WAYS: Mapping[str, Way] = {way.name: way for way in (Whole(), Split(), Dense(), WinogradWay())}


def way_called(name: str) -> Way:
    """The way of this name."""
    return WAYS[name]


def ways(call: Call) -> tuple[str, ...]:
    """The ways that serve a call, the one that is fastest at a guess first."""
    found = [way for way in WAYS.values() if way.serves(call)]
    return tuple(way.name for way in sorted(found, key=lambda way: way.nanoseconds(call)))


def _of_any_size(call: Call) -> Hashable:
    """What packed weights are made for, at whatever size."""
    return tuple([shape[1] for shape in call.shapes]), call.steps, call.dtype


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _work(call: Call, macs: float, weights: float) -> float:
    """Nanoseconds of multiply-accumulates with so many weights: whichever takes longer, computing or reading."""
    return max(2 * macs / FLOPS[call.dtype], weights * call.dtype.itemsize / BYTES[call.cold])


def _prepared(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if x.dtype is not dtype:
        x = x.to(dtype)
    return x if is_channels_last(x) else channels_last(x)


class _Finish:
    """The additions and the activation of a call, or all of it `otherwise`."""

    def __init__(self, call: Call, otherwise: Run) -> None:
        self._act, self._options = call.act, dict(call.options)
        self._relu = call.act == "relu"
        self._otherwise = otherwise
        self._is_within = finisher(call.dtype, relu=self._relu)

    def __call__(
        self, y: torch.Tensor, parts: Sequence[torch.Tensor], add: Sequence[torch.Tensor], added: int
    ) -> torch.Tensor:
        """After a convolution that has added so many of the addends; y is fresh."""
        for other in add[added:]:
            y = y.add_(other)
        if not self._is_within(y):
            return self._otherwise(parts, add)
        return y if self._relu else activate(y, self._act, self._options)

    def rest(self, y: torch.Tensor, add: Sequence[torch.Tensor]) -> torch.Tensor:
        """After a convolution whose output was within the limit; `add` are the addends that it has not added."""
        for other in add:
            y = y.add_(other)
        return activate(y, self._act, self._options)
