"""Dashed curves as pieces of curves: Graphviz has no dash lengths, and its dots differ between its formats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import hypot

from mgcompile.drawing.scene import Point

__all__ = ["cut_dashes"]

SAMPLES = 16

Cubic = tuple[Point, Point, Point, Point]


def cut_dashes(points: Sequence[Point], dash: Sequence[float]) -> list[tuple[Point, ...]]:
    """The visible pieces of a dashed curve, each again a start and three points for each cubic.

    `dash` is (on, off). Both are stretched a little so that the curve begins and ends with a whole dash.
    """
    on, off = dash
    cubics = [(points[n], points[n + 1], points[n + 2], points[n + 3]) for n in range(0, len(points) - 1, 3)]
    tables = [list(_lengths(cubic)) for cubic in cubics]
    total = sum(table[-1] for table in tables)
    count = max(1, round((total + off) / (on + off)))
    stretch = total / (count * on + (count - 1) * off)
    pieces: list[tuple[Point, ...]] = []
    for number in range(count):
        start = number * (on + off) * stretch
        pieces.append(_stretch_of_curve(cubics, tables, start, start + on * stretch))
    return [piece for piece in pieces if piece]


def _stretch_of_curve(
    cubics: Sequence[Cubic], tables: Sequence[Sequence[float]], start: float, stop: float
) -> tuple[Point, ...]:
    """The part of a chain of cubics between two lengths along it."""
    points: list[Point] = []
    passed = 0.0
    for cubic, table in zip(cubics, tables, strict=True):
        first, last = max(0.0, start - passed), min(table[-1], stop - passed)
        if first < last:
            part = _part(cubic, _parameter(table, first), _parameter(table, last))
            points += part[1:] if points else part
        passed += table[-1]
    return tuple(points)


def _lengths(cubic: Cubic) -> Iterator[float]:
    """The length along a cubic at equal steps of its parameter."""
    length, before = 0.0, cubic[0]
    for step in range(SAMPLES + 1):
        here = _at(cubic, step / SAMPLES)
        length += hypot(here[0] - before[0], here[1] - before[1])
        before = here
        yield length


def _parameter(table: Sequence[float], length: float) -> float:
    step = next((step for step in range(1, SAMPLES + 1) if table[step] >= length), SAMPLES)
    width = table[step] - table[step - 1]
    return (step - 1 + (min(1.0, (length - table[step - 1]) / width) if width else 0.0)) / SAMPLES


def _at(cubic: Cubic, t: float) -> Point:
    weights = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
    return (
        sum(weight * point[0] for weight, point in zip(weights, cubic, strict=True)),
        sum(weight * point[1] for weight, point in zip(weights, cubic, strict=True)),
    )


def _part(cubic: Cubic, start: float, stop: float) -> Cubic:
    """The same cubic between two parameters, by halving it twice (de Casteljau)."""
    head = _halves(cubic, stop)[0]
    return _halves(head, start / stop)[1] if start else head


def _halves(cubic: Cubic, t: float) -> tuple[Cubic, Cubic]:
    a, b, c, d = cubic
    ab, bc, cd = _mix(a, b, t), _mix(b, c, t), _mix(c, d, t)
    abc, bcd = _mix(ab, bc, t), _mix(bc, cd, t)
    middle = _mix(abc, bcd, t)
    return (a, ab, abc, middle), (middle, bcd, cd, d)


def _mix(a: Point, b: Point, t: float) -> Point:
    return a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t
