"""What a network takes of memory, from the graph alone: activations in inference and in training, weights, optimiser.

Bytes of tensors as PyTorch holds them for the plain model on a CPU, computed without PyTorch. What an operation keeps
and what it takes while it runs is asked of the operation itself. What a library allocates inside of one operation, as a
convolution its workspace, is not counted; an allocator may hold more than what is alive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from mgcompile.analysis.lifetimes import (
    Alive,
    Peak,
    Plan,
    depth_first,
    find_kept,
    kept_memory,
    lightest_first,
    run_backward,
    run_forward,
)
from mgcompile.graph.collecting import collection_paused
from mgcompile.graph.graph import Graph, Node
from mgcompile.graph.types import Size, elements

__all__ = ["MEMORY_CONVENTIONS", "BestOrder", "Memory", "Optimizer", "Peak", "best_order", "memory"]

Optimizer = Literal["none", "sgd", "sgd-momentum", "adam"]
"""What updates the weights."""

_STATES: Mapping[str, int] = {"none": 0, "sgd": 0, "sgd-momentum": 1, "adam": 2}
"""How many numbers each optimiser remembers for each weight."""

_COUNTER = 8
"""Bytes of a buffer that counts."""

MEMORY_CONVENTIONS: Mapping[str, str] = {
    "inference": "inference: the most bytes of activations alive at once; nodes run in the order of the graph, a value "
    "is freed after its last reader; the input is alive throughout",
    "training_kept": "kept: bytes that autograd holds at the end of the forward pass, every tensor once, no weights",
    "training_peak": "training: the most bytes of activations and of their gradients alive at once in a forward and a "
    "backward pass; those of the weights' gradients are counted by themselves",
    "workspace": "what libraries allocate within one operation is not counted, nor what an allocator holds in reserve",
}
"""What each figure means, in words."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The bytes that a graph takes at one input size (height, width). `MEMORY_CONVENTIONS` says what each means.

    `kept_levels` are the bytes of `training_kept` at each level. `buffers` are what is stored beside the parameters.
    """

    name: str
    size: Size
    batch: int
    bytes_per_element: int
    optimizer: Optimizer
    inference: Peak
    training_kept: int
    kept_levels: Mapping[int | None, int]
    training: Peak
    parameters: int
    gradients: int
    optimizer_state: int
    buffers: int

    @property
    def inference_peak(self) -> int:
        return self.inference.bytes

    @property
    def inference_peak_at(self) -> str:
        return self.inference.node

    @property
    def training_peak(self) -> int:
        return self.training.bytes

    @property
    def training_peak_at(self) -> str:
        return self.training.node

    @property
    def inference_total(self) -> int:
        """Activations at their peak, parameters and buffers."""
        return self.inference.bytes + self.parameters + self.buffers

    @property
    def training_total(self) -> int:
        """Activations at their peak, parameters, all their gradients, the optimiser's state and buffers."""
        return self.training.bytes + self.parameters + self.gradients + self.optimizer_state + self.buffers


def memory(
    graph: Graph,
    size: Size | None = None,
    *,
    batch: int = 1,
    bytes_per_element: int = 4,
    optimizer: Optimizer = "sgd-momentum",
) -> Memory:
    """The memory of `graph` for a batch of inputs of `size` (height, width), the nominal size where None.

    `training_kept` and the peak of inference are exact for plain graphs, but where PyTorch first copies a view to have
    its numbers side by side (a group norm or a flattening of slices, crops, layer norms), and for the few normalised
    scalars of weighted sums; operations of other packages count as they say themselves. The training peak rests on a
    simple model of the backward pass: nodes run in reverse; a value has one gradient, from its first reader's until its
    own node has run; a second gradient is added in place, or into new memory where the first is another's too; what a
    node keeps is released after it. Gradients are the size of what they belong to: those of a padded copy, or of what
    is broadcast, are not looked into. On networks of this project that agrees with PyTorch; a graph of few operations
    may differ by what one of them takes for itself on the way back. For optimised graphs all three are estimates, see
    `FusedConv.kept`.

    Linear in the number of nodes. Raises `ShapeError` where a grid would vanish at that size, and `ValueError` for a
    batch or a number of bytes below one, or another optimiser.
    """
    if optimizer not in _STATES:
        raise ValueError(f"optimizer={optimizer!r}: known are {', '.join(get_args(Optimizer))}")
    for name, number in (("batch", batch), ("bytes_per_element", bytes_per_element)):
        if number < 1:
            raise ValueError(f"{name}={number}: must be at least 1")
    with collection_paused():
        shapes = graph.shapes(size)
        inference = Alive()
        run_forward(Plan(graph, shapes, batch, bytes_per_element, training=False), {}, inference)
        plan = Plan(graph, shapes, batch, bytes_per_element, training=True)
        keeps = find_kept(plan)
        training, kept = Alive(), Alive()
        run_forward(plan, keeps, training)
        run_backward(plan, keeps, training)
        for name, each in keeps.items():
            kept.take(plan.level(name), each.own if each.until is None else 0)
        for base in kept_memory(keeps):
            kept.take(plan.level(base), plan.taken[base])
        parameters, buffers = _weights(graph, bytes_per_element)
    return Memory(
        name=graph.name,
        size=size or graph.size,
        batch=batch,
        bytes_per_element=bytes_per_element,
        optimizer=optimizer,
        inference=inference.peak(),
        training_kept=kept.bytes,
        kept_levels=kept.peak().levels,
        training=training.peak(),
        parameters=parameters,
        gradients=0 if optimizer == "none" else parameters,
        optimizer_state=parameters * _STATES[optimizer],
        buffers=buffers,
    )


@dataclass(frozen=True, slots=True)
class BestOrder:
    """The order of nodes that takes the least memory in inference, of those that were tried, and its peak."""

    peak: Peak
    nodes: tuple[str, ...]


def best_order(graph: Graph, size: Size | None = None, *, batch: int = 1, bytes_per_element: int = 4) -> BestOrder:
    """The best of three orders: the graph's own, in which a compiled model runs, and, where one takes less, that which
    always runs the node that leaves the least alive, or the one that became possible last.

    The least of all orders is hard to find, and may be less. `size` and errors are those of `memory`.
    """
    with collection_paused():
        shapes = graph.shapes(size)
        plan = Plan(graph, shapes, batch, bytes_per_element, training=False)
        best: BestOrder | None = None
        for nodes in (tuple(graph), lightest_first(plan), depth_first(plan)):
            other = Graph(graph.name, nodes, graph.outputs, size=graph.size)
            alive = Alive()
            run_forward(Plan(other, shapes, batch, bytes_per_element, training=False), {}, alive)
            if best is None or alive.peak().bytes < best.peak.bytes:
                best = BestOrder(alive.peak(), tuple(other.nodes))
        assert best is not None
        return best


def _weights(graph: Graph, bytes_per_element: int) -> tuple[int, int]:
    """The bytes of the parameters and of the buffers, shared ones once."""
    parameters = buffers = 0
    for node in _owners(graph):
        types = graph.input_types(node)
        parameters += node.op.parameters(*types) * bytes_per_element
        for shape in node.op.buffers(*types).values():
            buffers += elements(shape) * bytes_per_element if shape else _COUNTER
    return parameters, buffers


def _owners(graph: Graph) -> Iterator[Node]:
    """One node for each set of tensors, learned or not."""
    seen: set[str] = set()
    for node in graph:
        if node.weights not in seen:
            seen.add(node.weights)
            yield node
