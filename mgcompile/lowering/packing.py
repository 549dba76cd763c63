"""Weights prepared for the sizes that a convolution sees, in evaluation on a CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch import nn

from mgcompile.lowering.calls import Call
from mgcompile.lowering.native.finish import LIMIT
from mgcompile.lowering.tuning import fastest
from mgcompile.lowering.ways import Run, prepare, ways

if TYPE_CHECKING:
    from mgcompile.lowering.fused import FusedConv2d

__all__ = ["Packed", "Source", "hold", "pack"]

LARGEST_SUM = 2.0**63
"""Of the weights of an output channel: times `LIMIT`, it is finite in single precision."""

Source = tuple[dict[str, Any], str, torch.Tensor | None, int, int | None]
"""A tensor in its place: the dict of a module and the name in it, the tensor, its address, its version."""


@dataclass(frozen=True)
class Packed:
    """A way to compute a call, ready to run, and the tensors that it was made from."""

    way: str
    run: Run
    bound: Run | None
    """The same for grids that are all of the type it computes and channels-last."""
    sources: tuple[Source, ...]
    norm: nn.BatchNorm2d | None

    def holds(self) -> bool:
        """Whether every tensor is the one that it was, with the values that it had."""
        return hold(self.sources)


def hold(sources: Iterable[Source]) -> bool:
    """Whether every tensor is the one that it was, with the values that it had."""
    for tensors, name, tensor, place, version in sources:
        if tensors[name] is not tensor:
            return False
        if tensor is not None and (tensor.data_ptr() != place or (version is not None and tensor._version != version)):
            return False
    return True


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
    otherwise, sources = _plainly(conv, call, norm), tuple(_sources(conv, norm))
    if not _are_tame(conv.weight, weight, bias):
        return Packed("plain", otherwise, otherwise, sources, norm)
    chosen = ways(call)[0]
    if tune and len(ways(call)) > 1:
        chosen = fastest(call, lambda way: prepare(way, call, weight, bias, otherwise))
    made = prepare(chosen, call, weight, bias, otherwise)
    return Packed(chosen, made.run, made.bound, sources, norm)


def _plainly(conv: FusedConv2d, call: Call, norm: nn.BatchNorm2d | None) -> Run:
    """The call as it is written, by the modules; what they hold in `packed` must not hold them."""
    modules = ref(conv), None if norm is None else ref(norm)

    def run(parts: Sequence[torch.Tensor], add: Sequence[torch.Tensor]) -> torch.Tensor:
        own, its_norm = modules[0](), None if modules[1] is None else modules[1]()
        assert own is not None, "who calls it holds it"
        return own.plainly(parts, call, its_norm, add)

    return run


def _are_tame(own: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether a convolution of numbers within `LIMIT` stays finite, before the norm is in it (`own`) and after."""
    sums = torch.stack([each.detach().float().abs().sum((1, 2, 3)).max() for each in (own, weight)])
    return bool((sums < LARGEST_SUM).all()) and (bias is None or bool(bias.abs().max() < LIMIT))


def _sources(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> Iterator[Source]:
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
