"""Which pixels of the input move which points of the output, found by changing the input window by window."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mgcompile.drawing.canvas import as_png, settings, shortened
from mgcompile.drawing.palette import INK, MUTED
from mgcompile.training.evaluation import output
from mgcompile.training.fitting import Fit
from mgcompile.training.sheet import coloured, displayed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Explained", "Point", "chosen_points", "complement", "replacement", "saliency", "saliency_plot"]

Doubles = NDArray[np.float64]

Point = tuple[int, ...]
"""A place in the output of one sample: (map, row, column), or (class,)."""

Progress = Callable[[int, int], None]
"""Told how many windows are done, of how many."""


def complement(image: Tensor) -> bool:
    """Whether an image (channels, height, width) has a complement: all of it lies in [0, 1]."""
    return bool(((image >= 0) & (image <= 1)).all())


def replacement(image: Tensor) -> Tensor:
    """What windows of an image (channels, height, width) are replaced by, of the same shape.

    The complement 1 - x where the image lies in [0, 1]: no pixel but those at 0.5 stays as it was, on the digit and
    beside it. Else, as of a picture that was normalised, the mean of each channel: the complement would be far from
    anything that the network has seen.
    """
    return 1 - image if complement(image) else image.mean((1, 2), keepdim=True).expand_as(image)


def saliency(
    model: nn.Module,
    fit: Fit,
    image: Tensor,
    points: Sequence[Point],
    *,
    window: int = 3,
    stride: int = 1,
    batch: int = 64,
    progress: Progress | None = None,
) -> Doubles:
    """(points, height, width): how much each point of the output moves when a window of the image is replaced.

    `image` is (channels, height, width); by what it is replaced, see `replacement`. At a pixel stands the absolute
    change for the window of `window` x `window` pixels around it, cut at the borders; of an even window the pixel is
    the one above and left of the middle. With a `stride` only the pixels in the middle of every square of that side are
    computed, and stand for the square. What changes is the output as the network gives it, logits or probabilities. The
    model runs in evaluation mode, `batch` windows at once. Raises `ValueError` for a number below 1.
    """
    if min(window, stride, batch) < 1:
        raise ValueError(f"window {window}, stride {stride}, batch {batch}; expected numbers from 1 on")
    height, width = image.shape[1:]
    other = replacement(image)
    down, across = _centres(height, stride), _centres(width, stride)
    places = list(product(down, across))
    found = np.empty((len(points), len(places)))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            reference = _at(output(model, image[None], fit), points)
            for start in range(0, len(places), batch):
                part = places[start : start + batch]
                images = image.repeat(len(part), 1, 1, 1)
                for changed, (row, column) in zip(images, part, strict=True):
                    rows, columns = _window(row, window), _window(column, window)
                    changed[:, rows, columns] = other[:, rows, columns]
                moved = (_at(output(model, images, fit), points) - reference).abs()
                found[:, start : start + len(part)] = moved.T.double().cpu().numpy()
                if progress:
                    progress(start + len(part), len(places))
    finally:
        model.train(training)
    maps = found.reshape(len(points), len(down), len(across))
    return maps.repeat(stride, axis=1)[:, :height].repeat(stride, axis=2)[:, :, :width]


def _centres(size: int, stride: int) -> list[int]:
    """The pixel in the middle of each stretch of `stride`, the last of which may be cut."""
    return [(start + min(start + stride, size) - 1) // 2 for start in range(0, size, stride)]


def _window(centre: int, window: int) -> slice:
    start = centre - (window - 1) // 2
    return slice(max(0, start), start + window)


def _at(outputs: Tensor, points: Sequence[Point]) -> Tensor:
    """(n, points)."""
    places: list[tuple[slice | int, ...]] = [(slice(None), *point) for point in points]
    return torch.stack([outputs[place] for place in places], dim=1)


def chosen_points(target: Tensor, answer: Tensor, count: int) -> tuple[Point, ...]:
    """Points of an output worth asking about: always the same for the same target and answer.

    Maps (maps, height, width): up to `count` foreground pixels of the target, or where it has none of the answer, or
    else its largest. The first is the one nearest to the centre of the foreground, each other the farthest from those
    before it; its map is the first that has it. Classes: the true one, `target` (), and the one of the largest of
    `answer` (classes,), which may be the same.
    """
    if not target.ndim:
        return tuple(dict.fromkeys(((int(target),), (int(answer.argmax()),))))
    wanted, given = (maps.detach().cpu().nan_to_num(0).numpy() for maps in (target, answer))
    maps = next((maps for maps in (wanted >= 0.5, given >= 0.5) if maps.any()), given == given.max())
    pixels = np.argwhere(maps.any(axis=0))
    centred = len(pixels) * pixels - pixels.sum(axis=0)  # whole numbers: no rounding decides
    chosen = [int((centred**2).sum(axis=1).argmin())]
    distance = ((pixels - pixels[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < count and distance.any():
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((pixels - pixels[chosen[-1]]) ** 2).sum(axis=1))
    return tuple((int(maps[:, row, column].argmax()), int(row), int(column)) for row, column in pixels[chosen])


@dataclass(frozen=True, eq=False, slots=True)
class Explained:
    """A row of the picture: a sample, what the network answered, and what moves its points.

    `image` is (channels, height, width). `target` and `answer` are maps, the latter in probabilities, or a class and
    the outputs for all of them. `maps` is what `saliency` returns. `fields` are the first and the last row and column
    that each point can depend on; None where it depends on nothing.
    """

    name: str
    image: Tensor
    target: Tensor
    answer: Tensor
    points: tuple[Point, ...]
    maps: Doubles
    fields: tuple[tuple[tuple[int, int], tuple[int, int]] | None, ...]


PANEL, BESIDE, ABOVE = 1.55, 1.5, 1.35  # inches
RING, OUTLINE = "#56e0ff", "#ffffff"
HEAT = "inferno"


def saliency_plot(
    rows: Sequence[Explained], *, title: str, unit: str, window: int, classes: Sequence[str] = ()
) -> bytes:
    """A PNG with a row a sample: the input, of maps the target and the prediction, and a heat map a point.

    `unit` is what the output is in, such as "probability"; `classes` are the names where the points are classes. A
    colour means the same in all of a row.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    before = 1 if classes else 3
    columns = before + max(len(row.points) for row in rows)
    size = PANEL * columns + BESIDE, (PANEL + (0.45 if classes else 0.1)) * len(rows) + ABOVE
    with settings():
        figure = Figure(figsize=size, dpi=72, facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))
        panels = figure.subplots(len(rows), columns, squeeze=False)
        for row, axes in zip(rows, panels, strict=True):
            for each in axes:
                each.set(xticks=[], yticks=[])
                each.set_visible(False)
            _draw_sample(axes[:before], row, classes)
            top = float(row.maps.max()) or 1.0
            for number in range(len(row.points)):
                heat = _draw_heat(axes[before + number], row, number, top)
                _head(axes[before + number], _point_name(row, number, classes))
            bar = figure.colorbar(heat, ax=list(axes), fraction=0.03, pad=0.01, aspect=14)
            bar.set_label(f"change of the {unit}", fontsize=7.5, color=INK)
            bar.ax.tick_params(labelsize=7, colors=MUTED)
            bar.outline.set_visible(False)
        for axes in panels[1:] if not classes else ():
            for each in axes[:before]:
                each.set_title("")  # the first row has said it
        head = "\n".join(textwrap.wrap(shortened(title, 200), int(size[0] * 9)))
        figure.suptitle(head, color=INK, fontsize=11, fontweight="bold")
        figure.supxlabel(_legend(rows, unit, window, int(size[0] * 17)), color=MUTED, fontsize=7.5, x=0.01, ha="left")
        return as_png(figure)


def _draw_sample(axes: Sequence[Axes], row: Explained, classes: Sequence[str]) -> None:
    """The input and what it should become and became."""
    pictures = {"input": displayed(row.image[None])[0]}
    if not classes:
        for name, maps in (("target", row.target), ("prediction", row.answer)):
            shown = coloured(maps[None].detach().float().cpu().nan_to_num(0).numpy())[0]
            pictures[name] = np.rint(shown).astype(np.uint8)
    for each, (name, picture) in zip(axes, pictures.items(), strict=True):
        each.set_visible(True)
        each.imshow(picture, interpolation="nearest")
        _head(each, name)
        for number, point in enumerate(row.points if name != "input" else ()):
            _ring(each, point, str(number + 1))
    axes[0].set_ylabel(shortened(row.name, 24), fontsize=8, color=INK)
    if classes:
        truth, answer = classes[int(row.target)], classes[int(row.answer.argmax())]
        axes[0].set_xlabel(f"true: {shortened(truth, 20)}\npredicted: {shortened(answer, 20)}", fontsize=7.5, color=INK)


def _draw_heat(axes: Axes, row: Explained, number: int, top: float) -> Any:
    """How much the windows of the input move one point, from 0 to `top`, with the input beneath."""
    axes.set_visible(True)
    grey = displayed(row.image[None])[0].mean(axis=2)
    flat = row.image.shape[0] == 1
    values = row.maps[number]
    if not flat:
        axes.imshow(grey, cmap="gray", vmin=0, vmax=2.5 * 255, interpolation="nearest")  # dark, beneath the colours
    strength: Any = None if flat else 0.1 + 0.9 * np.clip(values / top, 0, 1) ** 0.7
    drawn = axes.imshow(values, cmap=HEAT, vmin=0, vmax=top, alpha=strength, interpolation="nearest")
    if flat and grey.min() < grey.max():
        axes.contour(grey, levels=[(float(grey.min()) + float(grey.max())) / 2], colors=OUTLINE, linewidths=0.7)
    if len(row.points[number]) == 3:
        _ring(axes, row.points[number], "")
    _draw_field(axes, row.fields[number], values.shape)
    return drawn


def _draw_field(axes: Axes, field: tuple[tuple[int, int], tuple[int, int]] | None, shape: tuple[int, ...]) -> None:
    """A frame around what the network can see from a point, where that is not everything."""
    from matplotlib.patches import Rectangle

    if field is not None and [last - first + 1 for first, last in field] != [*shape]:
        (top, bottom), (left, right) = field
        axes.add_patch(
            Rectangle(
                (left - 0.5, top - 0.5), right - left + 1, bottom - top + 1,
                fill=False, edgecolor=RING, linestyle="--", linewidth=0.9,
            )
        )  # fmt: skip


def _ring(axes: Axes, point: Point, text: str) -> None:
    from matplotlib.patheffects import withStroke

    _, row, column = point
    dark: Any = [withStroke(linewidth=2.2, foreground="#000000")]
    axes.plot(
        [column], [row], marker="o", markersize=7, markerfacecolor="none", markeredgecolor=RING, markeredgewidth=1.3,
        path_effects=dark,
    )  # fmt: skip
    right, bottom = (limit[1] for limit in (axes.get_xlim(), sorted(axes.get_ylim())))
    offset = (4 if column < 0.85 * right else -10, 3 if row > 0.15 * bottom else -10)  # the number stays on the panel
    axes.annotate(
        text, (column, row), xytext=offset, textcoords="offset points", fontsize=8, color=RING, path_effects=dark
    )


def _head(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=8.5, color=INK)


def _point_name(row: Explained, number: int, classes: Sequence[str]) -> str:
    point = row.points[number]
    if len(point) == 3:
        return f"point {number + 1}" + (f", map {point[0]}" if len(row.answer) > 1 else "")
    said = [name for name, one in (("true", row.target), ("predicted", row.answer.argmax())) if int(one) == point[0]]
    return f"{shortened(classes[point[0]], 18)}\n({' and '.join(said)})"


def _legend(rows: Sequence[Explained], unit: str, window: int, letters: int) -> str:
    """What is what, in lines of so many letters."""
    kinds = {complement(row.image) for row in rows}
    by = {
        frozenset({True}): "their complement, 1 - x",
        frozenset({False}): "the mean colour of the picture",
        frozenset({True, False}): "their complement, 1 - x (where the input is not in [0, 1]: its mean)",
    }[frozenset(kinds)]
    where = "at the ringed point" if len(rows[0].points[0]) == 3 else "of the class above"
    pixels = "that pixel is" if window == 1 else f"the {window}x{window} pixels around that place are"
    text = f"Colour at a place of the input: how much the {unit} {where} changes when {pixels} replaced by {by}."
    if rows[0].image.shape[0] == 1:
        text += " White line: outline of the input."
    else:
        text += " Beneath, in grey: the input."
    shape = rows[0].maps.shape[1:]
    fields = [field for row in rows for field in row.fields if field]
    if any([last - first + 1 for first, last in field] != [*shape] for field in fields):
        text += " Dashed frame: all that the network can see from the point."
    return "\n".join(textwrap.wrap(text, letters))
