"""Interleaved timing, by clocks that are set by hand."""

from __future__ import annotations

import gc

import pytest

from mgcompile.measuring import Timing, interleaved


class Clock:
    """Stands still unless a call moves it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ran: list[str] = []

    def __call__(self) -> float:
        return self.now

    def run(self, name: str, *seconds: float) -> None:
        self.ran.append(name)
        self.now += seconds[(self.ran.count(name) - 1) % len(seconds)]


def test_every_call_runs_once_a_round_in_its_order() -> None:
    clock = Clock()
    calls = {name: lambda name=name: clock.run(name, 1.0) for name in "abc"}
    told: list[str] = []
    interleaved(calls, runs=3, warmup=2, clock=clock, progress=told.append)
    assert clock.ran == list("abc") * 5
    assert told == clock.ran


def test_seconds_are_those_of_the_call_and_not_of_the_warm_up() -> None:
    clock = Clock()
    calls = {"fast": lambda: clock.run("fast", 50.0, 1.0, 3.0), "slow": lambda: clock.run("slow", 60.0, 8.0, 4.0)}
    times = interleaved(calls, runs=2, warmup=1, clock=clock, progress=lambda _: clock.run("progress", 1000.0))
    assert times == {"fast": Timing((1.0, 3.0)), "slow": Timing((8.0, 4.0))}


def test_what_a_call_has_begun_is_waited_for() -> None:
    clock = Clock()
    pending = [7.0]  # begun before the first run, so not its own

    def finish() -> None:
        clock.now += sum(pending)
        pending.clear()

    times = interleaved({"a": lambda: pending.append(2.0)}, runs=2, clock=clock, finish=finish)
    assert times["a"].seconds == (2.0, 2.0)


def test_the_collector_rests_within_a_run_alone() -> None:
    within, between = [], []
    interleaved({"a": lambda: within.append(gc.isenabled())}, runs=2, progress=lambda _: between.append(gc.isenabled()))
    assert within == [False, False]
    assert between == [True, True]


@pytest.mark.parametrize(("runs", "warmup"), [(0, 0), (-1, 0), (1, -1)])
def test_numbers_that_mean_nothing_are_refused(runs: int, warmup: int) -> None:
    with pytest.raises(ValueError, match="at least one run"):
        interleaved({"a": lambda: None}, runs=runs, warmup=warmup)


def test_median_quartiles_and_spread() -> None:
    timing = Timing((5.0, 1.0, 2.0, 4.0, 3.0))
    assert timing.median == 3.0
    assert timing.quartiles == (2.0, 4.0)
    assert timing.spread == pytest.approx(2 / 3)


def test_a_single_run_has_no_spread() -> None:
    timing = Timing((5.0,))
    assert (timing.median, timing.quartiles, timing.spread) == (5.0, (5.0, 5.0), None)


def test_a_clock_that_stands_still_has_no_spread() -> None:
    assert Timing((0.0, 0.0)).spread is None
