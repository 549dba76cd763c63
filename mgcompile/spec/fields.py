"""The types of options: each accepts a value or an expression `${...}`, and says what it expected in one sentence.

An option is validated twice: as written, when an expression passes as it is, and with its value, when the layer is
elaborated and the expression's names are known. After that it has the type it is annotated with. What is an expression
is told by its type, which `marked` gives to the texts of a spec and nothing else does: a value is checked as if it had
been written, whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from mgcompile.spec.budget import Budget
from mgcompile.spec.expressions import Expression, ExpressionError, has_expression, names_in
from mgcompile.spec.wording import show

__all__ = [
    "Bool",
    "Channels",
    "Count",
    "Expression",
    "Fixed",
    "Groups",
    "Identifier",
    "Kernel",
    "LevelChoice",
    "Levels",
    "Option",
    "PerLevel",
    "Probability",
    "Reach",
    "Reference",
    "References",
    "Repeat",
    "Several",
    "choice",
    "integer",
    "marked",
    "per_level",
    "real",
    "wrong",
]

MOST_CHANNELS = 1_000_000
MOST_LEVELS = 24
MOST_KERNEL = 255
MOST_REPEAT = 100_000
MOST_LIST = 1_000  # of values, not of layers
Schema = dict[str, Any]
EXPRESSION_SCHEMA: Schema = {"type": "string", "pattern": r"\$\{", "description": "an expression, e.g. ${2 * width}"}


def wrong(expected: str, found: object) -> PydanticCustomError:
    """The error of an option that has not the value expected."""
    return PydanticCustomError(
        "wrong_value", "expected {expected}, found {found}", {"expected": expected, "found": show(found)}
    )


Check = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Option:
    """The annotation of an option: its check, its JSON Schema, and how it is written back."""

    check: Check
    schema: Schema
    write: Check | None = None

    def validate(self, value: Any) -> Any:
        """The value, or the expression that will give it. Raises `PydanticCustomError` with what was expected."""
        return _readable(value) if isinstance(value, Expression) else self.check(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        write = self.write and core_schema.plain_serializer_function_ser_schema(self.write)
        return core_schema.no_info_plain_validator_function(self.validate, serialization=write)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        return {"anyOf": [self.schema, EXPRESSION_SCHEMA]}


class Fixed(Option):
    """The annotation of an option for which no expression may stand."""

    def validate(self, value: Any) -> Any:
        return self.check(value)


def marked(value: Any, budget: Budget | None = None) -> Any:
    """A copy of what a spec says, whose texts with `${...}`, keys aside, are marked as expressions.

    Raises `Exhausted` where they are more than a `budget` holds.
    """
    if isinstance(value, Mapping):
        return {key: marked(item, budget) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [marked(item, budget) for item in value]
    if not isinstance(value, str) or not has_expression(value):
        return value
    if budget is not None:
        budget.expression(value)
    return Expression(value)


def _readable(text: Expression) -> Expression:
    """The expression itself. Raises `PydanticCustomError` where it cannot be read."""
    try:
        names_in(text)
    except ExpressionError as error:
        raise PydanticCustomError("expression", "{reason}", {"reason": str(error)}) from None
    return text


def _integer(least: int, most: int) -> Check:
    expected = f"an integer from {least} to {most}" if least < most else f"the number {least}"

    def check(value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # arithmetic makes them: 64 * 0.25
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise wrong(expected, value)
        return value

    return check


def _real(least: float, most: float) -> Check:
    expected = f"a number from {least:g} to {most:g}"

    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise wrong(expected, value)
        return float(value)

    return check


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong("true or false", value)
    return value


def _one_of(choices: Sequence[str]) -> Check:
    expected = f"one of {', '.join(choices)}"

    def check(value: Any) -> str:
        # `none` may be written null, as YAML readers tend to.
        value = "none" if value is None and "none" in choices else value
        if value not in choices:
            raise wrong(expected, value)
        return str(value)

    return check


def _kernel(value: Any) -> tuple[int, int]:
    if isinstance(value, tuple):
        return value[0], value[1]
    size = value.split("x") if isinstance(value, str) else [value, value]
    sides = [int(side) if isinstance(side, str) and side.isdecimal() and len(side) < 4 else side for side in size]
    check = _integer(1, MOST_KERNEL)
    try:
        height, width = map(check, sides)
    except (PydanticCustomError, ValueError):
        raise wrong(f"an integer from 1 to {MOST_KERNEL}, or HxW such as 1x7", value) from None
    return height, width


def _or_word(check: Check, words: Sequence[str], expected: str) -> Check:
    def either(value: Any) -> Any:
        if isinstance(value, str) and value in words:
            return value
        try:
            return check(value)
        except PydanticCustomError:
            raise wrong(expected, value) from None

    return either


def _listed(check: Check) -> Check:
    """One value for all grids, or a list of one for each, fine to coarse."""

    def each(value: Any) -> Any:
        return _readable(value) if isinstance(value, Expression) else check(value)

    def either(value: Any) -> Any:
        if not isinstance(value, list | tuple) or (isinstance(value, tuple) and check is _kernel and _is_kernel(value)):
            return check(value)
        if not value:
            raise PydanticCustomError(
                "wrong_value", "an empty list: expected a value for each grid, fine to coarse", {}
            )
        if len(value) > MOST_LIST:
            raise PydanticCustomError("too_many", f"a list of {len(value):,} values; there are no so many grids")
        return [each(item) for item in value]

    return either


def _is_kernel(value: tuple[Any, ...]) -> bool:
    return len(value) == 2 and all(isinstance(side, int) for side in value)


def _matches(pattern: str, expected: str) -> Check:
    compiled = re.compile(pattern)

    def check(value: Any) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise wrong(expected, value)
        return value

    return check


@dataclass(frozen=True, slots=True)
class LevelChoice:
    """Some levels of a pyramid: named, or the `finest` or `coarsest` so many (a negative number: all but so many)."""

    levels: tuple[int, ...] = ()
    finest: int = 0
    coarsest: int = 0

    def pick(self, levels: Sequence[int]) -> tuple[int, ...]:
        """The chosen ones of `levels` (fine to coarse); those named need not exist."""
        if self.finest:
            return tuple(levels[: self.finest])
        if self.coarsest:
            return tuple(levels[-self.coarsest :])
        return tuple(sorted(self.levels))

    def written(self) -> Any:
        """As it stands in a spec."""
        if self.finest or self.coarsest:
            return {"finest": self.finest} if self.finest else {"coarsest": self.coarsest}
        return list(self.levels)


LEVELS_EXPECTED = "a level, a list of levels, finest, coarsest, {finest: n} or {coarsest: n}"
LEVELS_SCHEMA: Schema = {
    "anyOf": [
        {"type": "integer"},
        {"type": "array", "items": {"type": "integer"}, "minItems": 1},
        {"enum": ["finest", "coarsest"]},
        {
            "type": "object",
            "properties": {"finest": {"type": "integer"}},
            "required": ["finest"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"coarsest": {"type": "integer"}},
            "required": ["coarsest"],
            "additionalProperties": False,
        },
    ]
}


def _whole(value: Any) -> Any:
    """A value with whole numbers for the floats that are whole, in lists and mappings too."""
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value[:MOST_LIST]]
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _levels(value: Any) -> LevelChoice:
    value = _whole(value)
    match value:
        case LevelChoice():
            return value
        case bool():
            pass
        case int() if abs(value) <= MOST_LEVELS:
            return LevelChoice(levels=(value,))
        case "finest" | "coarsest":
            return LevelChoice(finest=int(value == "finest"), coarsest=int(value == "coarsest"))
        case {"finest": int(count), **rest} if count and not rest:
            return LevelChoice(finest=count)
        case {"coarsest": int(count), **rest} if count and not rest:
            return LevelChoice(coarsest=count)
        case [*levels] if levels and all(type(level) is int and abs(level) <= MOST_LEVELS for level in levels):
            if len(set(levels)) == len(levels):
                return LevelChoice(levels=tuple(sorted(levels)))
    raise wrong(LEVELS_EXPECTED, value)


def _integer_schema(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


def _listed_schema(schema: Schema) -> Schema:
    item = {"anyOf": [schema, EXPRESSION_SCHEMA]}
    return {"anyOf": [schema, {"type": "array", "items": item, "minItems": 1}]}


KERNEL_SCHEMA: Schema = {
    "anyOf": [_integer_schema(1, MOST_KERNEL), {"type": "string", "pattern": r"^\d{1,3}x\d{1,3}$"}]
}


def _written_kernel(value: Any) -> Any:
    if isinstance(value, list):
        return [_written_kernel(item) for item in value]
    if isinstance(value, tuple):
        return value[0] if value[0] == value[1] else f"{value[0]}x{value[1]}"
    return value


def choice(*choices: str) -> Option:
    """An option that is one of some words."""
    return Option(_one_of(choices), {"enum": list(choices)})


def integer(least: int, most: int) -> Option:
    """An option that is an integer from `least` to `most`."""
    return Option(_integer(least, most), _integer_schema(least, most))


def per_level(least: int, most: int) -> Option:
    """An option that is an integer for all grids, or a list of one for each, fine to coarse."""
    return Option(_listed(_integer(least, most)), _listed_schema(_integer_schema(least, most)))


def real(least: float, most: float) -> Option:
    """An option that is a number from `least` to `most`."""
    return Option(_real(least, most), {"type": "number", "minimum": least, "maximum": most})


PerLevel = int | list[int]
"""An integer for all grids, or one for each, fine to coarse."""

Bool = Annotated[bool, Option(_boolean, {"type": "boolean"})]
Count = Annotated[int, integer(1, MOST_CHANNELS)]
Repeat = Annotated[int, integer(0, MOST_REPEAT)]
Channels = Annotated[PerLevel, per_level(1, MOST_CHANNELS)]
Probability = Annotated[float, real(0, 1)]
Kernel = Annotated[Any, Option(_listed(_kernel), _listed_schema(KERNEL_SCHEMA), _written_kernel)]
"""A square kernel's side or HxW, for all grids or for each; validated to (height, width)."""

Groups = Annotated[
    Any,
    Option(
        _listed(
            _or_word(_integer(1, MOST_CHANNELS), ["depthwise"], f"an integer from 1 to {MOST_CHANNELS}, or depthwise")
        ),
        _listed_schema({"anyOf": [_integer_schema(1, MOST_CHANNELS), {"const": "depthwise"}]}),
    ),
]
Reach = Annotated[
    Any,
    Option(
        _or_word(_integer(0, MOST_LEVELS), ["all"], f"an integer from 0 to {MOST_LEVELS}, or all"),
        {"anyOf": [_integer_schema(0, MOST_LEVELS), {"const": "all"}]},
    ),
]
Levels = Annotated[
    LevelChoice, Option(_levels, LEVELS_SCHEMA, lambda value: getattr(value, "written", lambda: value)())
]

ID = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}"
Identifier = Annotated[
    str, Option(_matches(ID, "a name of letters, digits, _ and -"), {"type": "string", "pattern": f"^{ID}$"})
]
REFERENCE = r"\.?[A-Za-z0-9_-]{1,100}(\.[A-Za-z0-9_-]{1,100}){0,99}"
Reference = Annotated[
    str,
    Option(
        _matches(REFERENCE, "the id of an earlier layer, input, start or previous"),
        {"type": "string", "pattern": f"^{REFERENCE}$"},
    ),
]


def _not_too_many(value: Any) -> Any:
    if isinstance(value, list | tuple | Mapping) and len(value) > MOST_LIST:
        raise PydanticCustomError("too_many", f"{len(value):,} items; at most {MOST_LIST:,} are allowed")
    return value


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Several = BeforeValidator(_not_too_many)
"""The annotation of a list or mapping that may hold so many items as a list in a spec sensibly does."""

References = Annotated[list[Reference], BeforeValidator(_several), Several]
"""Ids of earlier layers; a single one may be written without a list."""
