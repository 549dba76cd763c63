"""The MNIST tasks: scenes of transformed digits, and the maps that a network is to make of them.

Every sample depends on the seed and on its own index alone, whatever the batch, the order or the process. What is
drawn for a digit:

- **Rotation and shear** are about the centre of the digit's square, first the rotation, then the shear, then the scale;
  all three are one affine map, sampled bilinearly once, with zeros outside. The square does not grow: a digit is scaled
  to `ceil(scale * digit)` pixels a side whatever its angle, and what a map moves out of that square is cut. Rotation
  cuts next to nothing of MNIST's digits (they lie within 20 of 28 pixels), a steep shear cuts the ends.
- **Position** is that of the square. It lies inside the canvas as a whole, and every integer position at which it does
  is equally likely. A centred square has the odd pixel that may be left over below and to the right.
- **Which digit**: a task of one digit takes image `index % len(images)`, so that an epoch shows each once; the
  segmentation draws every digit uniformly, with replacement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mgcompile.errors import MgcompileError
from mgcompile.training.counter import uniform
from mgcompile.training.warping import Ink, inked, shrunk

__all__ = [
    "OVERLAP",
    "SCALES",
    "SCENES",
    "THRESHOLD",
    "TRIES",
    "Batch",
    "Placements",
    "Scene",
    "make",
    "make_placed",
]

THRESHOLD = 0.3
"""A pixel of a placed digit belongs to the digit from this value on."""

OVERLAP = 0.3
"""At most this part of a digit's non-zero pixels may fall on pixels that are not zero."""

TRIES = 10
"""Positions that are tried with one scale."""

SCALES = 50
"""Scales that are tried for one digit; where none fits, the scene goes without that digit."""

CHUNK = 128  # scenes made at once: enough to spread numpy's cost of a call, few enough to stay in the cache

Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scene:
    """What scenes of one kind are drawn from. An interval of one value is not drawn.

    `maps` are those of the target: a class each, or one, which holds the untransformed digit in the centre. `rotation`
    and `shear` are largest angles in degrees, drawn uniformly on both sides of zero; the shear is the tangent of its
    angle, along one of the axes with equal chances. `scale` is an interval. `crowded` is a scene of about five digits
    that hardly overlap; otherwise there is one digit, in the centre where `centred`.
    """

    name: str
    maps: int = 1
    rotation: float = 0.0
    shear: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    centred: bool = False
    crowded: bool = False

    def largest(self, digit: int) -> int:
        """Pixels of the side of the largest square, of digits of `digit` pixels."""
        return int(np.ceil(self.scale[1] * digit))


SCENES: dict[str, Scene] = {
    scene.name: scene
    for scene in (
        Scene("mnist-seg", maps=10, rotation=60, scale=(0.5, 1.25), crowded=True),
        Scene("mnist-spatial", rotation=60, shear=60, scale=(0.5, 1.5)),
        Scene("mnist-rotation", rotation=60, centred=True),
        Scene("mnist-affine", shear=60, centred=True),
        Scene("mnist-scaling", scale=(0.5, 1.5), centred=True),
        Scene("mnist-translation"),
    )
}
"""Those of the tasks, by name."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Scenes of one kind.

    `images` are (n, 1, side, side) in [0, 1]; `targets` (n, maps, side, side), 0 or 1; `present` (n, maps) says which
    maps have a pixel that is 1.
    """

    images: Floats
    targets: Floats
    present: Flags

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, slots=True)
class Placements:
    """What was drawn for every digit that was placed, an entry each, by sample and in the order of placing.

    `sample` counts within the batch, `image` within the images. Angles are in degrees, `vertical` says that the shear
    is along the columns. `square`, `top` and `left` are the square's side and corner in pixels; `trial` counts the
    scales and `attempt` the positions that were refused before.
    """

    sample: Integers
    image: Integers
    rotation: Doubles
    shear: Doubles
    vertical: Flags
    scale: Doubles
    square: Integers
    top: Integers
    left: Integers
    trial: Integers
    attempt: Integers


def make(
    scene: str | Scene,
    images: Bytes,
    labels: Bytes,
    indices: Sequence[int] | NDArray[np.integer],
    *,
    seed: int,
    side: int = 64,
    digit: int = 28,
) -> Batch:
    """The samples of these indices, in this order.

    `images` are (n, 28, 28), `labels` (n,) from 0 to 9. `seed` and indices are from 0 to 2^64 - 1 and 2^63 - 1. `side`
    is that of the canvas, in pixels; `digit` other than 28 shrinks the digits first, by the mean over squares.

    A digit of a crowded scene is placed where at most 30 % of its non-zero pixels fall on occupied ones; after 10
    positions it gets a new scale, and after 50 scales the scene goes without it. On 64 x 64 pixels that is as good as
    never. Digits of one class share a map: it is 1 where at least one of them is at least 0.3.

    Raises MgcompileError: an unknown name, arrays, indices or a seed that do not fit, no digits, a digit's side that
    does not divide 28, a canvas that is smaller than the largest digit.
    """
    return make_placed(scene, images, labels, indices, seed=seed, side=side, digit=digit)[0]


def make_placed(
    scene: str | Scene,
    images: Bytes,
    labels: Bytes,
    indices: Sequence[int] | NDArray[np.integer],
    *,
    seed: int,
    side: int = 64,
    digit: int = 28,
) -> tuple[Batch, Placements]:
    """As `make`, and what was drawn for every digit."""
    chosen = _known(scene)
    wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
    _check(chosen, images, labels, wanted, seed=seed, side=side, digit=digit)
    count = len(wanted)
    batch = Batch(
        np.zeros((count, 1, side, side), np.float32),
        np.zeros((count, chosen.maps, side, side), np.float32),
        np.zeros((count, chosen.maps), np.bool_),
    )
    placed: list[Placements] = []
    for start in range(0, count, CHUNK):
        part = slice(start, start + CHUNK)
        chunk = _Chunk(
            chosen, images, labels, wanted[part], seed, digit, batch.images[part], batch.targets[part],
            batch.present[part], start, side,
        )  # fmt: skip
        placed += chunk.crowd() if chosen.crowded else chunk.single()
    return batch, _joined(placed)


def _known(scene: str | Scene) -> Scene:
    if isinstance(scene, Scene):
        return scene
    if scene not in SCENES:
        raise MgcompileError(f"no scenes {scene!r}; expected one of {', '.join(SCENES)}")
    return SCENES[scene]


def _check(scene: Scene, images: Bytes, labels: Bytes, indices: Integers, *, seed: int, side: int, digit: int) -> None:
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28) or not len(images):
        raise MgcompileError(
            f"images of {images.dtype}, shape {images.shape}; expected uint8, (n, 28, 28), n of 1 or more"
        )
    if labels.shape != images.shape[:1]:
        raise MgcompileError(f"labels of shape {labels.shape} for {len(images)} images; expected one label an image")
    if scene.crowded and int(labels.max()) >= scene.maps:
        raise MgcompileError(f"a label of {labels.max()}; {scene.name} has classes 0 to {scene.maps - 1}")
    if len(indices) and indices.min() < 0:
        raise MgcompileError(f"an index of {indices.min()}; expected 0 or more")
    if not 0 <= seed < 2**64:
        raise MgcompileError(f"a seed of {seed}; expected 0 to 2^64 - 1")
    if digit < 1 or 28 % digit:
        raise MgcompileError(f"digits of {digit} pixels; expected a divisor of 28: 28, 14, 7, 4")
    if side < scene.largest(digit):
        raise MgcompileError(
            f"a canvas of {side} pixels; {scene.name} scales digits of {digit} pixels to as many as "
            f"{scene.largest(digit)}: take a larger canvas or smaller digits"
        )


# --- placing

NUMBER, POSE, PLACE = 0, 1, 2  # what numbers are drawn for
DRAWS = 1 + 2 * TRIES  # a scale, and the positions that are tried with it
LOTS = slice(0, 1), slice(1, 4), slice(4, TRIES)  # tried at once: most digits fit at their first position


@dataclass(frozen=True, slots=True)
class _Pose:
    """How digits are turned, an entry each; what stays when a new scale is drawn."""

    image: Integers
    rotation: Doubles
    shear: Doubles
    vertical: Flags

    @property
    def columns(self) -> tuple[Integers, Doubles, Doubles, Flags]:
        return self.image, self.rotation, self.shear, self.vertical

    def of(self, rows: Integers | slice) -> _Pose:
        return _Pose(self.image[rows], self.rotation[rows], self.shear[rows], self.vertical[rows])


@dataclass(frozen=True, slots=True)
class _Digits:
    """Digits, turned and scaled, and the corners (n, tries) where they are tried, an entry each."""

    rows: Integers
    pose: _Pose
    scale: Doubles
    square: Integers
    tops: Integers
    lefts: Integers
    ink: Ink

    def between(self, first: int, last: int) -> _Digits:
        part, ink = slice(first, last), self.ink.between(first, last)
        return _Digits(
            self.rows[part], self.pose.of(part), self.scale[part], self.square[part], self.tops[part],
            self.lefts[part], ink,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Some samples while they are made; `canvas`, `targets` and `present` are views of the batch."""

    scene: Scene
    images: Bytes
    labels: Bytes
    indices: Integers
    seed: int
    digit: int
    canvas: Floats
    targets: Floats
    present: Flags
    start: int
    side: int

    def single(self) -> list[Placements]:
        """One digit a sample, and the untransformed one as its target."""
        rows = np.arange(len(self.indices))
        draws = self._draws(rows, 0, 0, 3)
        rows = np.argsort(draws[:, 0])  # so that neighbours are of a like size
        digits = self._sized(rows, self._pose(rows, 0), draws[rows])
        pose, square, ink = digits.pose, digits.square, digits.ink
        middle = (self.side - square) // 2
        top, left = (middle, middle) if self.scene.centred else (digits.tops[:, 0], digits.lefts[:, 0])
        corner = rows * self.side**2 + top * self.side + left
        self.canvas.reshape(-1)[np.repeat(corner, ink.count) + ink.pixel] = ink.value
        margin = (self.side - self.digit) // 2
        centre = slice(margin, margin + self.digit)
        shown = self._images(pose) >= THRESHOLD
        self.targets[rows, 0, centre, centre] = shown
        self.present[rows, 0] = shown.any(axis=(1, 2))
        none = np.zeros_like(rows)
        return [Placements(self.start + rows, *pose.columns, digits.scale, square, top, left, none, none)]

    def crowd(self) -> list[Placements]:
        """ceil(N(5, 0.5)) digits a sample, one after the other; all samples take their turns together."""
        rows = np.arange(len(self.indices))
        first, second = self._draws(rows, 0, 0, 2, NUMBER).T
        normal = np.sqrt(-2 * np.log1p(-first)) * np.cos(2 * np.pi * second)
        number = np.maximum(1, np.ceil(5 + 0.5 * normal))
        # First scales do not depend on what is there: the digits of all turns are made at once.
        turns, rows = np.nonzero(np.arange(number.max())[:, None] < number)
        draws = self._draws(rows, turns, 0, DRAWS)
        order = np.lexsort((draws[:, 0], turns))  # so that neighbours are of a like size
        rows, draws = rows[order], draws[order]
        digits = self._sized(rows, self._pose(rows, turns), draws)
        told = []
        for turn, (first, last) in enumerate(pairwise([0, *np.cumsum(np.bincount(turns))])):
            waiting = digits.between(first, last)
            for trial in range(SCALES):
                done, placed = self._try(waiting, trial)
                told.append(placed)
                left = np.flatnonzero(~done)
                if not len(left):
                    break
                rows = waiting.rows[left]
                waiting = self._sized(rows, waiting.pose.of(left), self._draws(rows, turn, trial + 1, DRAWS))
        return told

    def _sized(self, rows: Integers, pose: _Pose, draws: Doubles) -> _Digits:
        """Turned, scaled and rescaled to a maximum of 1; `draws` (n, 1 + 2 tries) are of scales and positions."""
        low, high = self.scene.scale
        scale = low + (high - low) * draws[:, 0]
        square = np.ceil(scale * self.digit).astype(np.int64)
        # Rows and columns of corners are 0 to the number of free pixels, with equal chances.
        free = (self.side - square)[:, None]
        tops, lefts = ((draws[:, first::2] * (free + 1)).astype(np.int64) for first in (1, 2))
        ink = inked(self._images(pose), square, pose.rotation, pose.shear, pose.vertical, stride=self.side)
        return _Digits(rows, pose, scale, square, tops, lefts, ink.rescaled())

    def _try(self, digits: _Digits, trial: int) -> tuple[Flags, Placements]:
        """One scale and its positions for a digit of each of some samples; which of them were placed."""
        corners = digits.rows[:, None] * self.side**2 + digits.tops * self.side + digits.lefts
        done, attempt = np.zeros(len(corners), np.bool_), np.zeros(len(corners), np.int64)
        for lot in LOTS:
            still = ~done
            done[still], attempt[still] = self._fitting(digits.ink.of(still), corners[still], lot)
            if done.all():
                break
        each = np.flatnonzero(done)
        rows, pose, attempt = digits.rows[each], digits.pose.of(each), attempt[each]
        self._place(rows, pose.image, corners[each, attempt], digits.ink.of(done))
        return done, Placements(
            self.start + rows, *pose.columns, digits.scale[each], digits.square[each], digits.tops[each, attempt],
            digits.lefts[each, attempt], np.full(len(each), trial), attempt,
        )  # fmt: skip

    def _fitting(self, ink: Ink, corners: Integers, lot: slice) -> tuple[Flags, Integers]:
        """Which digits overlap little enough with what is there at one of this lot of corners, and the first such."""
        ends = np.cumsum(ink.count)
        places = np.repeat(corners[:, lot].T, ink.count, axis=1) + ink.pixel
        # The running sums start with a column of zeros: a digit without ink has none on occupied pixels.
        hits = np.zeros((len(places), len(ink.pixel) + 1), np.int32)
        np.cumsum(self.canvas.reshape(-1).take(places) > 0, axis=1, dtype=np.int32, out=hits[:, 1:])
        fits = hits[:, ends] - hits[:, ends - ink.count] <= OVERLAP * ink.count
        return fits.max(axis=0), lot.start + fits.argmax(axis=0)

    def _place(self, rows: Integers, image: Integers, corner: Integers, ink: Ink) -> None:
        """Digits at these corners, a pixel of the canvases each; at most one digit a sample."""
        canvas = self.canvas.reshape(-1)
        pixel = np.repeat(corner, ink.count) + ink.pixel
        canvas[pixel] = np.minimum(canvas.take(pixel) + ink.value, 1)
        # Sample and pixel make a place on the canvas; on the targets the class lies between the two.
        label = self.labels[image].astype(np.int64)
        ahead = (rows * (self.scene.maps - 1) + label) * self.side**2
        pixel += np.repeat(ahead, ink.count)
        self.targets.reshape(-1)[pixel.take(np.flatnonzero(ink.value >= THRESHOLD))] = 1
        some = ink.count > 0  # and then one is 1
        self.present[rows[some], label[some]] = True

    def _draws(self, rows: Integers, turn: Integers | int, trial: int, count: int, purpose: int = PLACE) -> Doubles:
        return uniform(count, self.seed, self.indices[rows], purpose=purpose, turn=turn, trial=trial)

    def _pose(self, rows: Integers, turn: Integers | int) -> _Pose:
        which, rotation, shear, axis = self._draws(rows, turn, 0, 4, POSE).T
        count = len(self.images)
        image = (which * count).astype(np.int64) if self.scene.crowded else self.indices[rows] % count
        return _Pose(image, (2 * rotation - 1) * self.scene.rotation, (2 * shear - 1) * self.scene.shear, axis < 0.5)

    def _images(self, pose: _Pose) -> Floats:
        return shrunk(self.images[pose.image], self.digit)


def _joined(parts: Sequence[Placements]) -> Placements:
    """All of them, by sample, in the order of placing."""
    if not parts:
        none = np.zeros(0, np.int64)
        real = np.zeros(0)
        return Placements(none, none, real, real, none > 0, real, none, none, none, none, none)
    columns = [np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Placements)]
    order = np.argsort(columns[0], kind="stable")
    return Placements(*(column[order] for column in columns))
