"""The MNIST tasks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch

from mgcompile.errors import MgcompileError
from mgcompile.training.fetching import DataSet
from mgcompile.training.files import DataError, Digits, read_mnist
from mgcompile.training.identity import Identity, fingerprint_of_arrays
from mgcompile.training.scenes import SCENES, Scene, make
from mgcompile.training.tasks.base import Examples, HeldOut, Integers, MapData, Settings, Task

__all__ = ["DigitTask", "Scenes"]

CANVAS, DIGIT = 64, 28

HELD_OUT_SEEDS: Final[dict[HeldOut, int]] = {"validation": 1 << 63, "test": (1 << 63) + 1}
"""Held-out scenes are the same for all; no training has these seeds."""

VALIDATION_DIGITS = 5_000
"""So many of the training digits, the last, are kept for a validation set, of tasks that have one."""

PUBLISHED = {
    "steps": 160_000,
    "batch": 64,
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "evaluate_every": 800,
}


class Scenes(MapData):
    """Scenes that are made from digits as they are asked for."""

    channels = 1

    def __init__(self, scene: Scene, counts: dict[str, int], folder: Path, settings: Settings) -> None:
        self.scene, self.counts = scene, counts
        self.seed = settings.seed
        self.size, self.digit = settings.size or CANVAS, settings.digit or DIGIT
        self.outputs = scene.maps
        train, test = read_mnist(folder, "train"), read_mnist(folder, "test")
        kept = min(VALIDATION_DIGITS, len(train.images) // 2) if counts["validation"] else 0
        inner = len(train.images) - kept
        self.digits = {
            "train": Digits(train.images[:inner], train.labels[:inner]),
            "validation": Digits(train.images[inner:], train.labels[inner:]),
            "test": test,
        }
        try:
            self._make("test", np.zeros(1, np.int64), 0)
        except MgcompileError as error:
            raise DataError(f"{scene.name}: {error}") from None

    @cached_property
    def identity(self) -> Identity:
        parts = (self.digits["train"], self.digits["validation"], self.digits["test"])
        return Identity(None, fingerprint_of_arrays(array for part in parts for array in (part.images, part.labels)))

    def samples(self, split: Literal["train", "validation", "test"]) -> int:
        return self.counts[split]

    def training(self, samples: Integers, numbers: Integers) -> Examples:
        return self._make("train", samples, self.seed)

    def held_out(self, split: HeldOut, samples: Integers, crops: int = 1) -> Examples:
        return self._make(split, samples, HELD_OUT_SEEDS[split])

    def _make(self, split: str, samples: Integers, seed: int) -> Examples:
        digits = self.digits[split]
        batch = make(self.scene, digits.images, digits.labels, samples, seed=seed, side=self.size, digit=self.digit)
        return Examples(torch.from_numpy(batch.images), torch.from_numpy(batch.targets))


@dataclass(frozen=True)
class DigitTask(Task):
    """A task of scenes: so many to train on, to watch a training by, and to test with."""

    name: str
    about: str
    train: int
    validation: int
    test: int

    options = frozenset({"size", "digit", "samples"})
    published = PUBLISHED
    data_set: DataSet | None = "mnist"

    def open(self, folder: Path, settings: Settings) -> Scenes:
        counts = {"train": settings.samples or self.train, "validation": self.validation, "test": self.test}
        return Scenes(SCENES[self.name], counts, folder, settings)


DIGIT_TASKS = (
    DigitTask("mnist-seg", "segment about five digits into ten maps", 10_000, 1_000, 1_000),
    *(
        DigitTask(f"mnist-{kind}", about, 60_000, 0, 10_000)
        for kind, about in (
            ("spatial", "undo rotation, shear, scale and translation of a digit"),
            ("rotation", "undo the rotation of a digit"),
            ("affine", "undo the shear of a digit"),
            ("scaling", "undo the scale of a digit"),
            ("translation", "bring a digit to the centre"),
        )
    ),
)
