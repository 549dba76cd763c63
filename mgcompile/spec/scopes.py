"""Names: what a list of layers shares, and where references lead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mgcompile.graph.builder import INPUT
from mgcompile.spec.base import LayerError, Path, Pyramid
from mgcompile.spec.wording import nearest, quoted

__all__ = ["RESERVED", "References", "Scope", "Unknown"]

RESERVED = ("input", "start", "previous")


class Unknown(Exception):
    """A pyramid that is needed is unknown because of a mistake that has been reported."""


@dataclass(slots=True)
class Scope:
    """What a list of layers shares: names of nodes and of weights, what expressions know, where references look."""

    path: str = ""
    weights: str = ""
    parent: Scope | None = None
    user: bool = True
    start: Pyramid | None = None
    names: Mapping[str, Any] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    shared_levels: bool = False
    shared_norm: bool = True
    owned: bool = True
    depth: int = 0
    use: Path = ()
    """Where the outermost of `blocks` is used."""

    def under(self, id: str) -> str:
        """The path of a layer in this scope."""
        return f"{self.path}.{id}" if self.path else id

    def weights_under(self, id: str) -> str:
        """The path of a layer's weights in this scope."""
        return f"{self.weights}.{id}" if self.weights else id


class References:
    """The layers so far: the pyramid after each (None where a mistake left it unknown) and its scope."""

    def __init__(self) -> None:
        self.pyramids: dict[str, Pyramid | None] = {INPUT: {0: INPUT}}
        self.scopes: dict[str, Scope] = {}

    def absolute(self, reference: str, scope: Scope, option: Path = ()) -> str:
        """A reference as one that means the same everywhere. Raises `LayerError` where it leads nowhere."""
        if reference in RESERVED:
            return reference
        return "." + self.resolve(reference, scope, option)

    def look(self, reference: str, scope: Scope, option: Path = ()) -> Pyramid:
        """The pyramid that a reference leads to. Raises `LayerError` where it leads nowhere."""
        if reference == "start":
            found = scope.start
        else:
            found = self.pyramids[INPUT if reference == "input" else self.resolve(reference, scope, option)]
        if found is None:
            raise Unknown
        return found

    def resolve(self, reference: str, scope: Scope, option: Path) -> str:
        """The path of the layer that a reference means. Raises `LayerError` where there is none."""
        path = reference.lstrip(".")
        inner: Scope | None = None if reference.startswith(".") else scope
        first = True
        while inner is not None:
            # The scope at hand is always searched; beyond it only those whose names a user chose.
            if (first or inner.user) and inner.under(path) in self.pyramids:
                return inner.under(path)
            inner, first = inner.parent, False
        if path in self.pyramids:
            return path
        prefixes = [path[:at] for at, character in enumerate(path) if character == "."]
        if any(self.pyramids.get(prefix, {}) is None for prefix in prefixes):
            raise Unknown
        near = nearest(path, [name for name in self.pyramids if name != INPUT])
        hint = f"did you mean {near}?" if near else "a layer can be named with id, and only earlier ones can be read"
        raise LayerError(f"no earlier layer is called {quoted(reference)}; {hint}", *option)
