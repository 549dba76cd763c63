"""Every pass gives the same function: outputs, gradients, statistics, names; over generated graphs and the zoo."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import fx, nn

import mgcompile
from mgcompile.analysis import audit_graph
from mgcompile.errors import MgcompileError
from mgcompile.graph import Graph, verify
from mgcompile.graph.ops import (
    Activation,
    BatchNorm,
    Concat,
    Conv,
    Dropout,
    FusedConv,
    Input,
    Pool,
    Reference,
    Resize,
    Sum,
)
from mgcompile.lowering.compiler import compile_graph
from mgcompile.passes import MODES, PIPELINES, Pass, optimize
from tests.lowering.graphs import graphs, node

MANY = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
PASSES = list(dict.fromkeys(each for passes in PIPELINES.values() for each in passes))


def model_of(graph: Graph, like: nn.Module | None = None, **options: Any) -> fx.GraphModule:
    """A model in double precision; with the weights of another, or with weights and statistics by chance."""
    model = compile_graph(graph, seed=0, **options).double().requires_grad_(True)
    if like is not None:
        model.load_state_dict(like.state_dict())
        return model
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert isinstance(module.running_mean, torch.Tensor)
            assert isinstance(module.running_var, torch.Tensor)
            module.running_mean.uniform_(-0.1, 0.1, generator=generator)
            module.running_var.uniform_(4.0, 6.0, generator=generator)
    return model


def outputs_of(model: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(7)  # dropout draws the same in both
    result = model(image)
    return list(result.values()) if isinstance(result, dict) else [result]


def gradients(model: nn.Module, outputs: list[torch.Tensor], image: torch.Tensor) -> dict[str, torch.Tensor]:
    tensors = {"image": image, **dict(model.named_parameters())}
    total = sum((output.sin().sum() for output in outputs if output.requires_grad), torch.zeros((), dtype=torch.double))
    if not total.requires_grad:
        return {}
    found = torch.autograd.grad(total, list(tensors.values()), allow_unused=True)
    return {name: grad for name, grad in zip(tensors, found, strict=True) if grad is not None}


def check_equal(graph: Graph, other: Graph, *, size: tuple[int, int], training: bool, batch: int = 2) -> None:
    """The same outputs, gradients, tensors and statistics."""
    verify(other)
    ours = model_of(graph).train(training)
    theirs = model_of(other, ours).train(training)
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert {name: tensor.shape for name, tensor in theirs.state_dict().items()} == shapes
    image = torch.randn(batch, graph.input.op.channels, *size, dtype=torch.double)  # type: ignore[attr-defined]
    images = image.clone().requires_grad_(), image.clone().requires_grad_()
    results = outputs_of(ours, images[0]), outputs_of(theirs, images[1])
    for right, found in zip(*results, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-9, equal_nan=True)
    if any(torch.isnan(result).any() for result in results[0]):
        return
    right, found = gradients(ours, results[0], images[0]), gradients(theirs, results[1], images[1])
    scale = max((float(grad.abs().max()) for grad in right.values() if grad.numel()), default=1.0)
    for name in right.keys() | found.keys():
        zero = torch.zeros((), dtype=torch.double)
        torch.testing.assert_close(
            found.get(name, zero).expand_as(right.get(name, found.get(name, zero))),
            right.get(name, zero).expand_as(found.get(name, right.get(name, zero))),
            rtol=1e-6,
            atol=1e-7 * max(scale, 1),  # a value next to zero may fall on the other side of a ReLU's kink
        )
    if other_computes_all(graph, other):
        for name, tensor in ours.state_dict().items():
            torch.testing.assert_close(theirs.state_dict()[name], tensor, equal_nan=True)


def other_computes_all(graph: Graph, other: Graph) -> bool:
    """Whether no batch norm was pruned, whose statistics would no longer move."""
    norms = sum(isinstance(each.op, BatchNorm) for each in graph)
    folded = sum(isinstance(each.op, FusedConv) and each.op.norm for each in other)
    return norms == folded + sum(isinstance(each.op, BatchNorm) for each in other)


@pytest.mark.parametrize("each", PASSES, ids=lambda each: each.__name__)
@MANY
@given(graphs())
def test_each_pass_alone(each: Pass, graph: Graph) -> None:
    other = each(graph)
    assert other.outputs.keys() == graph.outputs.keys()
    check_equal(graph, other, size=graph.size, training=False)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("training", [False, True])
@MANY
@given(graphs(exclude=(Dropout,)))  # one seed draws other masks in another layout
def test_each_pipeline(mode: str, training: bool, graph: Graph) -> None:
    other = optimize(graph, mode)
    check_equal(graph, other, size=graph.size, training=training, batch=3)
    assert optimize(graph, mode) == other  # pure: the same again


ZOO = [
    ("cifar100/r-mg-12", (32, 32)),
    ("cifar100/r-pmg-16", (33, 47)),
    ("cifar100/pmg-9", (16, 18)),
    ("mnist-seg/u-mg-11", (32, 48)),
    ("mnist-seg/r-pmg-20", (24, 24)),
    ("imagenet/r-pmg-30-seg", (64, 96)),
    ("beyond/hrnet-w18", (64, 64)),
    ("beyond/unet-plus-plus", (32, 40)),
    ("beyond/retinanet-r50-fpn", (64, 64)),
]


@pytest.mark.parametrize(("name", "size"), ZOO)
@pytest.mark.parametrize("training", [False, True])
def test_networks_of_the_zoo(name: str, size: tuple[int, int], training: bool) -> None:
    graph = mgcompile.load(name).graph
    check_equal(graph, optimize(graph, "training"), size=size, training=training)


@pytest.mark.parametrize(("name", "size"), ZOO)
def test_less_is_left(name: str, size: tuple[int, int]) -> None:
    graph = mgcompile.load(name).graph
    before, after = audit_graph(graph, size), audit_graph(optimize(graph, "inference"), size)
    assert len(after.rows) < len(before.rows)
    assert after.macs <= before.macs
    assert after.activation_bytes < before.activation_bytes
    assert after.params == before.params


def test_the_classifier_of_the_segmentation_network_is_pruned() -> None:
    graph = mgcompile.load("imagenet/r-pmg-30-seg").graph
    from mgcompile.passes.prune import prune

    pruned = prune(graph)
    assert (audit_graph(graph).macs, round(audit_graph(pruned).macs / 1e9, 2)) == (9521356256, 7.27)
    assert audit_graph(pruned).params == audit_graph(graph).params


def pair(a: str = "input") -> Graph:
    """A fine grid and an upsampled coarse one, concatenated, convolved."""
    nodes = [
        node("input", Input(3)),
        node("pool", Pool(), a, level=1),
        node("up", Resize(), "pool", "input"),
        node("cat", Concat(), "input", "up"),
        node("conv", Conv(5), "cat"),
    ]
    return Graph("pair", nodes, {"out": "conv"}, size=(8, 8))


def test_subpixel_takes_four_ninths_of_the_work() -> None:
    graph = pair()
    other = optimize(graph, "training")
    fused = next(each for each in other if isinstance(each.op, FusedConv))
    assert fused.op.steps == (0, 1)
    assert fused.inputs == ("input.channels_last", "pool")
    fine, coarse = 64 * 3 * 5 * 9, 16 * 3 * 5 * 16
    assert audit_graph(other).macs == fine + coarse
    assert 9 * coarse == 4 * fine


@pytest.mark.parametrize("size", [(8, 8), (7, 8), (8, 9), (5, 5), (1, 2)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 3)])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_subpixel_at_any_size(size: tuple[int, int], kernel: tuple[int, int], steps: int) -> None:
    for alone in (False, True):
        nodes = [node("input", Input(3))]
        nodes += [
            node(f"pool{step}", Pool(), f"pool{step - 1}" if step else "input", level=step + 1) for step in range(steps)
        ]
        nodes += [node("up", Resize("nearest", steps), f"pool{steps - 1}", "input")]
        nodes += [] if alone else [node("cat", Concat(), "up", "input", "up")]
        nodes += [node("conv", Conv(4, kernel), "up" if alone else "cat")]
        graph = Graph("pair", nodes, {"out": "conv"}, size=(8, 8))
        other = optimize(graph, "training")
        assert not any(isinstance(each.op, Resize) for each in other)
        check_equal(graph, other, size=size, training=True)
        check_equal(graph, other, size=size, training=False)


def test_a_shared_convolution_is_folded_with_each_norm_apart() -> None:
    nodes = [
        node("input", Input(3)),
        node("a", Conv(3), "input"),
        node("an", BatchNorm(), "a"),
        node("b", Conv(3), "an", weights="a"),
        node("bn", BatchNorm(), "b"),
        node("c", Conv(3), "bn", weights="a"),
        node("sum", Sum(), "c", "a"),
        node("relu", Activation(), "sum"),
    ]
    graph = Graph("shared", nodes, {"out": "relu"}, size=(6, 6))
    other = optimize(graph, "inference")
    fused = [each for each in other if isinstance(each.op, FusedConv)]
    assert [each.weights for each in fused] == ["a", "a", "a"]
    assert [each.op.norm for each in fused] == [False, True, False]  # the first is read by a norm and by the sum
    for training in (False, True):
        check_equal(graph, other, size=(6, 6), training=training)


def test_random_numbers_and_statistics_are_not_shared() -> None:
    nodes = [
        node("input", Input(3)),
        node("d1", Dropout(), "input"),
        node("d2", Dropout(), "input"),
        node("n1", BatchNorm(), "d1"),
        node("p1", Pool(), "input", level=1),
        node("p2", Pool(), "input", level=1),
        node("u1", Resize(), "p1", "input"),
        node("u2", Resize(), "p2", "input"),
        node("sum", Sum(), "n1", "d2", "u1", "u2"),
    ]
    graph = Graph("random", nodes, {"out": "sum"}, size=(6, 6))
    other = optimize(graph, "training")
    assert sum(isinstance(each.op, Dropout) for each in other) == 2
    assert sum(isinstance(each.op, Pool) for each in other) == 1
    check_equal(graph, other, size=(6, 6), training=False)


def test_an_unknown_mode() -> None:
    with pytest.raises(MgcompileError, match=r"^optimize='fast': known are training, inference$"):
        mgcompile.compile("cifar100/mg-6", optimize="fast")  # type: ignore[arg-type]
    with pytest.raises(MgcompileError, match=r"^precision='fp8': known are fp32, bf16$"):
        mgcompile.compile("cifar100/mg-6", precision="fp8")  # type: ignore[arg-type]


def test_references_keep_what_is_not_computed() -> None:
    graph = Graph(
        "unused",
        [node("input", Input(3)), node("a", Conv(2), "input"), node("b", Conv(4), "input")],
        {"out": "a"},
        size=(4, 4),
    )
    other = optimize(graph, "inference")
    assert isinstance(other["b"].op, Reference)
    model = compile_graph(other, seed=0)
    plain = compile_graph(graph, seed=0)
    for key, tensor in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], tensor, rtol=0, atol=0)
    assert copy.deepcopy(model).state_dict().keys() == plain.state_dict().keys()
