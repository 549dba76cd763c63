"""Graphs made by hand for the tests of this room."""

from __future__ import annotations

from mgcompile.graph import Graph, Node, verify
from mgcompile.graph.ops import (
    Activation,
    BatchNorm,
    Concat,
    Conv,
    Crop,
    Dropout,
    Flatten,
    GlobalPool,
    GroupNorm,
    Input,
    InstanceNorm,
    LayerNorm,
    Linear,
    Maximum,
    Mean,
    Op,
    PadChannels,
    Pool,
    PReLU,
    Product,
    Resize,
    SliceChannels,
    Sum,
    TransposedConv,
    WeightedSum,
)


def node(name: str, op: Op, *inputs: str, level: int = 0, layer: str | None = None, weights: str | None = None) -> Node:
    return Node(name, op, inputs, level, name if layer is None else layer, weights or name)


def small() -> Graph:
    """conv - batch norm - ReLU - pool - the shared conv twice - flatten - linear: every figure follows by hand."""
    return verify(
        Graph(
            "small",
            [
                node("input", Input(3), layer=""),
                node("stem.conv", Conv(4), "input"),
                node("stem.norm", BatchNorm(), "stem.conv"),
                node("stem.act", Activation(), "stem.norm"),
                node("pool", Pool(), "stem.act", level=1),
                node("body.0", Conv(4, (1, 1), bias=False), "pool", level=1),
                node("body.1", Conv(4, (1, 1), bias=False), "body.0", level=1, weights="body.0"),
                node("head.sum", WeightedSum(), "body.0", "body.1", level=1),
                node("head.pool", GlobalPool(), "head.sum"),
                node("head.flat", Flatten(), "head.pool"),
                node("head.linear", Linear(10), "head.flat"),
            ],
            {"classes": "head.linear"},
            size=(8, 6),
        )
    )


def every_op() -> Graph:
    """A pyramid net with every operation, and with most options, at least once."""
    nodes = [
        node("input", Input(3)),
        node("a.conv", Conv(8, (3, 5), stride=2), "input", level=1),
        node("a.norm", BatchNorm(), "a.conv", level=1),
        node("a.act", PReLU(), "a.norm", level=1),
        node("a.grouped", Conv(8, (3, 3), dilation=2, groups=4, bias=False), "a.act", level=1),
        node("a.bare", BatchNorm(affine=False), "a.grouped", level=1),
        node("a.drop", Dropout(unit="sample"), "a.bare", level=1),
        node("b.pool", Pool(), "a.drop", level=2),
        node("b.mean_pool", Pool("avg", 3, 2), "a.drop", level=2),
        node("b.concat", Concat(), "b.pool", "b.mean_pool", level=2),
        node("b.conv", Conv(8, (2, 2), stride=2), "b.concat", level=3),
        node("b.norm", GroupNorm(groups=2), "b.conv", level=3),
        node("b.act", Activation("gelu"), "b.norm", level=3),
        node("b.again", Conv(8, (3, 3)), "b.act", level=3),
        node("b.twice", Conv(8, (3, 3)), "b.again", level=3, weights="b.again"),
        node("c.up", TransposedConv(8, (2, 2)), "b.twice", "b.pool", level=2),
        node("c.grouped", TransposedConv(4, (4, 4), groups=2, bias=False), "b.twice", "b.pool", level=2),
        node("c.near", Resize(), "c.up", "a.drop", level=1),
        node("c.far", Resize("bilinear", 2), "b.twice", "a.drop", level=1),
        node("c.sum", Sum(), "c.near", "c.far", "a.drop", level=1),
        node("c.mean", Mean(), "c.sum", "a.drop", level=1),
        node("c.max", Maximum(), "c.mean", "a.act", level=1),
        node("c.layer", LayerNorm(), "c.max", level=1),
        node("c.instance", InstanceNorm(), "c.layer", level=1),
        node("c.gate.pool", GlobalPool(), "c.instance"),
        node("c.gate.act", Activation("sigmoid"), "c.gate.pool"),
        node("c.product", Product(), "c.instance", "c.gate.act", level=1),
        node("c.weighted", WeightedSum("softmax"), "c.product", "a.act", level=1),
        node("d.slice", SliceChannels(2, 6), "c.weighted", level=1),
        node("d.pad", PadChannels(8), "d.slice", level=1),
        node("d.valid", Conv(8, (3, 3), padding=0), "d.pad", level=1),
        node("d.crop", Crop(), "d.pad", "d.valid", level=1),
        node("d.join", Concat(), "d.crop", "d.valid", level=1),
        node("d.maps", Conv(2, (1, 1)), "d.join", level=1),
        node("e.pool", GlobalPool("max", 2), "c.grouped"),
        node("e.flat", Flatten(), "e.pool"),
        node("e.linear", Linear(5, bias=False), "e.flat"),
        node("e.norm", BatchNorm(), "e.linear"),
        node("e.classes", Linear(3), "e.norm"),
    ]
    return verify(Graph("every-op", nodes, {"maps": "d.maps", "classes": "e.classes"}, size=(21, 26)))
