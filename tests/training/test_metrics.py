"""The metrics against cases worked out by hand, and against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mgcompile.errors import ShapeError
from mgcompile.training.metrics import MapScore, TopScore, class_error, iou, map_score, top_error, top_score


def maps(*rows: list[float]) -> Tensor:
    """One image, a map of one row each."""
    return torch.tensor(rows)[None, :, None, :]


def random_maps(seed: int = 0, count: int = 23) -> tuple[Tensor, Tensor]:
    """Predictions and targets, some classes of which are not there."""
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(count, 10, 7, 9, generator=generator) < 0.3).float()
    targets *= (torch.rand(count, 10, 1, 1, generator=generator) < 0.6).float()
    return torch.rand(count, 10, 7, 9, generator=generator), targets


def looped(predictions: Tensor, targets: Tensor) -> tuple[float, float]:
    """IoU and error, pixel by pixel."""
    overlaps, recalls = [], []
    for predicted, target in zip(predictions.flatten(0, 1).tolist(), targets.flatten(0, 1).tolist(), strict=True):
        cells = [
            (p >= 0.5, t == 1) for ps, ts in zip(predicted, target, strict=True) for p, t in zip(ps, ts, strict=True)
        ]
        hits, false, missed = (cells.count(case) for case in ((True, True), (True, False), (False, True)))
        if hits + missed:
            overlaps.append(hits / (hits + false + missed))
            recalls.append(hits / (hits + missed))
    return 100 * sum(overlaps) / len(overlaps), 100 - 100 * sum(recalls) / len(recalls)


def test_by_hand() -> None:
    predictions = maps([0.9, 0.5, 0.1, 0.4], [0.0, 0.0, 0.7, 0.6], [0.9, 0.9, 0.9, 0.9])
    targets = maps([1, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0])
    # Class 0 has one hit, one false and one missed pixel: 1/3 and 1/2. Class 1: 1/2 and 1/1. Class 2 is not there.
    assert iou(predictions, targets) == pytest.approx(100 * (1 / 3 + 1 / 2) / 2, abs=1e-6)
    assert class_error(predictions, targets) == pytest.approx(100 - 100 * (1 / 2 + 1) / 2, abs=1e-6)
    assert map_score(predictions, targets).pairs == 2


def test_pairs_count_alike_not_images() -> None:
    """An image with three classes weighs three times as much as one with a single class."""
    targets = torch.ones(2, 3, 1, 2)
    targets[1, 1:] = 0
    predictions = targets.clone()
    predictions[1] = 0
    assert iou(predictions, targets) == 75
    assert class_error(predictions, targets) == 25


def test_perfect_and_empty_predictions() -> None:
    _, targets = random_maps()
    assert iou(targets, targets) == 100
    assert class_error(targets, targets) == 0
    nothing = torch.zeros_like(targets)
    assert iou(nothing, targets) == 0
    assert class_error(nothing, targets) == 100
    assert class_error(torch.ones_like(targets), targets) == 0
    assert iou(torch.full_like(targets, math.nan), targets) == 0


def test_nothing_present_is_no_number() -> None:
    targets = torch.zeros(2, 10, 3, 3)
    for score in (MapScore(), map_score(torch.ones_like(targets), targets), map_score(targets[:0], targets[:0])):
        assert score.pairs == 0
        assert math.isnan(score.iou)
        assert math.isnan(score.class_error)


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_a_plain_loop(seed: int) -> None:
    predictions, targets = random_maps(seed)
    overlap, error = looped(predictions, targets)
    assert iou(predictions, targets) == pytest.approx(overlap, abs=1e-7)
    assert class_error(predictions, targets) == pytest.approx(error, abs=1e-7)


@pytest.mark.parametrize("size", [1, 2, 5, 22])
def test_batches_add_up_to_the_last_bit(size: int) -> None:
    predictions, targets = random_maps()
    parts = zip(predictions.split(size), targets.split(size), strict=True)
    assert sum((map_score(*part) for part in parts), MapScore()) == map_score(predictions, targets)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(1))
    assert map_score(predictions[order], targets[order]) == map_score(predictions, targets)


def test_any_number_type_and_gradients() -> None:
    predictions, targets = random_maps()
    whole = (predictions * 4).round() / 4  # exact in bfloat16
    expected = map_score(whole, targets)
    assert map_score(whole.bfloat16().requires_grad_(), targets.bool()) == expected


def test_maps_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"\(1, 10, 2, 2\) and targets \(1, 1, 2, 2\)"):
        map_score(torch.zeros(1, 10, 2, 2), torch.zeros(1, 1, 2, 2))
    with pytest.raises(ShapeError, match="height, width"):
        iou(torch.zeros(2, 2), torch.zeros(2, 2))


# --- classes


def test_top_by_hand() -> None:
    logits = torch.tensor([[0.1, 0.3, 0.2], [0.5, 0.1, 0.4], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    labels = torch.tensor([1, 2, 0, 0])
    assert top_error(logits, labels) == 50
    assert top_error(logits, labels, 2) == 25
    assert top_error(logits, labels, 3) == 0


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_is_that_of_topk_where_no_logits_are_equal(k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    logits = torch.rand(200, 20, generator=generator)
    labels = torch.randint(20, (200,), generator=generator)
    right = (logits.topk(k).indices == labels[:, None]).any(1)
    assert top_error(logits, labels, k) == 100 * (200 - int(right.sum())) / 200
    parts = zip(logits.split(7), labels.split(7), strict=True)
    assert sum((top_score(*part, k) for part in parts), TopScore()) == top_score(logits, labels, k)


def test_equal_logits_and_nan_get_no_credit() -> None:
    labels = torch.arange(10)
    assert top_error(torch.zeros(10, 10), labels) == 90
    assert top_error(torch.zeros(10, 10), labels, 5) == 50
    assert top_error(torch.full((10, 10), math.nan), labels, 10) == 100
    assert math.isnan(top_error(torch.zeros(0, 10), labels[:0]))


@pytest.mark.parametrize(("labels", "k", "message"), [
    ([0, 1], 1, r"logits \(3, 4\) and labels \(2,\)"),
    ([0, 1, 4], 1, "labels 0 to 4; expected 0 to 3"),
    ([0, -1, 3], 1, "labels -1 to 3"),
    ([0, 1, 3], 0, "k = 0 for 4 classes"),
    ([0, 1, 3], 5, "k = 5 for 4 classes"),
])  # fmt: skip
def test_classes_that_do_not_fit(labels: list[int], k: int, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        top_score(torch.zeros(3, 4), torch.tensor(labels), k)
