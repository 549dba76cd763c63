"""First values for the weights of a model."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from itertools import chain

import torch
from torch import nn

from mgcompile.errors import MgcompileError
from mgcompile.lowering import kernels

__all__ = ["initialize"]

_DRAWN = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_CONSTANT = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.PReLU, kernels.WeightedSum)


@torch.no_grad()
def initialize(model: nn.Module, seed: int | None = None) -> None:
    """Gives every tensor of a model its first values; does nothing on the meta device.

    The weights of convolutions and linear layers are normal with standard deviation sqrt(2 / (kernel_h * kernel_w *
    out_channels / groups)), https://arxiv.org/abs/1502.01852 in its form for the backward pass, and biases are zero.
    Normalisations scale by one, shift by zero and have no running statistics yet.

    Each tensor has a stream of its own that follows from `seed` and the tensor's name: equal on every device, and
    unchanged by layers that are added elsewhere. Without a seed, torch's global generator gives one.

    Raises `MgcompileError` for a module of a foreign type that has tensors and no `reset_parameters` method.
    """
    if all(tensor.is_meta for tensor in chain(model.parameters(), model.buffers())):
        return
    if seed is None:
        seed = int(torch.randint(2**63 - 1, (), device="cpu").item())
    for name, module in _units(model):
        if isinstance(module, _DRAWN):
            _draw(module, name, seed)
        elif isinstance(module, _CONSTANT):
            module.reset_parameters()
        else:
            _reset(module, name, seed)


def _units(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that are to be initialised as a whole, by name: those that have tensors or know how to."""
    pending = [("", model)]
    while pending:
        name, module = pending.pop()
        if hasattr(module, "reset_parameters") or any(chain(module.parameters(False), module.buffers(False))):
            yield name, module
        else:
            pending += [(f"{name}.{part}" if name else part, child) for part, child in module.named_children()]


def _draw(module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, name: str, seed: int) -> None:
    if isinstance(module, nn.Linear):
        fan_out = float(module.out_features)
    else:
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels / module.groups
    generator = torch.Generator("cpu").manual_seed(_stream(seed, f"{name}.weight"))
    # On the CPU in single precision, whatever the model's device and type: the values are then the same everywhere.
    noise = torch.randn(module.weight.shape, generator=generator, dtype=torch.float32, device="cpu")
    module.weight.copy_(noise.mul_((2 / fan_out) ** 0.5))
    if module.bias is not None:
        module.bias.zero_()


def _reset(module: nn.Module, name: str, seed: int) -> None:
    """Let a foreign module initialise a copy of itself on the CPU, and take that over."""
    twin = copy.deepcopy(module).to(device="cpu", dtype=torch.float32)
    reset = getattr(twin, "reset_parameters", None)
    if reset is None:
        raise MgcompileError(f"{name}: {type(module).__name__} has tensors and needs a method reset_parameters()")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_stream(seed, name))
        reset()
    for ours, theirs in zip(_tensors(module), _tensors(twin), strict=True):
        ours.copy_(theirs)


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    return chain(module.parameters(), module.buffers())


def _stream(seed: int, name: str) -> int:
    """A seed for one tensor. Python's own hash differs between processes."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
