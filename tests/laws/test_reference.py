"""Compiled networks against the same ones written by hand, with equal weights, at any size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

import mgcompile
from tests.reference import INPUT_SHAPES, build, in_call_order

KINDS = (nn.ConvTranspose2d, nn.Conv2d, nn.BatchNorm2d, nn.Linear)
SMALL = [
    ("cifar100", "MG-6"),
    ("cifar100", "R-MG-12"),
    ("cifar100", "PMG-9"),
    ("cifar100", "R-PMG-16"),
    ("cifar100", "VGG-6"),
    ("cifar100", "RES-12"),
    ("mnist-seg", "U-NET-11"),
    ("mnist-seg", "U-MG-11"),
    ("mnist-seg", "PMG-11"),
    ("mnist-spatial", "R-PMG-20"),
    ("mnist-seg", "SG-11"),
]
LARGE = [("imagenet", "R-MG-34"), ("imagenet", "R-PMG-30-SEG"), ("imagenet", "ResNet-50"), ("imagenet", "WRN-34-2.0")]


def modules_in_call_order(model: fx.GraphModule) -> list[nn.Module]:
    """The modules that a compiled model calls, in the order of its code."""
    return [model.get_submodule(str(node.target)) for node in model.graph.nodes if node.op == "call_module"]


def of_kind(modules: list[nn.Module], kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in modules if isinstance(module, kind)]


def pair(task: str, model: str) -> tuple[fx.GraphModule, nn.Module]:
    """A compiled network and its reference, in double precision, on the same random weights and statistics. None of the
    weights asks for a gradient: that of the image goes through all of them.
    """
    torch.manual_seed(0)
    reference = build(task, model).double().requires_grad_(False)
    compiled = mgcompile.compile(f"{task}/{model.lower()}", device="meta").requires_grad_(False)
    ours = modules_in_call_order(compiled)
    theirs = in_call_order(reference, torch.zeros(1, INPUT_SHAPES[task][0], 9, 9, dtype=torch.double))
    for kind in KINDS:
        copies, originals = of_kind(ours, kind), of_kind(theirs, kind)
        assert len(copies) == len(originals), kind
        for copy, original in zip(copies, originals, strict=True):
            if isinstance(original, nn.BatchNorm2d):
                nn.init.uniform_(original.running_mean, -0.1, 0.1)
                nn.init.uniform_(original.running_var, 0.5, 1.5)
                nn.init.uniform_(original.weight, 0.5, 1.5)
                nn.init.uniform_(original.bias, -0.1, 0.1)
            copy.load_state_dict(original.state_dict(), assign=True)
    return compiled, reference


def check(networks: tuple[nn.Module, nn.Module], shape: tuple[int, ...], *, training: bool = False) -> None:
    compiled, reference = (network.train(training) for network in networks)
    image = torch.randn(shape, dtype=torch.double)
    ours, theirs = image.clone().requires_grad_(), image.clone().requires_grad_()
    results = compiled(ours), reference(theirs)
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)
    for result in results:
        (result.square().sum()).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-7, atol=1e-7 * float(theirs.grad.abs().max()))  # type: ignore[union-attr]


def check_sizes(task: str, model: str, sizes: list[tuple[int, int]]) -> None:
    """One pair of networks at all sizes: to make the pair takes as long as to run it."""
    networks = pair(task, model)
    for size in sizes:
        check(networks, (2, INPUT_SHAPES[task][0], *size))


@pytest.mark.parametrize(("task", "model"), SMALL)
def test_equal_to_the_hand_written(task: str, model: str) -> None:
    check_sizes(task, model, [(32, 32), (17, 23), (5, 1)])


@pytest.mark.parametrize(("task", "model"), [("cifar100", "R-PMG-16"), ("mnist-seg", "U-MG-11")])
def test_equal_in_training(task: str, model: str) -> None:
    check(pair(task, model), (2, INPUT_SHAPES[task][0], 19, 34), training=True)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "model"), LARGE)
def test_large_ones_equal_the_hand_written(task: str, model: str) -> None:
    check_sizes(task, model, [(64, 64), (43, 70), (3, 2)])


@pytest.mark.parametrize(
    ("task", "model"), [("cifar100", "R-PMG-16"), ("mnist-seg", "U-MG-11"), ("mnist-seg", "PMG-11")]
)
def test_equal_at_any_size(task: str, model: str) -> None:
    least = mgcompile.load(f"{task}/{model.lower()}").graph.smallest_size
    networks = pair(task, model)

    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(st.integers(least[0], 33), st.integers(least[1], 33))  # all that five halvings can leave, and one more
    def sizes(height: int, width: int) -> None:
        check(networks, (1, INPUT_SHAPES[task][0], height, width))

    sizes()


def test_below_the_smallest_size_the_error_names_it() -> None:
    compiled, _ = pair("cifar100", "R-PMG-16")
    with pytest.raises(ValueError, match="at least 1x1"):
        compiled(torch.zeros(1, 3, 0, 5, dtype=torch.double))
