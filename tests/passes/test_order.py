"""All forms of a model have one order of tensors and one choice of types; states of optimisers move between them."""

from __future__ import annotations

import pytest
import torch

import mgcompile
from mgcompile.lowering import fused
from mgcompile.passes import MODES
from mgcompile.spec import zoo_names
from tests.passes.test_one_law import close, each_form, image, pair


@each_form
def test_states_of_optimisers_move_between_forms(form: str) -> None:
    states, outputs = [], []
    for first, second in ((0, 0), (0, 1), (1, 0)):
        models = pair(form)
        for model in models:
            model.requires_grad_(True).train()
        steps = [torch.optim.SGD(model.parameters(), 0.01, momentum=0.9) for model in models]
        models[first](image(2, 3, 12, 8)).square().sum().backward()
        steps[first].step()
        models[second].load_state_dict(models[first].state_dict())
        steps[second].load_state_dict(steps[first].state_dict())
        steps[second].zero_grad()
        models[second](image(2, 3, 12, 8)).square().sum().backward()
        steps[second].step()
        states.append(models[second].state_dict())
        outputs.append(models[second].eval()(image(2, 3, 12, 8)))
    close(outputs[1], outputs[0])
    close(outputs[2], outputs[0])


@pytest.mark.parametrize("name", zoo_names())
def test_one_order(name: str) -> None:
    forms = [mgcompile.compile(name, device="meta", optimize=mode) for mode in (None, *MODES)]
    for ours in forms[1:]:
        assert list(ours.state_dict()) == list(forms[0].state_dict())
        assert [each for each, _ in ours.named_parameters()] == [each for each, _ in forms[0].named_parameters()]
        assert [each for each, _ in ours.named_buffers()] == [each for each, _ in forms[0].named_buffers()]


def test_dtypes_are_those_of_the_plain_form() -> None:
    for types in ((torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        found = []
        for model in pair("inference"):
            model.to(types[0])
            for _ in range(3):
                try:
                    found.append(model(image(2, 3, 12, 8).to(types[1])).dtype)
                except RuntimeError as error:
                    found.append(type(error))
        assert found[:3] == found[3:], types


def test_a_default_of_torch_changes_nothing() -> None:
    plain, ours = pair("inference")
    right = plain(image(2, 3, 12, 8))
    torch.set_default_dtype(torch.bfloat16)
    try:
        for _ in range(3):
            close(ours(image(2, 3, 12, 8).float()), right, rtol=1e-1, atol=1e-1)
    finally:
        torch.set_default_dtype(torch.float32)


def test_fused_conv_is_what_models_call() -> None:
    _, ours = pair("inference")
    targets = [each.target for each in ours.graph.nodes if each.op == "call_function"]  # type: ignore[union-attr]
    assert targets.count(fused.fused_conv) == 4
