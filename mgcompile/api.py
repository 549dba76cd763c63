"""The whole way, for Python: from whatever is taken for a spec to a checked spec, a model, an audit, a drawing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from mgcompile.errors import ShapeError
from mgcompile.spec import SpecLike, load

if TYPE_CHECKING:
    import torch
    from torch import fx

    from mgcompile.analysis import Audit

__all__ = ["audit", "compile", "draw", "load", "load_model", "save"]


def compile(
    source: SpecLike,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    seed: int | None = None,
    torch_compile: bool = False,
    params: Mapping[str, Any] | None = None,
    optimize: Literal["training", "inference"] | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    tune: bool = False,
) -> fx.GraphModule:
    """The initialised model that a spec means, in training mode.

    It takes images (batch, channels, height, width) of any size at which no grid vanishes. One output is returned as a
    tensor, several as a dict by name. Weights are drawn as the paper says, from `seed` or from torch's generator;
    `torch_compile` compiles the forward pass at its first call.

    `optimize` gives a model that computes the same in less time and memory; its `state_dict` has the same names and
    shapes, so weights of one form load into every other. "training" keeps gradients and batch statistics as they are.
    "inference" returns the model in evaluation mode, with parameters that require no gradients; then, on a CPU,
    convolutions run on packed weights, which are made anew when the weights change. With `tune`, each convolution
    chooses its way by timing at its first call with new sizes, and remembers it on disk. `precision="bf16"` computes
    convolutions and linear layers in bfloat16; weights, input and outputs stay in single precision.

    Raises `SpecError`, and `MgcompileError` for an option's value that is unknown.
    """
    from mgcompile.lowering.compiler import compile_graph

    spec = load(source, params=params)
    text = spec.to_yaml()
    return compile_graph(
        spec.graph,
        device=device,
        dtype=dtype,
        seed=seed,
        torch_compile=torch_compile,
        spec_text=text,
        optimize=optimize,
        precision=precision,
        tune=tune,
    )


def audit(
    source: SpecLike,
    *,
    size: int | tuple[int, int] | None = None,
    params: Mapping[str, Any] | None = None,
    bytes_per_element: int = 4,
    optimize: Literal["training", "inference"] | None = None,
) -> Audit:
    """What a network costs: exact parameters, MACs, FLOPs and activation bytes of one sample, from the graph alone.

    `size` is the input's (height, width), or its side; the spec's nominal size where it is not said. With `optimize`
    the figures are those of the model that `compile` optimises so. Raises `SpecError`, `ShapeError` where a grid
    vanishes at this size, and `MgcompileError` for an `optimize` that is unknown.

    >>> import mgcompile
    >>> mgcompile.audit("cifar100/vgg-6").macs
    67880960
    """
    from mgcompile.analysis import audit_graph
    from mgcompile.passes import optimize as run_passes

    pair = (size, size) if isinstance(size, int) else size
    if pair is not None and (len(pair) != 2 or min(pair) < 1):
        raise ShapeError(f"a size is a positive height and width, not {pair}")
    graph = run_passes(load(source, params=params).graph, optimize)
    return audit_graph(graph, pair, bytes_per_element=bytes_per_element)


def draw(
    source: SpecLike,
    path: str | os.PathLike[str] | None = None,
    *,
    format: str | None = None,
    fold: bool = True,
    detail: str = "layer",
    params: Mapping[str, Any] | None = None,
    optimize: Literal["training", "inference"] | None = None,
) -> bytes:
    """The grid topology as a picture, rows levels and columns depth: SVG, PNG, PDF or DOT.

    With `path` the picture is also written there; its format is that of the suffix where `format` does not say. `fold`
    draws repeats once, with xN. `detail` is `layer`, a cell for each grid computed, or `op`, for every operation. With
    `optimize` the picture shows the model that `compile` optimises so. Raises `SpecError`, and `MgcompileError` for an
    `optimize` or a format that is unknown, or a format that nothing installed can draw.
    """
    from mgcompile.analysis import audit_graph
    from mgcompile.analysis.tables import human
    from mgcompile.drawing import draw_graph
    from mgcompile.passes import optimize as run_passes

    graph = run_passes(load(source, params=params).graph, optimize)
    figures = audit_graph(graph)
    height, width = graph.size
    subtitle = f"{human(figures.params)} parameters, {human(figures.macs)} MACs at {height}x{width}"
    return draw_graph(graph, path, format=format, fold=fold, detail=detail, subtitle=subtitle)


def save(model: fx.GraphModule, path: str | os.PathLike[str]) -> None:
    """Write a compiled model's weights, with its spec, as `.safetensors`. Raises `MgcompileError`."""
    from mgcompile.lowering import checkpoints

    checkpoints.save(model, path)


def load_model(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    torch_compile: bool = False,
    optimize: Literal["training", "inference"] | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    tune: bool = False,
) -> fx.GraphModule:
    """The model that `save` wrote: rebuilt from the spec in the file, with the weights of the file.

    The form may be another than the one that was saved: see `compile` for `optimize`, `precision` and `tune`.
    Raises `MgcompileError` where the file is no such checkpoint or its tensors do not fit its spec.
    """
    from mgcompile.errors import MgcompileError
    from mgcompile.lowering import checkpoints
    from mgcompile.spec import parse_spec

    text, tensors = checkpoints.read_checkpoint(path)
    if text is None:
        raise MgcompileError(
            f"{os.fspath(path)} holds weights and no spec; compile the spec and load the weights into it"
        )
    model = compile(
        parse_spec(text, os.fspath(path)),
        device=device,
        torch_compile=torch_compile,
        optimize=optimize,
        precision=precision,
        tune=tune,
    )
    checkpoints.load_weights(model, tensors)
    return model
