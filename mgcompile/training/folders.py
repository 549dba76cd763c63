"""Pictures in a folder a class: which there are, and what is passed over."""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mgcompile.escaping import brief
from mgcompile.training.files import DataError, reading
from mgcompile.training.pictures import SUFFIXES, check_picture, open_picture

__all__ = ["ImageFolder", "PassedOver", "check_pictures", "read_image_folder"]

SYSTEM = frozenset({"__macosx", "@eadir", "$recycle.bin", "desktop.ini", "thumbs.db"})
"""What operating systems leave in folders, in lower case; it counts as hidden, as what starts with a dot."""

SHOWN_NAMES = 3
SHOWN_PROBLEMS = 10

HEADER_SECONDS = 20.0
"""So long headers are read before a training; of more pictures than that allows, some anywhere in the folders."""
MOST_THREADS = 8
CHUNK = 64


class PassedOver:
    """How many files and folders were passed over for each reason, and the names of the first."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """`reason` is what one of them is called, and many; see `_REASONS`."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        if self.counts[reason] <= SHOWN_NAMES:
            self.names.setdefault(reason, []).append(brief(name))

    def __str__(self) -> str:
        told = []
        for reason, (one, many) in _REASONS.items():
            if count := self.counts.get(reason, 0):
                names = ", ".join(self.names[reason]) + (", ..." if count > SHOWN_NAMES else "")
                told.append(f"{count:,} {one if count == 1 else many} ({names})")
        return ", ".join(told)


_REASONS = {
    "other": ("file that is no picture by its suffix", "files that are no pictures by their suffixes"),
    "outside": ("file in no class", "files in no class"),
    "empty": ("empty folder", "empty folders"),
    "hidden": ("hidden file or folder", "hidden files and folders"),
    "special": ("link to nothing, device or pipe", "links to nothing, devices or pipes"),
    "again": ("link to a folder above or read already", "links to folders above or read already"),
}


@dataclass(frozen=True, eq=False, slots=True)
class ImageFolder:
    """Pictures in a folder a class: `paths[i]`, below `root` and of `sizes[i]` bytes, shows class `labels[i]`, an index
    of the sorted `classes`. Both are (n,) int64.
    """

    root: str
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    passed: PassedOver = field(default_factory=PassedOver)

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int) -> Image.Image:
        """The picture at an index; see `open_picture`."""
        return open_picture(self.paths[index])

    def files(self) -> Iterator[tuple[str, str, int]]:
        """The name below the root, the path and the bytes of each."""
        for path, size in zip(self.paths, self.sizes.tolist(), strict=True):
            yield path.removeprefix(self.root).lstrip(os.sep), path, size

    def __str__(self) -> str:
        pictures = "1 picture" if len(self) == 1 else f"{len(self):,} pictures"
        classes = "1 class" if len(self.classes) == 1 else f"{len(self.classes):,} classes"
        found = f"{self.root}: {pictures} of {classes}"
        return f"{found}; passed over: {self.passed}" if self.passed.counts else found


def read_image_folder(root: str | os.PathLike[str]) -> ImageFolder:
    """The pictures in `root/class/`, at any depth, known by their suffixes, sorted by class and name.

    What else is there is passed over, and counted. Links are followed, and no folder of a class is read twice. A
    picture is read when it is opened. Raises `DataError` where there is no such folder, no class in it, a class with
    files and no picture among them, and for names of classes that are no text or not told apart.
    """
    base, passed = os.fspath(root), PassedOver()
    folders = _class_folders(base, passed)
    found = {name: sorted(_pictures(folder, base, passed)) for name, folder in folders.items()}
    for name in [name for name, pictures in found.items() if not pictures]:
        passed.add("empty", name)
        del found[name]
    if not found:
        what = "only empty folders" if folders else "no folder"
        raise DataError(f"{base}: {what} in it; expected one a class, with its pictures")
    rows = [(label, path, size) for label, name in enumerate(found) for _, path, size in found[name]]
    labels, paths, sizes = zip(*rows, strict=True)
    return ImageFolder(base, tuple(found), paths, np.array(labels, np.int64), np.array(sizes, np.int64), passed)


def _class_folders(root: str, passed: PassedOver) -> dict[str, str]:
    """The folder of each class, by its name, sorted."""
    folders: dict[str, str] = {}
    for entry in _entries(root, root, passed):
        if not entry.is_dir():
            passed.add("outside", entry.name)
            continue
        name = unicodedata.normalize("NFC", entry.name)  # some systems write accents apart from their letters
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(f"{root}: the name of the folder {name!a} is not UTF-8; rename it") from None
        if name in folders:
            raise DataError(f"{root}: two folders are named {brief(name)}, written in two ways; rename one")
        folders[name] = entry.path
    return dict(sorted(folders.items()))


def _pictures(folder: str, root: str, passed: PassedOver) -> list[tuple[tuple[str, ...], str, int]]:
    """Of each picture of a class, the parts of its name, its path and its bytes. Of a class without files there is
    none; raises `DataError` where there are files and no picture.
    """
    found: list[tuple[tuple[str, ...], str, int]] = []
    others: list[str] = []
    waiting: list[tuple[tuple[str, ...], str]] = [((), folder)]
    seen = set(map(_identity, (Path(root).resolve(), *Path(root).resolve().parents)))
    while waiting:
        above, place = waiting.pop()
        with reading(Path(place)):
            if (identity := _identity(place)) in seen:
                passed.add("again", os.path.relpath(place, root))
                continue
            seen.add(identity)
            for entry in _entries(place, root, passed):
                parts = (*above, entry.name)
                if entry.is_dir():
                    waiting.append((parts, entry.path))
                elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                    found.append((parts, entry.path, entry.stat().st_size))
                else:
                    others.append(os.path.relpath(entry.path, root))
    if others and not found:
        known = ", ".join(sorted(SUFFIXES))
        more = f"it has {len(others):,} other file{'s' if len(others) > 1 else ''}, {brief(others[0])}"
        raise DataError(
            f"{folder}: no picture in it; expected some ({known}); {more}; remove the folder if it is no class"
        )
    for name in others:
        passed.add("other", name)
    return found


def _identity(folder: str | Path) -> tuple[int, int]:
    """What a folder is, whichever way leads there."""
    about = os.stat(folder)
    return about.st_dev, about.st_ino


def _entries(folder: str, root: str, passed: PassedOver) -> Iterator[os.DirEntry[str]]:
    """The files and folders in a folder, sorted by name, without those that are hidden or special."""
    with reading(Path(folder)):
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in SYSTEM:
                passed.add("hidden", os.path.relpath(entry.path, root))
            elif not _is_plain(entry):
                passed.add("special", os.path.relpath(entry.path, root))
            else:
                yield entry


def check_pictures(paths: Sequence[str], *, decode: bool, progress: Callable[[int, int], None] | None = None) -> int:
    """How many pictures were looked at: all where they are decoded, else as many headers as `HEADER_SECONDS` allow.

    Raises `DataError` that lists those that are missing, damaged, too large or of a kind that is not read.
    """
    order = np.random.default_rng(0).permutation(len(paths))
    problems: list[str] = []
    deadline, done = time.monotonic() + HEADER_SECONDS, 0
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        while done < len(paths) and (decode or time.monotonic() < deadline):
            some = [paths[index] for index in order[done : done + CHUNK]]
            problems += filter(None, pool.map(partial(_problem, decode=decode), some))
            done += len(some)
            if progress:
                progress(done, len(paths))
    if problems:
        more = len(problems) - SHOWN_PROBLEMS
        lines = [*sorted(problems)[:SHOWN_PROBLEMS], *([f"and {more:,} more"] if more > 0 else [])]
        raise DataError("\n".join(lines))
    return done


def _problem(path: str, *, decode: bool) -> str | None:
    try:
        check_picture(path, decode=decode)
    except DataError as error:
        return str(error)
    return None


def _is_plain(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a regular file, or leads to one."""
    try:
        return entry.is_dir() or entry.is_file()
    except OSError:  # links that lead round in a circle
        return False
