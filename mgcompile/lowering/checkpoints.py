"""Weights in files: safetensors, with the spec in the metadata. Nothing is pickled."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from mgcompile.errors import InputError, MgcompileError
from mgcompile.escaping import brief
from mgcompile.graph import Graph, Shape
from mgcompile.lowering.headers import DATA, SPEC, Header, read_header
from mgcompile.outputs import replacing

__all__ = ["Rename", "Report", "check_header", "load_weights", "read_checkpoint", "save", "unwrapped"]

WRAPPERS_OF: Mapping[str, str] = {"module.": "DistributedDataParallel", "_orig_mod.": "torch.compile"}
"""What wrappers put before all names, and who they are."""
WRAPPERS = tuple(WRAPPERS_OF)

FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
"""The types of weights. What has eight bits was quantised, and means nothing without its scale."""

MOST_LINES = 20
"""So many differences of a sort are listed."""

Rename = Callable[[str], str] | Mapping[str, str]
"""What a tensor is called in the model, by its given name."""

Kind = tuple[torch.dtype, Shape]
"""The type and the shape of a tensor."""


@dataclass(frozen=True)
class Report:
    """What became of each tensor on loading, by name.

    `kept` were loaded, under the name that they have in the model; `renamed` are those of them that were called
    otherwise: (given, in the model). Not loaded are `missing`, which the model has and nobody gave (they stay as they
    were drawn), `unexpected`, which were given and have no place (they are dropped), `reshaped`, (name, given, wanted)
    shapes, and `retyped`, (name, given, wanted) types of which one does not become the other.
    """

    kept: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    reshaped: tuple[tuple[str, Shape, Shape], ...] = ()
    retyped: tuple[tuple[str, str, str], ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every tensor of the model was loaded and none was left over."""
        return not (self.missing or self.unexpected or self.reshaped or self.retyped)

    def __str__(self) -> str:
        lines = [f"{len(self.kept)} tensors loaded" + (f", {len(self.renamed)} renamed" if self.renamed else "")]
        lines += _some(f"missing: {brief(name)}" for name in self.missing)
        lines += _some(f"unexpected: {brief(name)}" for name in self.unexpected)
        lines += _some(
            f"reshaped: {brief(name)} is {[*given]}, the model has {[*wanted]}" for name, given, wanted in self.reshaped
        )
        lines += _some(
            f"retyped: {brief(name)} is {given}, the model has {wanted}" for name, given, wanted in self.retyped
        )
        return "\n".join(lines)


def _some(lines: Iterable[str]) -> list[str]:
    """The first of them, and how many there are more."""
    listed = list(lines)
    more = len(listed) - MOST_LINES
    return listed if more <= 0 else [*listed[:MOST_LINES], f"and {more:,} more"]


def unwrapped(name: str) -> str:
    """The name of a tensor without what wrappers put before it: DistributedDataParallel, `torch.compile`.

    >>> unwrapped("module._orig_mod.stem.conv.weight")
    'stem.conv.weight'
    """
    while name.startswith(WRAPPERS):
        name = name.partition(".")[2]
    return name


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the weights of a model, and the spec that it carries, to a `.safetensors` file.

    The file is complete or not there; see `mgcompile.outputs`. Raises `MgcompileError` where that fails, where it could
    not be read again, and for a model on the meta device.
    """
    model, path = _plain(model), Path(path)
    tensors = _separate(model.state_dict())
    about = getattr(model, "meta", {}).get("mgcompile", {})
    metadata = {"format": "pt"} | ({SPEC: about["spec"]} if about.get("spec") is not None else {})
    if about.get("data") is not None:
        metadata[DATA] = json.dumps(about["data"])
    try:
        with replacing(path) as draft:
            save_file(tensors, draft, metadata)
            read_header(draft)
    except MgcompileError as error:
        raise MgcompileError(f"cannot write {path}: {str(error).partition(': ')[2]}") from error
    except (OSError, SafetensorError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise MgcompileError(f"cannot write {path}: {reason}") from error


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[str | None, dict[str, torch.Tensor]]:
    """The spec of a file (None where it holds none) and its tensors by name, on the CPU.

    Raises `MgcompileError` where there is no such file, or it is not a safetensors file.
    """
    header = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            return header.spec, {name: file.get_tensor(name) for name in header.shapes}
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:  # the latter of types that torch lacks
        raise MgcompileError(f"cannot read {Path(path)}: {error}") from error


def check_header(header: Header, graph: Graph, rename: Rename | None = None) -> None:
    """Raise `InputError` where tensors of a graph are not in a file, or have another shape there. Allocates nothing.

    `rename` is that of `load_weights`.
    """
    shapes = {name: header.shapes[given] for name, given in _names(header.shapes, rename).items()}
    wanted: dict[str, Shape] = {}
    for node in graph:
        types = graph.input_types(node)
        own = {**node.op.weights(*types), **node.op.buffers(*types)}
        wanted |= {f"{node.weights}.{name}": tuple(shape) for name, shape in own.items()}
    report = Report(
        kept=tuple(name for name in wanted if shapes.get(name) == wanted[name]),
        missing=tuple(name for name in wanted if name not in shapes),
        reshaped=tuple(
            (name, shapes[name], shape) for name, shape in wanted.items() if shapes.get(name, shape) != shape
        ),
    )
    if not report.complete:
        raise InputError(f"its tensors do not fit its spec: {report}{_hint(shapes, wanted)}")


def load_weights(
    model: nn.Module, tensors: Mapping[str, torch.Tensor], *, strict: bool = True, rename: Rename | None = None
) -> Report:
    """Copy tensors into a model by name, and report what became of each.

    `rename` says what a tensor is called in the model: a function of its given name, such as `unwrapped`, or a mapping
    (names that are not in it stay). A tensor is converted between floating-point types of 16 bits and more; every other
    type has to be the model's own.

    Raises `MgcompileError` that lists the differences where there are any and `strict` is on (the model is then as it
    was), where two tensors are given one name, and for a model on the meta device.
    """
    ours = _plain(model).state_dict()
    _refuse_meta(ours)
    names = _names(tensors, rename)
    report = _compare(
        {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in ours.items()},
        {name: (tensors[given].dtype, tuple(tensors[given].shape)) for name, given in names.items()},
        names,
    )
    if strict and not report.complete:
        raise MgcompileError(f"the weights do not fit the model: {report}{_hint(names, ours)}")
    with torch.no_grad():
        for name in report.kept:
            ours[name].copy_(tensors[names[name]])
    return report


def _names(given: Iterable[str], rename: Rename | None) -> dict[str, str]:
    """By the name of each tensor in the model, its given one. Raises `MgcompileError` where two would have one name, or
    one none.
    """
    names: dict[str, str] = {}
    for each in given:
        name = each if rename is None else rename(each) if callable(rename) else rename.get(each, each)
        if not isinstance(name, str):
            raise MgcompileError(f"{brief(each)} was renamed to {brief(repr(name))}; expected a text")
        if name in names:
            both = f"{brief(names[name])} and {brief(each)}"
            raise MgcompileError(f"{both} would both be loaded as {brief(name)}; rename one otherwise")
        names[name] = each
    return names


def _compare(ours: Mapping[str, Kind], theirs: Mapping[str, Kind], names: Mapping[str, str]) -> Report:
    """What becomes of each tensor; `theirs` go by their names in the model, and `names` has the given ones."""
    common = [name for name in ours if name in theirs]
    reshaped = tuple((n, theirs[n][1], ours[n][1]) for n in common if theirs[n][1] != ours[n][1])
    retyped = tuple(
        (n, _type_name(theirs[n][0]), _type_name(ours[n][0]))
        for n in common
        if theirs[n][1] == ours[n][1] and not _becomes(theirs[n][0], ours[n][0])
    )
    left = {name for name, *_ in (*reshaped, *retyped)}
    kept = tuple(name for name in common if name not in left)
    return Report(
        kept=kept,
        missing=tuple(name for name in ours if name not in theirs),
        unexpected=tuple(names[name] for name in theirs if name not in ours),
        reshaped=reshaped,
        retyped=retyped,
        renamed=tuple((names[name], name) for name in kept if names[name] != name),
    )


def _becomes(given: torch.dtype, wanted: torch.dtype) -> bool:
    """Whether numbers of one type are loaded as another: floats are rounded, nothing else is converted."""
    return given == wanted or (given in FLOATS and wanted in FLOATS)


def _type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _hint(given: Iterable[str], ours: Iterable[str]) -> str:
    """What to do where all names begin as wrappers have them begin."""
    names = list(given)
    prefix = next((each for each in WRAPPERS if names and all(name.startswith(each) for name in names)), None)
    if prefix is None or not set(map(unwrapped, names)) & set(ours):
        return ""
    return (
        f"\nall names begin with {prefix!r}, as {WRAPPERS_OF[prefix]} writes them; load "
        "them with rename=mgcompile.lowering.checkpoints.unwrapped, which takes that away"
    )


def _plain(model: nn.Module) -> nn.Module:
    """The model itself, where `torch.compile` or data parallelism has wrapped it."""
    while True:
        wrapped = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            wrapped = model.module
        if not isinstance(wrapped, nn.Module):
            return model
        model = wrapped


def _refuse_meta(tensors: Mapping[str, torch.Tensor]) -> None:
    if any(tensor.is_meta for tensor in tensors.values()):
        raise MgcompileError("a model on the meta device has no weights: compile it for another device")


def _separate(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors as safetensors takes them: on the CPU, contiguous, none sharing memory with another."""
    _refuse_meta(tensors)
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        memory = plain.untyped_storage().data_ptr()
        separate[name] = plain.clone() if memory in seen else plain
        seen.add(memory)
    return separate
