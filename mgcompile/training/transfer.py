"""Beginning from the weights of another network, with another head or fewer classes: nothing of it in silence."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from mgcompile.errors import InputError, MgcompileError, Problem, SpecError
from mgcompile.inputs import open_regular
from mgcompile.lowering.checkpoints import Report, load_weights, read_checkpoint
from mgcompile.spec.source import read_source

__all__ = ["Weights", "begin_from", "record_of", "renames_in", "told"]

MOST_LINES = 20
"""So many tensors of a sort are told one by one."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A `.safetensors` file to begin from. Each of `renames` has what names begin with and what that becomes, in whole
    parts between dots: ("module", "") takes it away, ("", "backbone") puts it before all names.
    """

    path: Path
    renames: tuple[tuple[str, str], ...] = ()

    def rename(self, name: str) -> str:
        """The name in the model of a tensor of the file, by the longest beginning that fits."""
        fitting = [pair for pair in self.renames if _is_under(name, pair[0])]
        if not fitting:
            return name
        old, new = max(fitting, key=lambda pair: len(pair[0].rstrip(".")))
        rest = name[len(old.rstrip(".")) :].lstrip(".")
        return ".".join(filter(None, (new.rstrip("."), rest)))

    @property
    def origin(self) -> dict[str, Any]:
        """What tells these weights from others. Raises `InputError` where the file cannot be read."""
        return {"digest": _digest(self.path), "map": dict(self.renames)}


def _is_under(name: str, beginning: str) -> bool:
    stem = beginning.rstrip(".")
    return not stem or name == stem or name.startswith(f"{stem}.")


def _digest(path: Path) -> str:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected a .safetensors file, such as model.safetensors in it")
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open_regular(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def begin_from(model: nn.Module, weights: Weights) -> Report:
    """Load what fits, and report what became of each tensor; what is new or has another shape stays as it was drawn.

    Raises `InputError` where the file is none of weights, no learned tensor of it fits, one of them is not finite, or
    nothing is called what should be renamed.
    """
    try:
        tensors = read_checkpoint(weights.path)[1]
        for old, _ in weights.renames:
            if not any(_is_under(name, old) for name in tensors):
                raise InputError(
                    f"{weights.path}: has no tensor whose name begins with {old!r}, which is to be renamed"
                )
        report = load_weights(model, tensors, strict=False, rename=weights.rename)
    except InputError:
        raise
    except MgcompileError as error:
        raise InputError(str(error)) from error
    learned = {name for name, _ in model.named_parameters()}
    if not learned.intersection(report.kept):
        given, ours = list(map(weights.rename, tensors)), model.state_dict()
        raise InputError(
            f"{weights.path}: none of its {len(tensors)} tensors fits the network{_advice(given, ours, report)}"
        )
    state = model.state_dict()
    for name in report.kept:
        if not bool(state[name].isfinite().all()):
            wrong = "values that are not finite"
        elif name.endswith(".running_var") and bool((state[name] < 0).any()):
            wrong = "variances below 0"
        else:
            continue
        raise InputError(f"{weights.path}: {name} has {wrong}; nothing can be learned from there")
    return report


def _advice(given: Collection[str], ours: Collection[str], report: Report) -> str:
    """What is to be renamed so that names fit, where that is seen; else a name of either side."""
    if report.reshaped or report.retyped:
        return "; the names fit and the shapes or types do not: " + str(report).partition("\n")[2]
    for whole, parts, shown in ((given, ours, "{}="), (ours, given, "={}")):
        if found := _beginning(whole, parts):
            return f"; names have {found!r} too much or too little: --map {shown.format(found)}"
    return f"; it has {_example(given)}, the network has {_example(ours)}; --map OLD=NEW renames"


def _example(names: Collection[str]) -> str:
    return repr(next(iter(names))) if names else "none"


def _beginning(whole: Iterable[str], parts: Collection[str]) -> str:
    """What stands before the names of `parts` in most of `whole`; empty where in none."""
    found = Counter(
        name[: at + 1] for name in whole for at, letter in enumerate(name) if letter == "." and name[at + 1 :] in parts
    )
    return found.most_common(1)[0][0] if found else ""


def record_of(weights: Weights, report: Report) -> dict[str, Any]:
    """All of it, for a file."""
    return {
        "file": os.fspath(weights.path),
        **weights.origin,
        "kept": list(report.kept),
        "renamed": dict(report.renamed),
        "reshaped": {name: {"file": [*given], "network": [*wanted]} for name, given, wanted in report.reshaped},
        "retyped": {name: {"file": given, "network": wanted} for name, given, wanted in report.retyped},
        "new": list(report.missing),
        "dropped": list(report.unexpected),
    }


def told(record: Mapping[str, Any]) -> list[str]:
    """The same in lines: how many tensors of each sort, and which they are, save those that were kept as they are."""

    def differing(sort: str) -> list[str]:
        return [
            f"{name}: {it['file']} in the file, {it['network']} in the network" for name, it in record[sort].items()
        ]

    sorts = {
        "renamed": [f"{old} -> {new}" for old, new in record["renamed"].items()],
        "reshaped, as drawn": differing("reshaped"),
        "of another type, as drawn": differing("retyped"),
        "new, as drawn": list(record["new"]),
        "dropped": list(record["dropped"]),
    }
    counts = ", ".join(f"{len(names)} {sort}" for sort, names in sorts.items())
    lines = [f"begins from {record['file']}: {len(record['kept'])} tensors kept, of these {counts}"]
    return lines + [f"  {sort}: {name}" for sort, names in sorts.items() for name in _some(names)]


def _some(names: list[str]) -> Iterator[str]:
    yield from names[:MOST_LINES]
    if len(names) > MOST_LINES:
        yield f"and {len(names) - MOST_LINES:,} more; weights.json in the folder has all"


def renames_in(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Renames as the command line has them: OLD=NEW, or a YAML or JSON file of `old: new`. A later one wins.

    Raises `InputError` with the place of what is none.
    """
    found: dict[str, str] = {}
    for text in texts:
        if "=" in text:
            old, _, new = text.partition("=")
            found[old] = new
        else:
            found |= _renames_of_file(text)
    return tuple(found.items())


def _renames_of_file(path: str) -> dict[str, str]:
    try:
        source = read_source(path)
    except SpecError as error:
        raise SpecError(
            Problem(each.file, each.line, each.column, each.path, each.message.replace("`layers`", "`old: new`"))
            for each in error.errors
        ) from None
    problems = []
    for old, new in source.data.items():
        if not isinstance(new, str):
            mark = source.locate((old,))
            message = f'expected what names become, such as backbone or "" for nothing, found {new!r}'[:200]
            problems.append(Problem(mark.file, mark.line, mark.column, old, message))
    if problems:
        raise SpecError(problems)
    return source.data
