"""Weights prepared for the sizes that a convolution sees, in evaluation on a CPU."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mgcompile.lowering.backends import backend
from mgcompile.lowering.calls import Call
from mgcompile.lowering.storage import Shelf, Weight
from mgcompile.lowering.tuning import fastest
from mgcompile.lowering.watching import Watch, options_of_conv, options_of_norm, watched
from mgcompile.lowering.ways import WAYS, Prepared, Run, ways

if TYPE_CHECKING:
    from mgcompile.lowering.fused import FusedConv2d

__all__ = ["Packed", "packed_for"]

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
    options: tuple[Any, Any]

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
            watch = next((each.watch for each in kept if each.norm is norm), None)
            found = _pack(conv, call, norm, Watch(watched(conv, norm)) if watch is None else watch)
            conv.packed.put(key, found)
            conv.packed.store.packed(conv.weight.numel() * conv.weight.element_size())
        return found


@torch.no_grad()
def _pack(conv: FusedConv2d, call: Call, norm: nn.BatchNorm2d | None, watch: Watch) -> Packed:
    options = _options(conv, norm)
    weight, bias = folded(conv, norm)
    bias = None if bias is None else bias.to(call.dtype)
    chosen = ways(call)[0]
    if conv.tune and len(ways(call)) > 1:
        chosen = fastest(call, lambda way: _prepared(way, call, weight, bias, Shelf(), norm)[0])
    made, weights = _prepared(chosen, call, weight, bias, conv.packed, norm)
    return Packed(chosen, made.run, made.bound, weights, watch, norm, options)


def _prepared(
    name: str,
    call: Call,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    shelf: Shelf,
    norm: nn.BatchNorm2d | None,
) -> tuple[Prepared, tuple[Weight, ...]]:
    """What computes a call in one of its ways, and the weights that are kept on a shelf for it."""
    way = WAYS[name]
    engine = shelf.sharing(backend(call.dtype), (name, way.content(call), id(norm)))
    made = way.prepare(call, weight, bias, engine)
    return made, tuple(engine.weights)


def _options(conv: FusedConv2d, norm: nn.BatchNorm2d | None) -> tuple[Any, Any]:
    return options_of_conv(conv), None if norm is None else options_of_norm(norm)


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
