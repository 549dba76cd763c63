"""What expressions know inside a layer: names from around it, its own, and the number of a repeat.

The number is `index`, and where several repeats surround a place, `outer.index` by the id of the layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mgcompile.spec.arithmetic import Ambiguous
from mgcompile.spec.base import Step
from mgcompile.spec.scopes import Scope

__all__ = ["inner_names", "repeated_names"]

SUFFIX = ".index"


def inner_names(step: Step, scope: Scope) -> Mapping[str, Any]:
    """What expressions know in the layers of a step that stands in a scope. A name that would hide another one in what
    a user wrote could mean each, and reading it is a mistake.
    """
    if step.closed or not step.names:
        return dict(step.names) if step.closed else scope.names
    hidden = step.names.keys() & scope.names.keys() if step.user else set()
    unclear = {
        name: Ambiguous("it could be the param or what the layer around this place calls so; call the param otherwise")
        for name in hidden
        if name != "index" and not name.endswith(SUFFIX)
    }
    return {**scope.names, **step.names, **unclear}


def repeated_names(scope: Scope, repeat: int) -> Iterator[dict[str, Any]]:
    """What expressions know inside each repeat of the layer whose scope is given.

    `index` alone is known where one repeat surrounds the place; of several it could mean each, and reading it is a
    mistake that names them.
    """
    id = scope.path.rpartition(".")[2]
    own, hidden = f"{id}{SUFFIX}", {}
    around = [name.removesuffix(SUFFIX) for name in scope.names if name.endswith(SUFFIX)]
    if id in around:
        hidden[own] = Ambiguous(f"two repeats around this are called {id!r}; give one another id")
    if around:
        hidden["index"] = Ambiguous(f"it could be that of several repeats; write {_ways([*around, id])}")
    elif "index" in scope.names:
        reason = f"it could be the param or the number of the repeat; call the param otherwise, or write {_ways([id])}"
        hidden["index"] = Ambiguous(reason)
    return ({"index": index, own: index, **hidden} for index in range(repeat))


def _ways(ids: list[str]) -> str:
    """How to name each of some repeats."""
    ways = [f"${{{id}{SUFFIX}}}" if id.isidentifier() else f"the index of {id!r} (by an id of letters)" for id in ids]
    return " or ".join(dict.fromkeys(ways))
