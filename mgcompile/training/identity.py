"""Which data a network was trained on: the names of its classes, and a fingerprint of what was read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mgcompile.training.files import reading

__all__ = ["Identity", "differences", "fingerprint_of_arrays", "fingerprint_of_files"]

SAMPLED_FILES = 64
"""Of so many files, at equal distances, the beginning is read; of all others name and size alone count."""
SAMPLED_BYTES = 1 << 16
DIGEST_BYTES = 16
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells data from others; its fields are what a checkpoint keeps of it.

    `classes` are their names in the order of a network's outputs, None where targets are maps. `fingerprint`, in
    hexadecimal, differs where other samples are read; it does not depend on where they lie or how they are packed.
    """

    classes: tuple[str, ...] | None
    fingerprint: str


def fingerprint_of_arrays(arrays: Iterable[NDArray[np.generic]]) -> str:
    """Of all values, of shapes and types, in their order."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def fingerprint_of_files(files: Iterable[tuple[str, str, int]]) -> str:
    """Of files as (name, path, bytes): of all names and sizes, and of the beginning of a few. The names count, not the
    paths. Raises `DataError` where one of the few cannot be read.
    """
    listed = sorted(files)
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for name, _, size in listed:
        digest.update(os.fsencode(name) + b"\0" + str(size).encode() + b"\0")
    step = max(1, len(listed) // SAMPLED_FILES)
    for _, path, _ in listed[::step]:
        with reading(Path(path)), open(path, "rb") as file:
            digest.update(file.read(SAMPLED_BYTES))
    return digest.hexdigest()


def differences(classes: object, fingerprint: object, data: Identity) -> Iterator[str]:
    """How data differ from those of which classes and fingerprint were written down; of classes, the first few."""
    before = list(classes) if isinstance(classes, list | tuple) else []
    now = list(data.classes or ())
    if len(before) != len(now):
        yield f"there were {len(before)} classes and are {len(now)}"
    renamed = [(number, *names) for number, names in enumerate(zip(before, now, strict=False)) if names[0] != names[1]]
    for number, old, new in renamed[:SHOWN]:
        yield f"class {number} was {old!r} and is {new!r}"
    if len(renamed) > SHOWN:
        yield f"and {len(renamed) - SHOWN:,} more classes"
    if fingerprint != data.fingerprint:
        yield f"they have another fingerprint, {fingerprint!r} before and {data.fingerprint!r} now: other samples"
