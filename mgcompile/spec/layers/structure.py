"""Layers made of layers: groups, and the blocks that a spec defines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import ConfigDict

from mgcompile.spec.base import LayerSpec, Place, Step
from mgcompile.spec.fields import Identifier
from mgcompile.spec.items import Layers

__all__ = ["Block", "Group"]


class Group(LayerSpec):
    """Layers under one name, one after the other. `from: start` inside is what the group received."""

    kind: ClassVar[str] = "group"
    shorthand: ClassVar[str] = "layers"

    layers: Layers
    """The layers."""

    def expand(self, place: Place) -> Sequence[Step] | None:
        return [place.group(place.steps(self.layers, "layers"), user=True)]


class Block(LayerSpec):
    """A list of layers that the spec defines under `blocks`; all options but `use` are its parameters.

    `block: name` is a short form.
    """

    model_config = ConfigDict(extra="allow")

    kind: ClassVar[str] = "block"
    shorthand: ClassVar[str] = "use"

    use: Identifier
    """Which block."""

    def expand(self, place: Place) -> Sequence[Step] | None:
        return [place.elaboration.block(place, self.use, dict(self.__pydantic_extra__ or {}))]
