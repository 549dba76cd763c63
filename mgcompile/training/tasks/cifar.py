"""The CIFAR tasks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mgcompile.training import augmentation
from mgcompile.training.augmentation import Colours
from mgcompile.training.fetching import DataSet
from mgcompile.training.files import DataError, Pictures, Split, read_cifar
from mgcompile.training.identity import Identity, fingerprint_of_arrays
from mgcompile.training.tasks.base import ClassData, Examples, HeldOut, Integers, Settings, Task

__all__ = ["CIFAR_TASKS", "CifarData", "CifarTask"]

SIZE, RESIZE = 32, 36

PUBLISHED = {
    "steps": 60_000,
    "batch": 128,
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "evaluate_every": 300,
}


class CifarData(ClassData):
    """CIFAR's pictures, resized and cropped: for training anywhere, and mirrored or not; else as `crop_places` says."""

    channels = 3
    crops = (1, 10)

    def __init__(self, colours: Colours, pictures: dict[Split, Pictures], settings: Settings, *, task: str) -> None:
        self.task, self.colours, self.pictures, self.seed = task, colours, pictures, settings.seed
        self.size, self.resize = augmentation.sides(task, (SIZE, RESIZE), settings.size, settings.resize)
        self.classes = pictures["train"].classes
        self.outputs = len(self.classes)

    @cached_property
    def identity(self) -> Identity:
        parts = (self.pictures["train"], self.pictures["test"])
        arrays = (array for part in parts for array in (part.images, part.labels))
        return Identity(tuple(self.classes), fingerprint_of_arrays(arrays))

    def samples(self, split: Literal["train", "validation", "test"]) -> int:
        return 0 if split == "validation" else len(self.pictures[split].labels)

    def training(self, samples: Integers, numbers: Integers) -> Examples:
        pictures = self.pictures["train"]
        top, left = augmentation.positions(self.seed, numbers, self.resize - self.size).T
        flipped = augmentation.flips(self.seed, numbers)
        images = pictures.images[samples]
        cuts = augmentation.resized_crops(images, self.resize, self.size, top=top, left=left, flipped=flipped)
        return self._examples(cuts, pictures.labels[samples])

    def held_out(self, split: HeldOut, samples: Integers, crops: int = 1) -> Examples:
        places = np.array(augmentation.crop_places(self.resize, self.resize, self.size, crops))
        pictures = self._held_out(split)
        top, left = np.tile(places, (len(samples), 1)).T
        images = pictures.images[np.repeat(samples, len(places))]
        cuts = augmentation.resized_crops(images, self.resize, self.size, top=top, left=left)
        stacks = cuts.reshape(len(samples), len(places), *cuts.shape[1:])
        found = augmentation.with_flips(stacks, crops)
        return self._examples(found[:, 0] if crops == 1 else found, pictures.labels[samples])

    def targets(self, split: HeldOut, samples: Integers) -> Tensor:
        return torch.from_numpy(self._held_out(split).labels[samples])

    def _held_out(self, split: HeldOut) -> Pictures:
        if split == "validation":
            raise DataError(f"{self.task} has no validation samples; expected the split 'test'")
        return self.pictures[split]

    def _examples(self, cuts: augmentation.Floats, labels: Integers) -> Examples:
        return Examples(torch.from_numpy(self.colours.normalised(cuts)), torch.from_numpy(labels))


@dataclass(frozen=True)
class CifarTask(Task):
    """A task of CIFAR's pictures: all training pictures to train on, no validation set, all test pictures to test."""

    name: str
    about: str
    colours: Colours
    classes: Literal[10, 100]
    data_set: DataSet

    options = frozenset({"size", "resize"})
    published = PUBLISHED

    def open(self, folder: Path, settings: Settings) -> CifarData:
        splits: tuple[Split, ...] = ("train", "test")
        pictures = {split: read_cifar(folder, self.classes, split) for split in splits}
        return CifarData(self.colours, pictures, settings, task=self.name)


CIFAR_TASKS = (
    CifarTask("cifar10", "tell ten kinds of objects in small pictures", augmentation.CIFAR_10, 10, "cifar10"),
    CifarTask("cifar100", "tell a hundred kinds of objects in small pictures", augmentation.CIFAR_100, 100, "cifar100"),
)
