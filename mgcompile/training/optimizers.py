"""The optimisers of recipes, and their state by the names of the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mgcompile.errors import MgcompileError

if TYPE_CHECKING:
    from mgcompile.training.recipe import Recipe

__all__ = ["OPTIMIZERS", "load_state", "make_optimizer", "named_state"]


def _sgd(recipe: Recipe, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        weights, recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov
    )


def _adamw(recipe: Recipe, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(weights, recipe.lr, weight_decay=recipe.weight_decay)


OPTIMIZERS: dict[str, Callable[[Recipe, list[nn.Parameter]], torch.optim.Optimizer]] = {"sgd": _sgd, "adamw": _adamw}
"""What `optimizer` in a recipe may be."""


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimiser of all weights of a model."""
    return OPTIMIZERS[recipe.optimizer](recipe, list(model.parameters()))


def named_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Its tensors, each as `name of the weight/what it is`."""
    state = optimizer.state
    return {
        f"{name}/{key}": tensor
        for name, weight in model.named_parameters()
        for key, tensor in state.get(weight, {}).items()
        if isinstance(tensor, Tensor)
    }


def load_state(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Bring back what `named_state` gave after a step. Raises `MgcompileError` where the tensors are those of other
    weights, or none and there should be some.
    """
    if not tensors and any(group.get("momentum", 1) for group in optimizer.param_groups):
        raise MgcompileError("nothing is there of the optimiser's state")
    weights = dict(model.named_parameters())
    for name, tensor in tensors.items():
        owner, _, key = name.rpartition("/")
        weight = weights.get(owner)
        if weight is None or (tensor.ndim and tensor.shape != weight.shape):
            raise MgcompileError(f"the optimiser's {name}, {[*tensor.shape]}, fits no weight of the model")
        if tensor.ndim:  # in the memory format of the weight, so that sums are made in the same order
            tensor = torch.empty_like(weight, requires_grad=False).copy_(tensor)  # noqa: PLW2901
        optimizer.state[weight][key] = tensor
