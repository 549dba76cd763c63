"""The pictures of predictions: where what is on them, against colours that are mixed in a loop."""

from __future__ import annotations

import io
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mgcompile.training.sheet import COLOURS, as_png, displayed, predictions
from mgcompile.training.tasks import ClassData, Examples, MapData

Pixels = NDArray[np.uint8]
GREEN, RED = (60, 200, 90), (250, 70, 60)


class Maps(MapData):
    """What is not asked for here is left out."""

    channels = 1


class Classes(ClassData):
    classes = ("cat", "dog", "an animal whose name is far longer than its picture", "größte Käfer 象")


for kind in (Maps, Classes):
    kind.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
MAPS, CLASSES = Maps(), Classes()  # type: ignore[abstract]


def drawn(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def mixed(maps: NDArray[np.float32]) -> Pixels:
    """(height, width, 3): white, or the mean of the colours of the maps, pixel by pixel."""
    count, height, width = maps.shape
    picture = np.zeros((height, width, 3), np.uint8)
    for y, x, colour in product(range(height), range(width), range(3)):
        of = [255.0] if count == 1 else [float(COLOURS[number][colour]) for number in range(count)]
        total = sum(float(part) * each for part, each in zip(maps[:, y, x], of, strict=True))
        picture[y, x, colour] = round(total / max(1.0, float(maps[:, y, x].sum())))
    return picture


def places(sheet: Pixels, picture: Pixels, times: int) -> list[tuple[int, int]]:
    """Where a picture, enlarged, is on a sheet: (top, left) of all places, one grey level off at most."""
    block = np.kron(picture.astype(np.int16), np.ones((times, times, 1), np.int16))
    height, width = block.shape[:2]
    wide = sheet.astype(np.int16)
    corners = wide[: len(sheet) - height + 1, : sheet.shape[1] - width + 1]
    return [
        (int(top), int(left))
        for top, left in np.argwhere((abs(corners - block[0, 0]) <= 1).all(axis=2))
        if (abs(wide[top : top + height, left : left + width] - block) <= 1).all()
    ]


@pytest.mark.parametrize("maps", [1, 10])
def test_image_target_and_prediction_stand_below_each_other(maps: int) -> None:
    inputs, targets, answers = 1 - drawn(3, 1, 12, 12), (drawn(3, maps, 12, 12) > 0.8).float(), drawn(3, maps, 12, 12)
    sheet = predictions(MAPS, Examples(inputs, targets), answers, logits=False)
    assert sheet.dtype == np.uint8
    lefts = []
    for image, target, answer in zip(inputs.numpy(), targets.numpy(), answers.numpy(), strict=True):
        grey = np.rint(255 * image[0])[..., None].repeat(3, axis=2).astype(np.uint8)
        found = [places(sheet, picture, 8) for picture in (grey, mixed(target), mixed(answer))]
        assert [len(each) for each in found] == [1, 1, 1]
        tops, left = [each[0][0] for each in found], {each[0][1] for each in found}
        assert tops[0] + 96 < tops[1] < tops[1] + 96 < tops[2]
        assert len(left) == 1
        lefts += left
    assert lefts == sorted(lefts)
    assert min(lefts) > 40  # the labels of the rows stand before them


def test_logits_are_shown_as_probabilities() -> None:
    examples = Examples(drawn(2, 1, 12, 12), torch.zeros(2, 1, 12, 12))
    logits = 8 * drawn(2, 1, 12, 12) - 4
    shown = predictions(MAPS, examples, logits, logits=True)
    assert np.array_equal(shown, predictions(MAPS, examples, logits.sigmoid(), logits=False))
    assert not np.array_equal(shown, predictions(MAPS, examples, logits.clamp(0, 1), logits=False))


def test_eight_stand_side_by_side() -> None:
    def extent(count: int) -> tuple[int, ...]:
        examples = Examples(torch.zeros(count, 1, 64, 64), torch.zeros(count, 1, 64, 64))
        return predictions(MAPS, examples, torch.zeros(count, 1, 64, 64), logits=False).shape

    (height, width, _), (same, wide, _), (double, last, _) = extent(1), extent(8), extent(9)
    assert (same, last) == (height, wide)
    assert wide - width == 7 * (extent(2)[1] - width)
    assert height < double < 2 * height
    assert extent(0)[2] == 3


def test_what_is_no_number_is_black() -> None:
    examples = Examples(torch.full((1, 1, 12, 12), 0.5), torch.ones(1, 1, 12, 12))
    wrong = torch.full((1, 1, 12, 12), torch.nan)
    shown = predictions(MAPS, examples, wrong, logits=True)
    assert np.array_equal(shown, predictions(MAPS, examples, torch.zeros_like(wrong), logits=False))


# --- classes


def framed(truth: int, answer: int, inputs: Tensor | None = None) -> Pixels:
    outputs = torch.zeros(1, len(CLASSES.classes))
    outputs[0, answer] = 1
    given = drawn(1, 3, 20, 20) if inputs is None else inputs
    return predictions(CLASSES, Examples(given, torch.tensor([truth])), outputs, logits=True)


def count(sheet: Pixels, colour: tuple[int, int, int]) -> int:
    return int((sheet == colour).all(axis=2).sum())


@pytest.mark.parametrize(("truth", "answer"), list(product(range(4), range(4))))
def test_a_frame_is_green_where_the_answer_is_right_and_red_elsewhere(truth: int, answer: int) -> None:
    sheet = framed(truth, answer)
    right, wrong = (GREEN, RED) if truth == answer else (RED, GREEN)
    assert count(sheet, right) >= 4 * 3 * 100  # three pixels around a picture of a hundred
    assert count(sheet, wrong) == 0
    assert sheet.shape == framed(0, 0).shape  # long names are cut
    assert len(places(sheet, displayed(drawn(1, 3, 20, 20))[0], 5)) == 1


def test_both_names_are_under_the_picture() -> None:
    sheets = [framed(truth, answer) for truth, answer in ((0, 1), (0, 2), (3, 2), (3, 1))]
    assert len({sheet.tobytes() for sheet in sheets}) == 4
    above = [sheet[: 4 + 100 + 2 * 3] for sheet in sheets]
    assert all(np.array_equal(part, above[0]) for part in above)
    # The first line has the true name, the second the other.
    first, second = slice(110, 123), slice(123, 136)
    assert np.array_equal(sheets[0][first], sheets[1][first])
    assert np.array_equal(sheets[1][second], sheets[2][second])
    assert not np.array_equal(sheets[0][second], sheets[1][second])
    assert not np.array_equal(sheets[0][first], sheets[3][first])


def test_of_several_crops_the_first_is_shown() -> None:
    crops = drawn(1, 10, 3, 20, 20)
    assert np.array_equal(framed(0, 1, crops), framed(0, 1, crops[:, 0]))


# --- pixels


def test_values_between_0_and_1_stay_and_others_are_stretched() -> None:
    images = torch.stack([drawn(3, 5, 4), 5 * drawn(3, 5, 4) - 2, torch.full((3, 5, 4), 7.0)])
    shown = displayed(images)
    assert shown.shape == (3, 5, 4, 3)
    for channel, y, x in product(range(3), range(5), range(4)):
        assert shown[0, y, x, channel] == round(255 * float(images[0, channel, y, x]))
        part = (images[1, channel, y, x] - images[1].min()) / (images[1].max() - images[1].min())
        assert abs(shown[1, y, x, channel] - 255 * float(part)) <= 0.51
    assert shown[1].min() == 0
    assert shown[1].max() == 255
    assert len(np.unique(shown[2])) == 1


def test_of_two_channels_the_mean_is_grey() -> None:
    images = drawn(2, 2, 4, 4)
    assert np.array_equal(displayed(images), displayed(images.mean(1, keepdim=True)))
    assert (displayed(images).min(axis=3) == displayed(images).max(axis=3)).all()


def test_a_png_has_the_pixels(tmp_path: Path) -> None:
    pixels = displayed(drawn(1, 3, 9, 7))[0]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(as_png(pixels)))), pixels)
