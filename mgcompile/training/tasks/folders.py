"""The task of a folder of pictures, in which each class has a folder: ImageNet's, or one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mgcompile.escaping import brief
from mgcompile.training.augmentation import IMAGENET, Augmentation, Floats, picture_crops, sides
from mgcompile.training.files import DataError
from mgcompile.training.folders import ImageFolder, check_pictures, read_image_folder
from mgcompile.training.identity import Identity, fingerprint_of_files
from mgcompile.training.tasks.base import ClassData, Examples, HeldOut, Integers, Settings, Task, Told
from mgcompile.training.tasks.classes import different_classes

__all__ = ["FOLDER_TASKS", "FolderData", "FolderTask"]

NAME = "image-folder"
SIZE, RESIZE = 224, 256

EPOCH_STEPS = 5_004  # of ImageNet's 1,281,167 training pictures, in batches of 256

PUBLISHED = {
    "steps": 90 * EPOCH_STEPS,
    "batch": 256,
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "schedule": "step",
    "drops": (1 / 3, 2 / 3),
    "drop_factor": 0.1,
    "evaluate_every": EPOCH_STEPS,
}

Name = Literal["train", "validation", "test"]


class FolderData(ClassData):
    """Pictures that are read as they are asked for. To train on, each is augmented as `Augmentation` says; else its
    shorter side is resized, and it is cropped as `crop_places` says. Colours are normalised as for ImageNet.
    """

    channels = 3
    crops = (1, 10)

    def __init__(self, folders: Mapping[Name, ImageFolder], settings: Settings) -> None:
        self.folders, self.seed = folders, settings.seed
        self.size, self.resize = sides(NAME, (SIZE, RESIZE), settings.size, settings.resize)
        self.classes = folders["train"].classes
        self.outputs = len(self.classes)

    @cached_property
    def identity(self) -> Identity:
        files = (
            (f"{split}/{name}", path, size)
            for split, folder in self.folders.items()
            for name, path, size in folder.files()
        )
        return Identity(tuple(self.classes), fingerprint_of_files(files))

    def samples(self, split: Name) -> int:
        return len(self.folders[split]) if split in self.folders else 0

    def training(self, samples: Integers, numbers: Integers) -> Examples:
        folder, drawn = self.folders["train"], Augmentation.drawn(self.seed, numbers)
        pictures = np.empty((len(samples), 3, self.size, self.size), np.float32)
        for row, sample in enumerate(samples.tolist()):
            pictures[row] = drawn.apply(row, folder.open(sample), self.size)
        return self._examples(pictures, folder, samples)

    def held_out(self, split: HeldOut, samples: Integers, crops: int = 1) -> Examples:
        folder = self._held_out(split)
        pictures = np.empty((len(samples), crops, 3, self.size, self.size), np.float32)
        for row, sample in enumerate(samples.tolist()):
            pictures[row] = picture_crops(folder.open(sample), self.resize, self.size, crops)
        return self._examples(pictures[:, 0] if crops == 1 else pictures, folder, samples)

    def targets(self, split: HeldOut, samples: Integers) -> Tensor:
        return torch.from_numpy(self._held_out(split).labels[samples])

    @property
    def found(self) -> tuple[str, ...]:
        return tuple(map(str, self.folders.values()))

    def check(self, *, decode: bool = False, progress: Told | None = None) -> str:
        paths = [path for folder in self.folders.values() for path in folder.paths]
        done = check_pictures(paths, decode=decode, progress=progress)
        if decode:
            return f"all {done:,} pictures can be decoded"
        of = f"all {done:,}" if done == len(paths) else f"{done:,} of {len(paths):,}"
        return f"the headers of {of} pictures are right; --check-data decodes them"

    def _held_out(self, split: HeldOut) -> ImageFolder:
        if split not in self.folders:
            raise DataError(f"{NAME}: there are no {split} samples; expected the split {self.selection!r}")
        return self.folders[split]

    def _examples(self, pictures: Floats, folder: ImageFolder, samples: Integers) -> Examples:
        return Examples(torch.from_numpy(IMAGENET.normalised(pictures)), torch.from_numpy(folder.labels[samples]))


@dataclass(frozen=True)
class FolderTask(Task):
    """A task of pictures in `train/CLASS/` and in `val/CLASS/`, `test/CLASS/` or both.

    Where there is one of the last two, it is the test set, and there is no validation set.
    """

    name = NAME
    about = "ImageNet and other folders of pictures, a class a folder"
    options = frozenset({"size", "resize"})
    published = PUBLISHED

    def open(self, folder: Path, settings: Settings) -> FolderData:
        train, val, test = (folder / name for name in ("train", "val", "test"))
        if not train.is_dir():
            raise DataError(f"{train}: missing; expected a folder with a folder of pictures for each class")
        places: dict[Name, Path] = {"train": train}
        if val.is_dir() and test.is_dir():
            places |= {"validation": val, "test": test}
        elif val.is_dir() or test.is_dir():
            places["test"] = val if val.is_dir() else test
        else:
            raise DataError(f"{folder}: missing: neither val nor test is there; expected one, with train's classes")
        folders = {name: read_image_folder(place) for name, place in places.items()}
        for name, place in places.items():
            _same_classes(place, folders[name].classes, train, folders["train"].classes)
        return FolderData(folders, settings)


def _same_classes(place: Path, found: tuple[str, ...], train: Path, expected: tuple[str, ...]) -> None:
    if found == expected:
        return
    empty = [name for name in expected if name not in found and (place / name).is_dir()]
    raise DataError(
        f"{place}: its {len(found):,} classes are not the {len(expected):,} of {train}: "
        f"{different_classes(found, expected)}; "
        + (f"the folder {brief(empty[0])} is empty; " if empty else "")
        + "expected the same folders in both, with pictures in each; move pictures, rename or remove folders"
    )


FOLDER_TASKS = (FolderTask(),)
