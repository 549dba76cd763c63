"""A look at samples of a task, and at what a network makes of them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mgcompile.training.scenes import Batch
from mgcompile.training.tasks import ClassData, Data, Examples

__all__ = ["COLOURS", "as_png", "coloured", "contact_sheet", "displayed", "predictions"]

Pixels = NDArray[np.uint8]

COLOURS = np.array(
    [
        (230, 25, 75), (60, 180, 75), (255, 225, 25), (60, 110, 230), (245, 130, 48),
        (160, 60, 200), (70, 240, 240), (240, 50, 230), (180, 220, 80), (170, 110, 40),
    ],
    np.float32,
)  # fmt: skip
"""Of the classes 0 to 9 on a contact sheet."""

BACKGROUND, TEXT = (96, 96, 96), (255, 255, 255)
RIGHT, WRONG = (60, 200, 90), (250, 70, 60)
RIGHT_TEXT, WRONG_TEXT = (150, 245, 165), (255, 180, 170)
COLUMNS = 8
LEAST = 96
"""Pictures are enlarged, pixel by pixel, to about this side where they are smaller."""
GAP, LINE, FRAME, MARGIN = 4, 1, 3, 6
TEXT_HEIGHT = 13


def contact_sheet(batch: Batch, *, columns: int = COLUMNS) -> Pixels:
    """(height, width, 3): every image with its target below it, `columns` of them side by side.

    A single map is white; of several, each has its colour, and the mean where they overlap.
    """
    pictures = np.stack([np.repeat(255 * batch.images[:, 0, :, :, None], 3, axis=3), coloured(batch.targets)], axis=1)
    blocks = [_stacked(list(np.rint(rows).astype(np.uint8))) for rows in pictures]
    side = batch.targets.shape[-1]
    return _laid_out(blocks, (2 * side + LINE, side), columns)


def predictions(data: Data, examples: Examples, outputs: Tensor, *, logits: bool) -> Pixels:
    """(height, width, 3): what a network answered to examples, eight of them side by side.

    `outputs` are those of the task, (n, maps, size, size) or (n, classes); `logits` says that they are not yet
    probabilities. Maps: the image, its target and the probabilities below each other, in the colours of
    `contact_sheet`. Classes: the picture, framed in green where the network is right and in red where it is wrong, with
    the true and the predicted class under it. Of several crops the first is shown. What is not in [0, 1] is stretched
    to it, each image by itself.
    """
    inputs = examples.inputs if examples.inputs.ndim == 4 else examples.inputs[:, 0]
    images = displayed(inputs)
    enlarged = max(1, round(LEAST / images.shape[1]))
    if data.in_maps:
        found = outputs.detach().float().cpu()
        pictures = (images, coloured(_array(examples.targets)), coloured(_array(found.sigmoid() if logits else found)))
        blocks = [
            _stacked([_enlarged(np.rint(picture).astype(np.uint8), enlarged) for picture in column])
            for column in zip(*pictures, strict=True)
        ]
        side = images.shape[1] * enlarged
        labels = [(row * (side + LINE) + side // 2, name) for row, name in enumerate(("image", "target", "prediction"))]
    else:
        assert isinstance(data, ClassData)
        answers = outputs.detach().cpu().nan_to_num(-torch.inf).argmax(1).tolist()
        blocks = [
            _named(_enlarged(image, enlarged), str(data.classes[truth]), str(data.classes[answer]), truth == answer)
            for image, truth, answer in zip(images, examples.targets.tolist(), answers, strict=True)
        ]
        below = images.shape[1] * enlarged + 2 * FRAME + TEXT_HEIGHT // 2 + 1
        labels = [(below, "true"), (below + TEXT_HEIGHT, "predicted")]
    extent = blocks[0].shape[:2] if blocks else (0, 0)
    return _laid_out(blocks, (extent[0], extent[1]), COLUMNS, labels)


def displayed(inputs: Tensor) -> Pixels:
    """(n, height, width, 3) as people see it, from (n, channels, height, width).

    One channel is grey, three are red, green and blue, of others the mean is shown. Values in [0, 1] stay; an image
    with others, such as one that was normalised, is stretched from its least to its largest.
    """
    values = _array(inputs)
    if values.shape[1] not in (1, 3):
        values = values.mean(axis=1, keepdims=True)
    low, high = values.min(axis=(1, 2, 3), keepdims=True), values.max(axis=(1, 2, 3), keepdims=True)
    stretched = (values - low) / np.where(high > low, high - low, 1)
    pixels = np.rint(255 * np.where((low < 0) | (high > 1), stretched, values)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (len(pixels), 3, *pixels.shape[2:])).transpose(0, 2, 3, 1))


def coloured(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, height, width, 3) in 0 to 255, from (n, maps, height, width) in [0, 1].

    A single map is white; of several, each has its colour, and the mean where they overlap.
    """
    count = maps.shape[1]
    colours = COLOURS[np.arange(count) % len(COLOURS)] if count > 1 else np.full((1, 3), 255, np.float32)
    mixed: NDArray[np.float32] = np.einsum("nmyx,mc->nyxc", maps, colours)
    mixed /= np.maximum(1, maps.sum(axis=1))[..., None]
    return mixed


def as_png(pixels: Pixels) -> bytes:
    """The picture (height, width, 3) as the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def _array(values: Tensor) -> NDArray[np.float32]:
    """On the processor; what is no number is shown as 0."""
    array: NDArray[np.float32] = values.detach().float().cpu().nan_to_num(0, 0, 0).numpy()
    return array


def _enlarged(picture: Pixels, times: int) -> Pixels:
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def _stacked(pictures: Sequence[Pixels]) -> Pixels:
    """Pictures of one size below each other, with a line between."""
    line = np.full((LINE, pictures[0].shape[1], 3), BACKGROUND, np.uint8)
    parts = [part for picture in pictures for part in (picture, line)]
    return np.concatenate(parts[:-1])


def _named(picture: Pixels, truth: str, answer: str, right: bool) -> Pixels:
    """A picture in its frame, with two names under it."""
    height, width = picture.shape[0] + 2 * FRAME, picture.shape[1] + 2 * FRAME
    block = np.full((height + 2 * TEXT_HEIGHT, width, 3), BACKGROUND, np.uint8)
    block[:height] = RIGHT if right else WRONG
    block[FRAME : height - FRAME, FRAME : width - FRAME] = picture
    image = Image.fromarray(block)
    draw = ImageDraw.Draw(image)
    for line, (name, ink) in enumerate(((truth, TEXT), (answer, RIGHT_TEXT if right else WRONG_TEXT))):
        _write(draw, (FRAME, height + line * TEXT_HEIGHT + TEXT_HEIGHT // 2 + 1), _fitting(name, width - FRAME), ink)
    return np.array(image)


def _laid_out(
    blocks: Sequence[Pixels], extent: tuple[int, int], columns: int, labels: Sequence[tuple[int, str]] = ()
) -> Pixels:
    """Blocks of one extent (height, width) in rows; each row has the labels on its left, at heights within it."""
    font = ImageFont.load_default()
    left = int(max((font.getlength(text) for _, text in labels), default=-MARGIN)) + MARGIN
    height, width = extent[0] + GAP, extent[1] + GAP
    columns = min(columns, max(1, len(blocks))) if labels else columns
    sheet = np.full((-(-len(blocks) // columns) * height + GAP, left + columns * width + GAP, 3), BACKGROUND, np.uint8)
    for number, block in enumerate(blocks):
        top, start = number // columns * height + GAP, left + number % columns * width + GAP
        sheet[top : top + extent[0], start : start + extent[1]] = block
    if not labels:
        return sheet
    image = Image.fromarray(sheet)
    draw = ImageDraw.Draw(image)
    for top in range(GAP, len(sheet) - GAP, height):
        for middle, text in labels:
            _write(draw, (MARGIN - 2, top + middle), text, TEXT)
    return np.array(image)


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, colour: tuple[int, int, int]) -> None:
    """Text that begins at a place (across, down), its middle at that height."""
    draw.text(place, text, fill=colour, font=ImageFont.load_default(), anchor="lm")


def _fitting(text: str, width: int) -> str:
    """As much of a name as has room, on one line."""
    font = ImageFont.load_default()
    text = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
