"""Signs that something has changed on which prepared work rests: a tensor, a module's options, a hook.

PyTorch tells of most changes: a tensor is replaced, lies elsewhere, or counts a version more. Batch norm moves its
running statistics without one, but counts its batches. Writes through `.data`, through NumPy and to tensors that were
made in inference mode give no sign at all; a few numbers of every tensor are compared, which finds what changes all of
them, as averages of weights do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter, is_, itemgetter
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks

__all__ = ["ModuleWatch", "Watch", "has_global_hooks", "is_hooked", "is_plain_norm", "watched"]

SAMPLE = 4
"""Numbers of each tensor that are compared, from its middle in memory."""

_CONV = itemgetter("training", "stride", "padding", "dilation", "groups", "padding_mode", "pads")
_NORM = itemgetter("training", "eps")

_version = attrgetter("_version")
_place = torch.Tensor.data_ptr
_get = dict.get


def is_hooked(module: nn.Module) -> bool:
    """Whether calls of a module are more than its own `forward`."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


def has_global_hooks() -> bool:
    """Whether calls of all modules are more than their own `forward`."""
    return bool(
        hooks._global_forward_hooks
        or hooks._global_forward_pre_hooks
        or hooks._global_backward_hooks
        or hooks._global_backward_pre_hooks
    )


def is_plain_norm(norm: Any) -> bool:
    """Whether a module is the batch norm that was folded, and not what somebody has made of it or put in its place."""
    return type(norm) is nn.BatchNorm2d and not is_hooked(norm)


class Watch:
    """Tensors in their places, as they were when this was made; a place is a module's dict of tensors and a name."""

    def __init__(self, places: Iterable[tuple[dict[str, Any], str]]) -> None:
        own = list({(id(tensors), name): (tensors, name) for tensors, name in places}.values())
        self.places = own
        self._dicts = [tensors for tensors, _ in own]
        self._names = [name for _, name in own]
        self._tensors = [tensors.get(name) for tensors, name in own]
        found = [tensor for tensor in self._tensors if tensor is not None]
        self._counted = [tensor for tensor in found if not tensor.is_inference()]
        self._versions = list(map(_version, self._counted))
        self._sampled = [tensor for tensor in found if tensor.is_floating_point()]
        self._addresses = list(map(_place, self._sampled))
        # They keep the memory of the tensors: no other can come to lie at the same address.
        self._views = [_sample(tensor) for tensor in self._sampled]
        self._sample = torch.cat(self._views) if self._views else None

    def holds(self) -> bool:
        """Whether every tensor is the one that it was, where it was, with the version and the sample that it had."""
        return (
            all(map(is_, map(_get, self._dicts, self._names), self._tensors))
            and list(map(_version, self._counted)) == self._versions
            and list(map(_place, self._sampled)) == self._addresses
            and (self._sample is None or torch.equal(torch.cat(self._views), self._sample))
        )


class ModuleWatch:
    """Modules whose work was folded, with the options and the hooks that they had: none."""

    def __init__(self, convs: Iterable[nn.Module], norms: Iterable[nn.Module]) -> None:
        self._convs = [conv.__dict__ for conv in convs]
        self._norms = [norm.__dict__ for norm in norms]
        self._modules = [*convs, *norms]
        self._types = list(map(type, self._modules))
        self._options = list(map(_CONV, self._convs)), list(map(_NORM, self._norms))
        self._hooks = [each for module in self._modules for each in (module._forward_hooks, module._forward_pre_hooks)]
        # A `forward` of its own is one attribute more.
        self._sizes = list(map(len, self._convs)), list(map(len, self._norms))

    def holds(self) -> bool:
        """Whether no option has changed, none is in training, and calls are still their own `forward` alone.

        Backward hooks are of no account: who asks needs no gradients.
        """
        return (
            list(map(type, self._modules)) == self._types
            and list(map(_CONV, self._convs)) == self._options[0]
            and list(map(_NORM, self._norms)) == self._options[1]
            and not any(self._hooks)
            and list(map(len, self._convs)) == self._sizes[0]
            and list(map(len, self._norms)) == self._sizes[1]
        )


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    """Some bytes of a tensor, as a view: bytes, since not a number would differ from itself."""
    first = tensor.storage_offset()
    # Of a tensor with gaps, or whose numbers lie on each other, those that are there.
    there = min(tensor.numel(), tensor.untyped_storage().nbytes() // tensor.element_size() - first)
    size = min(SAMPLE, there)
    flat = tensor.detach().as_strided((size,), (1,), first + (there - size) // 2)
    return flat.view(torch.uint8)


def watched(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> Iterator[tuple[dict[str, Any], str]]:
    """The places of the tensors that a folded convolution is made of."""
    yield from ((conv._parameters, name) for name in ("weight", "bias"))
    if norm is not None:
        yield from ((norm._parameters, name) for name in ("weight", "bias"))
        yield from ((norm._buffers, name) for name in ("running_mean", "running_var", "num_batches_tracked"))
