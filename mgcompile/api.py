"""The whole way, for Python: from whatever is taken for a spec to a checked spec, a model, an audit, a drawing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from mgcompile.errors import InputError, MgcompileError, ShapeError, SpecError
from mgcompile.spec import SpecLike, load

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

    from mgcompile.analysis import Audit
    from mgcompile.analysis.machine import Machine
    from mgcompile.analysis.memory import Memory, Optimizer
    from mgcompile.analysis.receptive import ReceptiveField
    from mgcompile.analysis.roofline import Roofline
    from mgcompile.drawing.page import Measure
    from mgcompile.graph import Graph
    from mgcompile.lowering.checkpoints import Rename

__all__ = ["audit", "compile", "draw", "load", "load_model", "memory", "receptive_field", "refresh", "roofline", "save"]

Mode = Literal["training", "inference"]
"""What a model is optimised for."""


def compile(
    source: SpecLike,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    seed: int | None = None,
    torch_compile: bool = False,
    params: Mapping[str, Any] | None = None,
    optimize: Mode | None = None,
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
    convolutions run on packed weights, which are made anew when the weights change; where PyTorch gives no sign of it,
    by the next `eval()` or `train()`, or by `refresh`. They take at most as many bytes as the weights, and 32 MiB,
    or what the image in hand needs where that is more. With `tune`, each convolution chooses its way by
    timing at its first call with new sizes, and remembers it on disk. `precision="bf16"` computes convolutions and
    linear layers in bfloat16; weights, input and outputs stay in single precision.

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


def refresh(model: nn.Module) -> None:
    """Let an optimised model, or any module that holds some, look at its weights again.

    It sees changes by itself, save those to a few numbers of a tensor of which PyTorch gives no sign: writes through
    `.data`, through NumPy or to tensors that were made in inference mode. `eval()` and `train()` do the same. Does
    nothing to other modules.
    """
    from mgcompile.lowering.fused import FusedConv2d

    for module in model.modules():
        if isinstance(module, FusedConv2d):
            module.packed.clear()


def audit(
    source: SpecLike,
    *,
    size: int | tuple[int, int] | None = None,
    params: Mapping[str, Any] | None = None,
    bytes_per_element: int = 4,
    optimize: Mode | None = None,
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

    pair = _pair(size)
    graph = run_passes(load(source, params=params).graph, optimize)
    return audit_graph(graph, pair, bytes_per_element=bytes_per_element)


def receptive_field(
    source: SpecLike,
    *,
    size: int | tuple[int, int] | None = None,
    params: Mapping[str, Any] | None = None,
) -> ReceptiveField:
    """Which pixels of the image each cell of each grid can depend on, exactly, from the graph alone.

    `size` is that of `audit`. Raises `SpecError`, and `ShapeError` where a grid vanishes at this size.

    >>> import mgcompile
    >>> mgcompile.receptive_field("cifar100/vgg-6").outputs[0].size
    (32, 32)
    """
    from mgcompile.analysis import receptive

    pair = _pair(size)
    return receptive.receptive_field(load(source, params=params).graph, pair)


def memory(
    source: SpecLike,
    *,
    size: int | tuple[int, int] | None = None,
    batch: int = 1,
    bytes_per_element: int = 4,
    optimizer: Optimizer = "sgd-momentum",
    params: Mapping[str, Any] | None = None,
    optimize: Mode | None = None,
) -> Memory:
    """What a network takes of memory in inference and in training, in bytes: activations at their peak, and where that
    is, parameters, gradients, the optimiser's state.

    `size` and `optimize` are those of `audit`. Raises `SpecError`, `ShapeError` where a grid vanishes at this size,
    `ValueError` for a batch below one, and `MgcompileError` for an `optimize` that is unknown.
    """
    from mgcompile.analysis import memory as memories
    from mgcompile.passes import optimize as run_passes

    pair = _pair(size)
    graph = run_passes(load(source, params=params).graph, optimize)
    return memories.memory(graph, pair, batch=batch, bytes_per_element=bytes_per_element, optimizer=optimizer)


def roofline(
    source: SpecLike,
    machine: Machine | None = None,
    *,
    size: int | tuple[int, int] | None = None,
    batch: int = 1,
    params: Mapping[str, Any] | None = None,
    optimize: Mode | None = None,
) -> Roofline:
    """The bytes that each operation moves, its arithmetic intensity, and with a `machine` (see `mgcompile machine`) how
    long it takes at the least and what bounds it.

    `size` and `optimize` are those of `audit`. Raises as `memory` does.
    """
    from mgcompile.analysis import roofline as rooflines
    from mgcompile.passes import optimize as run_passes

    pair = _pair(size)
    graph = run_passes(load(source, params=params).graph, optimize)
    return rooflines.roofline(graph, machine, pair, batch=batch)


def _pair(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    pair = (size, size) if isinstance(size, int) else size
    if pair is not None and (len(pair) != 2 or min(pair) < 1):
        raise ShapeError(f"a size is a positive height and width, not {pair}")
    return pair


def draw(
    source: SpecLike,
    path: str | os.PathLike[str] | None = None,
    *,
    format: str | None = None,
    fold: bool = True,
    detail: str = "layer",
    params: Mapping[str, Any] | None = None,
    optimize: Mode | None = None,
) -> bytes:
    """The grid topology as a picture, rows levels and columns depth: SVG, PNG, PDF or DOT; or as an interactive page,
    one HTML file that opens layers down to single operations and shows their figures.

    With `path` the picture is also written there; its format is that of the suffix where `format` does not say. `fold`
    draws repeats once, with xN. `detail` is `layer`, a cell for each grid computed, or `op`, for every operation; a
    page begins so, and has both. With `optimize` the picture shows the model that `compile` optimises so. Raises
    `SpecError`, and `MgcompileError` for an `optimize` or a format that is unknown, or a format that nothing installed
    can draw.
    """
    from mgcompile.analysis import audit_graph
    from mgcompile.analysis.tables import human
    from mgcompile.drawing import draw_graph, format_of
    from mgcompile.passes import optimize as run_passes

    graph = run_passes(load(source, params=params).graph, optimize)
    height, width = graph.size
    if (format or (format_of(path) if path is not None else "")) == "html":
        measures, facts = _page_figures(graph)
        facts |= {"optimised for": optimize} if optimize else {}
        return draw_graph(graph, path, format="html", fold=fold, detail=detail, measures=measures, facts=facts)
    figures = audit_graph(graph)
    subtitle = f"{human(figures.params)} parameters, {human(figures.macs)} MACs at {height}x{width}"
    return draw_graph(graph, path, format=format, fold=fold, detail=detail, subtitle=subtitle)


def _page_figures(graph: Graph) -> tuple[list[Measure], dict[str, str]]:
    """What the page colours cells by, and what it says of the whole network."""
    from mgcompile.analysis import audit_graph, receptive_field
    from mgcompile.analysis.tables import human, human_bytes, size_text
    from mgcompile.drawing.page import Measure

    figures, field = audit_graph(graph), receptive_field(graph)
    rows = figures.rows
    measures = [
        Measure("macs", "MACs", "", {row.node: row.macs for row in rows}),
        Measure("params", "parameters", "", {row.node: row.params for row in rows}),
        Measure("bytes", "activations", "B", {row.node: row.activation_bytes for row in rows}, binary=True),
        Measure("field", "receptive field", "px", {row.node: max(row.size) for row in field.rows}, adds=False),
    ]
    facts = {
        "input": size_text(graph.shapes()[graph.input.name]),
        "parameters": human(figures.params),
        "MACs": human(figures.macs),
        "activations": human_bytes(figures.activation_bytes),
    }
    return measures, facts


def save(model: fx.GraphModule, path: str | os.PathLike[str]) -> None:
    """Write a compiled model's weights, with its spec, as `.safetensors`. Raises `MgcompileError`."""
    from mgcompile.lowering import checkpoints

    checkpoints.save(model, path)


def load_model(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    torch_compile: bool = False,
    optimize: Mode | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    tune: bool = False,
    rename: Rename | None = None,
) -> fx.GraphModule:
    """The model that `save` wrote: rebuilt from the spec in the file, with the weights of the file.

    The form may be another than the one that was saved: see `compile` for `optimize`, `precision` and `tune`. `rename`
    says what tensors that are called otherwise in the file are called in the model, by a function or a mapping.
    The names and shapes in the file are held against its spec before anything is allocated. Raises `InputError` where
    the file is no such checkpoint or its tensors do not fit its spec, and `MgcompileError` for what `compile` refuses.
    """
    from mgcompile.lowering import checkpoints, headers
    from mgcompile.spec import parse_spec

    with _wrong_file(path):
        header = headers.read_header(path)
        if header.spec is None:
            raise InputError("it holds weights and no spec; compile the spec and load the weights into it")
    spec = parse_spec(header.spec, os.fspath(path), extends=False)
    with _wrong_file(path):
        checkpoints.check_header(header, spec.graph, rename)
    model = compile(
        spec,
        device=device,
        torch_compile=torch_compile,
        optimize=optimize,
        precision=precision,
        tune=tune,
    )
    with _wrong_file(path):
        checkpoints.load_weights(model, checkpoints.read_checkpoint(path)[1], rename=rename)
    if header.data is not None:
        model.meta["mgcompile"]["data"] = header.data
    return model


@contextmanager
def _wrong_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """What is wrong with a file is the fault of the input, and its message names it."""
    try:
        yield
    except SpecError:
        raise
    except MgcompileError as error:
        text, name = str(error), os.fspath(path)
        raise InputError(text if name in text else f"{name}: {text}") from error
