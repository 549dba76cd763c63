"""Models as Python files, under `torch.export` and under `torch.compile`."""

import ast
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import save_file
from torch import nn
from torch.export import Dim, export

from mgcompile.errors import MgcompileError
from mgcompile.graph import Graph
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
    LayerNorm,
    Linear,
    Pool,
    Resize,
    Sum,
    TransposedConv,
    WeightedSum,
)
from mgcompile.lowering.compiler import compile_graph
from mgcompile.lowering.exporting import to_source

from .graphs import graphs, node
from .test_initialization import Foreign


def exchange(prefix, grids, width):
    """Each grid reads itself, the finer one pooled and the coarser one repeated; a convolution follows."""
    nodes, new = [], []
    for level, grid in enumerate(grids):
        parts = [grid]
        if level > 0:
            nodes.append(node(f"{prefix}.pool{level}", Pool(), grids[level - 1], level=level))
            parts.insert(0, nodes[-1].name)
        if level < len(grids) - 1:
            nodes.append(node(f"{prefix}.up{level}", Resize(), grids[level + 1], grid, level=level))
            parts.append(nodes[-1].name)
        nodes.append(node(f"{prefix}.join{level}", Concat(), *parts, level=level))
        nodes.append(node(f"{prefix}.conv.level{level}", Conv(width, bias=False), nodes[-1].name, level=level))
        nodes.append(node(f"{prefix}.norm.level{level}", BatchNorm(), nodes[-1].name, level=level))
        nodes.append(node(f"{prefix}.relu.level{level}", Activation(), nodes[-1].name, level=level))
        new.append(nodes[-1].name)
    return nodes, new


def pyramid(name="R-PMG 9", levels=3, units=2):
    """A multigrid network: an image pyramid on some grids, some exchanges, a dense and a classifying head."""
    nodes, grids = [node("input", Input(3))], []
    for level in range(levels):
        image = "input"
        if level:
            image = f"image{level}"
            nodes.append(node(image, Pool("avg", 2**level, 2**level), "input", level=level))
        nodes.append(node(f"stem.level{level}", Conv(4), image, level=level))
        grids.append(nodes[-1].name)
    for unit in range(units):
        more, grids = exchange(f"unit{unit}.0", grids, 5)
        nodes += more
    nodes += [
        node("far", Resize("nearest", levels - 1), grids[-1], "input"),
        node("smooth", Resize("bilinear"), grids[1], "input"),
        node("wide", Concat(), grids[0], "far", "smooth"),
        node("dense", Conv(2, (1, 1)), "wide"),
        node("pooled", GlobalPool(), grids[-1], level=levels - 1),
        node("flat", Flatten(), "pooled"),
        node("kind", Linear(7), "flat"),
    ]
    return Graph(name, nodes, {"dense": "dense", "class": "kind"}, size=(32, 32))


def others():
    """The operations that the pyramid does not have and that depend on sizes."""
    nodes = [
        node("input", Input(3)),
        node("valid", Conv(4, (5, 4), padding=0), "input"),
        node("crop", Crop(), "input", "valid"),
        node("join", Concat(), "valid", "crop"),
        node("down", Conv(4, (4, 4), 4), "input", level=2),
        node("group", GroupNorm(groups=2), "down", level=2),
        node("even", Conv(4, (2, 2)), "group", level=2),
        node("back", TransposedConv(3, (4, 4)), "even", "input", level=1),
        node("pool", Pool("avg", 3, 2), "input", level=1),
        node("sum", WeightedSum(), "back", "pool", level=1),
        node("layer", LayerNorm(), "sum", level=1),
        node("fine", TransposedConv(3, (3, 3)), "layer", "input"),
        node("drop", Dropout(0.1, "sample"), "fine"),
        node("whole", Sum(), "drop", "input"),
    ]
    return Graph("others", nodes, {"whole": "whole", "join": "join"}, size=(32, 32))


SIZES = [(9, 9), (9, 11), (16, 24), (30, 31), (64, 64), (45, 38)]
"""With two cells on the coarsest grid and more."""


def same(found, expected):
    return found.keys() == expected.keys() and all(
        torch.allclose(found[name], expected[name], atol=1e-5) for name in found
    )


class TestSource:
    @pytest.mark.parametrize("graph", [pyramid(), others()])
    def test_computes_the_same_elsewhere(self, graph, tmp_path):
        """In another process that cannot import mgcompile, with the weights loaded."""
        model = compile_graph(graph, seed=0).eval()
        x = torch.randn(2, 3, 21, 18)
        save_file(model.state_dict(), tmp_path / "weights.safetensors")
        save_file({"x": x} | {name: y.contiguous() for name, y in model(x).items()}, tmp_path / "values.safetensors")
        (tmp_path / "network.py").write_text(to_source(model))
        program = f"""
import sys
sys.modules["mgcompile"] = None
import torch, network
from safetensors.torch import load_file
model = network.{type(model).__name__}()
model.load_state_dict(load_file("weights.safetensors"))
values = load_file("values.safetensors")
outputs = model.eval()(values.pop("x"))
print(outputs.keys() == values.keys() and all(torch.equal(outputs[name], values[name]) for name in values))
"""
        command = [sys.executable, "-W", "error", "-c", program]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (run.stdout, run.stderr) == ("True\n", "")

    @settings(max_examples=60, deadline=None)
    @given(graphs())
    def test_every_graph(self, graph):
        model = compile_graph(graph, seed=0).eval()
        twin = made(model)
        assert list(twin.state_dict()) == list(model.state_dict())
        twin.load_state_dict(model.state_dict())
        x = torch.randn(2, graph.input.op.channels, *graph.size)
        torch.testing.assert_close(twin.eval()(x), model(x), rtol=0, atol=0, equal_nan=True)

    def test_is_readable(self):
        source = to_source(compile_graph(pyramid(), device="meta"))
        tree = ast.parse(source)
        imports = [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
        assert imports == [
            "from __future__ import annotations",
            "import torch",
            "from torch import nn",
            "from torch.nn import functional as F",
        ]
        classes = [n.name for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
        assert classes == ["target_size", "upsample_nearest", "upsample_bilinear", "InputCheck", "R_PMG_9"]
        lines = [line.strip() for line in source.splitlines()]
        assert (
            'self.place("unit0.0.conv.level1", nn.Conv2d('
            "12, 5, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False))"
        ) in lines
        assert "unit0_0_up0 = upsample_nearest(stem_level1, stem_level0, 2)" in lines
        assert (
            "unit0_0_pool1 = torch.nn.functional.max_pool2d("
            "stem_level0, kernel_size=2, stride=2, padding=0, ceil_mode=True)"
        ) in lines
        assert "del x" in lines
        assert not [line for line in source.splitlines() if line != line.rstrip() or "type: ignore" in line]

    def test_names_that_would_hide_something(self):
        nodes = [
            node("input", Input(3)),
            node("a", Conv(3, (5, 5), padding=0), "input"),
            node("crop", Crop(), "input", "a"),
            node("F", Crop(), "crop", "a"),
            node("window", Activation("leaky_relu", slope=float("inf")), "F"),
            node("inf", Sum(), "window", "window"),
        ]
        for name in ("crop", "torch", "class", "1 net", "", "super", "getattr", "hasattr", "inf", "annotations", "__x"):
            model = compile_graph(Graph(name, nodes, {"out": "inf"}, size=(8, 8)), seed=0).eval()
            twin = made(model)
            twin.load_state_dict(model.state_dict())
            x = torch.randn(1, 3, 9, 8)
            torch.testing.assert_close(twin.eval()(x), model(x), equal_nan=True)

    def test_foreign_modules_are_refused(self):
        graph = Graph(
            "net", [node("input", Input(3)), node("n.oise", Foreign(), "input")], {"a": "n.oise"}, size=(8, 8)
        )
        with pytest.raises(MgcompileError, match=r"^n.oise: .*Noise is not of torch"):
            to_source(compile_graph(graph))

    def test_foreign_functions_are_refused(self):
        model = compile_graph(pyramid(), seed=0)
        last = list(model.graph.nodes)[-2]
        with model.graph.inserting_after(last):
            model.graph.call_function(same, (last, last))
        with pytest.raises(MgcompileError, match=r"same is a function that is not of torch"):
            to_source(model)


def made(model):
    """The model that the source of another makes."""
    space = {}
    exec(compile(to_source(model), "generated", "exec"), space)
    *_, cls = (value for value in space.values() if isinstance(value, type) and issubclass(value, nn.Module))
    return cls()


class TestTorchExport:
    """Sizes stay dynamic as `Dim.DYNAMIC` or `Dim.AUTO`, where every grid has at least two cells along each axis."""

    @pytest.mark.parametrize("strict", [False, True])
    @pytest.mark.parametrize("graph", [pyramid(), others()])
    @pytest.mark.parametrize("example", [(33, 30), (32, 32)])
    def test_any_batch_and_size(self, graph, strict, example):
        model = compile_graph(graph, seed=0).eval()
        shapes = {"x": {0: Dim.DYNAMIC, 2: Dim.DYNAMIC(min=9), 3: Dim.DYNAMIC(min=9)}}
        x = torch.randn(2, 3, *example)
        program = export(model, (x,), dynamic_shapes=shapes, strict=strict).module()
        for size in SIZES:
            for batch in (1, 3):
                x = torch.randn(batch, 3, *size)
                assert same(program(x), model(x)), size

    def test_sizes_found_by_torch(self):
        model = compile_graph(pyramid(), seed=0).eval()
        shapes = {"x": {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}}
        program = export(model, (torch.randn(2, 3, 33, 30),), dynamic_shapes=shapes).module()
        assert all(same(program(x), model(x)) for x in (torch.randn(3, 3, *size) for size in SIZES))

    def test_fixed_sizes(self):
        model = compile_graph(pyramid(), seed=0).eval()
        x = torch.randn(1, 3, 5, 3)
        assert same(export(model, (x,)).module()(x), model(x))

    def test_keeps_the_names_of_weights(self):
        model = compile_graph(pyramid(), seed=0).eval()
        program = export(model, (torch.randn(1, 3, 16, 16),))
        assert set(program.state_dict) == set(model.state_dict())


class TestTorchCompile:
    @pytest.fixture(autouse=True)
    def _forget(self):
        yield
        torch.compiler.reset()

    @pytest.mark.parametrize("graph", [pyramid(), others()])
    @pytest.mark.parametrize("dynamic", [False, True])
    def test_is_one_graph(self, graph, dynamic):
        model = compile_graph(graph, seed=0)
        compiled = torch.compile(model.eval(), fullgraph=True, backend="eager", dynamic=dynamic)
        for size in ((32, 32), (33, 30)):
            x = torch.randn(2, 3, *size)
            assert same(compiled(x), model(x))

    @settings(max_examples=15, deadline=None)
    @given(graphs(most=8))
    def test_every_graph_is_one(self, graph):
        torch.compiler.reset()
        model = compile_graph(graph, seed=0).eval()
        x = torch.randn(2, graph.input.op.channels, *graph.size)
        found = torch.compile(model, fullgraph=True, backend="eager")(x)
        torch.testing.assert_close(found, model(x), equal_nan=True)

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_generated_code_trains(self, plain_inductor):
        """Outputs and gradients of Inductor's code, of a small network: each loop takes the C++ compiler a second."""
        graph = pyramid(levels=2, units=1)
        models = [compile_graph(graph, seed=0, torch_compile=compiled) for compiled in (True, False)]
        x = torch.randn(2, 3, 33, 30)
        for model in models:
            outputs = model(x)
            (outputs["dense"].square().mean() + outputs["class"].square().mean()).backward()
        for ours, theirs in zip(*(model.parameters() for model in models), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4)
