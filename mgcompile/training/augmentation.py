"""Augmentation of pictures as published for CIFAR and ImageNet, and the crops that networks are tested with.

What is drawn for an example is a function of the seed and of the example's number. Pictures are arrays of channels,
rows and columns, red, green and blue, in [0, 1].
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mgcompile.training.counter import uniform
from mgcompile.training.files import DataError

__all__ = [
    "CIFAR_10",
    "CIFAR_100",
    "IMAGENET",
    "Augmentation",
    "Colours",
    "crop_places",
    "flips",
    "jittered",
    "lighting",
    "picture_crops",
    "positions",
    "random_box",
    "resized_crops",
    "resizing",
    "sides",
    "with_flips",
]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]
Box = tuple[int, int, int, int]

PLACE, FLIP, COLOUR, LIGHT = 32, 33, 34, 35
"""What random numbers are drawn for here; scenes and the order of samples draw for others."""

AREAS = (0.08, 1.0)
"""The part of a picture that a random crop takes."""
ASPECT = 4 / 3
"""Its width divided by its height, or the inverse, at most."""
TRIES = 10
"""So many random crops are tried until one lies inside the picture."""

JITTER = 0.4
"""Brightness, contrast and saturation are changed by a factor of 1, give or take this."""
ORDERS = tuple(itertools.permutations(range(3)))

GREY = (0.299, 0.587, 0.114)
"""Luma of red, green and blue, ITU-R BT.601."""

LIGHT_DEVIATION = 0.1
COMPONENTS = np.array([(-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203)])
"""The principal components of the colours of ImageNet's training pictures, one a column; Krizhevsky et al. (NeurIPS
2012) have the method. These numbers, for values in [0, 1], are those of the Torch training code for ResNets that most
others took over.
"""
STRENGTHS = np.array((0.2175, 0.0188, 0.0045))
"""What goes with each component."""


@dataclass(frozen=True, slots=True)
class Colours:
    """The mean and the standard deviation of red, green and blue over a training set, in [0, 1]."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def normalised(self, pictures: Floats) -> Floats:
        """(..., 3, height, width): less the mean, divided by the deviation."""
        mean, deviation = (np.array(values, np.float32)[:, None, None] for values in (self.mean, self.deviation))
        return (pictures - mean) / deviation


# In general use for these sets, and measured once on the training pictures as published, by others. They are not
# measured anew on the data that are read: networks could not be exchanged between copies that differ by a picture.
CIFAR_10 = Colours((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CIFAR_100 = Colours((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
IMAGENET = Colours((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def sides(task: str, published: tuple[int, int], size: int | None, resize: int | None) -> tuple[int, int]:
    """The side of a crop and that of the picture which it is cut from, in pixels.

    `published` has both for the task. Where `resize` is None it keeps their ratio. Raises `DataError` where the crop
    would be the larger.
    """
    crop = size or published[0]
    whole = resize or (2 * crop * published[1] + published[0]) // (2 * published[0])
    if whole < crop:
        raise DataError(
            f"{task}: resize is {whole} and size {crop}; expected a resize of at least the size, from which crops are "
            "cut; give a larger resize, or none"
        )
    return crop, whole


# --- what is drawn


def positions(seed: int, numbers: Integers, slack: int) -> Integers:
    """(n, 2): rows above and columns left of a crop, each uniform in 0 to `slack`."""
    return np.floor(uniform(2, seed, numbers, purpose=PLACE) * (slack + 1)).astype(np.int64)


def flips(seed: int, numbers: Integers) -> NDArray[np.bool_]:
    """(n,): whether left and right change places, with chance 1/2."""
    return uniform(1, seed, numbers, purpose=FLIP)[:, 0] < 0.5


def lighting(seed: int, numbers: Integers) -> Floats:
    """(n, 3): what is added to red, green and blue. Along each principal component of ImageNet's colours it is normal,
    with a standard deviation of 0.1 of the component's strength.
    """
    first, second = np.split(uniform(6, seed, numbers, purpose=LIGHT), 2, axis=1)
    normal = np.sqrt(-2 * np.log1p(-first)) * np.cos(2 * np.pi * second)
    along = LIGHT_DEVIATION * normal * STRENGTHS
    added: Floats = (COMPONENTS * along[:, None, :]).sum(axis=2).astype(np.float32)
    return added


def random_box(width: int, height: int, draws: Doubles) -> Box:
    """Left, top, right and bottom of a random crop of a picture, in pixels.

    `draws` are (tries, 4) uniform numbers: of the area, 0.08 to 1 of the picture, of the logarithm of the aspect, 3/4
    to 4/3, and of the place. The first try that lies inside the picture is taken; where none does, the largest crop of
    an aspect in this range, in the centre.
    """
    area = width * height * (AREAS[0] + (AREAS[1] - AREAS[0]) * draws[:, 0])
    aspect = ASPECT ** (2 * draws[:, 1] - 1)
    wide, high = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    inside = np.flatnonzero((wide >= 1) & (wide <= width) & (high >= 1) & (high <= height))
    if len(inside):
        chosen = inside[0]
        w, h = int(wide[chosen]), int(high[chosen])
        left = math.floor(draws[chosen, 2] * (width - w + 1))
        top = math.floor(draws[chosen, 3] * (height - h + 1))
    else:
        w, h = min(width, round(height * ASPECT)), min(height, round(width * ASPECT))
        left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What is drawn for n examples: `places` (n, tries, 4) of crops, see `random_box`; `flipped` (n,); `factors`
    (n, 3) of brightness, contrast and saturation; `orders` (n,), 0 to 5, in which these are applied; `lights` (n, 3).
    """

    places: Doubles
    flipped: NDArray[np.bool_]
    factors: Floats
    orders: Integers
    lights: Floats

    @classmethod
    def drawn(cls, seed: int, numbers: Integers) -> Augmentation:
        """For the examples of these numbers."""
        colours = uniform(4, seed, numbers, purpose=COLOUR)
        return cls(
            uniform(4 * TRIES, seed, numbers, purpose=PLACE).reshape(-1, TRIES, 4),
            flips(seed, numbers),
            (1 + JITTER * (2 * colours[:, :3] - 1)).astype(np.float32),
            np.floor(len(ORDERS) * colours[:, 3]).astype(np.int64),
            lighting(seed, numbers),
        )

    def apply(self, row: int, picture: Image.Image, size: int) -> Floats:
        """(3, size, size) of an RGB picture of any size. Lighting noise may leave [0, 1]."""
        box = random_box(*picture.size, self.places[row])
        cut = _array(picture.resize((size, size), Image.Resampling.BILINEAR, box))
        if self.flipped[row]:
            cut = cut[:, :, ::-1]
        return jittered(cut, self.factors[row], ORDERS[self.orders[row]]) + self.lights[row, :, None, None]


# --- what is done with it


def resizing(source: int, target: int) -> Floats:
    """(target, source): the weights by which pixels of a line make those of the line resized.

    Bilinear, with the centres of pixels half a pixel from their edges; a line that becomes shorter is averaged over as
    many pixels as fall on one. Beyond the ends there is nothing, and the weights of a pixel sum to 1.
    """
    centre = (np.arange(target) + 0.5) * (source / target) - 0.5
    distance = np.abs(np.arange(source) - centre[:, None]) / max(source / target, 1)
    weights = np.maximum(0, 1 - distance)
    found: Floats = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return found


def resized_crops(
    pictures: NDArray[np.uint8],
    resize: int,
    size: int,
    *,
    top: Integers,
    left: Integers,
    flipped: NDArray[np.bool_] | None = None,
) -> Floats:
    """(n, channels, size, size): pictures (n, channels, height, width) of bytes brought to `resize` by `resize` pixels,
    of each a crop from a row and a column on, `top` and `left` (n,), and mirrored where `flipped` (n,).
    """
    rows, columns = (resizing(side, resize) for side in pictures.shape[2:])
    along = np.arange(size)
    across = along if flipped is None else np.where(flipped[:, None], along[::-1], along)
    # Resizing, cropping and mirroring are one matrix a side. Each picture has products of its own, of the same shape
    # whatever the batch, so that its pixels do not depend on the others.
    vertical, horizontal = rows[top[:, None] + along], columns[left[:, None] + across]
    values = pictures.astype(np.float32) / np.float32(255)
    found: Floats = vertical[:, None] @ values @ horizontal[:, None].swapaxes(2, 3)
    return found


def jittered(picture: Floats, factors: Floats, order: tuple[int, ...]) -> Floats:
    """(3, height, width): brightness, contrast and saturation, which are 0, 1 and 2, times their factors, in an order.

    Each moves the picture away from black, from its mean grey, or from itself in grey, and is cut at 0 and 1.
    """
    for kind in order:
        base: Floats | float = 0.0
        if kind:
            grey: Floats = (np.array(GREY, np.float32)[:, None, None] * picture).sum(axis=0)
            base = grey if kind == 2 else float(grey.mean())
        picture = np.clip(base + factors[kind] * (picture - base), 0, 1)
    return picture


def crop_places(height: int, width: int, size: int, crops: int) -> tuple[tuple[int, int], ...]:
    """The row and the column from which the crops of a held-out picture begin, without those that mirror others.

    One is in the centre; ten are upper left, upper right, lower left, lower right and centre, then the same mirrored.
    Raises `DataError` for another number.
    """
    centre = ((height - size) // 2, (width - size) // 2)
    match crops:
        case 1:
            return (centre,)
        case 10:
            return (*itertools.product((0, height - size), (0, width - size)), centre)
    raise DataError(f"{crops} crops of a picture; expected 1 or 10")


def with_flips(cuts: Floats, crops: int) -> Floats:
    """(..., crops, 3, size, size): of ten crops the last five, which mirror the first."""
    return cuts if crops == 1 else np.concatenate([cuts, cuts[..., ::-1]], axis=-4)


def picture_crops(picture: Image.Image, resize: int, size: int, crops: int) -> Floats:
    """(crops, 3, size, size) of an RGB picture whose shorter side is brought to `resize` pixels; see `crop_places`."""
    shorter = min(picture.size)
    width, height = ((2 * side * resize + shorter) // (2 * shorter) for side in picture.size)
    # Only what is cut is resized: of a picture that is thin as a line the whole could be too large for the memory.
    across, down = picture.width / width, picture.height / height
    cuts = [
        picture.resize(
            (size, size),
            Image.Resampling.BILINEAR,
            (
                left * across,
                top * down,
                min((left + size) * across, picture.width),
                min((top + size) * down, picture.height),
            ),
        )
        for top, left in crop_places(height, width, size, crops)
    ]
    return with_flips(np.stack([_array(cut) for cut in cuts]), crops)


def _array(picture: Image.Image) -> Floats:
    """(3, height, width)."""
    values = np.asarray(picture, np.float32).transpose(2, 0, 1)
    return np.ascontiguousarray(values) / np.float32(255)
