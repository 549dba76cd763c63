"""The state machine itself: it finds models that lie, and no fault in one that is as it was."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import Phase
from torch import nn

from . import changes, networks
from .pair import named
from .test_state_machine import run


def loses_nan(model: nn.Module) -> None:
    def clean(_: nn.Module, __: Any, output: Any) -> Any:
        found = {name: value.nan_to_num() for name, value in named(output).items()}
        return found if isinstance(output, dict) else found[""]

    model.register_forward_hook(clean)


def keeps_old_weights(model: nn.Module) -> None:
    old = copy.deepcopy(model).eval()
    forward = model.forward

    def run(x: torch.Tensor) -> Any:
        return forward(x) if model.training or x.requires_grad else old(x)

    model.forward = run


def has_another_order(model: nn.Module) -> None:
    for name in reversed(list(model._modules)):
        model._modules[name] = model._modules.pop(name)


def is_deaf(model: nn.Module) -> None:
    def deafen(module: nn.Module, _: Any) -> None:
        for norm in changes.norms(module).values():
            norm._forward_hooks.clear()

    model.register_forward_pre_hook(deafen)


def learns_more(model: nn.Module) -> None:
    weight = next(iter(changes.convolutions(model).values())).weight
    weight.requires_grad_().register_hook(lambda gradient: gradient * 1.01)
    weight.requires_grad_(next(iter(changes.norms(model).values())).weight.requires_grad)


def keeps_statistics(model: nn.Module) -> None:
    next(iter(changes.norms(model).values())).momentum = 0.0


def refuses_threads(model: nn.Module) -> None:
    def check(_: nn.Module, __: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise KeyError("a table that another thread changes")

    model.register_forward_pre_hook(check)


LIES: dict[Callable[[nn.Module], None], str] = {
    loses_nan: "inf of the largest number",
    keeps_old_weights: "of the largest number",
    has_another_order: "another order",
    is_deaf: "hooks saw|of the largest number",
    learns_more: "the gradient of",
    keeps_statistics: "running_",
    refuses_threads: "KeyError",
}
"""And what is said of them."""


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_found(lie: Callable[[nn.Module], None], monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    honest = networks.plain_and

    def lying(form: str, network: str) -> Any:
        plain, other = honest(form, network)
        lie(other)
        return plain, other

    monkeypatch.setattr(networks, "plain_and", lying)
    monkeypatch.setitem(changes.REPLACEMENTS, "pickle", changes.deep_copy)  # what lies here cannot be pickled
    with pytest.raises(AssertionError, match=LIES[lie]):
        run("plain", 100, phases=[Phase.generate])


def test_a_plain_model_stays_equal_to_itself(one_thread: None) -> None:
    run("plain", 10)
