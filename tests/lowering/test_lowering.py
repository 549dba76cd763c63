"""Laws of lowering: what a graph says of itself is what its model does."""

import copy
import re
import warnings

import pytest
import torch
from hypothesis import given, settings
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from mgcompile.errors import MgcompileError
from mgcompile.graph import Extent, Graph, Grid, Vector, elements, verify
from mgcompile.graph import ops as all_ops
from mgcompile.graph.ops import (
    Activation,
    BatchNorm,
    Concat,
    Conv,
    Dropout,
    Input,
    Linear,
    Op,
    Pool,
    Resize,
    Sum,
    TransposedConv,
)
from mgcompile.lowering.compiler import compile_graph
from mgcompile.lowering.lowering import lower

from .graphs import graphs, node

few = settings(max_examples=60, deadline=None)


def run_all(model, x):
    """The value of every graph node, by its name."""
    values = {}

    class Interpreter(fx.Interpreter):
        def run_node(self, n):
            value = super().run_node(n)
            if "mgcompile" in n.meta and n.op != "placeholder":
                values[n.meta["mgcompile"]["node"]] = value  # of several, the last
            return value

    output = Interpreter(model).run(x)
    return values, output


class TestLaws:
    @few
    @given(graphs())
    def test_shapes_are_those_of_the_graph(self, graph):
        model = compile_graph(verify(graph), seed=0)
        model.graph.lint()
        for height, width in {graph.size, (graph.size[0] + 1, graph.size[1] + 2)}:
            values, _ = run_all(model, torch.randn(2, graph.input.op.channels, height, width))
            shapes = graph.shapes((height, width))
            assert {name: tuple(value.shape[1:]) for name, value in values.items()} == dict(shapes)

    @few
    @given(graphs())
    def test_tensors_are_those_of_the_operations(self, graph):
        model = lower(graph)
        weights, buffers = {}, {}
        for owner in graph:
            types = graph.input_types(owner)
            weights |= {f"{owner.weights}.{name}": shape for name, shape in owner.op.weights(*types).items()}
            buffers |= {f"{owner.weights}.{name}": shape for name, shape in owner.op.buffers(*types).items()}
        assert {name: tuple(tensor.shape) for name, tensor in model.named_parameters()} == weights
        assert {name: tuple(tensor.shape) for name, tensor in model.named_buffers()} == buffers
        assert sum(tensor.numel() for tensor in model.parameters()) == sum(map(elements, weights.values()))
        assert set(model.state_dict()) == set(weights | buffers)

    @few
    @given(graphs())
    def test_macs_are_half_of_the_flop_counter(self, graph):
        model = compile_graph(graph, seed=0).eval()
        x = torch.randn(1, graph.input.op.channels, *graph.size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(x)
        shapes = graph.shapes()
        macs = sum(n.op.macs([shapes[source] for source in n.inputs], shapes[n.name]) for n in graph)
        assert counter.get_total_flops() == 2 * macs

    @few
    @given(graphs(exclude=(Dropout,)))
    def test_backward_reaches_every_weight(self, graph):
        model = compile_graph(graph, seed=0)
        values, _ = run_all(model, torch.randn(2, graph.input.op.channels, *graph.size, requires_grad=True))
        total = sum(value.square().sum() for value in values.values())
        total.backward()
        assert all(tensor.grad is not None for tensor in model.parameters())

    @few
    @given(graphs())
    def test_a_deep_copy_computes_the_same(self, graph):
        model = compile_graph(graph, seed=0, spec_text="text").eval()
        twin = copy.deepcopy(model)
        x = torch.randn(2, graph.input.op.channels, *graph.size)
        torch.testing.assert_close(twin(x), model(x), rtol=0, atol=0, equal_nan=True)
        assert twin.meta["mgcompile"] == model.meta["mgcompile"]
        assert [n.name for n in twin.graph.nodes] == [n.name for n in model.graph.nodes]
        assert not {id(t) for t in twin.parameters()} & {id(t) for t in model.parameters()}

    @settings(max_examples=20, deadline=None)
    @given(graphs())
    def test_tracing_warns_of_nothing(self, graph):
        """fvcore traces; a size that is turned into a number would be a warning."""
        model = compile_graph(graph, seed=0).eval()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.jit.trace(
                model, torch.randn(1, graph.input.op.channels, *graph.size), strict=False, check_trace=False
            )
        assert not [each for each in said if not issubclass(each.category, DeprecationWarning)]

    def test_all_operations_occur(self):
        seen = set()

        @settings(max_examples=300, deadline=None, database=None, derandomize=True)
        @given(graphs())
        def look(graph):
            seen.update(type(n.op) for n in graph)

        look()
        known = [getattr(all_ops, name) for name in all_ops.__all__]
        made_by_passes = {all_ops.ChannelsLast, all_ops.FusedConv, all_ops.HalvingPool, all_ops.Reference}
        shared = {Op, all_ops.Norm}
        assert seen == {op for op in known if isinstance(op, type) and issubclass(op, Op)} - shared - made_by_passes


def small(**outputs):
    """A graph of two levels with names of all sorts."""
    nodes = [
        node("input", Input(3)),
        node("unit1.0.conv", Conv(4), "input"),
        node("unit1.0.norm.level0", BatchNorm(), "unit1.0.conv"),
        node("self", Activation(), "unit1.0.norm.level0"),
        node("1", Pool(), "self", level=1),
        node("torch", Conv(4), "1", level=1),
        node("lambda.up", Resize(), "torch", "input"),
        node("x", Sum(), "self", "lambda.up", "self"),
        node("unit1.1.conv", Conv(4), "x"),
        node("again", Conv(4), "unit1.1.conv", weights="unit1.1.conv"),
    ]
    return Graph("R-PMG 9", nodes, outputs or {"out": "again"}, size=(8, 8))


class TestModel:
    def test_is_on_the_meta_device(self):
        model = lower(small())
        assert isinstance(model, fx.GraphModule)
        assert all(tensor.is_meta for tensor in model.state_dict().values())
        assert model(torch.empty(2, 3, 9, 7, device="meta")).shape == (2, 4, 9, 7)

    def test_making_one_draws_no_random_numbers(self):
        before = torch.get_rng_state()
        lower(small())
        assert torch.equal(torch.get_rng_state(), before)

    def test_state_dict_is_in_the_order_of_the_graph(self):
        first = dict.fromkeys(name.rpartition(".")[0] for name in lower(small()).state_dict())
        assert list(first) == ["unit1.0.conv", "unit1.0.norm.level0", "unit1.1.conv", "torch"]

    def test_one_output_is_a_tensor_and_several_are_a_dict(self):
        x = torch.randn(1, 3, 8, 8)
        assert compile_graph(small(), seed=0)(x).shape == (1, 4, 8, 8)
        outputs = compile_graph(small(fine="again", coarse="torch"), seed=0)(x)
        assert {name: tuple(value.shape) for name, value in outputs.items()} == {
            "fine": (1, 4, 8, 8),
            "coarse": (1, 4, 4, 4),
        }

    def test_shared_weights_are_one_module(self):
        model = lower(small())
        called = [n.target for n in model.graph.nodes if n.op == "call_module"]
        assert called.count("unit1.1.conv") == 2
        assert "again.weight" not in model.state_dict()

    def test_code_is_readable(self):
        assert [line.split(";")[0].strip() for line in lower(small()).code.strip().splitlines()] == [
            "def forward(self, x):",
            "input_1 = self.input(x)",
            'unit1_0_conv = getattr(self.unit1, "0").conv(input_1)',
            'unit1_0_norm_level0 = getattr(self.unit1, "0").norm.level0(unit1_0_conv)',
            "self_ = torch.relu(unit1_0_norm_level0)",
            "_1 = torch.nn.functional.max_pool2d(self_, kernel_size = 2, stride = 2, padding = 0, ceil_mode = True)",
            "torch_1 = self.torch(_1)",
            "lambda_up = mgcompile_lowering_kernels_upsample_nearest(torch_1, input_1, 2)",
            "x_1 = self_ + lambda_up",
            "x_2 = x_1 + self_",
            'unit1_1_conv = getattr(self.unit1, "1").conv(x_2)',
            'again = getattr(self.unit1, "1").conv(unit1_1_conv)',
            "return again",
        ]

    def test_torch_nodes_say_where_they_come_from(self):
        meta = {n.name: n.meta.get("mgcompile") for n in lower(small()).graph.nodes}
        assert meta["torch_1"] == {"node": "torch", "level": 1, "layer": "layer of torch"}
        assert meta["x_1"] == meta["x_2"] == {"node": "x", "level": 0, "layer": "layer of x"}
        assert meta["x"]["node"] == meta["input_1"]["node"] == "input"
        assert meta["output"] is None

    def test_later_changes_get_names_of_their_own(self):
        model = lower(small())
        with model.graph.inserting_after(next(iter(model.graph.nodes))) as _:
            added = model.graph.call_function(torch.relu, (next(iter(model.graph.nodes)),))
        assert added.name == "relu"
        assert "mgcompile" not in added.meta

    def test_too_small_an_input(self):
        nodes = [node("input", Input(1)), node("a", Conv(1, (3, 3), padding=0), "input")]
        nodes.append(node("b", Conv(1, (5, 1), padding=0), "a"))
        model = compile_graph(Graph("net", nodes, {"b": "b"}, size=(9, 9)))
        assert model(torch.zeros(1, 1, 7, 3)).shape == (1, 1, 1, 1)
        with pytest.raises(ValueError, match=r"at least 7x3 .* found 6x3"):
            model(torch.zeros(1, 1, 6, 3))


def net(*nodes):
    return Graph("net", [node("input", Input(2)), *nodes], {"out": nodes[-1].name}, size=(8, 8))


class TestErrors:
    @pytest.mark.parametrize("name", ["forward.conv", "train", "unit.half.conv", "code", "unit..conv", "unit.class"])
    def test_names_that_are_taken(self, name):
        part = next(part for part in name.split(".") if part not in ("unit", "conv"))
        with pytest.raises(MgcompileError, match=rf"^{re.escape(name)}: no layer can be called '{part}'"):
            lower(net(node(name, Conv(2), "input")))

    def test_names_of_the_model_are_free_within_it(self):
        model = lower(net(node("unit.code", Conv(2), "input"), node("unit.graph.conv", Conv(2), "unit.code")))
        assert {"unit.code.weight", "unit.graph.conv.weight"} < set(model.state_dict())

    @pytest.mark.parametrize("names", [("unit", "unit.conv"), ("unit.conv", "unit"), ("unit", "unit.conv.norm")])
    def test_a_layer_cannot_hold_another(self, names):
        with pytest.raises(MgcompileError, match=r"unit.* a layer of its own"):
            lower(net(node(names[0], Conv(2), "input"), node(names[1], Conv(2), names[0])))

    def test_sharing_with_other_options(self):
        with pytest.raises(MgcompileError, match=r"^b shares weights with a and differs: .*dilation"):
            lower(net(node("a", Conv(2), "input"), node("b", Conv(2, dilation=2), "a", weights="a")))


def test_sizes_follow_from_the_image():
    """Without a grid of the wanted size, the image gives it: at levels 1 and 0, of shrunken grids, at odd sizes too."""
    shrink = Conv(2, (3, 3), padding=0)
    nodes = [
        node("a", shrink, "input"),
        node("b", Pool(), "a", level=1),
        node("c", shrink, "b", level=1),
        node("d", Pool(), "c", level=2),
        node("e", Resize("nearest", 1), "d", "input", level=1),
        node("f", TransposedConv(2, (4, 4), 2), "d", "input"),
        node("g", Resize("bilinear", 2), "d", "input"),
        node("h", Concat(), "f", "g"),
    ]
    graph = Graph("net", [node("input", Input(2)), *nodes], {"e": "e", "h": "h", "c": "c"}, size=(20, 20))
    model = compile_graph(graph, seed=0)
    for size in [(7, 7), (20, 20), (21, 13), (22, 31), (23, 40)]:
        outputs, shapes = model(torch.randn(1, 2, *size)), graph.shapes(size)
        assert {name: tuple(value.shape[1:]) for name, value in outputs.items()} == {n: shapes[n] for n in outputs}
        assert outputs["e"].shape == outputs["c"].shape


def test_a_size_that_does_not_follow_the_image_is_refused():
    with pytest.raises(MgcompileError, match="upsampling to 4 cells does not meet a grid of s cells"):
        Resize().infer(Grid(2, Extent(fixed=2), Extent(fixed=2)), Grid(2))


def test_finer_than_the_image():
    nodes = [
        node("up", Resize(), "input", "input", level=-1),
        node("conv", Conv(1, (2, 2), padding=1), "up", level=-1),
        node("down", Pool(), "conv"),
        node("again", Resize(), "down", "input", level=-1),
    ]
    graph = net(*nodes)
    shapes = graph.shapes((5, 8))
    values, _ = run_all(compile_graph(graph, seed=0), torch.randn(1, 2, 5, 8))
    assert {name: tuple(value.shape[1:]) for name, value in values.items()} == dict(shapes)
    assert shapes["again"] == (1, 11, 17)


def test_vectors():
    assert Linear(3).infer(Vector(5)) == Vector(3)


def test_ten_thousand_layers_in_one_container():
    nodes = [node("input", Input(1))]
    for i in range(5000):
        nodes += [node(f"units.{i}.conv", Conv(1, (1, 1)), nodes[-1].name)]
        nodes += [node(f"units.{i}.act", Activation(), nodes[-1].name)]
    model = compile_graph(Graph("deep", nodes, {"out": nodes[-1].name}, size=(2, 2)), seed=0)
    model(torch.zeros(1, 1, 2, 2)).sum().backward()
    assert isinstance(model.units.get_submodule("4999.conv"), nn.Conv2d)
    assert len(copy.deepcopy(model).state_dict()) == 10_000
