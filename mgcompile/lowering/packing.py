"""Weights prepared for the sizes that a convolution sees, in evaluation on a CPU."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch import nn

from mgcompile.lowering.backends import backend
from mgcompile.lowering.calls import Call
from mgcompile.lowering.native.finish import LIMIT
from mgcompile.lowering.storage import Make, Sharing, Shelf, Weight
from mgcompile.lowering.tuning import fastest
from mgcompile.lowering.watching import Watch, watched
from mgcompile.lowering.ways import Prepared, Run, way_called, ways

if TYPE_CHECKING:
    from mgcompile.lowering.fused import FusedConv2d

__all__ = ["Packed", "packed_for"]

LARGEST_SUM = 2.0**63
"""Of the weights of an output channel: times `LIMIT`, it is finite in single precision."""

_packing = threading.Lock()
"""One thread packs at a time; those that run need no lock."""


@dataclass(frozen=True, eq=False)
class Packed:
    """A way to compute a call, ready to run, and what it was made from."""

    way: str
    run: Run
    bound: Run | None
    """The same for grids that are all of the type it computes and channels-last."""
    weights: tuple[Weight, ...]
    watch: Watch
    norm: nn.BatchNorm2d | None
    options: Any
    tame: bool
    """Whether weights and bias are such that numbers within `LIMIT` do not overflow."""

    def holds(self, conv: FusedConv2d) -> bool:
        """Whether every tensor is the one that it was, with the values that it had, and every option too."""
        return _options(conv, self.norm) == self.options and self.watch.holds()


def packed_for(conv: FusedConv2d, key: Any, call: Call, norm: nn.BatchNorm2d | None) -> Packed:
    """The packed form of a call, kept under the key: the best way at a guess or, with `tune`, the fastest here."""
    with _packing:
        kept = conv.packed.values()
        if not all(each.holds(conv) for each in kept):
            conv.packed.clear()
            kept = ()
        found = conv.packed.get(key)  # another thread may have been faster
        if found is None:
            found = _pack(conv, call, norm, next((each for each in kept if each.norm is norm), None))
            conv.packed.put(key, found)
        return found


@torch.no_grad()
def _pack(conv: FusedConv2d, call: Call, norm: nn.BatchNorm2d | None, like: Packed | None) -> Packed:
    """The packed form of a call; `like` is that of another call, of the same tensors."""
    options, otherwise = _options(conv, norm), _plainly(conv, call, norm)
    watch = Watch(watched(conv, norm)) if like is None else like.watch
    scale, bias = folded(conv, norm)
    tame = _are_tame(conv, scale, bias) if like is None else like.tame
    if not tame:
        return Packed("plain", otherwise, otherwise, (), watch, norm, options, tame)
    bias = None if bias is None else bias.to(call.dtype)
    weight = cache(lambda: _weight(conv, scale))
    chosen = ways(call)[0]
    if conv.tune and len(ways(call)) > 1:
        chosen = fastest(call, lambda way: _prepared(way, call, (weight, bias), Shelf(), otherwise)[0])
    made, weights = _prepared(chosen, call, (weight, bias), conv.packed, otherwise, norm=norm)
    return Packed(chosen, made.run, made.bound, weights, watch, norm, options, tame)


def _plainly(conv: FusedConv2d, call: Call, norm: nn.BatchNorm2d | None) -> Run:
    """The call as it is written, by the modules; what they hold in `packed` must not hold them."""
    modules = ref(conv), None if norm is None else ref(norm)

    def run(parts: Sequence[torch.Tensor], add: Sequence[torch.Tensor]) -> torch.Tensor:
        own, its_norm = modules[0](), None if modules[1] is None else modules[1]()
        assert own is not None, "who calls it holds it"
        return own.plainly(parts, call, its_norm, add)

    return run


def _are_tame(conv: nn.Conv2d, scale: torch.Tensor | None, bias: torch.Tensor | None) -> bool:
    """Whether a convolution of numbers within `LIMIT` stays finite, before the scale is in its weight and after."""
    sums = conv.weight.detach().float().abs().sum((1, 2, 3))
    largest = [sums, bias] if scale is None else [sums, sums * scale.abs(), bias]
    limits = [LARGEST_SUM, LIMIT] if scale is None else [LARGEST_SUM, LARGEST_SUM, LIMIT]
    return all(each is None or bool(each.abs().max() < most) for each, most in zip(largest, limits, strict=True))


def _prepared(
    name: str,
    call: Call,
    tensors: tuple[Make, torch.Tensor | None],
    shelf: Shelf,
    otherwise: Run,
    *,
    norm: nn.BatchNorm2d | None = None,
) -> tuple[Prepared, tuple[Weight, ...]]:
    """What computes a call in one of its ways, of weight and bias, and what is kept on a shelf for it."""
    way = way_called(name)
    engine = Sharing(backend(call.dtype), shelf, (name, way.content(call), id(norm)))
    made = way.prepare(call, *tensors, engine, otherwise)
    return made, tuple(engine.weights)


def _options(conv: FusedConv2d, norm: nn.BatchNorm2d | None) -> Any:
    return conv.training, conv.options, None if norm is None else norm.eps


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The scale of each channel of the weight, and the bias; None where they are 1 and 0."""
    bias = None if conv.bias is None else conv.bias.detach().float()
    if norm is None:
        return None, bias
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
    return scale, shift


def _weight(conv: nn.Conv2d, scale: torch.Tensor | None) -> torch.Tensor:
    """In single precision, the scale in it."""
    weight = conv.weight.detach().float()
    return weight if scale is None else weight * scale.view(-1, 1, 1, 1)
