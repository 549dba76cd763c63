"""Plots of figures: points with their Pareto front, curves. Numbers in, a picture out; matplotlib draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Curve", "Point", "curve_plot", "pareto_front", "scatter_plot"]

PlotFormat = Literal["svg", "png", "html"]


@dataclass(frozen=True, slots=True)
class Point:
    """A named point; those of one `series` share colour and marker."""

    name: str
    series: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A named polyline, x ascending."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def pareto_front(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points that no other is at least as good as in both axes and better in one, less being better, x ascending."""
    raise NotImplementedError


def scatter_plot(
    points: Sequence[Point], format: PlotFormat, *, x: str, y: str, title: str = "", log_x: bool = True
) -> bytes:
    """The points with their names and their Pareto front; `x` and `y` name the axes. HTML is a page of its own."""
    raise NotImplementedError


def curve_plot(
    curves: Sequence[Curve], format: PlotFormat, *, x: str, y: str, title: str = "", log_y: bool = False,
    line: tuple[float, str] | None = None,
) -> bytes:
    """The curves with a legend, and a dashed horizontal `line` (at y, with its text)."""
    raise NotImplementedError
