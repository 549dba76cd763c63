"""Which examples a step sees: each sample once an epoch, and the same batch for any number of processes and workers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgcompile.training.feeding import Place, batches, held_out_batches, shuffled, spread
from mgcompile.training.recipe import Recipe
from mgcompile.training.tasks import ClassData, Examples

MANY = settings(max_examples=30, deadline=None, derandomize=True)


class Numbers(ClassData):
    """Examples that are their sample's number; to train on, what is drawn for them is the second number."""

    def __init__(self, count: int) -> None:
        self.count = count

    def samples(self, split: Literal["train", "validation", "test"]) -> int:
        return self.count

    def training(self, samples: Any, numbers: Any) -> Examples:
        return Examples(torch.from_numpy(np.stack([samples, numbers], 1)), torch.from_numpy(samples.copy()))

    def held_out(self, split: Any, samples: Any, crops: int = 1) -> Examples:
        return Examples(torch.full((len(samples), crops), 1.0), torch.from_numpy(samples.copy()))


Numbers.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


def recipe(**given: int) -> Recipe:
    return Recipe(task="cifar10", **given)


Parts = list[list[list[int]]]


def parts(data: Numbers, told: Recipe, place: Place, start: int = 0, workers: int = 0) -> Iterator[Parts]:
    """By step, the parts of a batch as [sample, number]."""
    for _, found in batches(data, told, place, start=start, workers=workers):
        yield [part.inputs.tolist() for part in found]


@given(samples=st.integers(1, 60), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 1000))
@MANY
def test_an_epoch_has_each_sample_once(samples: int, seed: int, epoch: int) -> None:
    order = shuffled(samples, seed, epoch)
    assert sorted(order) == list(range(samples))
    assert order.tolist() == shuffled(samples, seed, epoch).tolist()
    if samples > 20:
        assert order.tolist() != shuffled(samples, seed, epoch + 1).tolist()
        assert order.tolist() != shuffled(samples, seed ^ 1, epoch).tolist()


def test_every_place_in_an_epoch_is_equally_likely() -> None:
    places = np.zeros((5, 5))
    for seed in range(500):
        places[shuffled(5, seed, 3), np.arange(5)] += 1
    assert abs(places - 100).max() < 45  # five standard deviations


@given(
    samples=st.integers(1, 40),
    accumulate=st.sampled_from([1, 2, 3]),
    shares=st.integers(1, 3),
    steps=st.integers(1, 6),
    seed=st.integers(0, 2**63 - 1),
)
@MANY
def test_a_batch_is_the_same_for_any_number_of_processes(
    samples: int, accumulate: int, shares: int, steps: int, seed: int
) -> None:
    told = recipe(batch=4 * accumulate * shares, accumulate=accumulate, steps=steps, seed=seed)
    data = Numbers(samples)
    alone = list(parts(data, told, Place()))
    # Alone: one epoch after the other, and numbers that no other example has.
    row = [example for step in alone for part in step for example in part]
    epochs = -(-len(row) // samples)
    order = np.concatenate([shuffled(samples, seed, epoch) for epoch in range(epochs)])
    assert row == [[sample, number] for number, sample in enumerate(order[: len(row)].tolist())]
    for processes in (2, 4):
        shared = zip(*(parts(data, told, Place(rank, processes)) for rank in range(processes)), strict=True)
        together = [[list(chain(*part)) for part in zip(*ranks, strict=True)] for ranks in shared]
        assert together == alone


@given(start=st.integers(0, 7), samples=st.integers(1, 20))
@MANY
def test_a_start_gives_the_rest(start: int, samples: int) -> None:
    told, data = recipe(batch=6, accumulate=2, steps=7), Numbers(samples)
    whole = list(parts(data, told, Place(1, 3)))
    assert list(parts(data, told, Place(1, 3), start=start)) == whole[start:]
    assert [step for step, _ in batches(data, told, Place(), start=start)] == list(range(start, 7))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # of more than there are processors
@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(workers: int) -> None:
    told, data = recipe(batch=6, accumulate=2, steps=9), Numbers(7)
    alone = list(parts(data, told, Place()))
    assert list(parts(data, told, Place(), workers=workers)) == alone
    assert list(parts(data, told, Place(), start=4, workers=workers)) == alone[4:]
    held = [held_out_batches(data, "test", Place(), limit=7, batch=2, workers=count) for count in (0, workers)]
    assert [part.targets.tolist() for part in held[0]] == [part.targets.tolist() for part in held[1]]


@given(
    samples=st.integers(0, 30), limit=st.integers(1, 40), batch=st.integers(1, 9), processes=st.sampled_from([1, 2, 4])
)
@MANY
def test_held_out_samples_are_divided_among_the_processes(samples: int, limit: int, batch: int, processes: int) -> None:
    found = []
    for rank in range(processes):
        made = held_out_batches(Numbers(samples), "test", Place(rank, processes), limit=limit, batch=batch, crops=3)
        for part in made:
            assert 1 <= len(part) <= batch
            assert part.inputs.shape[1] == 3
            found += part.targets.tolist()
    count = min(samples, limit)
    assert sorted(found) == sorted(set(found)) == sorted(spread(samples, limit))
    assert len(found) == count
    if count:  # as far from each other as can be, all over the split
        gaps = np.diff([*sorted(found), samples + min(found)])
        assert min(found) == 0
        assert gaps.max() - gaps.min() <= 1
