"""Layers that other installed packages bring."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mgcompile.errors import MgcompileError, ShapeError
from mgcompile.graph.ops import Op, find_op, known_ops
from mgcompile.spec.base import LayerError, LayerSpec, Place, Pyramid
from mgcompile.spec.fields import Option, wrong
from mgcompile.spec.wording import listed, nearest, quoted

__all__ = ["Custom"]


MOST_NAME = 200


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MOST_NAME:
        raise wrong("the name of a registered operation", value)
    return value


class Custom(LayerSpec):
    """A registered operation on every grid; all options but `name` are its own. `op: name` is a short form."""

    model_config = ConfigDict(extra="allow")

    kind: ClassVar[str] = "op"
    shorthand: ClassVar[str] = "name"

    name: Annotated[str, Option(_name, {"type": "string", "minLength": 1, "maxLength": MOST_NAME})]
    """The name under which a package registered it (entry point group `mgcompile.ops`)."""

    def build(self, place: Place) -> Pyramid:
        op = self._op()
        try:
            return place.apply(lambda level: op)
        except ShapeError:
            raise
        except Exception as error:
            # Code of another package: what it does not foresee is a mistake at this place too.
            raise LayerError(f"the operation {self.name} fails on what it receives: {error!r}") from error

    def _op(self) -> Op:
        try:
            cls = find_op(self.name)
        except KeyError:
            known = known_ops()
            near = nearest(self.name, known)
            hint = f"; did you mean {near}?" if near else f"; known: {listed(known)}"
            message = f"no installed package registers an operation {quoted(self.name)}{hint}"
            raise LayerError(message, "name") from None
        except MgcompileError as error:
            raise LayerError(str(error), "name") from None
        return _made(cls, dict(self.__pydantic_extra__ or {}))


def _made(cls: type[Op], options: dict[str, Any]) -> Op:
    known = [field.name for field in fields(cls)]
    if unknown := sorted(options.keys() - set(known)):
        raise LayerError(f"unknown option; {cls.__name__} has {listed(known)}", unknown[0])
    try:
        return TypeAdapter(cls).validate_python(options)
    except ValidationError as error:
        first = error.errors()[0]
        raise LayerError(first["msg"], *first["loc"]) from None
    except Exception as error:
        raise LayerError(f"{cls.__name__} refuses these options: {error!r}") from error
