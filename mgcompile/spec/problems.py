"""From pydantic's errors to problems with a place and advice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from mgcompile.errors import Problem
from mgcompile.spec.base import Path
from mgcompile.spec.fields import show
from mgcompile.spec.items import Fault
from mgcompile.spec.source import Source
from mgcompile.spec.tree import path_text

__all__ = ["fault_problems", "validation_problems"]


def fault_problems(faults: Iterable[Fault], source: Source, prefix: Path) -> Iterator[Problem]:
    """A problem for each mistake in the faults of what stands at `prefix`."""
    for fault in faults:
        where = (*prefix, *fault.path)
        if isinstance(fault.error, ValidationError) and fault.model is not None:
            yield from validation_problems(fault.error, source, where, fault.model)
        else:
            mark = source.locate(where, key=bool(fault.path))
            yield Problem(mark.file, mark.line, mark.column, path_text(where), str(fault.error))


EXPECTED = {
    "list_type": "expected a list",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping of options",
    "model_attributes_type": "expected a mapping of options",
    "string_type": "expected text",
}


def validation_problems(
    error: ValidationError, source: Source, prefix: Path, model: type[BaseModel]
) -> Iterator[Problem]:
    """A problem for each of pydantic's errors; `prefix` is the path of what was validated as a `model`."""
    for detail in error.errors(include_url=False):
        unknown = detail["type"] == "extra_forbidden"
        # Options that are validated a second time go by their Python names.
        loc = tuple(
            part.removesuffix("_") if isinstance(part, str) and not unknown else part
            for part in detail["loc"]
            if part != "[key]"
        )
        mark = source.locate((*prefix, *loc), key=unknown or "[key]" in detail["loc"])
        yield Problem(mark.file, mark.line, mark.column, path_text((*prefix, *loc)), _message(detail, loc, model))


def _message(detail: Any, loc: Path, model: type[BaseModel]) -> str:
    kind, found = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return _unknown_key(str(loc[-1]), _model_at(model, loc[:-1]))
    if kind == "missing":
        return f"{loc[-1]} is missing; it must be given"
    if kind in EXPECTED:
        within = _model_at(model, loc) if kind.startswith("model") else None
        keys = f" ({', '.join(_keys(within))})" if within else ""
        return f"{EXPECTED[kind]}{keys}, found {show(found)}"
    return str(detail["msg"])


def _unknown_key(key: str, model: type[BaseModel] | None) -> str:
    known = sorted(_keys(model)) if model else []
    near = get_close_matches(key, known, 1)
    if ":" in key:
        return f"unknown key {key!r}; is there a space missing after a `:`?"
    if near:
        return f"unknown key {key!r}; did you mean {near[0]}?"
    return f"unknown key {key!r}; known: {', '.join(known)}" if known else f"unknown key {key!r}"


def _keys(model: type[BaseModel]) -> list[str]:
    return [name.removesuffix("_") for name in model.model_fields]


def _model_at(model: type[BaseModel] | None, loc: Path) -> type[BaseModel] | None:
    for part in loc:
        if isinstance(part, int) or model is None:
            continue
        fields = {name.removesuffix("_"): field for name, field in model.model_fields.items()}
        if part in fields:
            model = next(_models(fields[part].annotation), None)
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
