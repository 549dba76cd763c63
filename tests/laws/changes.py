"""What people do to models between two calls: each is a function of a model and of a source of random choices.

A change picks its places from sorted names, so that the same seed does the same to two models whose names are equal.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.convert_parameters import parameters_to_vector, vector_to_parameters
from torch.optim.swa_utils import AveragedModel

Change = Callable[[nn.Module, Random], None]

OPTIMISERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "sgd foreach": lambda parameters: torch.optim.SGD(parameters, lr=0.1, foreach=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.02),
    "adamw foreach": lambda parameters: torch.optim.AdamW(parameters, lr=0.02, foreach=True),
    "sgd fused": lambda parameters: torch.optim.SGD(parameters, lr=0.1, fused=True),
    "adam fused": lambda parameters: torch.optim.Adam(parameters, lr=0.02, fused=True),
}


class Scaled(nn.Module):
    """A parametrisation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.7 * x


# --- where


def some(names: Iterable[str], random: Random) -> list[str]:
    """A part of these names, at least one, and mostly few."""
    ordered = sorted(names)
    return random.sample(ordered, max(1, random.choice([1, 2, len(ordered) // 2, len(ordered)]))) if ordered else []


def of_kind(model: nn.Module, *kinds: type[nn.Module]) -> dict[str, Any]:
    """The modules of some kinds, by name."""
    return {name: module for name, module in sorted(model.named_modules()) if isinstance(module, kinds)}


def convolutions(model: nn.Module) -> dict[str, Any]:
    return of_kind(model, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def norms(model: nn.Module) -> dict[str, Any]:
    return of_kind(model, nn.BatchNorm2d)


def one(modules: dict[str, Any], random: Random) -> Any:
    return modules[random.choice(sorted(modules))]


def tensors(model: nn.Module, random: Random) -> list[torch.Tensor]:
    """Some parameters and floating-point buffers."""
    known: dict[str, torch.Tensor] = dict(model.named_parameters())
    known |= {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    return [known[name] for name in some(known, random)]


def other_state(model: nn.Module, random: Random) -> dict[str, torch.Tensor]:
    """Other values for the whole model."""
    factor = random.choice([0.6, 0.8, 1.3])
    with torch.inference_mode(False), torch.no_grad():
        return {
            name: value.detach().clone() * factor if value.is_floating_point() else value.detach().clone()
            for name, value in model.state_dict().items()
        }


# --- with a sign by which PyTorch lets it be noticed


@torch.no_grad()
def in_place(model: nn.Module, random: Random) -> None:
    for tensor in tensors(model, random):
        tensor.mul_(random.choice([0.5, 0.8, 1.4]))


def in_place_in_inference_mode(model: nn.Module, random: Random) -> None:
    with torch.inference_mode():
        in_place(model, random)


def load(model: nn.Module, random: Random) -> None:
    model.load_state_dict(other_state(model, random))


def load_a_part(model: nn.Module, random: Random) -> None:
    state = other_state(model, random)
    model.load_state_dict({name: state[name] for name in some(state, random)}, strict=False)


def load_in_inference_mode(model: nn.Module, random: Random) -> None:
    with torch.inference_mode():
        load(model, random)


def load_by_assignment(model: nn.Module, random: Random) -> None:
    model.load_state_dict(other_state(model, random), assign=True)


def load_what_does_not_fit(model: nn.Module, random: Random) -> None:
    state = other_state(model, random)
    state.pop(random.choice(sorted(state)))
    model.load_state_dict(state)


def through_a_vector(model: nn.Module, random: Random) -> None:
    """Two models whose parameters come in another order get each other's values."""
    with torch.no_grad():
        vector = parameters_to_vector(model.parameters())
        ramp = torch.linspace(0.7, 1.3, vector.numel(), dtype=vector.dtype)
        vector_to_parameters(vector * ramp, model.parameters())


def average(model: nn.Module, random: Random) -> None:
    mean = AveragedModel(model, use_buffers=random.choice([True, False]))
    in_place(model, random)
    for _ in range(2):
        mean.update_parameters(model)
    model.load_state_dict(mean.module.state_dict())


def new_data(model: nn.Module, random: Random) -> None:
    for name in some(dict(model.named_parameters()), random):
        parameter = model.get_parameter(name)
        parameter.data = parameter.data * 0.7


def replace_parameter(model: nn.Module, random: Random) -> None:
    conv = one(convolutions(model), random)
    conv.weight = nn.Parameter(conv.weight.detach() * 0.6, conv.weight.requires_grad)


def replace_norm(model: nn.Module, random: Random) -> None:
    name = random.choice(sorted(norms(model)))
    parent, _, last = name.rpartition(".")
    new = copy.deepcopy(model.get_submodule(name))
    with torch.no_grad():
        new.running_var.mul_(3)  # type: ignore[operator, union-attr]
    setattr(model.get_submodule(parent), last, new)


def replace_statistics(model: nn.Module, random: Random) -> None:
    norm = one(norms(model), random)
    norm.running_mean = norm.running_mean + 0.5


def no_statistics(model: nn.Module, random: Random) -> None:
    norm = one(norms(model), random)
    norm.running_mean = norm.running_var = norm.num_batches_tracked = None
    norm.track_running_stats = False


def reset_statistics(model: nn.Module, random: Random) -> None:
    one(norms(model), random).reset_running_stats()


def momentum(model: nn.Module, random: Random) -> None:
    one(norms(model), random).momentum = random.choice([None, 0.5])


def bias(model: nn.Module, random: Random) -> None:
    conv = one(convolutions(model), random)
    fresh = torch.linspace(-1, 1, conv.weight.shape[isinstance(conv, nn.ConvTranspose2d)]).to(conv.weight)
    conv.bias = nn.Parameter(fresh, conv.weight.requires_grad) if conv.bias is None else None


def bare_norm(model: nn.Module, random: Random) -> None:
    norm = one(norms(model), random)
    norm.weight = norm.bias = None


def layout(model: nn.Module, random: Random) -> None:
    model.to(memory_format=random.choice([torch.contiguous_format, torch.channels_last]))  # type: ignore[call-overload]


def double(model: nn.Module, random: Random) -> None:
    model.double()


def bfloat16(model: nn.Module, random: Random) -> None:
    model.bfloat16()


def single(model: nn.Module, random: Random) -> None:
    model.float()


def there_and_back(model: nn.Module, random: Random) -> None:
    model.to(torch.float64).to(torch.float32)


def freeze(model: nn.Module, random: Random) -> None:
    model.requires_grad_(False)


def unfreeze(model: nn.Module, random: Random) -> None:
    model.requires_grad_(True)


def freeze_a_part(model: nn.Module, random: Random) -> None:
    chosen = some(dict(model.named_parameters()), random)
    for name, parameter in model.named_parameters():
        if parameter.is_leaf:
            parameter.requires_grad_(name in chosen)


def train(model: nn.Module, random: Random) -> None:
    model.train()


def evaluate(model: nn.Module, random: Random) -> None:
    model.eval()


def train_a_norm(model: nn.Module, random: Random) -> None:
    model.eval()
    one(norms(model), random).train()


def freeze_a_norm(model: nn.Module, random: Random) -> None:
    model.train()
    one(norms(model), random).eval()


def prune_a_part(model: nn.Module, random: Random) -> None:
    prune.l1_unstructured(one(convolutions(model), random), "weight", amount=0.4)


def parametrise(model: nn.Module, random: Random) -> None:
    parametrize.register_parametrization(one(convolutions(model), random), "weight", Scaled())


def parametrise_a_norm(model: nn.Module, random: Random) -> None:
    parametrize.register_parametrization(one(norms(model), random), "weight", Scaled())


def weight_norm(model: nn.Module, random: Random) -> None:
    nn.utils.parametrizations.weight_norm(one(convolutions(model), random))


def old_weight_norm(model: nn.Module, random: Random) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(one(convolutions(model), random))


def plain_weights(model: nn.Module, random: Random) -> None:
    """What pruning and parametrisation have made, for good."""
    for module in of_kind(model, nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm2d).values():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
        if hasattr(module, "weight_orig"):
            prune.remove(module, "weight")
        if hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)


SIGNED: dict[str, Change] = {
    change.__name__: change
    for change in (
        *(in_place, in_place_in_inference_mode, load, load_a_part, load_in_inference_mode, load_by_assignment),
        *(load_what_does_not_fit, through_a_vector, average, new_data, replace_parameter, replace_norm),
        *(replace_statistics, no_statistics, reset_statistics, momentum, bias, bare_norm, layout),
        *(double, single, bfloat16, there_and_back, freeze, unfreeze, freeze_a_part),
        *(train, evaluate, train_a_norm, freeze_a_norm),
        *(prune_a_part, parametrise, parametrise_a_norm, weight_norm, old_weight_norm, plain_weights),
    )
}
"""Seen by an optimised model at once."""


# --- without a sign


def write_to_data(model: nn.Module, random: Random) -> None:
    for tensor in tensors(model, random):
        tensor.data.mul_(random.choice([0.5, 0.8, 1.4]))


def copy_to_data(model: nn.Module, random: Random) -> None:
    for tensor in tensors(model, random):
        tensor.data.copy_(tensor.data.flip(0) * 0.9)


def write_through_numpy(model: nn.Module, random: Random) -> None:
    for tensor in tensors(model, random):
        tensor.detach().numpy()[...] *= 0.7


def write_through_dlpack(model: nn.Module, random: Random) -> None:
    for tensor in tensors(model, random):
        torch.from_dlpack(tensor.detach()).mul_(0.7)


def write_to_storage(model: nn.Module, random: Random) -> None:
    for tensor in tensors(model, random):
        tensor.untyped_storage().copy_((tensor.detach().clone() * 0.7).untyped_storage())


def epsilon(model: nn.Module, random: Random) -> None:
    one(norms(model), random).eps = random.choice([0.1, 0.5])


SILENT: dict[str, Change] = {
    change.__name__: change
    for change in (
        *(write_to_data, copy_to_data, write_through_numpy, write_through_dlpack, write_to_storage, epsilon),
    )
}
"""Seen from the next `train()`, `eval()` or explicit call on."""


# --- another model in its place


def deep_copy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model)


def pickled(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    found: nn.Module = torch.load(file, weights_only=False)
    return found


REPLACEMENTS: dict[str, Callable[[nn.Module], nn.Module]] = {"deep copy": deep_copy, "pickle": pickled}
