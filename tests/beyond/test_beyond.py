"""Published networks that the language was not made for: known counts, known sizes, and a training step."""

from __future__ import annotations

import pytest
import torch

from mgcompile.graph import Graph
from mgcompile.lowering.compiler import compile_graph
from mgcompile.spec import load, zoo_names

# Parameters in the reference implementations: torchvision (DenseNet, MobileNetV2, EfficientNet, DeepLab and RetinaNet),
# timm (HRNet), rwightman/efficientdet-pytorch, bearpaw/pytorch-pose (two hourglasses).
PUBLISHED = {
    "deeplab-v3-r50": 42_004_074,
    "densenet-121": 7_978_856,
    "efficientdet-d0": 3_880_067,
    "efficientnet-b0": 5_288_548,
    "hourglass": 6_730_912,
    "hrnet-w18": 21_299_004,
    "mobilenet-v2": 3_504_872,
    # torchvision counts 34,014,999: its batch norms are frozen, and their scales and shifts no parameters.
    "retinanet-r50-fpn": 34_014_999 + 53_120,
    # Two convolutions of 128 channels without bias however often they are applied, one before and one after.
    "drrn": 2 * 9 * 128 * 128 + 2 * 9 * 128,
    # The nested U-Net of 4uiiurz1/pytorch-nested-unet with one head, and 1x1 convolutions for the three others.
    "unet-plus-plus": 9_163_329 + 3 * 33,
}
SMALL = {"u-net-2015": 188, "deeplab-v3-r50": 40, "retinanet-r50-fpn": 64, "efficientdet-d0": 64}
NAMES = [name.removeprefix("beyond/") for name in zoo_names() if name.startswith("beyond/")]


def parameters(graph: Graph) -> int:
    return sum(node.op.parameters(*graph.input_types(node)) for node in graph.owners())


def graph_of(name: str) -> Graph:
    return load(f"beyond/{name}").graph


def shapes(graph: Graph, size: int) -> dict[str, tuple[int, ...]]:
    at = graph.shapes((size, size))
    return {name: at[node] for name, node in graph.outputs.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_reference(name: str) -> None:
    assert parameters(graph_of(name)) == PUBLISHED[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_training_step_reaches_every_weight(name: str) -> None:
    graph = graph_of(name)
    size = SMALL.get(name, 33)
    model = compile_graph(graph, seed=0)
    output = model(torch.randn(2, load(f"beyond/{name}").document.input.channels, size, size))
    outputs = output if isinstance(output, dict) else {"output": output}
    assert {key: tuple(value.shape[1:]) for key, value in outputs.items()} == shapes(graph, size)
    sum(value.square().mean() for value in outputs.values()).backward()
    assert all(value.isfinite().all() for value in outputs.values())
    assert [key for key, weight in model.named_parameters() if weight.grad is None] == []
    assert sum(weight.numel() for weight in model.parameters()) == parameters(graph)


def test_u_net_is_the_one_of_2015() -> None:
    graph = graph_of("u-net-2015")
    assert shapes(graph, 572) == {"output": (2, 388, 388)}
    down = [(1, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]
    up = [(2 * width, width) for width in (512, 256, 128, 64)]
    double = sum(9 * (given * width + width * width) + 2 * width for given, width in down + up)
    rise = sum(4 * given * width + width for given, width in up)
    assert parameters(graph) == double + rise + 64 * 2 + 2


def test_super_resolution_goes_above_the_input() -> None:
    graph = graph_of("lapsrn")
    assert shapes(graph, 17) == {"x2": (1, 34, 34), "x4": (1, 68, 68)}
    assert {node.level for node in graph} == {0, -1, -2}


def test_heads_are_shared_over_levels_and_their_norms_are_not() -> None:
    retina = {node.weights for node in graph_of("retinanet-r50-fpn").owners() if node.weights.startswith("classes")}
    assert len(retina) == 5
    detector = [node.weights for node in graph_of("efficientdet-d0").owners() if node.weights.startswith("classes")]
    assert len([name for name in detector if "norm" in name]) == 3 * 5
    assert len([name for name in detector if "norm" not in name]) == 2 * 4


def test_hourglasses_of_any_number_of_joints() -> None:
    graph = load("beyond/hourglass", params={"joints": 5}).graph
    assert shapes(graph, 64) == {"maps1": (5, 16, 16), "maps2": (5, 16, 16)}


def test_exits_come_one_after_the_other_on_fewer_and_fewer_scales() -> None:
    graph = graph_of("msdnet")
    assert [name for name in graph.nodes if name in graph.outputs.values()] == list(graph.outputs.values())
    for index, levels in ((1, {0, 1, 2}), (2, {1, 2}), (3, {2})):
        assert {node.level for node in graph if node.name.startswith(f"block{index}.")} == levels


def test_recursion_has_one_set_of_weights() -> None:
    few, many = (load("beyond/drrn", params={"units": units}).graph for units in (1, 25))
    assert parameters(few) == parameters(many)
    assert len(many) > len(few)
