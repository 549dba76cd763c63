"""Options as they stand in a spec: only what differs from the defaults, in the shortest form."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BaseModel

from mgcompile.escaping import for_yaml, visible
from mgcompile.spec.base import Options
from mgcompile.spec.expressions import Expression, escaped
from mgcompile.spec.fields import LevelChoice
from mgcompile.spec.scanning import plain_scalar

__all__ = ["dump", "plain", "written"]


def written(options: Options) -> Any:
    """The options as plain data that reads back to equal options.

    >>> from mgcompile.spec.layers.levels import Pool
    >>> written(Pool(by="avg", kernel=4))
    {'by': 'avg', 'kernel': 4}
    """
    fields = type(options).model_fields
    data = {
        name.removesuffix("_"): _plain(value, name)
        for name, field in fields.items()
        if (value := getattr(options, name)) != field.get_default(call_default_factory=True) or field.is_required()
    } | {name: escaped(value) for name, value in (options.__pydantic_extra__ or {}).items()}
    short = options.shorthand.removesuffix("_")
    if short and data.keys() == {short} and not isinstance(data[short], dict):
        return data[short]
    return data


def plain(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Canonical items, whose layers are options still, as plain data."""
    return [
        {
            key: {"layers": plain(value["layers"])}
            if key == "group"
            else written(value)
            if isinstance(value, Options)
            else value
            for key, value in item.items()
        }
        for item in items
    ]


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, Options):
        # An option that differs from its default may equal the default of its own class, which would write nothing.
        return written(value) or {value.shorthand.removesuffix("_"): getattr(value, value.shorthand)}
    if isinstance(value, LevelChoice):
        return value.written()
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=True)
    if isinstance(value, tuple):
        # A kernel, or a size: HxW where the sides differ.
        return value[0] if value[0] == value[1] else f"{value[0]}x{value[1]}"
    if isinstance(value, list):
        return [_plain(item, name) for item in value]
    return escaped(str(value)) if isinstance(value, str) and not isinstance(value, Expression) else value


class _Dumper(yaml.SafeDumper):
    """Block style for what holds layers, one line for everything else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Text of which not all is seen stands in double quotes, where it can be escaped. That which is a number in
        YAML 1.2, which is read, and none in YAML 1.1, which PyYAML writes, stands in single ones.
        """
        quotes = "'" if not isinstance(plain_scalar(data), str) else None
        style = quotes if visible(data, lines=True) == data else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        return super().represent_mapping(tag, mapping, flow_style=not _holds_layers(mapping))

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        return super().represent_sequence(
            tag, sequence, flow_style=not any(isinstance(item, dict | list) for item in sequence)
        )


_Dumper.add_representer(str, _Dumper.represent_str)


def dump(data: dict[str, Any]) -> str:
    """A spec's data as YAML text, a layer a line."""
    parts = [
        for_yaml(yaml.dump({key: value}, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True))
        for key, value in data.items()
    ]
    return "".join(part[1:-2] + "\n" if part.startswith("{") else part for part in parts)


def _holds_layers(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_layers(item) for item in value.values())
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)
