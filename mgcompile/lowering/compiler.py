"""The way from a graph to a model that computes."""

from __future__ import annotations

import torch
from torch import fx

from mgcompile.errors import MgcompileError
from mgcompile.graph import Graph, verify
from mgcompile.graph.collecting import collection_paused
from mgcompile.lowering.allocation import allocating, require_memory
from mgcompile.lowering.fused import FusedConv2d
from mgcompile.lowering.initialization import initialize
from mgcompile.lowering.lowering import lower
from mgcompile.lowering.opaque import register
from mgcompile.lowering.storage import FLOOR_BYTES, Shelf, Store
from mgcompile.passes import optimize as run_passes

__all__ = ["compile_graph"]

CACHED_BYTES = 8 << 20
"""Networks of more weights read them from main memory at every call, at a guess."""


def compile_graph(
    graph: Graph,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    seed: int | None = None,
    torch_compile: bool = False,
    spec_text: str | None = None,
    optimize: str | None = None,
    precision: str = "fp32",
    tune: bool = False,
) -> fx.GraphModule:
    """The initialised model of a graph, in training mode; in evaluation mode where `optimize` is "inference".

    Args:
        device: where the weights lie; on "meta" they take no memory and have no values.
        dtype: the floating-point type of the weights; float32 where None.
        seed: see `initialize`.
        torch_compile: whether calls go through `torch.compile`, from the first on. A deep copy is not compiled.
        spec_text: the canonical spec, which then travels with the model and its checkpoints.
        optimize: the passes to run, "training" or "inference"; none where None. See `mgcompile.passes`.
        precision: what convolutions and linear layers compute in, "fp32" or "bf16"; weights, input and outputs stay.
        tune: whether each convolution chooses its way by timing, at its first call with new sizes.

    The model says in `meta["mgcompile"]` its "name", its "spec" (or None) and its nominal "size" [height, width].

    Raises `GraphError` where the graph breaks its contract, and what `lower` and `initialize` raise.
    """
    with collection_paused():
        model = lower(
            verify(run_passes(verify(graph), optimize)),
            like=graph,
            autocast=_autocast(precision, device),
            by_plans=optimize == "inference",
        )
        model.to(dtype=dtype or torch.float32)
        require_memory(model, device)
        with allocating(graph.name):
            model.to_empty(device=device)
            initialize(model, seed)
    model.meta["mgcompile"] = {"name": graph.name, "spec": spec_text, "size": list(graph.size)}
    if optimize is not None:
        weight_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
        store = Store(FLOOR_BYTES + weight_bytes)
        for module in model.modules():
            if isinstance(module, FusedConv2d):
                module.tune, module.cold = tune, weight_bytes > CACHED_BYTES
                module.packed = Shelf(store)
    if optimize == "inference":
        model.eval().requires_grad_(False)
        register(model, graph)
    if torch_compile:
        model.compile()
    return model


def _autocast(precision: str, device: torch.device | str) -> tuple[str, torch.dtype] | None:
    if precision == "fp32":
        return None
    if precision != "bf16":
        raise MgcompileError(f"precision={precision!r}: known are fp32, bf16")
    return torch.device(device).type, torch.bfloat16
