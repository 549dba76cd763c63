"""Receptive fields: held against what data does in the compiled models, and against figures of the literature."""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction
from functools import reduce
from typing import Any, Literal

import networkx
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import fx, nn

from mgcompile import load
from mgcompile.analysis import ReceptiveField, receptive_field
from mgcompile.analysis.reach import MOST_CELLS
from mgcompile.errors import ShapeError
from mgcompile.graph import Graph, verify
from mgcompile.graph.builder import GraphBuilder
from mgcompile.graph.ops import (
    Activation,
    BatchNorm,
    Concat,
    Conv,
    Dropout,
    Flatten,
    GlobalPool,
    GroupNorm,
    HalvingPool,
    Input,
    InstanceNorm,
    Kind,
    LayerNorm,
    Linear,
    Op,
    PadChannels,
    Pool,
    Product,
    Resize,
    SliceChannels,
    Sum,
    TransposedConv,
)
from mgcompile.graph.types import Grid, Vector
from mgcompile.lowering.compiler import compile_graph
from mgcompile.passes import optimize
from mgcompile.spec import parse_spec, zoo_names
from tests.analysis.networks import every_op, node
from tests.laws.specs import specs
from tests.lowering.graphs import graphs

PAPER = [name for name in zoo_names() if name.startswith(("cifar100", "mnist"))]
DEEPEST = ("cifar100/mg-21", "cifar100/r-mg-32", "cifar100/r-mg-42", "cifar100/r-pmg-30", "cifar100/r-pmg-44")
"""Of families whose smaller members are among the others."""


# --- the law: data flows where the analysis says it does


class Join(Product):
    """A product that lets everything through: zero times something is zero, and would hide the something."""

    def emit(self, graph, args, *inputs):
        return reduce(lambda one, other: graph.call_function(torch.add, (one, other)), args)


class Union(Concat):
    """A concatenation whose output has one channel again."""

    def infer(self, *inputs):
        return inputs[0]

    def emit(self, graph, args, *inputs):
        return reduce(lambda one, other: graph.call_function(torch.add, (one, other)), args)


class Total(Flatten):
    """A flattening to one number."""

    def infer(self, *inputs):
        super().infer(*inputs)
        return Vector(1)

    def emit(self, graph, args, *inputs):
        return graph.call_function(lambda x: x.sum((2, 3)), tuple(args))


class Spread(GroupNorm):
    """A group norm that only adds: each cell and the mean of all, without a variance that may be zero."""

    def weights(self, *inputs):
        return {}

    def module(self, *inputs):
        return None

    def emit(self, graph, args, *inputs):
        if not isinstance(inputs[0], Grid):
            return args[0]
        return graph.call_function(lambda x: x + x.mean((2, 3), keepdim=True), tuple(args))


def flowing(graph: Graph) -> Graph:
    """The graph with the same windows, in which every value has one channel and no operation hides what it sees."""

    def op_of(op: Op) -> Op:
        if op.kind is Kind.CUSTOM:  # the registered one of generated specs changes signs
            return Activation("relu")
        match op:
            case Conv() | TransposedConv():
                return replace(op, channels=1, groups=1)
            case Input():
                return Input(1)
            case Linear():
                return replace(op, features=1)
            case Activation() | LayerNorm() | Dropout() | PadChannels() | SliceChannels():
                return Activation("relu")
            case GroupNorm() | InstanceNorm():
                return Spread(groups=1)
            case Product():
                return Join()
            case Concat():
                return Union()
            case Flatten():
                return Total()
        return op

    nodes = [replace(each, op=op_of(each.op), weights=each.name) for each in graph]
    return verify(Graph(graph.name, nodes, graph.outputs, size=graph.size, layers=graph.layers))


def positive(model: nn.Module) -> nn.Module:
    """With positive weights, no biases, and batch norms that only scale."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.zero_() if name.endswith("bias") else value.uniform_(0.1, 1)
    return model.eval()


def flow(graph: Graph, size: tuple[int, int], axis: int) -> dict[str, torch.Tensor]:
    """For each node, which rows (or columns) of the image reach each cell: (rows, height, width).

    Image r of the batch is 1 in row r, 0 elsewhere. With positive weights all sums, means and maxima are positive just
    where something is that they see, so one forward pass shows what gradients would, for all cells at once, and max
    pooling, whose gradient goes to a single cell, hides nothing. Values become 0 or 1 after each operation: the
    weight of a cell that bilinear interpolation does not see may be 1e-7 by rounding.
    """
    model = positive(compile_graph(graph))
    values: dict[str, torch.Tensor] = {}

    class Interpreter(fx.Interpreter):
        def run_node(self, n):
            value = super().run_node(n)
            if isinstance(value, torch.Tensor) and value.is_floating_point() and n.op != "get_attr":
                value = (value > 1e-5).float()
                if "mgcompile" in n.meta:
                    values[n.meta["mgcompile"]["node"]] = value
            return value

    height, width = size
    eye = torch.eye(size[axis])
    x = eye[:, None, :, None] if axis == 0 else eye[:, None, None, :]
    channels = graph.input.op.channels
    with torch.no_grad():
        Interpreter(model).run(x.expand(size[axis], channels, height, width).contiguous())
    grids = {name: value if value.dim() == 4 else value[:, :, None, None] for name, value in values.items()}
    return {name: value.amax(1) for name, value in grids.items()}


def check_flow(found: ReceptiveField, graph: Graph) -> None:
    """Each cell of each node, along both axes."""
    # Only where a path sees nothing but padding along an axis may more be said to be seen: see `ReceptiveField.sees`.
    exact = all(reach.first.max() <= max(found.size) for pair in found.reaches.values() for reach in pair)
    for axis in (0, 1):
        values = flow(graph, found.size, axis)
        assert len(values) >= len(graph) - 1
        numbers = torch.arange(1.0, found.size[axis] + 1)[:, None, None]
        for name, seen in values.items():
            reach = found.reaches[name][axis]
            # Rows count from 1 up, and from the last down: the largest numbers that are seen are the last and first.
            first, last = len(seen) - (seen * numbers.flip(0)).amax(0), (seen * numbers).amax(0) - 1
            shape = (-1, 1) if axis == 0 else (1, -1)
            firsts, lasts = (torch.from_numpy(each).reshape(shape) for each in (reach.first, reach.last))
            any_seen = last >= 0
            if exact:
                assert any_seen.all()
                assert (first == firsts).all(), (name, axis)
                assert (last == lasts).all(), (name, axis)
            else:
                assert ((first >= firsts) | ~any_seen).all(), (name, axis)
                assert ((last <= lasts) | ~any_seen).all(), (name, axis)


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_generated_graphs(graph: Graph) -> None:
    check_flow(receptive_field(graph), flowing(graph))


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(specs(), st.integers(0, 1), st.integers(0, 1))
def test_generated_specs(spec: dict[str, Any], more_rows: int, more_columns: int) -> None:
    """The whole language, at even and odd sizes."""
    graph = load(spec).graph
    size = graph.size[0] + more_rows, graph.size[1] + more_columns
    check_flow(receptive_field(graph, size), flowing(graph))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in DEEPEST else name for name in PAPER]
)
def test_networks_of_the_paper(name: str) -> None:
    graph = load(name).graph
    odd, even = graph.size[0] - 3, graph.size[1]
    check_flow(receptive_field(graph, (odd, even)), flowing(graph))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in zoo_names() if name not in PAPER])
def test_other_networks(name: str) -> None:
    graph = load(name).graph
    height, width = graph.smallest_size
    size = (max(height, 40) + 1, max(width, 40) + 6)
    check_flow(receptive_field(graph, size), flowing(graph))


@pytest.mark.parametrize("name", ["cifar100/mg-6", "cifar100/r-pmg-16", "mnist-seg/u-mg-11", "mnist-seg/u-net-11"])
def test_gradients(name: str) -> None:
    """The same by gradients; average pooling stands for max pooling, which has the same windows."""
    graph = flowing(load(name).graph)
    pools = [
        replace(each, op=replace(each.op, function="avg")) if isinstance(each.op, Pool | GlobalPool) else each
        for each in graph
    ]
    ends = [each.name for each in pools if not isinstance(each.op, Linear | Flatten | Input)][
        :: max(1, len(pools) // 6)
    ]
    graph = Graph(name, pools, dict(zip(map(str, range(len(ends))), ends, strict=True)), size=graph.size)
    size = (graph.size[0] - 5, graph.size[1])
    found, model = receptive_field(graph, size), positive(compile_graph(graph, dtype=torch.float64))
    x = torch.rand(1, 1, *size, dtype=torch.float64, requires_grad=True)
    outputs = model(x)
    chance = np.random.default_rng(0)
    for place, end in graph.outputs.items():
        value = outputs[place]
        height, width = value.shape[2:]
        some = {(int(chance.integers(height)), int(chance.integers(width))) for _ in range(3)}
        for cell in {
            (0, 0),
            (0, width - 1),
            (height - 1, 0),
            (height - 1, width - 1),
            (height // 2, width // 2),
            *some,
        }:
            (gradient,) = torch.autograd.grad(value[0, :, *cell].sum(), x, retain_graph=True)
            rows, columns = (gradient[0, 0].abs().sum(1 - axis).nonzero().flatten().tolist() for axis in (0, 1))
            assert found.sees(end, cell) == ((rows[0], rows[-1]), (columns[0], columns[-1])), (end, cell)


@pytest.mark.parametrize(
    "op", [BatchNorm(), GroupNorm(groups=1), InstanceNorm(), LayerNorm(), Activation("softmax"), Activation("gelu")]
)
def test_what_is_replaced_above_sees_what_it_says(op: Op) -> None:
    graph = Graph("one", [node("input", Input(4)), node("out", op, "input")], {"out": "out"}, size=(3, 5))
    model = compile_graph(graph, dtype=torch.float64).eval()
    x = torch.randn(1, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(x)[0, 1, 2, 1], x)
    rows, columns = (gradient.abs().sum((0, 1, 3 - axis)).nonzero().flatten().tolist() for axis in (0, 1))
    assert receptive_field(graph).sees("out", (2, 1)) == ((rows[0], rows[-1]), (columns[0], columns[-1]))


@pytest.mark.parametrize("mode", [pytest.param("training", marks=pytest.mark.slow), "inference"])
@pytest.mark.parametrize("name", zoo_names())
def test_passes_leave_fields_as_they_are(name: str, mode: str) -> None:
    graph = load(name).graph
    size = (graph.size[0] - 1, graph.size[1] + 2)
    plain, rewritten = receptive_field(graph, size), receptive_field(optimize(graph, mode), size)
    for one, other in zip(plain.outputs, rewritten.outputs, strict=True):
        assert (one.size, one.unclipped, one.depth) == (other.size, other.unclipped, other.depth)
        for reach, same in zip(plain.reaches[one.node], rewritten.reaches[other.node], strict=True):
            assert (reach.first.tolist(), reach.last.tolist()) == (same.first.tolist(), same.last.tolist())


def test_a_halving_pool_is_a_pool() -> None:
    shapes = [(1, 9, 9)], (1, 5, 5)
    assert HalvingPool().windows(0, *shapes) == Pool().windows(0, *shapes)


@pytest.mark.parametrize("name", zoo_names())
def test_without_borders_is_the_middle_of_a_large_image(name: str) -> None:
    graph = load(name).graph
    for row in receptive_field(graph, (4096, 2048)).rows:
        for size, unclipped, whole in zip(row.size, row.unclipped, (4096, 2048), strict=True):
            if unclipped is None:
                assert size == whole or (size > whole // 8 and row.level is not None and row.stride is None), row
            elif unclipped < whole // 4:
                assert size == unclipped, row
            else:
                assert size <= unclipped, row


def test_upsampled_twice() -> None:
    """The cells of a grid that was upsampled differ by their place, and those of one made of it by more places."""
    nodes = [node("input", Input(1))]
    for level in range(1, 6):
        nodes.append(node(f"p{level}", Pool(), nodes[-1].name, level=level))
    nodes += [node("up", Resize("nearest", 3), "p5", "p2", level=2), node("far", Resize("bilinear", 2), "up", "input")]
    nodes += [node("near", Conv(1, (9, 9)), "input"), node("sum", Sum(), "far", "near")]
    graph = Graph("g", nodes, {"out": "sum"}, size=(512, 256))
    (output,) = receptive_field(graph).outputs
    assert output.size == output.unclipped == (64, 64)  # two cells of 32 pixels
    (rounded,) = receptive_field(graph, (506, 249)).outputs
    assert rounded.unclipped == (64, 64)


def test_an_addend_that_is_not_convolved_is_no_deeper() -> None:
    nodes = [node("input", Input(2)), node("a", Conv(2), "input"), node("b", Conv(2), "a"), node("c", Conv(2), "input")]
    nodes += [node("sum", Sum(), "b", "c")]
    graph = Graph("g", nodes, {"out": "sum"}, size=(8, 8))
    for mode in (None, "training", "inference"):
        assert receptive_field(optimize(graph, mode)).outputs[0].depth == 2


# --- figures


def stack(*convs: Conv | Pool, size: tuple[int, int] = (256, 256)) -> ReceptiveField:
    builder = GraphBuilder("stack", 1, size)
    last, level = "input", 0
    for i, op in enumerate(convs):
        level += op.stride.bit_length() - 1
        last = builder.add(f"n{i}", op, [last], level, layer=f"n{i}")
    return receptive_field(builder.graph({"out": last}))


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_n_convolutions_of_3x3_see_2n_plus_1(n: int) -> None:
    field = stack(*[Conv(1)] * n)
    (out,) = field.outputs
    assert (out.size, out.unclipped, out.depth, field.covered_at) == ((2 * n + 1,) * 2, (2 * n + 1,) * 2, n, None)
    assert [point.size[0] for point in field.curve] == [2 * i + 1 for i in range(n + 1)]


def test_dilations_that_double_see_exponentially_far() -> None:
    # Yu and Koltun (2016): 3x3 convolutions of dilations 1, 2, 4, ... see 2**(i + 2) - 1.
    (out,) = stack(*[Conv(1, dilation=2**i) for i in range(6)]).outputs
    assert out.unclipped == (2**7 - 1,) * 2


def test_strides_and_centres() -> None:
    row = stack(Conv(1, stride=2), Pool(), Conv(1, (5, 1))).rows[-1]
    # 3, then 3 + 2, then 5 + 4 * 4 rows; of columns 5 still. Zeros of the first stand in front of and behind the data.
    assert (row.unclipped, row.stride, row.depth) == ((21, 5), (Fraction(4), Fraction(4)), 2)
    assert row.centre == (Fraction(1), Fraction(1))


def test_networks_that_others_measured() -> None:
    # Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019. Their ResNets
    # step down at the last 3x3 convolution of a stage and see 483; ours do at the first, which sees half as far then:
    # 11 after the stem, 3 * 8 more in the first stage, 8 + 3 * 16, 16 + 5 * 32 and 32 + 2 * 64 in the others.
    resnet = receptive_field(load("imagenet/resnet-50").graph)
    last = [row for row in resnet.rows if row.layer.startswith("stage4")][-1]
    assert (last.unclipped, last.stride) == ((427, 427), (32, 32))
    vgg = receptive_field(load("imagenet/vgg-16").graph)
    assert [row.unclipped[0] for row in vgg.rows if row.op.startswith("max pool")] == [6, 16, 44, 100, 212]


GRIDS = "input: {{size: {size}}}\nlayers:\n  - pyramid: {levels}\n  - unit: {{channels: {channels}}}\n    repeat: 8\n"


@pytest.mark.parametrize("levels", [4, 5, 6, 7])
def test_multigrid_covers_the_image_exponentially_earlier(levels: int) -> None:
    size = 2**levels
    text = GRIDS.format(size=size, levels=levels, channels=[2] * levels)
    multigrid = receptive_field(parse_spec(text, "grids").graph)
    assert multigrid.covered_at == 1  # the coarsest grid, of 2x2 cells, at once
    finest = [row for row in multigrid.rows if row.level == 0 and row.covers]
    assert finest[0].depth <= levels
    plain = stack(*[Conv(1)] * size, size=(size, size))
    assert plain.covered_at == size // 2


# --- what it says


def test_a_row_for_each_node_and_an_entry_for_each_output() -> None:
    graph = every_op()
    found = receptive_field(graph)
    assert [row.node for row in found.rows] == list(graph.nodes)
    assert [out.name for out in found.outputs] == list(graph.outputs)
    assert found.size == graph.size
    assert {row.level for row in found.rows if row.node in {"e.flat", "e.classes"}} == {None}
    assert all(row.stride is None for row in found.rows if row.level is None)


def test_where_the_image_is_first_covered_on_the_way_to_each_node() -> None:
    graph = load("cifar100/pmg-9").graph
    found = receptive_field(graph)
    rows = {row.node: row for row in found.rows}
    for row in found.rows:
        before = {row.node, *networkx.ancestors(graph.structure, row.node)}
        depths = [rows[name].depth for name in before if rows[name].covers]
        assert row.covered_at == min(depths, default=None), row.node
    assert found.covered_at == min(row.depth for row in found.rows if row.covers) < found.depth
    for output in found.outputs:
        row = rows[output.node]
        assert (output.size, output.stride, output.centre) == (row.size, row.stride, row.centre)
        assert output.covered_at == row.covered_at == rows[str(output.covered_by)].depth


@pytest.mark.parametrize("key", ["layer", "level"])
def test_groups_are_of_all_nodes(key: Literal["layer", "level"]) -> None:
    found = receptive_field(every_op())
    groups = found.by(key)
    assert sum(group.nodes for group in groups) == len(found.rows)
    assert max(group.depth for group in groups) == found.depth
    for axis in (0, 1):
        assert max(group.size[axis] for group in groups) == max(row.size[axis] for row in found.rows)
    assert min(group.covered_at for group in groups if group.covered_at is not None) == found.covered_at


def test_groups_have_names_in_order() -> None:
    found = receptive_field(every_op())
    assert [group.name for group in found.by("level")] == ["level 0", "level 1", "level 2", "level 3", "vectors"]
    assert [group.name for group in found.by("layer")] == ["input", "a", "b", "c", "d", "e"]
    assert "c.gate" in [group.name for group in found.by("layer", depth=2)]
    with pytest.raises(ValueError, match="cannot group by 'op'; it must be one of layer, level"):
        found.by("op")  # type: ignore[arg-type]


def test_the_curve_is_the_largest_field_up_to_each_depth() -> None:
    found = receptive_field(load("cifar100/r-pmg-16").graph)
    assert [point.depth for point in found.curve] == sorted({row.depth for row in found.rows})
    for point in found.curve:
        up_to = [row for row in found.rows if row.depth <= point.depth]
        assert point.size == tuple(max(row.size[axis] for row in up_to) for axis in (0, 1))
    nodes = [node("input", Input(1)), node("wide", Conv(1, (9, 9)), "input")]
    nodes += [node("a", Conv(1, (1, 1)), "input"), node("b", Conv(1, (1, 1)), "a")]
    deeper = receptive_field(Graph("g", nodes, {"wide": "wide", "out": "b"}, size=(20, 20)))
    assert [point.unclipped for point in deeper.curve] == [(1, 1), (9, 9), (9, 9)]


def test_a_gate_makes_each_cell_see_everything() -> None:
    nodes = [
        node("input", Input(2)),
        node("pool", GlobalPool(), "input"),
        node("gated", Product(), "input", "pool"),
        node("plain", Sum(), "input", "input"),
    ]
    found = receptive_field(Graph("g", nodes, {"a": "gated", "b": "plain"}, size=(6, 9)))
    assert found.sees("gated", (0, 3)) == ((0, 5), (0, 8))
    assert found.sees("plain", (0, 3)) == ((0, 0), (3, 3))
    one, other = found.outputs
    assert (one.unclipped, one.covered_at, one.covered_by) == ((None, None), 0, "pool")
    assert (other.unclipped, other.covered_at, other.covered_by) == ((1, 1), None, None)


def test_a_size_reference_is_not_seen() -> None:
    nodes = [
        node("input", Input(1)),
        node("deep", Conv(1, (9, 9)), "input"),
        node("pool", Pool(), "input", level=1),
        node("up", Resize(), "pool", "deep"),
    ]
    found = receptive_field(Graph("g", nodes, {"out": "up"}, size=(8, 8)))
    assert found.sees("up", (3, 4)) == ((2, 3), (4, 5))
    assert found.outputs[0].depth == 0


def test_a_cell_of_padding_sees_nothing() -> None:
    nodes = [node("input", Input(1)), node("out", Conv(1, (1, 1), padding=1), "input")]
    found = receptive_field(Graph("g", nodes, {"out": "out"}, size=(4, 4)))
    assert found.sees("out", (0, 2)) is None
    assert found.sees("out", (1, 2)) == ((0, 0), (1, 1))


def test_a_size_at_which_a_grid_vanishes_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"4x4 is too small"):
        receptive_field(every_op(), (4, 4))


def test_ten_thousand_layers() -> None:
    builder = GraphBuilder("deep", 3, (224, 160))
    last = "input"
    for i in range(10_000):
        made = builder.add(f"c{i}", Conv(8), [last], 0, layer=f"c{i}")
        last = builder.add(f"a{i}", Activation(), [made], 0, layer=f"c{i}")
    graph = builder.graph({"out": last})
    start = time.process_time()
    found = receptive_field(graph)
    assert time.process_time() - start < 20
    assert found.outputs[0].unclipped == (20_001, 20_001)
    assert found.covered_at == 112


def test_a_field_of_very_many_cells_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few lines of a spec would take tens of gigabytes."""
    assert MOST_CELLS * 32 < 2**30
    monkeypatch.setattr("mgcompile.analysis.reach.MOST_CELLS", 20_000)
    spec = load({"input": {"size": 1000}, "layers": [{"pyramid": 8}, {"conv": {"channels": 4}, "repeat": 20}]})
    with pytest.raises(ShapeError, match=r"a receptive field of so many cells .* choose a smaller size"):
        receptive_field(spec.graph)
    assert receptive_field(spec.graph, (300, 300)).outputs
