"""Digits, made smaller, and turned, sheared and scaled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ink", "inked", "shrunk", "warped"]

BLOCK = 64  # digits mapped at once: enough to spread numpy's cost of a call, few enough to stay in the cache

Flags = NDArray[np.bool_]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ink:
    """The non-zero pixels of some digits, one digit after the other.

    `pixel` is row * stride + column within the digit's square, `value` how dark it is; `count` says how many pixels
    each digit has.
    """

    pixel: Integers
    value: Floats
    count: Integers

    def of(self, chosen: Flags) -> Ink:
        """That of the chosen digits."""
        if chosen.all():
            return self
        kept = np.flatnonzero(np.repeat(chosen, self.count))
        return Ink(self.pixel.take(kept), self.value.take(kept), self.count[chosen])

    def between(self, first: int, last: int) -> Ink:
        """That of the digits from `first` to before `last`."""
        start, end = self.count[:first].sum(), self.count[:last].sum()
        return Ink(self.pixel[start:end], self.value[start:end], self.count[first:last])

    def rescaled(self) -> Ink:
        """With a largest value of 1 for each digit."""
        some = self.count[self.count > 0]
        largest = np.maximum.reduceat(self.value, np.cumsum(some) - some)
        return Ink(self.pixel, self.value / np.repeat(largest, some), self.count)


def shrunk(images: NDArray[np.uint8], digit: int) -> Floats:
    """(n, digit, digit) in [0, 1] from (n, 28, 28) bytes: means over squares; `digit` divides 28."""
    factor = 28 // digit
    if factor == 1:
        return images.astype(np.float32) / np.float32(255)
    split = images.reshape(-1, digit, factor, digit, factor)
    sums: NDArray[np.int32] = split.sum(axis=(2, 4), dtype=np.int32)  # exact, whatever the order
    return sums.astype(np.float32) / np.float32(255 * factor**2)


def warped(digits: Floats, square: Integers, rotation: Doubles, shear: Doubles, vertical: Flags) -> Floats:
    """(n, size, size): each digit under its map, in a square in the upper left corner, and zero outside of it.

    As `inked`; `size` is the side of the largest square.
    """
    size = int(square.max())
    result = np.zeros((len(digits), size, size), np.float32)
    ink = inked(digits, square, rotation, shear, vertical, stride=size)
    result.reshape(-1)[np.repeat(np.arange(len(digits)) * size**2, ink.count) + ink.pixel] = ink.value
    return result


def inked(digits: Floats, square: Integers, rotation: Doubles, shear: Doubles, vertical: Flags, *, stride: int) -> Ink:
    """The non-zero pixels of each digit under its map.

    `digits` are (n, side, side), `square` the sides of the squares in pixels, `rotation` and `shear` angles in degrees;
    the shear moves columns where `vertical`, else rows. First the rotation, then the shear, then the scale, about the
    centre. Each pixel takes what lies at the place that it comes from, between four pixels, with zeros outside.
    It is quicker where neighbours are of a like size.
    """
    # Back through the map: [[1, t], [0, 1]] undone by [[1, -t], [0, 1]], the rotation by its transpose.
    angle, tangent = np.radians(rotation), np.tan(np.radians(shear))
    cosine, sine = np.cos(angle), np.sin(angle)
    along_rows, along_columns = np.where(vertical, 0, tangent), np.where(vertical, tangent, 0)
    ratio = digits.shape[1] / square
    y = ratio * (cosine + sine * along_rows), ratio * (-sine - cosine * along_columns)
    x = ratio * (sine - cosine * along_rows), ratio * (cosine - sine * along_columns)
    blocks = [slice(start, start + BLOCK) for start in range(0, len(digits), BLOCK)]
    parts = [_block(digits[b], square[b], (y[0][b], y[1][b]), (x[0][b], x[1][b]), stride) for b in blocks]
    return Ink(*map(np.concatenate, zip(*parts, strict=True)))


def _block(
    digits: Floats, square: Integers, y_terms: tuple[Doubles, Doubles], x_terms: tuple[Doubles, Doubles], stride: int
) -> tuple[Integers, Floats, Integers]:
    """Pixels and values, one digit after the other, and each digit's number of pixels.

    `y_terms` and `x_terms` say by how much a step down and one to the right move the place on the digit.
    """
    count, side, _ = digits.shape
    size, wide = int(square.max()), side + 3
    offset = np.arange(size) - (square[:, None] - 1) / 2
    outside = np.arange(size) >= square[:, None]

    def places(of_row: Doubles, of_column: Doubles) -> Floats:
        """On one axis of the digit, counted from its border of zeros."""
        row = np.where(outside, -1e4, offset * of_row[:, None]).astype(np.float32)
        column = np.where(outside, -1e4, offset * of_column[:, None]).astype(np.float32)
        place = row[:, :, None] + (column + np.float32((side + 1) / 2))[:, None, :]
        return np.clip(place, 0, side + 1, out=place)

    y, x = places(*y_terms), places(*x_terms)
    padded = np.zeros((count, wide, wide), np.float32)
    padded[:, 1:-2, 1:-2] = digits
    flat = padded.reshape(-1)
    corner = y.astype(np.int32)
    corner *= wide
    corner += x.astype(np.int32)
    corner += (np.arange(count, dtype=np.int32) * wide**2)[:, None, None]
    # Most pixels lie between four zeros: only the others are worth their sums.
    dark = flat != 0
    near = dark[:-1] | dark[1:]
    near = near[:-wide] | near[wide:]
    found = np.flatnonzero(near.take(corner))
    corner, y, x = corner.reshape(-1).take(found), y.reshape(-1).take(found), x.reshape(-1).take(found)
    y -= np.floor(y)
    x -= np.floor(x)
    upper, lower = ((1 - x) * flat[row:].take(corner) + x * flat[row + 1 :].take(corner) for row in (0, wide))
    value = upper + y * (lower - upper)
    kept = np.flatnonzero(value)
    found, value = found.take(kept), value.take(kept)
    line = found // size
    owner = line // size
    pixel = (line - owner * size) * stride + found - line * size
    return pixel, value, np.bincount(owner, minlength=count)
