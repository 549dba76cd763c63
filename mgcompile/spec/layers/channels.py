"""Layers that change channels without computing."""

from __future__ import annotations

from typing import Annotated, ClassVar

from mgcompile.graph.ops import PadChannels, SliceChannels
from mgcompile.spec.base import LayerSpec, Place, Pyramid
from mgcompile.spec.fields import MOST_CHANNELS, Channels, PerLevel, per_level

__all__ = ["Pad", "Slice"]


class Pad(LayerSpec):
    """Appends zero channels to every grid until there are so many."""

    kind: ClassVar[str] = "pad"
    shorthand: ClassVar[str] = "channels"

    channels: Channels
    """Channels out, one number for all grids or a list from fine to coarse."""

    def build(self, place: Place) -> Pyramid:
        channels, grids = place.each(self.channels, "channels"), place.grids()
        return {
            level: node
            if channels[level] == grids[level].channels
            else place.add(PadChannels(channels[level]), [node], level)
            for level, node in place.pyramid.items()
        }


class Slice(LayerSpec):
    """Some of the channels of every grid."""

    kind: ClassVar[str] = "slice"

    start: Annotated[PerLevel, per_level(0, MOST_CHANNELS)] = 0
    """The first channel, from 0."""
    stop: Annotated[PerLevel, per_level(1, MOST_CHANNELS)] | None = None
    """The first channel that is left out; the end where it is not said."""

    def build(self, place: Place) -> Pyramid:
        starts, stops, grids = place.each(self.start, "start"), place.each(self.stop, "stop"), place.grids()
        return {
            level: place.add(SliceChannels(starts[level], stops[level] or grids[level].channels), [node], level)
            for level, node in place.pyramid.items()
        }
