"""The way from a graph to a model that computes."""

from __future__ import annotations

import torch
from torch import fx

from mgcompile.graph import Graph, verify
from mgcompile.graph.collecting import collection_paused
from mgcompile.lowering.initialization import initialize
from mgcompile.lowering.lowering import lower

__all__ = ["compile_graph"]


def compile_graph(
    graph: Graph,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    seed: int | None = None,
    torch_compile: bool = False,
    spec_text: str | None = None,
) -> fx.GraphModule:
    """The initialised model of a graph, in training mode.

    Args:
        device: where the weights lie; on "meta" they take no memory and have no values.
        dtype: the floating-point type of the weights; float32 where None.
        seed: see `initialize`.
        torch_compile: whether calls go through `torch.compile`, from the first on. A deep copy is not compiled.
        spec_text: the canonical spec, which then travels with the model and its checkpoints.

    The model says in `meta["mgcompile"]` its "name", its "spec" (or None) and its nominal "size" [height, width].

    Raises `GraphError` where the graph breaks its contract, and what `lower` and `initialize` raise.
    """
    with collection_paused():
        model = lower(verify(graph)).to(dtype=dtype or torch.float32)
        model.to_empty(device=device)
    initialize(model, seed)
    model.meta["mgcompile"] = {"name": graph.name, "spec": spec_text, "size": list(graph.size)}
    if torch_compile:
        model.compile()
    return model
