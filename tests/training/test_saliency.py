"""Saliency against a loop that changes one window at a time, and against the exact receptive field."""

from __future__ import annotations

import io
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import mgcompile
from mgcompile.training.fitting import Fit
from mgcompile.training.saliency import Explained, chosen_points, replacement, saliency, saliency_plot

FIT = Fit("output", logits=False)
SMALL = {
    "name": "small",
    "input": {"channels": 1, "size": 9},
    "layers": [
        {"pyramid": 2},
        {"conv": {"channels": [3, 2]}},
        {"drop": "coarsest"},
        {"conv": {"channels": 2, "act": "none"}},
    ],
}
CLASSES = {
    "name": "classes",
    "input": {"channels": 3, "size": 8},
    "layers": [{"conv": {"channels": 4}}, {"classify": 3}],
}


def image(channels: int, height: int, width: int, *, normalised: bool = False, seed: int = 0) -> Tensor:
    made = torch.rand(channels, height, width, generator=torch.Generator().manual_seed(seed))
    return (made - 0.4) * 3 if normalised else made


def one_by_one(
    model: torch.nn.Module, picture: Tensor, points: list[tuple[int, ...]], window: int, stride: int
) -> np.ndarray:
    """Every pixel of every window set by itself, and the network asked about one image at a time."""
    height, width = picture.shape[1:]
    found = np.zeros((len(points), height, width))
    inside = all(0 <= float(value) <= 1 for value in picture.flatten())
    means = [float(channel.mean()) for channel in picture]
    before, after = (window - 1) // 2, window - 1 - (window - 1) // 2
    reference = model(picture[None])[0]
    for y, x in product(range(height), range(width)):
        # The pixel in the middle of the square that this one lies in.
        top, left = y - y % stride, x - x % stride
        row = (top + min(top + stride, height) - 1) // 2
        column = (left + min(left + stride, width) - 1) // 2
        changed = picture.clone()
        for i, j in product(range(height), range(width)):
            if -before <= i - row <= after and -before <= j - column <= after:
                for channel, mean in enumerate(means):
                    changed[channel, i, j] = 1 - picture[channel, i, j] if inside else mean
        answer = model(changed[None])[0]
        for number, point in enumerate(points):
            found[number, y, x] = abs(float(answer[point]) - float(reference[point]))
    return found


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (2, 1), (3, 1), (3, 2), (4, 3), (20, 4)])
@pytest.mark.parametrize("normalised", [False, True])
def test_every_window_is_changed_by_itself(window: int, stride: int, normalised: bool) -> None:
    model = mgcompile.compile(SMALL, seed=1, optimize="inference")
    picture = image(1, 9, 7, normalised=normalised)
    points = [(0, 4, 3), (1, 0, 6), (1, 8, 0)]
    found = saliency(model, FIT, picture, points, window=window, stride=stride, batch=5)
    assert found.shape == (3, 9, 7)
    expected = one_by_one(model, picture, points, window, stride)
    assert expected.max() > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_classes_are_moved_too() -> None:
    model = mgcompile.compile(CLASSES, seed=1, optimize="inference")
    picture = image(3, 8, 8, normalised=True)
    points: list[tuple[int, ...]] = [(2,), (0,)]
    found = saliency(model, Fit("output", logits=True), picture, points)
    np.testing.assert_allclose(found, one_by_one(model, picture, points, 3, 1), rtol=1e-4, atol=1e-5)


NETWORKS = {
    "single grid": (mgcompile.load("mnist-spatial/sg-11", params={"width": 4}), (27, 19)),
    "two grids": (mgcompile.load(SMALL), (21, 12)),
    "four grids": (mgcompile.load("mnist-spatial/pmg-11", params={"width": 8}), (81, 3)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("window", [1, 3])
def test_what_a_point_cannot_see_never_moves_it(name: str, window: int) -> None:
    spec, (height, width) = NETWORKS[name]
    # In double precision, and as the spec has it: some ways of inference spread rounding errors beyond the field.
    model = mgcompile.compile(spec, seed=3, dtype=torch.float64).eval()
    points: list[tuple[int, ...]] = [(0, 0, 0), (0, height // 2, width // 2), (0, height - 1, width // 3)]
    found = saliency(model, FIT, image(1, height, width).double(), points, window=window, batch=128)
    field = mgcompile.receptive_field(spec, size=(height, width))
    margin = window // 2  # a window that reaches into the field may move the point
    hidden = 0
    for changes, (_, row, column) in zip(found, points, strict=True):
        seen = field.sees(spec.graph.outputs["output"], (row, column))
        assert seen is not None
        (top, bottom), (left, right) = seen
        outside = np.ones((height, width), bool)
        outside[max(0, top - margin) : bottom + 1 + margin, max(0, left - margin) : right + 1 + margin] = False
        hidden += int(outside.sum())
        assert changes[outside].max(initial=0) < 1e-13
        inside = changes[top : bottom + 1, left : right + 1]
        if name == "single grid":  # where no maximum hides it, the field is no larger than it has to be
            assert min(edge.max() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1])) > 1e-9
    assert hidden


def test_a_stride_asks_about_the_middle_of_each_square() -> None:
    model = mgcompile.compile(SMALL, seed=1, optimize="inference")
    picture, points = image(1, 9, 7), [(0, 4, 3), (1, 2, 2)]
    every = saliency(model, FIT, picture, points)
    third = saliency(model, FIT, picture, points, stride=3)
    np.testing.assert_allclose(third[:, 1::3, 1:6:3], every[:, 1::3, 1:6:3], atol=1e-6)
    np.testing.assert_allclose(third[:, 1::3, 6], every[:, 1::3, 6], atol=1e-6)  # a square that is cut
    for y, x in product(range(3), range(3)):
        assert len(np.unique(third[0, 3 * y : 3 * y + 3, 3 * x : 3 * x + 3])) == 1


def test_what_is_computed_at_once_makes_no_difference_and_the_mode_stays() -> None:
    model = mgcompile.compile(SMALL, seed=1)
    assert model.training
    told: list[tuple[int, int]] = []
    picture, points = image(1, 9, 7), [(0, 4, 3)]
    one = saliency(model, FIT, picture, points, batch=1)
    many = saliency(model, FIT, picture, points, batch=20, progress=lambda done, total: told.append((done, total)))
    assert model.training
    assert told == [(20, 63), (40, 63), (60, 63), (63, 63)]
    np.testing.assert_allclose(one, many, atol=1e-6)


@pytest.mark.parametrize("number", ["window", "stride", "batch"])
def test_numbers_below_one_are_refused(number: str) -> None:
    with pytest.raises(ValueError, match="expected numbers from 1 on"):
        saliency(torch.nn.Identity(), FIT, image(1, 4, 4), [(0, 0, 0)], **{number: 0})


def test_images_have_a_complement_and_normalised_ones_a_mean() -> None:
    plain, normalised = image(3, 5, 4), image(3, 5, 4, normalised=True)
    assert torch.allclose(replacement(replacement(plain)), plain)
    assert torch.allclose(replacement(plain) + plain, torch.ones(3, 5, 4))
    assert torch.allclose(replacement(normalised), normalised.mean((1, 2))[:, None, None].expand(3, 5, 4))


# --- points


@pytest.mark.parametrize("seed", range(5))
def test_points_lie_far_apart_on_the_foreground(seed: int) -> None:
    target = (image(3, 12, 9, seed=seed) > 0.8).float()
    points = chosen_points(target, torch.zeros_like(target), 6)
    assert points == chosen_points(target.clone(), torch.ones_like(target), 6)
    assert len(set(points)) == 6
    pixels = [(y, x) for y in range(12) for x in range(9) if target[:, y, x].any()]
    for each, y, x in points:
        assert target[each, y, x] == 1
        assert not target[:each, y, x].any()

    def apart(pixel: tuple[int, int], before: tuple[tuple[int, ...], ...]) -> int:
        return min((pixel[0] - y) ** 2 + (pixel[1] - x) ** 2 for _, y, x in before)

    centre = np.mean(pixels, axis=0)
    nearest = min(np.hypot(*(np.array(pixel) - centre)) for pixel in pixels)
    assert np.hypot(*(np.array(points[0][1:]) - centre)) == pytest.approx(nearest)
    for number in range(1, 6):
        _, y, x = points[number]
        assert apart((y, x), points[:number]) == max(apart(pixel, points[:number]) for pixel in pixels)


def test_without_a_target_the_answer_has_the_points() -> None:
    nothing, answer = torch.zeros(2, 4, 5), torch.full((2, 4, 5), 0.1)
    answer[1, 3, 2] = 0.4
    assert chosen_points(nothing, answer, 3) == ((1, 3, 2),)
    answer[0, 0, 4], answer[0, 0, 3] = 0.7, 0.6
    assert set(chosen_points(nothing, answer, 3)) == {(0, 0, 3), (0, 0, 4)}
    assert len(chosen_points(nothing, torch.full((2, 4, 5), torch.nan), 3)) == 3


def test_classes_are_the_true_and_the_predicted_one() -> None:
    answer = torch.tensor([0.1, 3.0, -1.0])
    assert chosen_points(torch.tensor(2), answer, 5) == ((2,), (1,))
    assert chosen_points(torch.tensor(1), answer, 5) == ((1,),)


# --- the picture


def explained(picture: Tensor, maps: np.ndarray, *, classes: bool = False) -> Explained:
    side = picture.shape[1]
    if classes:
        return Explained(
            "test 1", picture, torch.tensor(2), torch.tensor([0.0, 2.0, 1.0]), ((2,), (1,)), maps, (None,) * 2
        )
    target = torch.zeros(1, side, side)
    target[0, 2, 1:3] = 1
    return Explained("test 1", picture, target, target / 2, ((0, 2, 1), (0, 2, 2)), maps, (((0, 3), (0, 2)), None))


NAMES = ("a cat", "a dog", "<&$ \x07 a name as long as this one is")


@pytest.mark.parametrize(("classes", "empty"), [(False, False), (True, False), (False, True)])
def test_the_picture_is_a_png_and_its_colours_end_in_each_row(classes: bool, empty: bool) -> None:
    channels = 3 if classes else 1
    picture = torch.zeros(channels, 7, 7) if empty else image(channels, 7, 7)
    maps = np.zeros((2, 7, 7))
    maps[0, 4, 5] = 0 if empty else 2.5
    rows = [explained(picture, maps, classes=classes)]
    drawn = saliency_plot(rows, title="a $title", unit="logit", window=3, classes=NAMES if classes else ())
    with Image.open(io.BytesIO(drawn)) as file:
        assert file.format == "PNG"
        pixels = np.asarray(file.convert("RGB")).reshape(-1, 3)
    brightest = (np.abs(pixels.astype(int) - (252, 255, 164)).max(axis=1) <= 2).sum()  # the end of the colour map
    assert brightest > 20
    assert (brightest > 800) == (not empty)  # in the bar, and the cell that moves the point most


def test_the_picture_of_the_same_is_the_same() -> None:
    rows = [explained(image(1, 7, 7), np.eye(7)[None].repeat(2, axis=0))]
    first, second = (saliency_plot(rows, title="", unit="probability", window=1) for _ in range(2))
    assert first == second
