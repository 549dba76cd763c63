"""A look at samples of a task."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mgcompile.training.scenes import Batch

__all__ = ["COLOURS", "contact_sheet"]

COLOURS = np.array(
    [
        (230, 25, 75), (60, 180, 75), (255, 225, 25), (60, 110, 230), (245, 130, 48),
        (160, 60, 200), (70, 240, 240), (240, 50, 230), (180, 220, 80), (170, 110, 40),
    ],
    np.float32,
)  # fmt: skip
"""Of the classes 0 to 9 on a contact sheet."""


def contact_sheet(batch: Batch, *, columns: int = 8) -> NDArray[np.uint8]:
    """(height, width, 3): every image with its target below it, `columns` of them side by side.

    A single map is white; of several, each has its colour, and the mean where they overlap.
    """
    count, maps, side, _ = batch.targets.shape
    colours = COLOURS[np.arange(maps) % len(COLOURS)] if maps > 1 else np.full((1, 3), 255, np.float32)
    target = np.einsum("nmyx,mc->nyxc", batch.targets, colours)
    target /= np.maximum(1, batch.targets.sum(axis=1))[..., None]
    image = np.repeat(255 * batch.images[:, 0, :, :, None], 3, axis=3)
    gap, line = 4, 1  # pixels between samples, and between image and target
    height, width = 2 * side + line + gap, side + gap
    sheet = np.full((-(-count // columns) * height + gap, columns * width + gap, 3), 96, np.uint8)
    for number in range(count):
        top, left = number // columns * height + gap, number % columns * width + gap
        for picture in (image[number], target[number]):
            sheet[top : top + side, left : left + side] = np.rint(picture)
            top += side + line
    return sheet
