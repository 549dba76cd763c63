"""Layers that other installed packages bring."""

from __future__ import annotations

from dataclasses import fields
from difflib import get_close_matches
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mgcompile.errors import MgcompileError
from mgcompile.graph.ops import Op, find_op, known_ops
from mgcompile.spec.base import LayerError, LayerSpec, Place, Pyramid

__all__ = ["Custom"]


class Custom(LayerSpec):
    """A registered operation on every grid; all options but `name` are its own. `op: name` is a short form."""

    model_config = ConfigDict(extra="allow")

    kind: ClassVar[str] = "op"
    shorthand: ClassVar[str] = "name"

    name: str
    """The name under which a package registered it (entry point group `mgcompile.ops`)."""

    def build(self, place: Place) -> Pyramid:
        op = self._op()
        return place.apply(lambda level: op)

    def _op(self) -> Op:
        try:
            cls = find_op(self.name)
        except KeyError:
            known = known_ops()
            near = get_close_matches(self.name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known) or 'none'}"
            raise LayerError(f"no installed package registers an operation {self.name!r}{hint}", "name") from None
        except MgcompileError as error:
            raise LayerError(str(error), "name") from None
        return _made(cls, dict(self.__pydantic_extra__ or {}))


def _made(cls: type[Op], options: dict[str, Any]) -> Op:
    known = [field.name for field in fields(cls)]
    if unknown := sorted(options.keys() - set(known)):
        raise LayerError(f"unknown option; {cls.__name__} has {', '.join(known) or 'none'}", unknown[0])
    try:
        return TypeAdapter(cls).validate_python(options)
    except ValidationError as error:
        first = error.errors()[0]
        raise LayerError(first["msg"], *first["loc"]) from None
