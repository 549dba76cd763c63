"""The receptive fields of networks against depth, as one plot."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from mgcompile.analysis.receptive import ReceptiveField
from mgcompile.drawing.plots import Curve, PlotFormat, curve_plot

__all__ = ["field_plot"]


def field_plot(
    fields: Sequence[tuple[str, ReceptiveField]], format: PlotFormat = "svg", *, log: bool = True, title: str = ""
) -> bytes:
    """A curve for each named network: the longer side of the largest field up to each depth, on an image without
    borders, with what is unbounded (global pooling) left out. A line at the image's size, where all have one.
    """
    sizes = {found.size for _, found in fields}
    line = None
    if len(sizes) == 1:
        height, width = next(iter(sizes))
        line = float(max(height, width)), f"image: {height}x{width}"
    return curve_plot(
        [_curve(name, found) for name, found in fields],
        format,
        x="depth (convolutions)",
        y="receptive field (pixels)",
        title=title,
        log_y=log,
        line=line,
        note="longer side of the largest field up to each depth, on an image without borders; global pooling left out",
    )


def _curve(name: str, found: ReceptiveField) -> Curve:
    deepest: dict[int, int] = {}
    for row in found.rows:
        height, width = row.unclipped
        if height is not None and width is not None:
            deepest[row.depth] = max(deepest.get(row.depth, 1), height, width)
    depths = sorted(deepest)
    return Curve(name, depths, list(accumulate((deepest[depth] for depth in depths), max)))
