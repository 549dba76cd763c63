"""The first values of the weights: their distribution, and what they depend on."""

import math
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from mgcompile.errors import MgcompileError
from mgcompile.graph import Graph
from mgcompile.graph.ops import (
    BatchNorm,
    Conv,
    Flatten,
    GlobalPool,
    GroupNorm,
    Input,
    LayerNorm,
    Linear,
    Op,
    PReLU,
    Sum,
    TransposedConv,
    WeightedSum,
)
from mgcompile.graph.ops.base import Kind
from mgcompile.lowering.compiler import compile_graph
from mgcompile.lowering.initialization import initialize
from mgcompile.lowering.lowering import lower

from .graphs import node


def net(*nodes):
    return Graph("net", [node("input", Input(2)), *nodes], {"out": nodes[-1].name}, size=(8, 8))


def all_sorts(*, inserted=False):
    first = [node("new", Conv(2), "input"), node("newer", BatchNorm(), "new")] if inserted else []
    return net(
        *first,
        node("a.conv", Conv(48, (3, 5), groups=2), "newer" if inserted else "input"),
        node("a.batch", BatchNorm(), "a.conv"),
        node("a.group", GroupNorm(groups=4), "a.batch"),
        node("a.layer", LayerNorm(), "a.group"),
        node("a.prelu", PReLU(0.1), "a.layer"),
        node("up", TransposedConv(32, (4, 4), groups=2), "a.prelu", "input", level=-1),
        node("sum", WeightedSum(), "a.prelu", "a.conv"),
        node("pool", GlobalPool(), "sum"),
        node("flat", Flatten(), "pool"),
        node("linear", Linear(80), "flat"),
    )


FAN_OUT = {"a.conv": 3 * 5 * 48 / 2, "up": 4 * 4 * 32 / 2, "linear": 80}


class TestValues:
    state = compile_graph(all_sorts(), seed=3).state_dict()

    @pytest.mark.parametrize("name", FAN_OUT)
    def test_weights_are_normal(self, name):
        weight = self.state[f"{name}.weight"].double() / math.sqrt(2 / FAN_OUT[name])
        n = weight.numel()
        assert n > 700
        assert abs(weight.mean()) < 4 / math.sqrt(n)
        assert abs(weight.square().mean() - 1) < 4 * math.sqrt(2 / n)
        assert abs(weight.pow(4).mean() - 3) < 4 * math.sqrt(96 / n)

    @pytest.mark.parametrize("name", FAN_OUT)
    def test_biases_are_zero(self, name):
        assert not self.state[f"{name}.bias"].any()

    @pytest.mark.parametrize("name", ["a.batch", "a.group", "a.layer"])
    def test_norms_change_nothing(self, name):
        assert torch.equal(self.state[f"{name}.weight"], torch.ones(48))
        assert torch.equal(self.state[f"{name}.bias"], torch.zeros(48))

    def test_statistics_and_scalars(self):
        assert torch.equal(self.state["a.batch.running_mean"], torch.zeros(48))
        assert torch.equal(self.state["a.batch.running_var"], torch.ones(48))
        assert self.state["a.batch.num_batches_tracked"] == 0
        assert torch.equal(self.state["a.prelu.weight"], torch.full((48,), 0.1))
        assert torch.equal(self.state["sum.weight"], torch.ones(2))

    def test_again_resets_everything(self):
        model = compile_graph(all_sorts(), seed=3)
        for tensor in model.state_dict().values():
            tensor.fill_(7)
        initialize(model, 3)
        assert_equal(model.state_dict(), self.state)


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


class TestSeeds:
    def test_equal_seeds_give_equal_weights(self):
        assert_equal(compile_graph(all_sorts(), seed=5).state_dict(), compile_graph(all_sorts(), seed=5).state_dict())

    def test_other_seeds_give_other_weights(self):
        one, other = (compile_graph(all_sorts(), seed=seed).state_dict()["linear.weight"] for seed in (5, 6))
        assert not torch.isclose(one, other).any()

    def test_tensors_of_one_shape_differ(self):
        state = compile_graph(net(node("a", Conv(9), "input"), node("b", Conv(9), "input"), node("c", Sum(), "a", "b")))
        weights = state.state_dict()
        assert not torch.isclose(weights["a.weight"], weights["b.weight"]).any()

    def test_a_seed_leaves_the_global_generator_alone(self):
        before = torch.get_rng_state()
        compile_graph(all_sorts(), seed=5)
        assert torch.equal(torch.get_rng_state(), before)

    def test_without_one_the_global_generator_rules(self):
        states = []
        for manual in (1, 1, 2):
            torch.manual_seed(manual)
            states += [compile_graph(all_sorts()).state_dict()["linear.weight"] for _ in range(2)]
        assert torch.equal(states[0], states[2])
        assert torch.equal(states[1], states[3])
        assert not torch.equal(states[0], states[1])
        assert not torch.equal(states[0], states[4])

    def test_an_inserted_layer_changes_no_other(self):
        before, after = (compile_graph(all_sorts(inserted=new), seed=5).state_dict() for new in (False, True))
        assert set(after) - set(before) == {name for name in after if name.startswith("new")}
        assert_equal(before, {name: after[name] for name in before})

    def test_types_and_modes_agree(self):
        half = compile_graph(all_sorts(), seed=5, dtype=torch.bfloat16).state_dict()
        whole = compile_graph(all_sorts(), seed=5).state_dict()
        assert_equal(half, {name: t.bfloat16() if t.is_floating_point() else t for name, t in whole.items()})

    def test_processes_agree(self):
        """Python's own hash of a text is another in each process."""
        program = """
import torch
from torch import nn
from mgcompile.lowering.initialization import initialize
model = nn.ModuleDict({"conv": nn.Conv2d(1, 1, 1)})
initialize(model, 5)
print(model.conv.weight.item())
"""
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        model = nn.ModuleDict({"conv": nn.Conv2d(1, 1, 1)})
        initialize(model, 5)
        assert float(run.stdout) == model.conv.weight.item()


def test_nothing_happens_on_the_meta_device():
    before = torch.get_rng_state()
    initialize(lower(all_sorts()))
    assert torch.equal(torch.get_rng_state(), before)


class Noise(nn.Module):
    """A foreign module with a child, a parameter and a buffer."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.empty(4))
        self.register_buffer("table", torch.empty(4), persistent=False)
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.constant_(self.inner.weight, 5)
        nn.init.normal_(self.scale)
        self.table.fill_(2)

    def forward(self, x):
        return x * self.scale.sum()


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.scale


@dataclass(frozen=True)
class Foreign(Op):
    make: type[nn.Module] = Noise
    kind = Kind.CUSTOM

    def infer(self, *inputs):
        return inputs[0]

    def module(self, *inputs):
        return self.make()


class TestForeignModules:
    graph = net(node("noise", Foreign(), "input"), node("conv", Conv(2), "noise"))

    def test_reset_themselves_under_the_seed(self):
        before = torch.get_rng_state()
        model, again, other = (compile_graph(self.graph, seed=seed) for seed in (5, 5, 6))
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(model.noise.inner.weight, torch.full((3, 3), 5.0))
        assert torch.equal(model.noise.table, torch.full((4,), 2.0))
        assert torch.equal(model.noise.scale, again.noise.scale)
        assert not torch.equal(model.noise.scale, other.noise.scale)

    def test_and_change_no_other_tensor(self):
        without = compile_graph(net(node("conv", Conv(2), "input")), seed=5)
        assert torch.equal(compile_graph(self.graph, seed=5).conv.weight, without.conv.weight)

    def test_that_cannot_are_refused(self):
        graph = net(node("mine.bare", Foreign(Bare), "input"))
        with pytest.raises(MgcompileError, match=r"^mine.bare: Bare has tensors and needs a method reset_parameters"):
            compile_graph(graph)
