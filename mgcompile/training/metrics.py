"""How good a network's answers are, in per cent, as the paper's tables print it.

Scores are sums and counts, so that those of batches add up to that of all samples, however these were split: the ratios
are rounded to multiples of 2^-32, of which float64 adds up two million without rounding.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from mgcompile.errors import ShapeError

__all__ = [
    "ClassScore",
    "MapScore",
    "Score",
    "TopScore",
    "class_error",
    "class_score",
    "iou",
    "map_score",
    "top_error",
    "top_score",
]

THRESHOLD = 0.5
UNIT = 2.0**32


@dataclass(frozen=True, slots=True)
class Score(ABC):
    """What is known of some samples, as sums and counts; a new one is that of none."""

    @abstractmethod
    def __add__(self, other: Self) -> Self:
        """That of both together."""

    @property
    @abstractmethod
    def metrics(self) -> Mapping[str, float]:
        """In per cent, by name; the first is what networks are compared by."""


@dataclass(frozen=True, slots=True)
class MapScore(Score):
    """Sums over pairs of an image and a class that is present in it; a new one is empty.

    `overlap` sums TP / (TP + FP + FN), `recall` TP / (TP + FN); `pairs` counts.
    """

    overlap: float = 0.0
    recall: float = 0.0
    pairs: int = 0

    def __add__(self, other: MapScore) -> MapScore:
        return MapScore(self.overlap + other.overlap, self.recall + other.recall, self.pairs + other.pairs)

    @property
    def iou(self) -> float:
        """Intersection over union in per cent, 0 to 100; nan where no class was present."""
        return 100 * self.overlap / self.pairs if self.pairs else math.nan

    @property
    def class_error(self) -> float:
        """100 less the recall in per cent; nan where no class was present."""
        return 100 - 100 * self.recall / self.pairs if self.pairs else math.nan

    @property
    def metrics(self) -> Mapping[str, float]:
        return {"iou": self.iou, "error": self.class_error}


@dataclass(frozen=True, slots=True)
class TopScore:
    """Samples whose class was not among the first, and all samples; a new one is empty."""

    wrong: int = 0
    samples: int = 0

    def __add__(self, other: TopScore) -> TopScore:
        return TopScore(self.wrong + other.wrong, self.samples + other.samples)

    @property
    def error(self) -> float:
        """In per cent; nan of no samples."""
        return 100 * self.wrong / self.samples if self.samples else math.nan


@dataclass(frozen=True, slots=True)
class ClassScore(Score):
    """Samples, and those whose class was not the first, or not among the first five; a new one is empty."""

    samples: int = 0
    first: int = 0
    five: int = 0

    def __add__(self, other: ClassScore) -> ClassScore:
        return ClassScore(self.samples + other.samples, self.first + other.first, self.five + other.five)

    @property
    def metrics(self) -> Mapping[str, float]:
        shares = {"top1_error": self.first, "top5_error": self.five}
        return {name: 100 * wrong / self.samples if self.samples else math.nan for name, wrong in shares.items()}


def map_score(predictions: Tensor, targets: Tensor) -> MapScore:
    """The score of one batch.

    Both are (n, maps, height, width): probabilities, of which 0.5 and more say yes and nan says no, and targets of 0
    and 1. A class is present in an image where its target has a 1; what is predicted for the others does not count.
    Raises ShapeError where the shapes differ.
    """
    if predictions.ndim != 4 or predictions.shape != targets.shape:
        raise ShapeError(
            f"predictions {tuple(predictions.shape)} and targets {tuple(targets.shape)}; "
            "expected both as (images, maps, height, width)"
        )
    found, right = predictions.detach() >= THRESHOLD, targets >= 0.5
    hits = (found & right).sum((2, 3)).double()
    positives = right.sum((2, 3)).double()
    union = (found | right).sum((2, 3)).double()
    present = positives > 0
    return MapScore(_total(hits / union, present), _total(hits / positives, present), int(present.sum()))


def _total(ratios: Tensor, present: Tensor) -> float:
    return float(torch.round(ratios[present] * UNIT).sum() / UNIT)


def iou(predictions: Tensor, targets: Tensor) -> float:
    """Mean of TP / (TP + FP + FN) over images and classes present, in per cent; see `map_score`."""
    return map_score(predictions, targets).iou


def class_error(predictions: Tensor, targets: Tensor) -> float:
    """100 less the mean of TP / (TP + FN) over images and classes present, in per cent; see `map_score`."""
    return map_score(predictions, targets).class_error


def top_score(logits: Tensor, labels: Tensor, k: int = 1) -> TopScore:
    """The score of one batch: `logits` (n, classes), integer `labels` (n,).

    Of equal logits, the one of the lower class comes first, so that a network which answers nothing gets no credit. A
    sample with a nan is wrong. Raises ShapeError: shapes, labels or a k that do not fit.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ShapeError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)}; expected (samples, classes) and (samples,)"
        )
    samples, classes = logits.shape
    if not 1 <= k <= classes:
        raise ShapeError(f"k = {k} for {classes} classes; expected 1 to {classes}")
    if samples and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ShapeError(f"labels {int(labels.min())} to {int(labels.max())}; expected 0 to {classes - 1}")
    values, place = logits.detach(), labels.long()[:, None]
    own = values.gather(1, place)
    earlier = torch.arange(classes, device=values.device) < place
    ahead = ((values > own) | ((values == own) & earlier)).sum(1)
    wrong = (ahead >= k) | values.isnan().any(1)
    return TopScore(int(wrong.sum()), samples)


def top_error(logits: Tensor, labels: Tensor, k: int = 1) -> float:
    """Per cent of samples whose class is not among those of the `k` largest logits; see `top_score`."""
    return top_score(logits, labels, k).error


def class_score(outputs: Tensor, labels: Tensor) -> ClassScore:
    """The score of one batch; see `top_score`. Of five classes and fewer, the first five hold them all."""
    first = top_score(outputs, labels)
    return ClassScore(first.samples, first.wrong, top_score(outputs, labels, min(5, outputs.shape[1])).wrong)
