"""Which examples each step sees: a function of the seed and the step, in any number of processes and workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mgcompile.errors import MgcompileError
from mgcompile.training.counter import uniform
from mgcompile.training.recipe import Recipe
from mgcompile.training.stopping import left_to_the_trainer
from mgcompile.training.tasks import Data, Examples, HeldOut
from mgcompile.training.tasks.base import Integers

__all__ = ["Place", "batches", "held_out_batches", "making", "shuffled", "spread"]

Made = TypeVar("Made")

ORDER = 64
"""What random numbers are drawn for here; scenes and augmentation draw for others."""


@dataclass(frozen=True, slots=True)
class Place:
    """One of several processes that train one network: its `rank`, 0 to `processes - 1`."""

    rank: int = 0
    processes: int = 1


def shuffled(samples: int, seed: int, epoch: int) -> Integers:
    """The order of an epoch: each of 0 to `samples - 1` once."""
    keys = uniform(1, seed, np.arange(samples), purpose=ORDER, trial=epoch)[:, 0]
    return np.argsort(keys, kind="stable")


class _Steps(Dataset[list[Examples] | MgcompileError]):
    """By step, the parts of the batch that a process computes.

    A batch is the next `batch` of an endless row of samples, epoch after epoch. It is cut into as many parts as are
    accumulated, and each part into a share for each process, so that parts are the same for any number of processes.
    """

    def __init__(self, data: Data, recipe: Recipe, place: Place) -> None:
        self.data, self.recipe, self.place = data, recipe, place
        self.samples = data.samples("train")
        self.orders: dict[int, Integers] = {}

    def __getitem__(self, step: int) -> list[Examples] | MgcompileError:
        try:
            return self._parts(step)
        except MgcompileError as error:
            return error  # raised in a worker, it would have a traceback in its message

    def _parts(self, step: int) -> list[Examples]:
        recipe, place = self.recipe, self.place
        numbers = step * recipe.batch + np.arange(recipe.batch)
        shares = numbers.reshape(recipe.accumulate, place.processes, -1)[:, place.rank]
        return [self.data.training(self._samples(part), part) for part in shares]

    def _samples(self, numbers: Integers) -> Integers:
        epochs, places = np.divmod(numbers, self.samples)
        found = np.empty_like(numbers)
        for epoch in map(int, np.unique(epochs)):
            found[epochs == epoch] = self._order(epoch)[places[epochs == epoch]]
        return found

    def _order(self, epoch: int) -> Integers:
        if epoch not in self.orders:
            if len(self.orders) > 1:  # a batch may lie in two epochs
                self.orders.clear()
            self.orders[epoch] = shuffled(self.samples, self.recipe.seed, epoch)
        return self.orders[epoch]


def batches(
    data: Data, recipe: Recipe, place: Place, *, start: int = 0, workers: int = 0
) -> Iterator[tuple[int, list[Examples]]]:
    """From step `start` to the last: the step, and the parts of its batch that the process of this place computes.

    `workers` are processes that make examples ahead; what they make does not depend on how many there are. Raises what
    the data raise; see `making`.
    """
    steps = range(start, recipe.steps)
    loader = DataLoader(
        _Steps(data, recipe, place),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=left_to_the_trainer,
        pin_memory=torch.cuda.is_available(),
    )
    for step, made in zip(steps, loader, strict=True):
        yield step, _whole(made)


def held_out_batches(
    data: Data, split: HeldOut, place: Place, *, limit: int, batch: int, crops: int = 1, workers: int = 0
) -> Iterator[Examples]:
    """`limit` samples of a split, in batches; those of this place, every so many as there are processes."""
    samples = spread(data.samples(split), limit)[place.rank :: place.processes]
    parts = [samples[at : at + batch] for at in range(0, len(samples), batch)]
    loader = DataLoader(
        _HeldOut(data, split, parts, crops),
        batch_size=None,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=left_to_the_trainer,
        pin_memory=torch.cuda.is_available(),
    )
    yield from map(_whole, loader)


def spread(total: int, limit: int) -> Integers:
    """Of `total` samples so many, at equal distances: folders of pictures are sorted by class."""
    count = min(limit, total)
    return np.arange(count) * total // max(count, 1)


class _HeldOut(Dataset[Examples | MgcompileError]):
    def __init__(self, data: Data, split: HeldOut, parts: list[Integers], crops: int) -> None:
        self.data, self.split, self.parts, self.crops = data, split, parts, crops

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Examples | MgcompileError:
        try:
            return self.data.held_out(self.split, self.parts[index], self.crops)
        except MgcompileError as error:
            return error


@contextmanager
def making() -> Iterator[None]:
    """A worker that was killed becomes a `MgcompileError`. PyTorch notices it anywhere, not only where examples are
    waited for.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = str(error).split(". ")[0]
        raise MgcompileError(
            f"a process that makes examples has stopped: {reason}; there may be too little memory: take fewer workers"
        ) from error


def _whole(made: Made | MgcompileError) -> Made:
    if isinstance(made, MgcompileError):
        raise made
    return made


def _unchanged(value: object) -> object:
    return value
