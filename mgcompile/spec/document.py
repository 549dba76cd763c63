"""A whole spec, as it is written: its parts, validated on their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from keyword import iskeyword
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from mgcompile.spec.base import Options
from mgcompile.spec.budget import MOST_PARAMS
from mgcompile.spec.expressions import Expression
from mgcompile.spec.fields import (
    Count,
    Fixed,
    Identifier,
    Levels,
    Option,
    Reference,
    Several,
    integer,
    wrong,
)
from mgcompile.spec.items import Defaults, Layers
from mgcompile.spec.wording import listed, show

__all__ = ["BlockSpec", "Document", "InputSpec", "Output", "Param"]

MOST_SIZE = 1_000_000


def _size(value: Any) -> tuple[int, int]:
    sides = value.split("x") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value, value]
    sides = [int(side) if isinstance(side, str) and side.isdecimal() and len(side) < 8 else side for side in sides[:3]]
    sides = [int(side) if isinstance(side, float) and side.is_integer() else side for side in sides]
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= MOST_SIZE for side in sides):
        raise wrong(f"a size from 1 to {MOST_SIZE}: an integer, HxW or [height, width]", value)
    return int(sides[0]), int(sides[1])


SIDE = {"type": "integer", "minimum": 1, "maximum": MOST_SIZE}
SIZE_SCHEMA = {
    "anyOf": [
        SIDE,
        {"type": "string", "pattern": r"^\d{1,7}x\d{1,7}$"},
        {"type": "array", "items": SIDE, "minItems": 2, "maxItems": 2},
    ]
}


def _scalar(value: Any) -> Any:
    kinds = int | float | bool | str
    if isinstance(value, kinds) or (isinstance(value, list) and all(isinstance(item, kinds | list) for item in value)):
        return value
    raise wrong("a number, true or false, a text, or a list of them", value)


SCALAR_SCHEMA = {"type": ["number", "boolean", "string", "array"]}
Scalar = Annotated[Any, Option(_scalar, SCALAR_SCHEMA)]


def _bound(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong("a number", value)
    return value


Bound = Annotated[int | float, Fixed(_bound, {"type": "number"})]

NAME = r"[A-Za-z_][A-Za-z0-9_]{0,99}"
TAKEN = ("incoming", "levels", "true", "false")
"""Names that every expression has."""


def _param_name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(NAME, value):
        raise wrong("a name of letters, digits and _", value)
    if iskeyword(value):
        about = "{name} is a word of Python's and cannot be read in an expression; choose another name"
        raise PydanticCustomError("taken", about, {"name": value})
    if value in TAKEN:
        raise PydanticCustomError(
            "taken", "every expression knows {name} already; choose another name", {"name": value}
        )
    return value


def _parameter_name(value: Any) -> str:
    if value == "use":
        raise PydanticCustomError("taken", "`use` says which block; choose another name", {})
    return _param_name(value)


NAME_SCHEMA = {"type": "string", "pattern": f"^{NAME}$"}
ParamName = Annotated[str, Fixed(_param_name, NAME_SCHEMA)]
ParameterName = Annotated[str, Fixed(_parameter_name, NAME_SCHEMA)]
"""The name of a parameter of a block, which stands beside `use` where the block is used."""


class InputSpec(Options):
    """The image that the network takes."""

    channels: Count = 3
    """Channels of the image."""
    size: Annotated[tuple[int, int], Option(_size, SIZE_SCHEMA, list)]
    """The nominal size: an integer, HxW, or [height, width]. The model takes other sizes too."""


class Param(Options):
    """A parameter of a spec or of a block. `width: 64` is short for `width: {default: 64}`."""

    shorthand: ClassVar[str] = "default"

    default: Scalar | None = None
    """Its value where nothing else is said; a parameter of a block without one must be given."""
    min: Bound | None = None
    """The least value."""
    max: Bound | None = None
    """The greatest value."""
    choices: Annotated[list[Scalar], Several] | None = None
    """All values that it may have."""
    help: str = ""
    """What it means."""

    def taken(self, value: Any) -> Any:
        """The value as it is used: whole where the default is, for arithmetic makes floats of whole numbers."""
        whole = isinstance(value, float) and value.is_integer() and kind_of(self.default) == "an integer"
        return int(value) if whole else value

    def problem(self, value: Any) -> str:
        """What is wrong with a value; empty where nothing is."""
        if isinstance(value, list) and kind_of(self.default) != "a list":
            # A number a grid, where there is one number for all by default.
            return next(filter(None, map(self.problem, value)), "")
        fixed = self.default is not None and not isinstance(self.default, Expression)
        kinds = kind_of(value), kind_of(self.default)
        if fixed and kinds[0] != kinds[1] and kinds != ("an integer", "a number") and self.taken(value) is value:
            return f"expected {kinds[1]} like {show(self.default)}, found {show(value)}"
        if self.choices is not None and value not in self.choices:
            return f"expected one of {listed(map(show, self.choices))}, found {show(value)}"
        if kind_of(value) not in ("an integer", "a number"):
            return "" if self.min is self.max is None else f"expected a number, found {show(value)}"
        if self.min is not None and value < self.min:
            return f"expected at least {self.min}, found {value!r}"
        if self.max is not None and value > self.max:
            return f"expected at most {self.max}, found {value!r}"
        return ""


def kind_of(value: Any) -> str:
    """The kind of a param's value, in words."""
    names = {bool: "true or false", int: "an integer", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), type(value).__name__)


def _not_too_many(params: Any) -> Any:
    if isinstance(params, Mapping) and len(params) > MOST_PARAMS:
        raise PydanticCustomError("too_many", f"{len(params):,} params; at most {MOST_PARAMS} are allowed")
    return params


Params = Annotated[dict[ParamName, Param], BeforeValidator(_not_too_many)]
"""Params by name."""


class BlockSpec(Options):
    """A list of layers with parameters, to be used by name."""

    params: Annotated[dict[ParameterName, Param], BeforeValidator(_not_too_many)] = {}
    """Its parameters; every expression inside knows them."""
    layers: Layers
    """Its layers; `from: start` inside is what the block received."""


class Output(Options):
    """A result of the network. `name: id` is short for `name: {from: id}`."""

    shorthand: ClassVar[str] = "from_"

    from_: Reference = "previous"
    """The id of the layer; the last one where it is not said."""
    level: Levels | None = None
    """Which of its grids; all where it is not said."""


MOST_NAME = 1_000


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise wrong("text", value)
    if len(value) > MOST_NAME:
        raise wrong(f"a text of at most {MOST_NAME:,} characters", value)
    return value


class Document(Options):
    """A spec: which grid levels exist at each layer, with how many channels, and how levels talk to each other."""

    version: Annotated[int, integer(1, 1)] = 1
    """The version of the language."""
    name: Annotated[str, Fixed(_text, {"type": "string", "maxLength": MOST_NAME})] = "network"
    """The network's name; may hold expressions."""
    description: str = ""
    """What it is, for readers."""
    extends: str = ""
    """Another spec, relative to this file or from the zoo: what this one does not say is taken from there."""
    input: InputSpec
    """The image."""
    params: Params = {}
    """Names for values, for use in expressions; `--set name=value` changes them."""
    defaults: Defaults = Defaults({})
    """Options of layers where a layer does not say, by kind of layer."""
    blocks: Annotated[dict[Identifier, BlockSpec], Several] = {}
    """Lists of layers to be used by name."""
    layers: Layers
    """The network, one layer after the other; each reads the one before unless it says `from`."""
    outputs: Annotated[dict[Identifier, Output], Several] = {}
    """The results by name; the last layer's grids where nothing is said."""
