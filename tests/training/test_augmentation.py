"""Augmentation: against Pillow and plain loops, a picture at a time, and what is drawn against its distribution."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from mgcompile.training import augmentation
from mgcompile.training.augmentation import (
    COMPONENTS,
    IMAGENET,
    ORDERS,
    STRENGTHS,
    Augmentation,
    crop_places,
    flips,
    jittered,
    lighting,
    picture_crops,
    positions,
    random_box,
    resized_crops,
    resizing,
    sides,
    with_flips,
)
from mgcompile.training.files import DataError

BILINEAR = Image.Resampling.BILINEAR
MANY = np.arange(20_000)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(math.prod(shape)).integers(0, 256, shape, np.uint8)


def smooth(width: int, height: int) -> Image.Image:
    """A picture with soft and hard edges in all channels."""
    return Image.fromarray(noise(7, 9, 3)).resize((width, height), Image.Resampling.BICUBIC)


def channels(picture: Image.Image) -> np.ndarray:
    """(3, height, width) in [0, 1], value by value."""
    width, height = picture.size
    found = np.zeros((3, height, width), np.float32)
    for x, y in itertools.product(range(width), range(height)):
        found[:, y, x] = [value / 255 for value in picture.getpixel((x, y))]
    return found


def distance_from_uniform(values: np.ndarray, low: float, high: float) -> float:
    """Kolmogorov's statistic times the root of the count: above 2 for one sample in three thousand."""
    below = (np.sort(values) - low) / (high - low)
    steps = np.arange(len(values) + 1) / len(values)
    return math.sqrt(len(values)) * max(np.abs(below - steps[1:]).max(), np.abs(below - steps[:-1]).max())


def assert_equally_often(values: np.ndarray, kinds: int) -> None:
    """Each of 0 to kinds - 1, within five standard deviations of the count."""
    counts = np.bincount(values, minlength=kinds)
    mean = len(values) / kinds
    assert len(counts) == kinds
    assert np.abs(counts - mean).max() < 5 * math.sqrt(mean * (1 - 1 / kinds))


# --- resizing


@pytest.mark.parametrize(("source", "target"), [(32, 36), (32, 32), (1, 5), (5, 1), (32, 20), (7, 100), (100, 7)])
def test_resizing_is_that_of_pillow(source: int, target: int) -> None:
    line = noise(source).astype(np.float32)
    picture = Image.fromarray(np.tile(line, (2, 1)))  # of floating-point numbers, which Pillow does not round
    expected = np.asarray(picture.resize((target, 2), BILINEAR))[0]
    weights = resizing(source, target)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights @ line, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)


def test_resizing_36_from_32_goes_between_two_pixels() -> None:
    line = noise(32).astype(float)
    for place, value in enumerate(resizing(32, 36) @ line):
        at = min(max((place + 0.5) * 32 / 36 - 0.5, 0), 31)
        low = min(int(at), 30)
        assert value == pytest.approx(line[low] + (at - low) * (line[low + 1] - line[low]), abs=1e-3)


@pytest.mark.parametrize(("resize", "size"), [(36, 32), (36, 36), (20, 9), (64, 33)])
def test_crops_are_those_of_the_resized_picture(resize: int, size: int) -> None:
    pictures = noise(12, 3, 32, 32)
    room = resize - size
    top, left = (np.arange(12) * room // 11)[[*range(0, 12, 2), *range(1, 12, 2)]], np.arange(12) * room // 11
    flipped = np.arange(12) % 3 == 0
    found = resized_crops(pictures, resize, size, top=top, left=left, flipped=flipped)
    assert found.shape == (12, 3, size, size)
    assert found.dtype == np.float32
    for row, channel in itertools.product(range(12), range(3)):
        whole = Image.fromarray(pictures[row, channel].astype(np.float32)).resize((resize, resize), BILINEAR)
        cut = whole.crop((left[row], top[row], left[row] + size, top[row] + size))
        if flipped[row]:
            cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        np.testing.assert_allclose(255 * found[row, channel], np.asarray(cut), atol=1e-3)
    straight = resized_crops(pictures, resize, size, top=top, left=left)
    assert np.array_equal(straight[~flipped], found[~flipped])
    np.testing.assert_allclose(straight[flipped], found[flipped][..., ::-1], atol=1e-6)


# --- places and mirroring


def test_positions_are_uniform() -> None:
    found = positions(3, MANY, 4)
    assert found.shape == (len(MANY), 2)
    for along in found.T:
        assert_equally_often(along, 5)
    assert_equally_often(5 * found[:, 0] + found[:, 1], 25)
    assert_equally_often(2 * (5 * found[:, 0] + found[:, 1]) + flips(3, MANY), 50)  # mirroring knows nothing of places
    assert not positions(3, MANY, 0).any()


def test_half_of_the_pictures_are_mirrored() -> None:
    found = flips(3, MANY)
    assert_equally_often(found.astype(int), 2)
    assert_equally_often(2 * found[1:] + found[:-1], 4)


@pytest.mark.parametrize("draw", [lambda s, n: positions(s, n, 4), flips, lighting])
def test_what_is_drawn_depends_on_seed_and_number_alone(draw) -> None:
    found = draw(7, MANY)
    some = np.random.default_rng(0).permutation(MANY)[:50]
    assert np.array_equal(draw(7, some), found[some])
    assert np.array_equal(draw(7, some[:1]), found[some[:1]])
    assert not np.array_equal(draw(8, MANY), found)
    assert not np.array_equal(draw(7, MANY + len(MANY)), found)


def test_nothing_else_is_drawn_for_the_same_purpose() -> None:
    purposes = {augmentation.PLACE, augmentation.FLIP, augmentation.COLOUR, augmentation.LIGHT}
    assert len(purposes) == 4
    assert purposes <= set(range(32, 64))


# --- random crops of large pictures


def plain_box(width: int, height: int, draws: list[list[float]]) -> tuple[int, int, int, int]:
    for of_area, of_aspect, across, down in draws:
        area = (0.08 + 0.92 * of_area) * width * height
        low, high = math.log(3 / 4), math.log(4 / 3)
        aspect = math.exp(low + of_aspect * (high - low))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(across * (width - w + 1)), int(down * (height - h + 1))
            return left, top, left + w, top + h
    w, h = width, height
    if w / h > 4 / 3:
        w = round(h * 4 / 3)
    elif w / h < 3 / 4:
        h = round(w * 4 / 3)
    return (width - w) // 2, (height - h) // 2, (width - w) // 2 + w, (height - h) // 2 + h


@pytest.mark.parametrize("size", [(500, 375), (64, 64), (3, 2), (1, 1), (1, 9), (300, 40), (41, 300), (2000, 7)])
def test_boxes_are_those_of_a_plain_loop(size: tuple[int, int]) -> None:
    for draws in Augmentation.drawn(5, MANY[:200]).places:
        left, top, right, bottom = found = random_box(*size, draws)
        assert found == plain_box(*size, draws.tolist())
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]


def test_areas_aspects_and_places_are_as_published() -> None:
    side = 3_000
    boxes = np.array([random_box(side, side, draws) for draws in Augmentation.drawn(1, MANY).places])
    left, top, right, bottom = boxes.T
    area, aspect = (right - left) * (bottom - top) / side**2, (right - left) / (bottom - top)
    assert area.min() == pytest.approx(0.08, abs=0.002)
    assert area.max() > 0.98
    assert aspect.min() == pytest.approx(3 / 4, abs=0.005)
    assert aspect.max() == pytest.approx(4 / 3, abs=0.005)
    always = area < 0.74  # such a crop lies inside at every aspect, so that none was drawn anew
    assert distance_from_uniform(area[always], 0.08, 0.74) < 2
    assert distance_from_uniform(np.log(aspect[always]), math.log(3 / 4), math.log(4 / 3)) < 2
    across, down = left / (side - right + left + 1), top / (side - bottom + top + 1)
    assert distance_from_uniform(across[always], 0, 1) < 2
    assert distance_from_uniform(down[always], 0, 1) < 2
    independent = np.corrcoef([area[always], np.log(aspect)[always], across[always], down[always]])
    np.testing.assert_allclose(independent, np.eye(4), atol=0.03)


@pytest.mark.parametrize("draw", [0.0, 1 - 2.0**-53])
def test_boxes_of_extreme_draws_lie_inside(draw: float) -> None:
    for width, height in itertools.product((1, 2, 3, 17, 224, 999), repeat=2):
        left, top, right, bottom = random_box(width, height, np.full((10, 4), draw))
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height


# --- colours


ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


@pytest.mark.parametrize("order", ORDERS)
def test_jitter_is_that_of_pillow(order: tuple[int, ...]) -> None:
    picture = smooth(20, 15)
    plain = channels(picture)
    generator = random.Random(1)
    for _ in range(10):
        factors = np.array([generator.uniform(0.6, 1.4) for _ in range(3)], np.float32)
        expected = picture
        for kind in order:
            expected = ENHANCERS[kind](expected).enhance(float(factors[kind]))
        found = jittered(plain, factors, order)
        assert found.dtype == np.float32
        assert np.abs(255 * (found - channels(expected))).max() < 4  # Pillow rounds thrice, and its greys too


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("factor", [0, 0.6, 1, 1.4])
def test_each_part_of_the_jitter_is_that_of_pillow(kind: int, factor: float) -> None:
    picture = smooth(20, 15)
    found = jittered(channels(picture), np.full(3, factor, np.float32), (kind,))
    expected = channels(ENHANCERS[kind](picture).enhance(factor))
    assert np.abs(255 * (found - expected)).max() < 1.5


def test_factors_are_uniform_and_orders_equally_frequent() -> None:
    drawn = Augmentation.drawn(2, MANY)
    for factors in drawn.factors.T:
        assert distance_from_uniform(factors, 0.6, 1.4) < 2
    correlation = np.corrcoef(drawn.factors.T, drawn.orders)
    assert np.abs(correlation - np.eye(4)).max() < 0.03
    assert_equally_often(drawn.orders, 6)
    assert sorted(ORDERS) == sorted(itertools.permutations(range(3)))
    assert np.array_equal(drawn.flipped, flips(2, MANY))
    assert np.array_equal(drawn.lights, lighting(2, MANY))


def test_lighting_noise_has_the_colours_of_imagenet() -> None:
    np.testing.assert_allclose(COMPONENTS.T @ COMPONENTS, np.eye(3), atol=1e-3)
    added = lighting(4, MANY).astype(float)
    expected = COMPONENTS @ np.diag((0.1 * STRENGTHS) ** 2) @ COMPONENTS.T
    np.testing.assert_allclose(np.cov(added.T), expected, atol=0.04 * expected.max())
    parts = (added @ COMPONENTS) / (0.1 * STRENGTHS)  # standard normal, and independent of each other
    assert np.abs(parts.mean(0)).max() < 0.03
    np.testing.assert_allclose(np.corrcoef(parts.T), np.eye(3), atol=0.03)
    for part in parts.T:
        half = np.array([math.erf(value / math.sqrt(2)) for value in part])
        assert distance_from_uniform(half, -1, 1) < 2


def test_normalising_takes_the_mean_and_divides_by_the_deviation() -> None:
    pictures = (noise(2, 4, 3, 5, 6) / 255).astype(np.float32)
    found = IMAGENET.normalised(pictures)
    assert found.dtype == np.float32
    for channel in range(3):
        plain = (pictures[:, :, channel].astype(float) - IMAGENET.mean[channel]) / IMAGENET.deviation[channel]
        np.testing.assert_allclose(found[:, :, channel], plain, atol=1e-6)


def test_all_of_it_is_what_its_parts_are() -> None:
    picture = smooth(61, 47)
    drawn = Augmentation.drawn(9, MANY[:24])
    assert 0 < drawn.flipped.sum() < 24
    for row in range(24):
        cut = picture.resize((16, 16), BILINEAR, plain_box(61, 47, drawn.places[row].tolist()))
        if drawn.flipped[row]:
            cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for kind in ORDERS[drawn.orders[row]]:
            cut = ENHANCERS[kind](cut).enhance(float(drawn.factors[row, kind]))
        difference = drawn.apply(row, picture, 16) - channels(cut) - drawn.lights[row].reshape(3, 1, 1)
        assert np.abs(255 * difference).max() < 4


# --- crops of held-out pictures


def test_ten_crops_are_the_corners_the_centre_and_their_mirror_images() -> None:
    assert crop_places(36, 36, 32, 1) == ((2, 2),)
    assert crop_places(36, 40, 32, 10) == ((0, 0), (0, 8), (4, 0), (4, 8), (2, 4))
    assert crop_places(33, 32, 32, 10)[4] == (0, 0)
    for crops in (0, 2, 5, -1):
        with pytest.raises(DataError, match=f"{crops} crops of a picture; expected 1 or 10"):
            crop_places(36, 36, 32, crops)


def test_a_picture_is_recomposed_from_its_corners() -> None:
    picture = Image.fromarray(noise(16, 16, 3))
    cuts = picture_crops(picture, 16, 8, 10)
    assert cuts.shape == (10, 3, 8, 8)
    upper, lower = (np.concatenate(list(pair), axis=2) for pair in (cuts[:2], cuts[2:4]))
    whole = channels(picture)
    assert np.array_equal(np.concatenate([upper, lower], axis=1), whole)
    assert np.array_equal(cuts[4], whole[:, 4:12, 4:12])
    for cut, mirrored in zip(cuts[:5], cuts[5:], strict=True):
        assert np.array_equal(mirrored, cut[:, :, ::-1])
    assert np.array_equal(picture_crops(picture, 16, 8, 1), cuts[4:5])


def test_mirror_images_stand_beside_the_crops_of_each_picture() -> None:
    cuts = noise(4, 5, 3, 2, 2).astype(np.float32)
    found = with_flips(cuts, 10)
    assert found.shape == (4, 10, 3, 2, 2)
    for row, crop in itertools.product(range(4), range(5)):
        assert np.array_equal(found[row, crop], cuts[row, crop])
        assert np.array_equal(found[row, 5 + crop], cuts[row, crop][:, :, [1, 0]])


@pytest.mark.parametrize("size", [(61, 47), (20, 93), (32, 32), (300, 200), (1, 1), (3, 1), (1, 40)])
def test_held_out_crops_are_cut_from_the_whole_picture_resized(size: tuple[int, int]) -> None:
    picture = smooth(*size)
    scale = 40 / min(size)
    width, height = (math.floor(side * scale + 0.5) for side in size)
    assert min(width, height) == 40
    whole = picture.resize((width, height), BILINEAR)
    corners = [(0, 0), (width - 32, 0), (0, height - 32), (width - 32, height - 32)]
    centre = ((width - 32) // 2, (height - 32) // 2)
    for found, (left, top) in zip(picture_crops(picture, 40, 32, 10), [*corners, centre], strict=False):
        expected = channels(whole.crop((left, top, left + 32, top + 32)))
        assert np.abs(255 * (found - expected)).max() < 2.1  # Pillow rounds twice: ties fall to either side


def test_a_thin_picture_is_not_resized_as_a_whole() -> None:
    picture = smooth(1, 30_000)  # with a shorter side of 256, it would be of two thousand million pixels
    assert picture_crops(picture, 256, 224, 10).shape == (10, 3, 224, 224)


def test_the_larger_side_keeps_its_ratio_to_the_crop() -> None:
    assert sides("cifar10", (32, 36), None, None) == (32, 36)
    assert sides("cifar10", (32, 36), 16, None) == (16, 18)
    assert sides("folders", (224, 256), None, None) == (224, 256)
    assert sides("folders", (224, 256), 112, 112) == (112, 112)
    assert sides("folders", (224, 256), None, 300) == (224, 300)
    for size in range(1, 300):
        crop, whole = sides("cifar10", (32, 36), size, None)
        assert crop == size
        assert whole >= crop
        assert abs(whole - size * 36 / 32) <= 0.5
    with pytest.raises(DataError, match="cifar10: resize is 31 and size 32; expected a resize of at least the size"):
        sides("cifar10", (32, 36), None, 31)
