"""Digits, made smaller, and turned, sheared and scaled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["shrunk", "warped"]


def shrunk(images: NDArray[np.uint8], digit: int) -> NDArray[np.float32]:
    """(n, digit, digit) in [0, 1] from (n, 28, 28) bytes: means over squares; `digit` divides 28."""
    factor = 28 // digit
    split = images.reshape(-1, digit, factor, digit, factor)
    sums: NDArray[np.int32] = split.sum(axis=(2, 4), dtype=np.int32)  # exact, whatever the order
    return sums.astype(np.float32) / np.float32(255 * factor**2)


def warped(
    digits: NDArray[np.float32],
    square: NDArray[np.int64],
    rotation: NDArray[np.float64],
    shear: NDArray[np.float64],
    vertical: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """(n, size, size): each digit under its map, in a square in the upper left corner, and zero outside of it.

    `digits` are (n, side, side), `square` the sides of the squares in pixels, `rotation` and `shear` angles in degrees;
    the shear moves columns where `vertical`, else rows. First the rotation, then the shear, then the scale, about the
    centre. Each pixel takes what lies at the place that it comes from, between four pixels, with zeros outside.
    """
    count, side, _ = digits.shape
    size = int(square.max())
    # Back through the map: [[1, t], [0, 1]] undone by [[1, -t], [0, 1]], the rotation by its transpose.
    angle, tangent = np.radians(rotation), np.tan(np.radians(shear))
    cosine, sine = np.cos(angle), np.sin(angle)
    along_rows, along_columns = np.where(vertical, 0, tangent), np.where(vertical, tangent, 0)
    ratio = side / square
    offset = np.arange(size) - (square[:, None] - 1) / 2
    outside = np.arange(size) >= square[:, None]

    def terms(of_row: NDArray[np.float64], of_column: NDArray[np.float64]) -> NDArray[np.float32]:
        """The place on one axis of the digit, counted from its border of zeros."""
        row = np.where(outside, -1e4, offset * (ratio * of_row)[:, None]).astype(np.float32)
        column = np.where(outside, -1e4, offset * (ratio * of_column)[:, None]).astype(np.float32)
        place = row[:, :, None] + (column + np.float32((side + 1) / 2))[:, None, :]
        return np.clip(place, 0, side + 1, out=place)

    y = terms(cosine + sine * along_rows, -sine - cosine * along_columns)
    x = terms(sine - cosine * along_rows, cosine - sine * along_columns)
    padded = np.zeros((count, side + 3, side + 3), np.float32)
    padded[:, 1:-2, 1:-2] = digits
    above, before = y.astype(np.int32), x.astype(np.int32)
    y -= above
    x -= before
    above *= side + 3
    above += before
    above += (np.arange(count, dtype=np.int32) * (side + 3) ** 2)[:, None, None]
    flat = padded.reshape(-1)
    upper, lower = ((1 - x) * flat[row:].take(above) + x * flat[row + 1 :].take(above) for row in (0, side + 3))
    return upper + y * (lower - upper)
