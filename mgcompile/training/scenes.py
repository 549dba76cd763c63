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

import numpy as np
from numpy.typing import NDArray

from mgcompile.errors import MgcompileError
from mgcompile.training.counter import uniform
from mgcompile.training.warping import shrunk, warped

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

    def of(self, rows: Integers) -> _Pose:
        return _Pose(self.image[rows], self.rotation[rows], self.shear[rows], self.vertical[rows])


@dataclass(frozen=True, slots=True)
class _Ink:
    """The non-zero pixels of some digits, one after the other: whose, where in its square on the canvas, how dark."""

    owner: Integers
    pixel: Integers
    value: Floats
    count: Integers

    def of(self, chosen: Flags) -> _Ink:
        """That of the chosen digits, which are counted anew."""
        kept = chosen[self.owner]
        owner = (np.cumsum(chosen) - 1)[self.owner[kept]]
        return _Ink(owner, self.pixel[kept], self.value[kept], self.count[chosen])

    def fits(self, canvas: Floats, corners: Integers) -> Flags:
        """(n, tries): whether the digits overlap little enough with what is there, at each of their corners."""
        ends = np.cumsum(self.count)
        # The running sums start with a row of zeros: a digit without ink has none on occupied pixels.
        hits = np.zeros((len(self.pixel) + 1, corners.shape[1]), np.int32)
        occupied = canvas.take(corners[self.owner] + self.pixel[:, None]) > 0
        np.cumsum(occupied, axis=0, dtype=np.int32, out=hits[1:])
        fits: Flags = hits[ends] - hits[ends - self.count] <= OVERLAP * self.count[:, None]
        return fits


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
        pose = self._pose(rows, 0)
        draws = self._draws(rows, 0, 0, 3)
        scale, square, free = self._squares(draws[:, 0])
        top, left = (free // 2, free // 2) if self.scene.centred else _positions(draws[:, 1:], free)
        ink = self._ink(pose, square)
        corner = top * self.side + left
        self.canvas.reshape(-1)[rows[ink.owner] * self.side**2 + corner[ink.owner] + ink.pixel] = ink.value
        margin = (self.side - self.digit) // 2
        centre = slice(margin, margin + self.digit)
        self.targets[:, 0, centre, centre] = self._digits(pose) >= THRESHOLD
        self.present[:] = self.targets.any(axis=(2, 3))
        none = np.zeros_like(rows)
        return [Placements(self.start + rows, *pose.columns, scale, square, top, left, none, none)]

    def crowd(self) -> list[Placements]:
        """ceil(N(5, 0.5)) digits a sample, one after the other; all samples take their turns together."""
        rows = np.arange(len(self.indices))
        first, second = self._draws(rows, 0, 0, 2, NUMBER).T
        normal = np.sqrt(-2 * np.log1p(-first)) * np.cos(2 * np.pi * second)
        number = np.maximum(1, np.ceil(5 + 0.5 * normal))
        told = []
        for turn in range(int(number.max())):
            waiting = rows[number > turn]
            pose = self._pose(waiting, turn)
            for trial in range(SCALES):
                done, placed = self._try(waiting, pose, turn, trial)
                told.append(placed)
                left = np.flatnonzero(~done)
                if not len(left):
                    break
                waiting, pose = waiting[left], pose.of(left)
        return told

    def _try(self, rows: Integers, pose: _Pose, turn: int, trial: int) -> tuple[Flags, Placements]:
        """One scale and its positions for a digit of each of these samples; which of them were placed."""
        draws = self._draws(rows, turn, trial, 1 + 2 * TRIES)
        scale, square, free = self._squares(draws[:, 0])
        tops, lefts = _positions(draws[:, 1:].reshape(-1, TRIES, 2), free[:, None])
        ink = self._ink(pose, square)
        corners = rows[:, None] * self.side**2 + tops * self.side + lefts
        canvas = self.canvas.reshape(-1)
        # Most digits fit at once; only the others need to look further.
        fits = np.zeros(corners.shape, np.bool_)
        fits[:, :1] = ink.fits(canvas, corners[:, :1])
        again = ~fits[:, 0]
        fits[again, 1:] = ink.of(again).fits(canvas, corners[again, 1:])
        done: Flags = fits.max(axis=1)
        attempt = fits.argmax(axis=1)
        each, ink = np.arange(len(rows)), ink.of(done)
        owner = np.flatnonzero(done)[ink.owner]
        pixel = corners[each, attempt][owner] + ink.pixel
        canvas[pixel] = np.minimum(canvas[pixel] + ink.value, 1)
        # Sample and pixel make a place on the canvas; on the targets the class lies between the two.
        label = self.labels[pose.image].astype(np.int64)
        ahead = (rows * (self.scene.maps - 1) + label) * self.side**2
        dark = ink.value >= THRESHOLD
        self.targets.reshape(-1)[(ahead[owner] + pixel)[dark]] = 1
        self.present[rows[owner[dark]], label[owner[dark]]] = True
        top, left, trials = tops[each, attempt], lefts[each, attempt], np.full(len(rows), trial)
        told = Placements(self.start + rows, *pose.columns, scale, square, top, left, trials, attempt)
        return done, _chosen(told, np.flatnonzero(done))

    def _draws(self, rows: Integers, turn: int, trial: int, count: int, purpose: int = PLACE) -> Doubles:
        return uniform(count, self.seed, self.indices[rows], purpose=purpose, turn=turn, trial=trial)

    def _pose(self, rows: Integers, turn: int) -> _Pose:
        which, rotation, shear, axis = self._draws(rows, turn, 0, 4, POSE).T
        count = len(self.images)
        image = (which * count).astype(np.int64) if self.scene.crowded else self.indices[rows] % count
        return _Pose(image, (2 * rotation - 1) * self.scene.rotation, (2 * shear - 1) * self.scene.shear, axis < 0.5)

    def _squares(self, draw: Doubles) -> tuple[Doubles, Integers, Integers]:
        """Scales, the squares' sides in pixels, and the pixels that are free beside them."""
        low, high = self.scene.scale
        scale = low + (high - low) * draw
        square = np.ceil(scale * self.digit).astype(np.int64)
        return scale, square, self.side - square

    def _digits(self, pose: _Pose) -> Floats:
        return shrunk(self.images[pose.image], self.digit)

    def _ink(self, pose: _Pose, square: Integers) -> _Ink:
        """The digits, turned and scaled to their squares, and rescaled to a maximum of 1."""
        dense = warped(self._digits(pose), square, pose.rotation, pose.shear, pose.vertical)
        count, size, _ = dense.shape
        largest = dense.reshape(count, -1).max(axis=1)
        flat = np.flatnonzero(dense)
        owner, line = flat // (size * size), flat // size
        pixel = (line - owner * size) * self.side + flat - line * size
        value = dense.reshape(-1)[flat] / largest[owner]
        return _Ink(owner, pixel, value, np.bincount(owner, minlength=count))


def _positions(draws: Doubles, free: Integers) -> tuple[Integers, Integers]:
    """Rows and columns of corners from pairs of draws, 0 to `free` with equal chances."""
    return (draws[..., 0] * (free + 1)).astype(np.int64), (draws[..., 1] * (free + 1)).astype(np.int64)


def _chosen(placements: Placements, rows: Integers) -> Placements:
    return Placements(*(getattr(placements, field.name)[rows] for field in fields(Placements)))


def _joined(parts: Sequence[Placements]) -> Placements:
    """All of them, by sample, in the order of placing."""
    if not parts:
        none = np.zeros(0, np.int64)
        real = np.zeros(0)
        return Placements(none, none, real, real, none > 0, real, none, none, none, none, none)
    columns = [np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Placements)]
    return _chosen(Placements(*columns), np.argsort(columns[0], kind="stable"))
