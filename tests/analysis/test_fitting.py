"""The search for integers that meet limits, held against trying every combination."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import product
from math import log2

import pytest

from mgcompile.analysis.fitting import (
    FEW,
    MOST_LINES,
    MOST_TRIED,
    PATIENCE,
    Axis,
    Fit,
    IndependentError,
    Measure,
    OutOfReachError,
    Point,
    SearchError,
    fit,
)


def every(axes: Sequence[Axis], measure: Measure) -> list[Point]:
    points = []
    for values in product(*(axis.values for axis in axes)):
        found = measure(values)
        if found is not None:
            points.append(Point(values, found))
    return points


def network(random_: random.Random, count: int) -> Callable[[tuple[int, ...]], tuple[int, ...]]:
    """Two figures that grow along every axis, by rounded-down products as those of a network do."""
    powers = [(random_.choice([1, 2]), random_.choice([0, 1, 2])) for _ in range(count)]
    divisor, base = random_.randrange(1, 9), random_.randrange(1, 50)

    def measure(values: tuple[int, ...]) -> tuple[int, ...]:
        first = second = base
        for value, (one, other) in zip(values, powers, strict=True):
            first *= value**one
            second += 3 * (value // 2) ** other
        return first // divisor + sum(values), second

    return measure


@pytest.mark.parametrize("seed", range(60))
def test_it_finds_what_trying_everything_finds(seed: int) -> None:
    random_ = random.Random(seed)
    count = 1 + seed % 3
    axes = []
    for number in range(count):
        step, first = random_.choice([1, 1, 3]), random_.randrange(1, 6)
        values = range(first, first + random_.randrange(2, 40 if number == 0 else 6) * step, step)
        axes.append(Axis("abc"[number], values, random_.randrange(1, 60)))
    random_.shuffle(axes)
    measure = network(random_, count)
    points = every(axes, measure)
    target = random_.choice(points).found
    limits = [max(1, figure + random_.choice([-1, 0, 5])) for figure in target]
    within = [point for point in points if point.used(limits) <= 1]
    if not within:
        with pytest.raises(OutOfReachError) as caught:
            fit(axes, measure, limits)
        assert caught.value.nearest.used(limits) == min(point.used(limits) for point in points)
        return
    result = fit(axes, measure, limits)
    assert result.way == ("bisection" if len(points) > FEW else "all")
    assert result.chosen in within
    if count == 1:
        assert result.chosen.values == max(point.values for point in within)
    else:
        assert result.chosen.used(limits) == max(point.used(limits) for point in within)
    for number, point in enumerate(result.beyond):
        assert (point is None) == (result.chosen.values[number] == axes[number].values[-1])
        if point is not None:
            others = [value for at, value in enumerate(result.chosen.values) if at != number]
            assert [value for at, value in enumerate(point.values) if at != number] == others
            assert point.used(limits) > 1


def counted(measure: Measure) -> tuple[Measure, list[tuple[int, ...]]]:
    asked: list[tuple[int, ...]] = []

    def asking(values: tuple[int, ...]) -> tuple[int, ...] | None:
        asked.append(values)
        return measure(values)

    return asking, asked


@pytest.mark.parametrize("limit", [1, 50, 4096, 4097, 10**9, 10**12])
def test_one_axis_takes_steps_that_double(limit: int) -> None:
    measure, asked = counted(lambda values: (values[0] ** 2,))
    result = fit([Axis("width", range(1, 1_000_001), 64)], measure, [limit])
    assert result.chosen.values == (int(limit**0.5),)
    assert len(asked) == len(set(asked)) == result.measured <= 2 * log2(1_000_000) + PATIENCE + 4
    assert max(asked)[0] <= max(2 * 64 + 1, 3 * int(limit**0.5))  # large networks are slow


def test_several_axes_take_lines() -> None:
    measure, asked = counted(lambda values: (values[0] * values[1] ** 2,))
    axes = [Axis("n", range(1, 17), 4), Axis("width", range(16, 257), 64)]
    result = fit(axes, measure, [4 * 64**2])
    assert result.chosen == Point((4, 64), (4 * 64**2,))
    assert result.measured == len(asked) <= 16 * (2 * log2(241) + PATIENCE)
    assert len(asked) < 16 * 241 / 15


def test_equals_go_to_the_most_even_change() -> None:
    def measure(values: tuple[int, ...]) -> tuple[int, ...]:
        return (values[0] * values[1],)

    axes = [Axis("a", range(1, 101), 6), Axis("b", range(1, 101), 6)]
    assert fit(axes, measure, [144]).chosen.values == (12, 12)
    result = fit([axes[0], Axis("b", range(1, 101), 24)], measure, [144])
    assert result.chosen.values == (6, 24)
    assert {point.values for point in result.others} == {(4, 36), (8, 18), (9, 16), (12, 12)}
    assert all(point.found == (144,) for point in result.others)


def test_values_of_zero_and_less_have_a_place_too() -> None:
    axes = [Axis("a", range(-2, 5), 0), Axis("b", range(0, 9), 1)]
    result = fit(axes, lambda values: (10 + 2 * values[0] + values[1],), [14])
    assert result.chosen.found == (14,)


def test_the_default_is_found_at_exactly_its_figures() -> None:
    for default in range(1, 40):
        result = fit(
            [Axis("w", range(1, 1000), default)], lambda values: (7 * values[0] ** 2 + 3,), [7 * default**2 + 3]
        )
        assert result.chosen.values == (default,)


def test_values_without_a_network_are_passed_over() -> None:
    def measure(values: tuple[int, ...]) -> tuple[int, ...] | None:
        return (values[0] ** 2,) if values[0] % 8 == 0 and values[0] < 2000 else None

    for default in (8, 60, 64, 1000):
        for limit in (64, 65, 10_000, 10_815, 10_816, 1992**2):
            result = fit([Axis("w", range(1, 1_000_001), default)], measure, [limit])
            assert result.chosen.values == (int(limit**0.5) // 8 * 8,)
            if limit < 1992**2:
                assert result.beyond[0] is not None
                assert result.beyond[0].values == (result.chosen.values[0] + 8,)
            else:
                assert result.beyond == (None,)
    with pytest.raises(OutOfReachError) as caught:
        fit([Axis("w", range(1, 100), 64)], measure, [63])
    assert caught.value.nearest == Point((8,), (64,))


def test_where_a_figure_falls_every_value_is_looked_at() -> None:
    figures = [5, 9, 3, 20, 8, 30, 40]
    result = fit([Axis("n", range(7), 1)], lambda values: (figures[values[0]],), [10])
    assert (result.way, result.chosen, result.measured) == ("all", Point((4,), (8,)), 7)
    assert result.beyond == (Point((5,), (30,)),)
    longer = fit([Axis("n", range(100), 1)], lambda values: (values[0] - 30 * (values[0] >= 40),), [9])
    assert (longer.way, longer.chosen, longer.measured) == ("bisection", Point((9,), (9,)), longer.measured)
    fallen = fit([Axis("n", range(100), 60)], lambda values: (values[0] - 30 * (values[0] >= 40),), [9])
    assert (fallen.way, fallen.chosen, fallen.measured) == ("all", Point((9,), (9,)), 100)
    with pytest.raises(OutOfReachError) as caught:
        fit([Axis("n", range(7), 1)], lambda values: (figures[values[0]],), [2])
    assert caught.value.nearest == Point((2,), (3,))
    with pytest.raises(SearchError, match="falls from n=64 to 128, so that every value") as refused:
        fit([Axis("n", range(1, 10**6), 64)], lambda values: (1000 - 500 * (values[0] >= 100),), [600])
    assert f"more than {MOST_TRIED:,}" in str(refused.value)


def test_an_axis_on_which_nothing_depends_is_named() -> None:
    axes = [Axis("n", range(1, 5), 2), Axis("width", range(1, 9), 4)]
    with pytest.raises(IndependentError, match="no figure depends on n: all are equal at 1, 2, 4") as caught:
        fit(axes, lambda values: (values[1],), [4])
    assert caught.value.axis.name == "n"
    assert fit([Axis("n", [2], 2)], lambda values: (5,), [5]).beyond == (None,)  # a single value is no mistake


def test_too_many_lines_are_refused_before_any_is_searched() -> None:
    axes = [Axis(name, range(1, 20), 4) for name in "abc"]
    measure, asked = counted(lambda values: (sum(values),))
    with pytest.raises(SearchError, match=f"a and b come to 361 combinations, more than {MOST_LINES}|b and c"):
        fit(axes, measure, [10])
    assert len(asked) <= 9


def test_without_any_network_it_says_so() -> None:
    with pytest.raises(SearchError, match="there is no network"):
        fit([Axis("a", range(1, 9), 4)], lambda values: None, [10])


def test_the_tightest_limit_counts() -> None:
    point = Point((1,), (50, 9))
    assert point.used([100, 10]) == Fraction(9, 10)
    result: Fit = fit([Axis("a", range(1, 101), 5)], lambda values: (values[0], values[0] ** 2), [80, 400])
    assert result.chosen.values == (20,)
