"""Small networks of one operation in several copies, whose time tells one speed of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from mgcompile.graph import Graph, Grid, Node, Vector
from mgcompile.graph.ops import (
    Activation,
    BatchNorm,
    Concat,
    Conv,
    Flatten,
    GlobalPool,
    GroupNorm,
    HalvingPool,
    Input,
    Linear,
    Op,
    Pool,
    Resize,
    TransposedConv,
)
from mgcompile.graph.types import Value
from mgcompile.passes import optimize as run_passes

__all__ = ["PROBES", "Probe", "Work", "work"]

Tells = Literal["overhead", "tensors", "flops", "bandwidth"]
"""Which part of a `Rate` follows from the time: the shapes are such that this part takes most of it."""


@dataclass(frozen=True, slots=True)
class Probe:
    """`copies` of an operation on an image of `channels` and of `side` x `side` cells.

    Each reads what the one before it has made, if that has the same shape, and the image otherwise.
    """

    tells: Tells
    op: Op
    channels: int
    side: int
    copies: int
    optimize: Literal["inference"] | None = None

    def graph(self) -> Graph:
        """The network, as it is written: all copies reach an output."""
        start: Value = Grid(self.channels)
        nodes = [Node("image", Input(self.channels), (), 0, "", "image")]
        if isinstance(self.op, Linear):
            nodes += [_node("pool", GlobalPool(), "image"), _node("flat", Flatten(), "pool")]
            start = Vector(self.channels)
        first = before = nodes[-1].name
        inputs = 2 if isinstance(self.op, Concat | Resize | TransposedConv) else 1
        made = self.op.infer(*[start] * inputs)
        level = made.height.level if isinstance(made, Grid) and made.height.fixed is None else 0
        chained = made == start
        ends = []
        for number in range(self.copies):
            nodes.append(_node(f"copy{number}", self.op, before, *[first] * (inputs - 1), level=level))
            before = nodes[-1].name if chained else first
            ends.append(nodes[-1].name)
        outputs = {name: name for name in (ends[-1:] if chained else ends)}
        return Graph("probe", nodes, outputs, size=(self.side, self.side))


@dataclass(frozen=True, slots=True)
class Work:
    """What one copy does for one sample: its sort, FLOPs, numbers moved, numbers of its own tensors, and its channels,
    those that go in or come out, whichever are fewer.
    """

    sort: str
    flops: int
    moved: int
    tensors: int
    channels: int


@cache
def work(probe: Probe) -> Work:
    """What a copy of a probe does, as it is run."""
    graph = run_passes(probe.graph(), probe.optimize)
    node = next(node for node in graph if node.name == "copy0")
    shapes, types = graph.shapes(), graph.input_types(node)
    inputs, output = [shapes[source] for source in node.inputs], shapes[node.name]
    op = node.op
    weight = op.weights(*types).get("weight", output)
    channels = min(weight[:2]) if op.macs(inputs, output) else output[0]
    return Work(op.work, op.effort(inputs, output), op.moved(inputs, output), op.tensors(*types), channels)


def _node(name: str, op: Op, *inputs: str, level: int = 0) -> Node:
    return Node(name, op, inputs, level, "", name)


def _convolutions(optimize: Literal["inference"] | None) -> Iterator[Probe]:
    """Kernels of several cells and of one, few channels and many, groups; weights that a cache holds and others."""
    # On a coarse grid, not on a single cell: there most of a kernel may never be read.
    for kernel in ((3, 3), (5, 5)) if optimize else ((3, 3),):
        yield Probe("overhead", Conv(8, kernel), 8, 4, 8, optimize)
        yield Probe("tensors", Conv(128, kernel), 128, 4, 6, optimize)
        most = 512 if kernel == (3, 3) else 256
        yield Probe("tensors", Conv(most, kernel), most, 4, 5, optimize)
        yield Probe("flops", Conv(64, kernel), 3, 96, 2, optimize)
        for channels, side in ((16, 32), (32, 32), (64, 28), (128, 14), (256, 14)):
            yield Probe("flops", Conv(channels, kernel), channels, side, 2, optimize)
    yield Probe("overhead", Conv(8, (1, 1)), 8, 4, 8, optimize)
    yield Probe("tensors", Conv(512, (1, 1)), 512, 2, 4, optimize)
    yield Probe("tensors", Conv(2048, (1, 1)), 2048, 2, 3, optimize)
    for channels, side in ((16, 56), (64, 28), (256, 14)):
        yield Probe("flops", Conv(channels, (1, 1)), channels, side, 4, optimize)
    yield Probe("overhead", Conv(8, (3, 3), groups=8), 8, 4, 8, optimize)
    yield Probe("flops", Conv(128, (3, 3), groups=128), 128, 28, 6, optimize)
    yield Probe("flops", Conv(256, (3, 3), groups=32), 256, 14, 4, optimize)


def _others() -> Iterator[Probe]:
    yield Probe("overhead", TransposedConv(8), 8, 4, 8)
    yield Probe("tensors", TransposedConv(512), 512, 4, 4)
    yield Probe("flops", TransposedConv(64), 64, 28, 3)
    yield Probe("overhead", Linear(8), 8, 1, 8)
    yield Probe("tensors", Linear(512), 512, 1, 4)
    yield Probe("tensors", Linear(4096), 4096, 1, 1)
    yield from _moving(Activation(), (16, 64, 256, 512))
    yield Probe("flops", Activation("silu"), 64, 56, 6)
    yield from _moving(BatchNorm(), (64, 256))
    yield from _moving(GroupNorm(groups=8), (64, 256))
    yield from _moving(Concat(), (32, 128))
    yield from _moving(Pool(), (64, 128))
    yield Probe("flops", Pool("max", 3, 1), 64, 56, 2)
    yield from _moving(HalvingPool(), (64, 256))
    yield from _moving(GlobalPool(), (64,))
    yield from _moving(Resize(), (32, 128))
    yield from _moving(Resize("bilinear"), (32,))


def _moving(op: Op, sides: tuple[int, ...]) -> Iterator[Probe]:
    """An operation that moves more than it computes, on small grids and on large ones."""
    yield Probe("overhead", op, 8, 4, 8)
    for side in sides:
        yield Probe("bandwidth", op, 32, side, 4 if side <= 64 else 2)


PROBES: tuple[Probe, ...] = (*_convolutions(None), *_convolutions("inference"), *_others())
"""All of them: at least a call of each sort, and what else its speed depends on."""
