"""What a task is: its data, what a network must return for them, the loss and the score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mgcompile.training.fetching import DataSet
from mgcompile.training.identity import Identity
from mgcompile.training.metrics import ClassScore, MapScore, Score, class_score, map_score

__all__ = ["ClassData", "Data", "Examples", "HeldOut", "Identity", "Integers", "MapData", "Settings", "Task", "Told"]

Integers = NDArray[np.int64]

Told = Callable[[int, int], None]
"""Told how many are done, of how many."""

HeldOut = Literal["validation", "test"]
"""Samples that no step of the training sees."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a task's data can be told. None is what was published; see `Task.options` for what a task takes.

    `size` is the side of what the network is given, in pixels; `digit` that of MNIST's digits, which divides 28;
    `resize` that of pictures before they are cropped; `samples` how many there are to train on.
    """

    seed: int = 0
    size: int | None = None
    digit: int | None = None
    resize: int | None = None
    samples: int | None = None


@dataclass(frozen=True, slots=True)
class Examples:
    """`inputs` (n, channels, size, size), or (n, crops, channels, size, size); `targets` are maps (n, maps, size, size)
    of 0 and 1, or classes (n,).
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> Examples:
        """On a device; from pinned memory while the processor goes on."""
        return Examples(self.inputs.to(device, non_blocking=True), self.targets.to(device, non_blocking=True))

    def pin_memory(self) -> Examples:
        """In memory that a GPU can read by itself; the data loader asks for it."""
        return Examples(self.inputs.pin_memory(), self.targets.pin_memory())


class Data(ABC):
    """A task's data, read. An example is a function of what identifies it, whatever the batch and the process."""

    channels: int
    """Of an input."""
    size: int
    """Side of an input in pixels."""
    outputs: int
    """Maps or classes that a network is to return."""
    in_maps: ClassVar[bool]
    """Whether it returns maps, not the logits of classes."""
    crops: tuple[int, ...] = (1,)
    """How many crops of a held-out picture a network may be asked about."""

    @property
    @abstractmethod
    def identity(self) -> Identity:
        """Which data these are, whatever the settings; a checkpoint keeps it. Raises `DataError`."""

    @property
    def found(self) -> tuple[str, ...]:
        """What is there and what was passed over, in lines; nothing of files that are known by their names."""
        return ()

    def check(self, *, decode: bool = False, progress: Told | None = None) -> str | None:
        """Look beforehand at what else is first read when it is asked for: at headers, for a bounded time, or where it
        is to be decoded at all of it. What was looked at, in a line; None where all was read already. Raises
        `DataError` that lists what is wrong.
        """
        return None

    @abstractmethod
    def samples(self, split: Literal["train", "validation", "test"]) -> int:
        """How many there are; a task without a validation set has none of it."""

    @abstractmethod
    def training(self, samples: Integers, numbers: Integers) -> Examples:
        """Examples of these samples, 0 to `samples("train") - 1`. Whatever is drawn for one depends on the seed and its
        number, which no other example of a training has. Raises `DataError`.
        """

    @abstractmethod
    def held_out(self, split: HeldOut, samples: Integers, crops: int = 1) -> Examples:
        """These samples of a split, which are the same for every seed. Raises `DataError`."""

    def targets(self, split: HeldOut, samples: Integers) -> Tensor:
        """The targets of `held_out` alone."""
        return self.held_out(split, samples).targets

    @abstractmethod
    def probabilities(self, targets: Tensor) -> Tensor:
        """The targets as the output that would be right, (n, outputs, ...) of 0 and 1."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor, *, logits: bool) -> Tensor:
        """The mean loss; `logits` says that `outputs` are not yet probabilities."""

    @abstractmethod
    def score(self, outputs: Tensor, targets: Tensor, *, logits: bool) -> Score:
        """How good the outputs of a batch are."""

    @abstractmethod
    def empty_score(self) -> Score:
        """The score of no examples."""

    @property
    def selection(self) -> HeldOut:
        """The split that a training is watched on: the test set where the task has no other."""
        return "validation" if self.samples("validation") else "test"


class MapData(Data):
    """Data whose targets are maps."""

    in_maps = True

    def probabilities(self, targets: Tensor) -> Tensor:
        return targets

    def loss(self, outputs: Tensor, targets: Tensor, *, logits: bool) -> Tensor:
        """Binary cross-entropy, the mean over all pixels of all maps."""
        entropy = F.binary_cross_entropy_with_logits if logits else F.binary_cross_entropy
        return entropy(outputs, targets)

    def score(self, outputs: Tensor, targets: Tensor, *, logits: bool) -> MapScore:
        return map_score(outputs.sigmoid() if logits else outputs, targets)

    def empty_score(self) -> MapScore:
        return MapScore()


class ClassData(Data):
    """Data whose targets are classes."""

    in_maps = False
    classes: Sequence[str]
    """Their names."""

    def probabilities(self, targets: Tensor) -> Tensor:
        return F.one_hot(targets, self.outputs)

    def loss(self, outputs: Tensor, targets: Tensor, *, logits: bool) -> Tensor:
        """Cross-entropy, the mean over the batch."""
        return F.cross_entropy(outputs, targets) if logits else F.nll_loss(outputs.clamp_min(1e-12).log(), targets)

    def score(self, outputs: Tensor, targets: Tensor, *, logits: bool) -> ClassScore:
        return class_score(outputs, targets)

    def empty_score(self) -> ClassScore:
        return ClassScore()


class Task(ABC):
    """A task by its name: where its data are, and how networks were trained for it."""

    name: str
    """What `--task` and recipes call it."""
    about: str
    """A line for people."""
    options: frozenset[str]
    """Which fields of `Settings` beside the seed can be said."""
    published: Mapping[str, Any]
    """The recipe of the paper; what it leaves open is what `Recipe` has by default."""
    data_set: DataSet | None = None
    """What `fetch` calls the data, where they can be fetched."""

    @abstractmethod
    def open(self, folder: Path, settings: Settings) -> Data:
        """Read the data. Raises `DataError` where they are missing or damaged or the settings do not fit."""
