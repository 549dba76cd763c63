"""Weights in files: safetensors, with the spec in the metadata. Nothing is pickled."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from mgcompile.errors import MgcompileError
from mgcompile.graph import Shape

__all__ = ["Report", "load_weights", "read_checkpoint", "save"]

SPEC = "mgcompile.spec"
"""The key of the spec in a file's metadata."""


@dataclass(frozen=True)
class Report:
    """What became of each tensor on loading, by name. `reshaped` are there and not loaded: (name, given, wanted)."""

    kept: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    reshaped: tuple[tuple[str, Shape, Shape], ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every tensor of the model was loaded and none was left over."""
        return not (self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        lines = [f"{len(self.kept)} tensors loaded"]
        lines += [f"missing: {name}" for name in self.missing]
        lines += [f"unexpected: {name}" for name in self.unexpected]
        lines += [f"reshaped: {name} is {[*given]}, the model has {[*wanted]}" for name, given, wanted in self.reshaped]
        return "\n".join(lines)


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the weights of a model, and the spec that it carries, to a `.safetensors` file.

    The file is complete or not there: it is written beside its place and then renamed. Raises `MgcompileError` where
    that fails, and for a model on the meta device.
    """
    model, path = _plain(model), Path(path)
    tensors = _separate(model.state_dict())
    about = getattr(model, "meta", {}).get("mgcompile", {})
    metadata = {"format": "pt"} | ({SPEC: about["spec"]} if about.get("spec") is not None else {})
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        save_file(tensors, draft, metadata)
        draft.replace(path)
    except (OSError, SafetensorError) as error:
        raise MgcompileError(f"cannot write {path}: {error}") from error
    finally:
        draft.unlink(missing_ok=True)


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[str | None, dict[str, torch.Tensor]]:
    """The spec of a file (None where it holds none) and its tensors by name, on the CPU.

    Raises `MgcompileError` where there is no such file, or it is not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get(SPEC), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise MgcompileError(f"cannot read {Path(path)}: {error}") from error


def load_weights(model: nn.Module, tensors: Mapping[str, torch.Tensor], *, strict: bool = True) -> Report:
    """Copy tensors into a model by name, and report what became of each.

    Raises `MgcompileError` that lists all differences where there are any and `strict` is on (the model is then as it
    was), and for a model on the meta device.
    """
    ours = _plain(model).state_dict()
    _refuse_meta(ours)
    common = [name for name in ours if name in tensors]
    fits = {name: ours[name].shape == tensors[name].shape for name in common}
    report = Report(
        kept=tuple(name for name in common if fits[name]),
        missing=tuple(name for name in ours if name not in tensors),
        unexpected=tuple(name for name in tensors if name not in ours),
        reshaped=tuple((n, tuple(tensors[n].shape), tuple(ours[n].shape)) for n in common if not fits[n]),
    )
    if strict and not report.complete:
        raise MgcompileError(f"the weights do not fit the model: {report}")
    with torch.no_grad():
        for name in report.kept:
            ours[name].copy_(tensors[name])
    return report


def _plain(model: nn.Module) -> nn.Module:
    """The model itself, where `torch.compile` has wrapped it."""
    wrapped = getattr(model, "_orig_mod", model)
    assert isinstance(wrapped, nn.Module)
    return wrapped


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
