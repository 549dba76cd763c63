"""Seconds of calls that are compared: interleaved in one process, so that what slows the machine slows all of them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from mgcompile.graph.collecting import collection_paused

__all__ = ["Call", "Timing", "interleaved"]

Call = Callable[[], object]
"""What is timed; what it returns is dropped."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Timing:
    """The seconds of the runs of one call, at least one, in their order."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper one, in seconds: those of the runs themselves, both the run itself if it is one."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        lower, _, upper = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return lower, upper

    @property
    def spread(self) -> float | None:
        """From the lower quartile to the upper one, as a part of the median; None of a single run."""
        lower, upper = self.quartiles
        return (upper - lower) / self.median if len(self.seconds) > 1 and self.median else None


def interleaved(
    calls: Mapping[Key, Call],
    *,
    runs: int,
    warmup: int = 0,
    clock: Callable[[], float] = time.perf_counter,
    finish: Callable[[], object] = lambda: None,
    progress: Callable[[Key], object] = lambda _: None,
) -> dict[Key, Timing]:
    """The seconds of `runs` runs of each call, after `warmup` runs that do not count.

    They run in rounds: in each, every call runs once, in the order of `calls`. The garbage collector rests within a
    run. `clock` gives seconds; `finish` waits for what a run has only begun (of a GPU) before the clock is read;
    `progress` is told of each run that has ended, those of the warm-up too. Raises `ValueError` for less than one run.
    """
    if runs < 1 or warmup < 0:
        raise ValueError(f"expected at least one run and no negative warm-up, not {runs} and {warmup}")
    seconds: dict[Key, list[float]] = {key: [] for key in calls}
    gc.collect()  # what was garbage before is not collected between the runs
    for number in range(warmup + runs):
        for key, call in calls.items():
            with collection_paused():
                finish()
                start = clock()
                call()
                finish()
                taken = clock() - start
            if number >= warmup:
                seconds[key].append(taken)
            progress(key)
    return {key: Timing(tuple(found)) for key, found in seconds.items()}
