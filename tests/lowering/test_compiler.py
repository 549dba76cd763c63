"""From a graph to a model, with the options of the way."""

import copy
import pickle

import pytest
import torch
from torch import fx

from mgcompile.graph import Graph, GraphError
from mgcompile.graph.ops import Activation, BatchNorm, Conv, Input, Pool, Resize, Sum
from mgcompile.lowering.compiler import compile_graph

from .graphs import node


def graph():
    nodes = [
        node("input", Input(3)),
        node("fine", Conv(4), "input"),
        node("pool", Pool(), "fine", level=1),
        node("coarse", Conv(4, (2, 2)), "pool", level=1),
        node("norm", BatchNorm(), "coarse", level=1),
        node("up", Resize(), "norm", "fine"),
        node("sum", Sum(), "fine", "up"),
    ]
    return Graph("net", nodes, {"sum": "sum"}, size=(8, 6))


def test_checks_the_contract_first():
    broken = Graph("net", [node("input", Input(3)), node("a", Conv(4), "b")], {"a": "a"}, size=(8, 8))
    with pytest.raises(GraphError, match="a reads b, which does not exist"):
        compile_graph(broken)


def test_carries_what_it_is():
    model = compile_graph(graph(), spec_text="layers: []\n")
    assert model.meta["mgcompile"] == {"name": "net", "spec": "layers: []\n", "size": [8, 6]}
    assert compile_graph(graph()).meta["mgcompile"]["spec"] is None
    assert type(model).__name__ == "net"
    assert model.training


def test_meta_device():
    model = compile_graph(graph(), device="meta")
    assert all(tensor.is_meta for tensor in model.state_dict().values())


def test_dtype():
    model = compile_graph(graph(), dtype=torch.float64)
    assert model.norm.running_mean.dtype == torch.float64
    assert model.norm.num_batches_tracked.dtype == torch.int64
    assert model(torch.zeros(2, 3, 8, 8, dtype=torch.float64)).dtype == torch.float64


def test_default_dtype_is_float32_whatever_torch_has():
    torch.set_default_dtype(torch.float64)
    try:
        model = compile_graph(graph(), seed=0)
    finally:
        torch.set_default_dtype(torch.float32)
    assert model.fine.weight.dtype == torch.float32
    assert torch.equal(model.fine.weight, compile_graph(graph(), seed=0).fine.weight)


def test_pickles():
    model = compile_graph(graph(), seed=0).eval()
    twin = pickle.loads(pickle.dumps(model))
    x = torch.randn(2, 3, 9, 7)
    assert isinstance(twin, fx.GraphModule)
    assert torch.equal(twin(x), model(x))
    assert list(twin.state_dict()) == list(model.state_dict())


def test_channels_last_gives_the_same():
    model = compile_graph(graph(), seed=0).eval()
    x = torch.randn(2, 3, 9, 7)
    expected = model(x)
    found = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected)


@pytest.fixture
def eager_backend(monkeypatch):
    """`torch.compile` with its tracing and without its code generation."""
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **options: original(*args, backend="eager", **options))
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("eager_backend")
class TestTorchCompile:
    def test_keeps_the_module_and_its_names(self):
        model, plain = (compile_graph(graph(), seed=0, torch_compile=compiled).eval() for compiled in (True, False))
        assert isinstance(model, fx.GraphModule)
        assert list(model.state_dict()) == list(plain.state_dict())
        x = torch.randn(2, 3, 9, 7)
        assert torch.equal(model(x), plain(x))

    def test_calls_go_through_it(self):
        model = compile_graph(graph(), seed=0, torch_compile=True).eval()
        torch._dynamo.utils.counters.clear()
        model(torch.randn(2, 3, 9, 7))
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1

    def test_deep_copies_are_plain(self):
        model = compile_graph(graph(), seed=0, torch_compile=True, spec_text="text").eval()
        x = torch.randn(2, 3, 9, 7)
        before = model(x)
        twin = copy.deepcopy(model)
        assert torch.equal(twin(x), before)
        assert twin.meta["mgcompile"]["spec"] == "text"


@pytest.mark.parametrize("optimize", [None, "training"])
@pytest.mark.parametrize("function", ["sigmoid", "softmax"])
def test_probabilities_are_in_single_precision(function, optimize):
    """In bfloat16 a sigmoid of 8 would be 1, its loss cut off, its gradient zero."""
    nodes = [
        node("input", Input(1)),
        node("scores", Conv(2, (1, 1)), "input"),
        node("answer", Activation(function), "scores"),
    ]
    net = Graph("net", nodes, {"answer": "answer"}, size=(2, 2))
    model = compile_graph(net, precision="bf16", optimize=optimize)
    scores = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
    with torch.no_grad():
        scores.weight.copy_(torch.tensor([4.0, -4.0])[:, None, None, None])
    answers = model(torch.full((1, 1, 2, 2), 2.0))
    assert answers.dtype == torch.float32
    assert 0.999 < answers[0, 0, 0, 0] < 1
    answers[0, 0].sum().backward()
    assert (scores.weight.grad[0] > 0).all()
