"""The classes of data beside those that a network was trained on: they are told apart by name, not by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mgcompile.errors import InputError
from mgcompile.escaping import brief
from mgcompile.training.tasks.base import ClassData, Examples, HeldOut, Identity, Integers, Told

__all__ = ["RenumberedData", "different_classes", "with_classes"]

SHOWN = 5


def different_classes(found: Sequence[str], expected: Sequence[str]) -> str:
    """Which names some classes lack of others, and which only they have; empty where these are the same."""
    lacks, more = (sorted(set(one) - set(other)) for one, other in ((expected, found), (found, expected)))
    told = (("it lacks", lacks), ("only it has", more))
    return "; ".join(f"{what} {_listed(names)}" for what, names in told if names)


def _listed(names: Sequence[str]) -> str:
    first = ", ".join(map(brief, names[:SHOWN]))
    return f"{first} and {len(names) - SHOWN:,} more" if len(names) > SHOWN else first


def with_classes(data: ClassData, classes: Sequence[str], *, some: bool = False) -> ClassData:
    """The data with the classes of a network, in the order of its outputs.

    Raises `InputError` where the names differ; with `some`, the data may lack some.
    """
    if tuple(data.classes) == tuple(classes):
        return data
    lacks_alone = set(data.classes) < set(classes)
    if len(set(classes)) != len(classes):
        raise InputError("the classes that the network was trained on are not told apart by their names")
    if set(data.classes) != set(classes) and not (some and lacks_alone):
        way = "say --some-classes to go on without these" if lacks_alone else "name them as they were in the training"
        raise InputError(
            f"the {len(data.classes):,} classes of the data are not the {len(classes):,} that the network was trained "
            f"on: {different_classes(data.classes, classes)}; {way}"
        )
    return RenumberedData(data, classes)


class RenumberedData(ClassData):
    """Data whose classes have the numbers that they have for a network."""

    def __init__(self, data: ClassData, classes: Sequence[str]) -> None:
        self.data, self.classes, self.outputs = data, tuple(classes), len(classes)
        self.channels, self.size, self.crops = data.channels, data.size, data.crops
        self.numbers = torch.tensor([self.classes.index(name) for name in data.classes])

    @property
    def identity(self) -> Identity:
        return self.data.identity

    @property
    def found(self) -> tuple[str, ...]:
        return self.data.found

    def check(self, *, decode: bool = False, progress: Told | None = None) -> str | None:
        return self.data.check(decode=decode, progress=progress)

    def samples(self, split: Literal["train", "validation", "test"]) -> int:
        return self.data.samples(split)

    def training(self, samples: Integers, numbers: Integers) -> Examples:
        return self._renumbered(self.data.training(samples, numbers))

    def held_out(self, split: HeldOut, samples: Integers, crops: int = 1) -> Examples:
        return self._renumbered(self.data.held_out(split, samples, crops))

    def targets(self, split: HeldOut, samples: Integers) -> Tensor:
        return self.numbers[self.data.targets(split, samples)]

    def _renumbered(self, examples: Examples) -> Examples:
        return Examples(examples.inputs, self.numbers[examples.targets])
