"""Every pass gives the same function: outputs, gradients, statistics, names; over generated graphs and the zoo."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

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
from mgcompile.lowering import fused
from mgcompile.lowering.compiler import compile_graph
from mgcompile.passes import MODES, PIPELINES, Pass, optimize
from mgcompile.passes.fuse import fold, fuse_conv, fuse_sum
from mgcompile.passes.prune import prune
from mgcompile.passes.subpixel import subpixel
from mgcompile.spec import zoo_names
from tests.laws.specs import specs
from tests.lowering.graphs import graphs, node


@pytest.fixture(autouse=True, scope="module")
def _always_subpixel() -> Iterator[None]:
    """However few cells there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "WORTH_CELLS", 0)
        yield


MANY = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
PASSES = list(dict.fromkeys(each for passes in PIPELINES.values() for each in passes))


def model_of(graph: Graph, like: nn.Module | None = None, **options: Any) -> fx.GraphModule:
    """A model in double precision; with the weights of another, or with weights and statistics by chance."""
    model = compile_graph(graph, seed=0, dtype=torch.double, **options).requires_grad_(True)
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


def check_equal(
    graph: Graph, other: Graph, *, size: tuple[int, int], training: bool | tuple[bool, ...], batch: int = 2
) -> None:
    """The same outputs, gradients, tensors and statistics, of the same two models in all the modes that are named."""
    verify(other)
    ours = model_of(graph)
    theirs = model_of(other, ours)
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert {name: tensor.shape for name, tensor in theirs.state_dict().items()} == shapes
    image = torch.randn(batch, graph.input.op.channels, *size, dtype=torch.double)  # type: ignore[attr-defined]
    for mode in (training,) if isinstance(training, bool) else training:
        _check_models(ours.train(mode), theirs.train(mode), image, statistics=other_computes_all(graph, other))


def _check_models(ours: nn.Module, theirs: nn.Module, image: torch.Tensor, *, statistics: bool) -> None:
    images = image.clone().requires_grad_(), image.clone().requires_grad_()
    results = outputs_of(ours, images[0]), outputs_of(theirs, images[1])
    for right, found in zip(*results, strict=True):
        torch.testing.assert_close(
            found, right, rtol=1e-10, atol=1e-10 * max(1.0, float(right.detach().abs().max())), equal_nan=True
        )
    if any(torch.isnan(result).any() for result in results[0]):
        return
    right, found = gradients(ours, results[0], images[0]), gradients(theirs, results[1], images[1])
    scale = max((float(grad.abs().max()) for grad in right.values() if grad.numel()), default=1.0)
    for name in right.keys() | found.keys():
        zero = torch.zeros((), dtype=torch.double)
        torch.testing.assert_close(
            found.get(name, zero).expand_as(right.get(name, found.get(name, zero))),
            right.get(name, zero).expand_as(found.get(name, right.get(name, zero))),
            rtol=1e-10,
            atol=1e-10 * max(scale, 1),
        )
    if statistics:
        state = theirs.state_dict()
        for name, tensor in ours.state_dict().items():
            torch.testing.assert_close(state[name], tensor, equal_nan=True)


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
    assert each(other) == other
    check_equal(graph, other, size=graph.size, training=False)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("training", [False, True])
@MANY
@given(graphs(exclude=(Dropout,)))  # one seed draws other masks in another layout
def test_each_pipeline(mode: str, training: bool, graph: Graph) -> None:
    other = optimize(graph, mode)
    check_equal(graph, other, size=graph.size, training=training, batch=3)
    assert optimize(graph, mode) == other  # pure: the same again


@pytest.mark.parametrize("mode", MODES)
@settings(MANY, max_examples=100)
@given(specs(), st.integers(0, 3), st.integers(0, 3), st.booleans())
def test_the_whole_language(mode: str, spec: dict[str, Any], more_rows: int, more_columns: int, training: bool) -> None:
    graph = mgcompile.load(spec).graph
    if any(isinstance(each.op, Dropout) for each in graph):
        training = False
    size = graph.size[0] + more_rows, graph.size[1] + more_columns
    check_equal(graph, optimize(graph, mode), size=size, training=training, batch=3)


@pytest.mark.parametrize("mode", MODES)
@settings(MANY, max_examples=30, phases=[Phase.explicit, Phase.generate])
@given(specs(), st.booleans())
def test_single_precision(mode: str, spec: dict[str, Any], training: bool) -> None:
    """To 1e-5 of what the plain form gives; where that itself is far from double precision (a batch norm over a few
    cells that are nearly equal divides by almost nothing), not farther from it than some times as much.
    """
    graph = mgcompile.load(spec).graph
    training = training and not any(isinstance(each.op, Dropout) for each in graph)
    exact = model_of(graph).train(training)
    image = torch.randn(3, graph.input.op.channels, *graph.size, dtype=torch.double)  # type: ignore[attr-defined]
    plain, ours = copy.deepcopy(exact).float(), model_of(optimize(graph, mode), exact).float().train(training)
    tensors: list[list[dict[str, torch.Tensor]]] = []
    for model, dtype in ((exact, torch.double), (plain, torch.float), (ours, torch.float)):
        given = image.to(dtype, copy=True).requires_grad_()
        outputs = outputs_of(model, given)
        results = {str(number): output.detach() for number, output in enumerate(outputs)}
        tensors.append([results, gradients(model, outputs, given)])
    for right, near, found in zip(*tensors, strict=True):  # the outputs, then the gradients
        known = [each for each in right.values() if each.numel()]
        scale = max([1.0, *(float(each.abs().max()) for each in known)])
        if any(torch.isnan(each).any() for each in known):
            continue
        for name in right.keys() & found.keys():
            error, usual = (
                float((each[name] - right[name]).abs().amax()) if right[name].numel() else 0.0 for each in (found, near)
            )
            assert error <= 1e-5 * scale + 8 * usual, name


@settings(MANY, max_examples=40)
@given(specs())
def test_the_audit_is_the_flop_counter(spec: dict[str, Any]) -> None:
    graph = mgcompile.load(spec).graph
    for mode in MODES:
        check_flops(optimize(graph, mode), graph.size)


def check_flops(graph: Graph, size: tuple[int, int]) -> None:
    """The audited MACs are those that PyTorch counts, but for the work on weights: the matrix product that spreads a
    kernel.
    """
    model = compile_graph(graph, device="meta").train()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(2, graph.input.op.channels, *size, device="meta"))  # type: ignore[attr-defined]
    flops = counter.get_total_flops() - counter.get_flop_counts()["Global"].get(torch.ops.aten.mm, 0)
    assert flops == 2 * 2 * audit_graph(graph, size).macs


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
WIDTH = {"width": 16}
"""Makes a network of the paper narrow. What a pass does follows from the nodes, however many channels they have."""


def narrow(name: str) -> Graph:
    """A network of the zoo with a quarter of its channels: by its width, or else of each of its convolutions."""
    if not name.startswith("beyond/"):
        return mgcompile.load(name, params=WIDTH).graph
    graph = mgcompile.load(name).graph
    nodes = [
        replace(each, op=replace(each.op, channels=max(1, each.op.channels // 4))) if type(each.op) is Conv else each
        for each in graph
    ]
    return Graph(graph.name, nodes, graph.outputs, size=graph.size)


@pytest.mark.parametrize(("name", "size"), ZOO)
def test_networks_of_the_zoo(name: str, size: tuple[int, int]) -> None:
    graph = narrow(name)
    check_equal(graph, optimize(graph, "training"), size=size, training=(False, True))


@pytest.mark.parametrize(("name", "size"), ZOO)
def test_the_audit_of_the_zoo_is_the_flop_counter(name: str, size: tuple[int, int]) -> None:
    for mode in MODES:
        check_flops(optimize(mgcompile.load(name).graph, mode), size)


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
        check_equal(graph, other, size=size, training=(False, True))


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
    check_equal(graph, other, size=(6, 6), training=(False, True))


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


# --- what is left of golden cases: nodes and MACs before and after

GOLDEN = [
    ("cifar100/r-mg-22", "inference", 362, 1015351808, 204, 838076928),
    ("imagenet/r-mg-34", "inference", 430, 5760277760, 240, 4922338560),
    ("imagenet/r-pmg-30-seg", "inference", 547, 9521356256, 289, 5544632288),
    ("mnist-seg/u-mg-11", "training", 127, 1910960128, 85, 1644335104),
    ("mnist-seg/r-pmg-20", "training", 338, 3168846336, 173, 2601914880),
    ("cifar100/res-12", "training", 50, 266061824, 35, 266061824),
]


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_cases(case: tuple[str, str, int, int, int, int]) -> None:
    name, mode, *figures = case
    graph = mgcompile.load(name).graph
    other = optimize(graph, mode)
    assert [len(graph), audit_graph(graph).macs, len(other), audit_graph(other).macs] == figures


# --- where a pass must do nothing


def test_odd_sizes_are_computed_as_written() -> None:
    graph, fused_graph = pair(), optimize(pair(), "training")
    assert audit_graph(fused_graph, (7, 9)).macs == audit_graph(graph, (7, 9)).macs
    check_flops(fused_graph, (7, 9))
    check_equal(graph, fused_graph, size=(7, 9), training=True)


@pytest.mark.parametrize(
    "conv", [Conv(4, stride=2), Conv(4, dilation=2), Conv(4, groups=2), Conv(4, padding=0), Conv(4, (2, 2))]
)
def test_convolutions_that_stay_on_the_fine_grid(conv: Conv) -> None:
    level = int(conv.stride == 2)
    nodes = [
        node("input", Input(4)),
        node("pool", Pool(), "input", level=1),
        node("up", Resize(), "pool", "input"),
        node("conv", conv, "up", level=level),
    ]
    graph = Graph("stays", nodes, {"out": "conv"}, size=(8, 8))
    assert subpixel(graph) == graph
    nodes[2] = node("up", Resize("bilinear"), "pool", "input")
    smooth = Graph("smooth", [*nodes[:3], node("conv", Conv(4), "up")], {"out": "conv"}, size=(8, 8))
    assert subpixel(smooth) == smooth


def test_a_convolution_that_two_norms_read_is_not_folded() -> None:
    nodes = [
        node("input", Input(3)),
        node("conv", Conv(3), "input"),
        node("n1", BatchNorm(), "conv"),
        node("n2", BatchNorm(), "conv"),
        node("sum", Sum(), "n1", "n2"),
    ]
    graph = fuse_conv(Graph("two norms", nodes, {"out": "sum"}, size=(6, 6)))
    assert fold(graph) == graph
    assert fuse_sum(graph) == graph


def test_an_output_that_is_read_inside_too_stays() -> None:
    nodes = [
        node("input", Input(3)),
        node("conv", Conv(3), "input"),
        node("norm", BatchNorm(), "conv"),
        node("relu", Activation(), "norm"),
        node("more", Conv(3), "relu"),
    ]
    graph = Graph("outputs", nodes, {"a": "conv", "b": "norm", "c": "relu", "d": "more"}, size=(6, 6))
    assert prune(graph) == graph
    other = optimize(graph, "inference")
    assert set(other.outputs) == {"a", "b", "c", "d"}
    assert {"conv", "norm", "relu", "more"} <= set(other.nodes)
    check_equal(graph, other, size=(6, 6), training=False)


# --- weights go from form to form


@pytest.mark.parametrize("name", [name for name in zoo_names() if not name.startswith("beyond/")])
def test_a_trained_step_and_then_the_other_forms(name: str) -> None:
    spec = mgcompile.load(name, params=WIDTH)
    size = tuple(max(least, side) for least, side in zip(spec.graph.smallest_size, (16, 24), strict=True))
    image = torch.randn(2, spec.graph.input.op.channels, *size)  # type: ignore[attr-defined]
    trained = mgcompile.compile(spec, seed=0, optimize="training")
    sum(value.square().mean() for value in outputs_of(trained, image)).backward()  # type: ignore[union-attr]
    # Norms over the two values of a coarsest grid give gradients of any size.
    torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
    torch.optim.SGD(trained.parameters(), 0.01).step()
    with torch.no_grad():
        right = outputs_of(trained.eval(), image)
        for form in (None, "inference"):
            other = mgcompile.compile(spec, device="meta", optimize=form).to_empty(device="cpu")  # type: ignore[arg-type]
            other.load_state_dict(trained.state_dict())
            for found, value in zip(outputs_of(other.eval(), image), right, strict=True):
                limit = 1e-4 * max(1.0, float(value.abs().max()))
                torch.testing.assert_close(found, value, rtol=1e-4, atol=limit)
        back = mgcompile.compile(spec, device="meta", optimize="training").to_empty(device="cpu")
        back.load_state_dict(other.state_dict())
        found_back = back.state_dict()
        for key, tensor in trained.state_dict().items():
            torch.testing.assert_close(found_back[key], tensor, rtol=0, atol=0)
