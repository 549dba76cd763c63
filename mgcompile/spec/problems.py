"""From pydantic's errors to problems with a place and advice, the first of many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from mgcompile.errors import Problem, SpecError
from mgcompile.spec.base import MANY_UNKNOWN, Path
from mgcompile.spec.budget import MOST_MISTAKES
from mgcompile.spec.items import Fault
from mgcompile.spec.source import Source
from mgcompile.spec.tree import path_text
from mgcompile.spec.wording import listed, nearest, quoted, show

__all__ = ["Mistakes", "problem_at", "validation_problems"]

ELSEWHERE = "; check this file by itself to see it"
"""What is said in place of what stands in another file than the user's: it may be no spec at all."""


NAMED = frozenset({"params", "blocks", "outputs"})
"""Parts of a spec whose keys are names that somebody chose."""


def _told(where: Path, *, foreign: bool) -> str:
    """The path of a place; in another file without names, which may be no names."""
    return path_text(where[:1] if foreign and where and where[0] in NAMED else where)


def problem_at(source: Source, where: Path, message: str, *, key: bool = False) -> Problem:
    """A problem at a place of a spec, or at the place's key."""
    mark = source.locate(where, key=key)
    return Problem(mark.file, mark.line, mark.column, path_text(where), message)


class Mistakes:
    """The first mistakes of a spec, and how many others there are. Those that are not told cost next to nothing."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.more = 0

    def __bool__(self) -> bool:
        return bool(self.problems)

    def __len__(self) -> int:
        return len(self.problems) + self.more

    def add(self, *problems: Problem) -> None:
        """Note problems."""
        room = max(0, MOST_MISTAKES - len(self.problems))
        self.problems += problems[:room]
        self.more += len(problems[room:])

    def at(self, where: Path, message: str, *, key: bool = False) -> None:
        """Note a mistake at a place of the spec."""
        self.add(problem_at(self.source, where, message, key=key))

    def validation(self, error: ValidationError, where: Path, model: type[BaseModel]) -> None:
        """Note what pydantic says of something at `where` that is no `model`."""
        if len(self.problems) < MOST_MISTAKES:
            self.add(*validation_problems(error, self.source, where, model))
            details = error.errors(include_url=False, include_input=False)
            self.more += sum([detail["ctx"]["more"] for detail in details if detail["type"] == MANY_UNKNOWN])
        else:
            self.more += error.error_count()

    def faults(self, faults: Iterable[Fault], where: Path) -> None:
        """Note what is wrong with an item of a list of layers at `where`."""
        for fault in faults:
            place = (*where, *fault.path)
            if isinstance(fault.error, ValidationError) and fault.model is not None:
                self.validation(fault.error, place, fault.model)
            elif len(self.problems) < MOST_MISTAKES:
                foreign = self.source.is_foreign(place)
                text = str(fault.error) if not foreign else fault.reserved + ELSEWHERE
                shown = place[:-1] if foreign and fault.path else place
                mark = self.source.locate(place, key=bool(fault.path))
                self.add(Problem(mark.file, mark.line, mark.column, _told(shown, foreign=foreign), text))
            else:
                self.more += 1

    def raise_if_any(self) -> None:
        """Raise `SpecError` where there are mistakes."""
        if self.problems:
            raise SpecError(self.problems, self.more)


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
        # Options that are validated a second time go by their Python names.
        unknown = detail["type"] == "extra_forbidden"
        loc = tuple(
            part.removesuffix("_") if isinstance(part, str) and not unknown else part
            for part in detail["loc"]
            if part != "[key]"
        )
        if detail["type"] == MANY_UNKNOWN:
            within = _model_at(model, loc)
            for key in detail["ctx"]["keys"]:
                yield _unknown_problem((*prefix, *loc, key), source, within)
        elif unknown:
            yield _unknown_problem((*prefix, *loc), source, _model_at(model, loc[:-1]))
        else:
            place, foreign = (*prefix, *loc), source.is_foreign((*prefix, *loc))
            message = _message(detail, loc, model, foreign=foreign)
            problem = problem_at(source, place, message, key="[key]" in detail["loc"])
            yield replace(problem, path=_told(place, foreign=foreign))


def _unknown_problem(where: Path, source: Source, model: type[BaseModel] | None) -> Problem:
    if source.is_foreign(where):
        mark = source.locate(where, key=True)
        told = _told(where[:-1], foreign=True)
        return Problem(mark.file, mark.line, mark.column, told, f"an unknown key{ELSEWHERE}")
    return problem_at(source, where, _unknown_key(str(where[-1]), model), key=True)


def _message(detail: Any, loc: Path, model: type[BaseModel], *, foreign: bool) -> str:
    kind, found = detail["type"], detail["input"]
    if kind == "missing":
        return f"{loc[-1]} is missing; it must be given"
    if kind in EXPECTED:
        within = _model_at(model, loc) if kind.startswith("model") else None
        keys = f" ({', '.join(_keys(within))})" if within else ""
        return f"{EXPECTED[kind]}{keys}" + (ELSEWHERE if foreign else f", found {show(found)}")
    if foreign:
        expected = detail.get("ctx", {}).get("expected")
        return (f"expected {expected}" if expected else "a value that cannot stand here") + ELSEWHERE
    return str(detail["msg"])


def _unknown_key(key: str, model: type[BaseModel] | None) -> str:
    known = sorted(_keys(model)) if model else []
    if ":" in key:
        return f"unknown key {quoted(key)}; is there a space missing after a `:`?"
    if near := nearest(key, known):
        return f"unknown key {quoted(key)}; did you mean {near}?"
    return f"unknown key {quoted(key)}" + (f"; known: {listed(known)}" if known else "")


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
