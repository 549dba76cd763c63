"""The JSON Schema of the language, for editors: made from the classes that read a spec, so that it says what they say.

An editor takes it from the first line of a spec: `# yaml-language-server: $schema=mgcompile.schema.json`.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import cache
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from mgcompile.spec.base import Options, Share
from mgcompile.spec.document import Document
from mgcompile.spec.fields import EXPRESSION_SCHEMA, LevelChoice, Option, Schema
from mgcompile.spec.items import LAYERS_SCHEMA, CommonOptions, Defaults, ItemList, item_of
from mgcompile.spec.layers import LAYERS
from mgcompile.spec.layers.joining import Join
from mgcompile.spec.writing import written

__all__ = ["json_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

PLAIN: Mapping[Any, Schema] = {
    Any: {},
    NoneType: {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    str: {"type": "string"},
}

EXPRESSION: Schema = {"$ref": "#/$defs/Expression"}
WORDS: Mapping[type[Options], Schema] = {Join: {"type": "string"}, Share: {"enum": ["levels", "repeats"]}}
"""What a class takes bare besides null and a value of the option that its `shorthand` names."""


def json_schema() -> Schema:
    """The schema of a spec, in draft 2020-12. What it accepts may still be wrong: numbers must fit each other."""
    definitions = _Definitions()
    document = definitions.mapping(Document)
    required = document.pop("required")
    whole = {
        "required": required,
        "properties": {
            "input": {"required": ["size"]},
            "blocks": {"additionalProperties": {"required": ["layers"]}},
        },
    }
    del definitions.schemas["InputSpec"]["required"], definitions.schemas["BlockSpec"]["required"]
    shared = _shared(definitions)
    schema = {
        "$schema": DIALECT,
        "title": "mgcompile spec",
        **document,
        # What a spec with `extends` does not say, the other spec says.
        "if": {"not": {"required": ["extends"]}},
        "then": whole,
        "$defs": {**shared, **dict(sorted(definitions.schemas.items()))},
    }
    return deepcopy(schema)  # parts of it belong to the options' annotations


class _Definitions:
    """The schema of each class that was met, by the class's name."""

    def __init__(self) -> None:
        self.schemas: dict[str, Schema] = {}

    def reference(self, cls: type[Options]) -> Schema:
        """A reference to the schema of a class, which is made where it is met first."""
        name = cls.__name__
        if name not in self.schemas:
            self.schemas[name] = {}  # a class may hold itself
            self.schemas[name] = self._with_bare(cls, self.mapping(cls))
        return {"$ref": f"#/$defs/{name}"}

    def partial(self, cls: type[Options]) -> Schema:
        """The same where no option must be given."""
        mapping = self.mapping(cls)
        if "required" not in mapping:
            return self.reference(cls)
        del mapping["required"]
        name = f"{cls.__name__}Defaults"
        self.schemas[name] = self._with_bare(cls, mapping)
        return {"$ref": f"#/$defs/{name}"}

    def mapping(self, cls: type[Options]) -> Schema:
        """The schema of the options of a class as a mapping."""
        required = [_key(name) for name, field in cls.model_fields.items() if field.is_required()]
        return {
            "description": _text(cls.__doc__ or ""),
            "type": "object",
            "properties": {_key(name): self._option(cls, name) for name in cls.model_fields},
            **({"required": required} if required else {}),
            "additionalProperties": cls.model_config.get("extra") == "allow",
        }

    def _option(self, cls: type[Options], name: str) -> Schema:
        field, schema = cls.model_fields[name], {}
        if text := _docstrings(cls).get(name):
            schema["description"] = text
        if (default := _default(field)) is not None:
            schema["default"] = default
        return schema | self._type(field.annotation, field.metadata)

    def _with_bare(self, cls: type[Options], mapping: Schema) -> Schema:
        """The schema of a mapping, or of a value that is short for one."""
        short = cls.model_fields.get(cls.shorthand)
        others = [self._type(short.annotation, short.metadata)] if short else []
        others += [WORDS[cls]] if cls in WORDS else []
        others += [PLAIN[NoneType]] if _accepts_null(cls) else []
        return {"description": mapping.pop("description"), **_any(mapping, *others)} if others else mapping

    def _type(self, annotation: Any, metadata: Iterable[Any] = ()) -> Schema:
        for mark in metadata:
            if isinstance(mark, Option):
                return _any(_nullable(mark.schema), EXPRESSION)
            if isinstance(mark, ItemList):
                return LAYERS_SCHEMA
            if isinstance(mark, FieldInfo):
                pattern = next(part.pattern for part in mark.metadata if hasattr(part, "pattern"))
                return {"type": "string", "pattern": pattern}
        origin, inner = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return self._type(inner[0], inner[1:])
        if origin in (Union, UnionType):
            return _any(*map(self._type, inner))
        if origin is list:
            return {"type": "array", "items": self._type(inner[0])}
        if origin is dict:
            keys, values = map(self._type, inner)
            # A key is written out: an expression is none.
            keys = keys["anyOf"][0] if EXPRESSION in keys.get("anyOf", ()) else keys
            return {"type": "object", "propertyNames": keys, "additionalProperties": values}
        if annotation is Defaults:
            return {"$ref": "#/$defs/Defaults"}
        return PLAIN[annotation] if annotation in PLAIN else self.reference(annotation)


def _shared(definitions: _Definitions) -> dict[str, Schema]:
    """The schemas of what no class stands for: an item of a list of layers, the defaults, an expression."""
    bare = [kind for kind in LAYERS if not item_of(kind).faults]
    mapping = definitions.mapping(CommonOptions)
    for kind, cls in LAYERS.items():
        options = definitions.reference(cls)
        if kind in bare and not _accepts_null(cls):
            options = _any(options, PLAIN[NoneType])
        mapping["properties"][kind] = {"description": _text(cls.__doc__ or ""), **options}
    mapping["oneOf"] = [{"required": [kind]} for kind in LAYERS]
    item = _any(mapping, {"enum": bare})
    defaults = {
        "type": "object",
        "properties": {kind: definitions.partial(cls) for kind, cls in LAYERS.items()},
        "additionalProperties": False,
    }
    return {
        "Defaults": {"description": _text(Defaults.__doc__ or ""), **defaults},
        "Expression": EXPRESSION_SCHEMA,
        "Item": {"description": "A layer under its key, with the options that every layer has.", **item},
    }


def _key(name: str) -> str:
    return name.removesuffix("_")


def _text(docstring: str) -> str:
    """A docstring on one line a paragraph."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(docstring).split("\n\n"))


def _any(*schemas: Schema) -> Schema:
    """What one of them accepts, without nesting."""
    flat: list[Schema] = []
    for schema in schemas:
        parts = schema["anyOf"] if schema.keys() == {"anyOf"} else [schema]
        flat += [part for part in parts if part not in flat]
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


def _nullable(schema: Any) -> Any:
    """The schema of an option, whose word `none` may be null and whose expressions are one definition."""
    if schema == EXPRESSION_SCHEMA:
        return EXPRESSION
    if isinstance(schema, list):
        return [_nullable(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "none" in schema.get("enum", ()):
        return {**schema, "enum": [*schema["enum"], None]}
    return {key: _nullable(part) for key, part in schema.items()}


def _default(field: FieldInfo) -> Any:
    """A default as it would be written; None where it says nothing."""
    match None if field.is_required() else field.get_default(call_default_factory=True):
        case None | "" | [] | {} | Defaults():
            return None
        case Options() as options:
            return written(options) or getattr(options, options.shorthand)
        case LevelChoice() as levels:
            return levels.written()
        case (height, width):
            return height if height == width else f"{height}x{width}"
        case value:
            return value


def _accepts_null(cls: type[Options]) -> bool:
    try:
        cls.model_validate(None)
    except ValidationError:
        return False
    return True


@cache
def _docstrings(cls: type[Options]) -> Mapping[str, str]:
    """The text below each option of a class and of those that it inherits from."""
    # Read here, not by pydantic when the class is made: reading source takes longer than all else a start needs.
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        for option, text in pairwise(_class_bodies(base.__module__).get(base.__name__, ())):
            match option, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(docstring))):
                    texts[name] = _text(docstring)
    return texts


@cache
def _class_bodies(module: str) -> Mapping[str, list[ast.stmt]]:
    """The statements of every class in a module; none where its source is not at hand."""
    try:
        source = inspect.getsource(sys.modules[module])
    except (OSError, TypeError):
        return {}
    return {node.name: node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
