"""Operations that other installed packages bring, found by the entry-point group `mgcompile.ops`."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from mgcompile.errors import MgcompileError
from mgcompile.graph.ops.base import Op

__all__ = ["find_op", "known_ops", "register_op"]

GROUP = "mgcompile.ops"

_registered: dict[str, type[Op]] = {}

OpClass = TypeVar("OpClass", bound=type[Op])


def register_op(name: str, cls: OpClass) -> OpClass:
    """Make an `Op` subclass known as `name` in this process; an installed package declares an entry point instead."""
    if not issubclass(cls, Op):
        raise TypeError(f"{cls!r} is not a subclass of mgcompile.graph.ops.Op")
    _registered[name] = cls
    return cls


def find_op(name: str) -> type[Op]:
    """The registered operation of this name. Raises `KeyError` where there is none, `MgcompileError` where its package
    fails to import or gives something else than an `Op`.
    """
    if name in _registered:
        return _registered[name]
    point = _installed()[name]
    try:
        cls = point.load()
    except Exception as error:
        raise MgcompileError(f"the operation {name!r} ({point.value}) fails to import: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Op)):
        raise MgcompileError(f"the operation {name!r} ({point.value}) is not a subclass of mgcompile.graph.ops.Op")
    return register_op(name, cls)


def known_ops() -> tuple[str, ...]:
    """The names of all registered and installed operations, sorted."""
    return tuple(sorted({*_registered, *_installed()}))


@cache
def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
