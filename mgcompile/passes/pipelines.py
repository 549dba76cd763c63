"""Which passes run, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from mgcompile.errors import MgcompileError
from mgcompile.graph import Graph
from mgcompile.graph.collecting import collection_paused
from mgcompile.passes.fuse import fold, fuse_activation, fuse_conv, fuse_sum
from mgcompile.passes.layout import channels_last, pool_pairs
from mgcompile.passes.prune import prune
from mgcompile.passes.share import share
from mgcompile.passes.subpixel import subpixel

__all__ = ["MODES", "PIPELINES", "Pass", "optimize", "steps"]

Pass: TypeAlias = Callable[[Graph], Graph]

PIPELINES: Mapping[str, tuple[Pass, ...]] = {
    "training": (share, prune, subpixel, fuse_conv, fold, fuse_sum, fuse_activation, channels_last),
    "inference": (share, prune, subpixel, fuse_conv, fold, fuse_sum, fuse_activation, pool_pairs, channels_last),
}
"""The passes of each mode, in their order."""

MODES = tuple(PIPELINES)


def optimize(graph: Graph, mode: str | None) -> Graph:
    """The graph after the passes of a mode; the graph itself where the mode is None. Raises `MgcompileError`."""
    result = graph
    with collection_paused():
        for _, result in steps(graph, mode):  # noqa: B007 - the last is what is wanted
            pass
    return result


def steps(graph: Graph, mode: str | None) -> Iterator[tuple[str, Graph]]:
    """The name of each pass and the graph after it, beginning with the graph as it is built."""
    yield "build", graph
    if mode is None:
        return
    if mode not in PIPELINES:
        raise MgcompileError(f"optimize={mode!r}: known are {', '.join(MODES)}")
    for each in PIPELINES[mode]:
        graph = each(graph)
        yield each.__name__, graph
