"""Hooks that are put on models, and ways to call a model other than by calling it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call

from . import changes
from .pair import Seen, Tensors, named

Watch = Callable[[nn.Module, Random, Seen], None]


# --- hooks


def watch_outputs(model: nn.Module, random: Random, seen: Seen) -> None:
    for name in changes.some({**changes.convolutions(model), **changes.norms(model)}, random):
        model.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: seen.add(name, output))


def change_an_output(model: nn.Module, random: Random, seen: Seen) -> None:
    changes.one(changes.convolutions(model), random).register_forward_hook(lambda _, __, output: output * 0.5)


def change_the_output_of_a_norm(model: nn.Module, random: Random, seen: Seen) -> None:
    changes.one(changes.norms(model), random).register_forward_hook(lambda _, __, output: output + 0.5)


def watch_inputs(model: nn.Module, random: Random, seen: Seen) -> None:
    for name in changes.some({**changes.convolutions(model), **changes.norms(model)}, random):
        model.get_submodule(name).register_forward_pre_hook(lambda _, __, name=name: seen.add(name, None))


def change_an_input(model: nn.Module, random: Random, seen: Seen) -> None:
    norm = changes.one(changes.norms(model), random)
    norm.register_forward_pre_hook(lambda _, inputs: tuple(each * 0.5 for each in inputs))


def watch_gradients(model: nn.Module, random: Random, seen: Seen) -> None:
    for name in changes.some(changes.norms(model), random):
        model.get_submodule(name).register_full_backward_hook(lambda *_, name=name: seen.add(name, None))


def change_gradients(model: nn.Module, random: Random, seen: Seen) -> None:
    for name in changes.some(dict(model.named_parameters()), random):
        if (parameter := model.get_parameter(name)).requires_grad:
            parameter.register_hook(lambda gradient: gradient * 3)


def watch_the_whole(model: nn.Module, random: Random, seen: Seen) -> None:
    model.register_forward_hook(lambda _, __, output: seen.add("", None))
    model.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 1.5,))


def unhook(model: nn.Module, random: Random, seen: Seen) -> None:
    for module in model.modules():
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            getattr(module, name).clear()


WATCHES: dict[str, Watch] = {
    watch.__name__: watch
    for watch in (
        *(watch_outputs, change_an_output, change_the_output_of_a_norm, watch_inputs, change_an_input),
        *(watch_gradients, change_gradients, watch_the_whole, unhook),
    )
}


# --- other calls


def with_other_weights(model: nn.Module, x: torch.Tensor) -> Tensors:
    state = {name: value.detach() * 0.8 for name, value in model.named_parameters()}
    return named(functional_call(model, state, (x,)))


def with_other_statistics(model: nn.Module, x: torch.Tensor) -> Tensors:
    state = {name: value * 0.8 for name, value in model.named_buffers() if value.is_floating_point()}
    return named(functional_call(model, state, (x,)))


def mapped(model: nn.Module, x: torch.Tensor) -> Tensors:
    return named(torch.vmap(model)(torch.stack([x, x * 0.5])))


def over_models(model: nn.Module, x: torch.Tensor) -> Tensors:
    """An ensemble: one call for several sets of weights."""
    stacked = {name: torch.stack([value.detach(), value.detach() * 0.8]) for name, value in model.named_parameters()}
    return named(torch.vmap(lambda state: functional_call(model, state, (x,)))(stacked))


def functional_gradients(model: nn.Module, x: torch.Tensor) -> Tensors:
    state = {name: value.detach() for name, value in model.named_parameters()}

    def total(state: Tensors, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([value.mean() for value in named(functional_call(model, state, (x,))).values()]).sum()

    by_state, by_image = torch.func.grad(total, argnums=(0, 1))(state, x)
    return dict(sorted(by_state.items())) | {"the image": by_image}


def derivative(model: nn.Module, x: torch.Tensor) -> Tensors:
    """In forward mode."""
    outputs, tangents = torch.func.jvp(lambda x: named(model(x)), (x,), (torch.ones_like(x),))
    return outputs | {f"tangent of {name}": value for name, value in tangents.items()}


def dual(model: nn.Module, x: torch.Tensor) -> Tensors:
    with forward_ad.dual_level():
        outputs = named(model(forward_ad.make_dual(x, torch.ones_like(x))))
        parts = {name: forward_ad.unpack_dual(value) for name, value in outputs.items()}
        found: dict[str, Any] = {name: part.primal for name, part in parts.items()}
        return found | {f"tangent of {name}": part.tangent for name, part in parts.items() if part.tangent is not None}


def under_autocast(model: nn.Module, x: torch.Tensor) -> Tensors:
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        return named(model(x))


def checkpointed(model: nn.Module, x: torch.Tensor) -> Tensors:
    from torch.utils.checkpoint import checkpoint

    return named(checkpoint(model, x, use_reentrant=False))


CALLS: dict[str, Callable[[nn.Module, torch.Tensor], Tensors]] = {
    call.__name__: call
    for call in (
        *(with_other_weights, with_other_statistics, mapped, over_models, functional_gradients),
        *(derivative, dual, under_autocast, checkpointed),
    )
}
