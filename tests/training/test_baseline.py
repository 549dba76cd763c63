"""The best answer that ignores the image: no constant has less loss, and a network that gives it has its score."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mgcompile.training.evaluation import baseline, evaluate
from mgcompile.training.fitting import Fit
from mgcompile.training.tasks import ClassData, Data, Examples, Identity, MapData


class Held:
    """Targets that are given, of a test set; its inputs say nothing."""

    channels, size, identity = 1, 2, Identity(None, "")

    def __init__(self, targets: Tensor, outputs: int) -> None:
        self.kept, self.outputs = targets, outputs
        self.classes = tuple(map(str, range(outputs)))

    def samples(self, split: Literal["train", "validation", "test"]) -> int:
        return len(self.kept) if split == "test" else 0

    def training(self, samples: Any, numbers: Any) -> Examples:
        raise NotImplementedError

    def held_out(self, split: Any, samples: Any, crops: int = 1) -> Examples:
        return Examples(torch.zeros(len(samples), 1, 2, 2), self.kept[samples])


class Labels(Held, ClassData):
    pass


class Maps(Held, MapData):
    pass


class Constant(nn.Module):
    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        return self.answer.expand(len(x), *self.answer.shape)


@st.composite
def data(draw: st.DrawFn) -> Data:
    count, outputs, seed = draw(st.integers(1, 40)), draw(st.integers(1, 7)), draw(st.integers(0, 99))
    noise = np.random.default_rng(seed)
    if draw(st.booleans()):
        return Labels(torch.from_numpy(noise.integers(0, outputs, count)), outputs)
    return Maps(torch.from_numpy((noise.random((count, outputs, 2, 2)) < noise.random()).astype(np.float32)), outputs)


@given(data=data(), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_no_constant_answer_has_less_loss(data: Data, seed: int) -> None:
    best = baseline(data, "test", limit=1000)
    targets = data.targets("test", np.arange(data.samples("test")))
    mean = data.probabilities(targets).double().mean(0).float()
    other = (mean + 0.2 * torch.rand(mean.shape, generator=torch.Generator().manual_seed(seed))).clamp(1e-3, 1 - 1e-3)
    other = other if data.in_maps else other / other.sum()
    found = [
        evaluate(Constant(answer), data, Fit("", False), "test", accelerator=Accelerator(cpu=True), limit=1000, batch=7)
        for answer in (mean, other)
    ]
    assert found[0].score == best.score
    assert found[0].loss == pytest.approx(best.loss, rel=1e-5, abs=1e-6)
    assert best.loss <= found[1].loss + 1e-6
    assert best.samples == len(targets)


def test_of_classes_it_is_the_entropy_and_the_largest_share() -> None:
    labels = Labels(torch.tensor([2, 2, 2, 0, 1, 1]), 9)
    found = baseline(labels, "test", limit=6)
    assert found.loss == pytest.approx(-(0.5 * math.log(0.5) + math.log(1 / 6) / 6 + math.log(1 / 3) / 3), rel=1e-6)
    assert found.metrics == pytest.approx({"top1_error": 50.0, "top5_error": 0.0})
    assert baseline(labels, "test", limit=2).samples == 2


def test_it_is_of_the_samples_that_are_evaluated_and_of_none_it_is_unknown() -> None:
    maps = Maps(torch.ones(4, 1, 2, 2), 1)
    assert baseline(maps, "test", limit=4).metrics == {"iou": 100.0, "error": 0.0}
    none = baseline(maps, "validation", limit=4)
    assert none.samples == 0
    assert math.isnan(none.loss)
