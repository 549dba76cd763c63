"""Pictures and labels as they lie on disk: MNIST, CIFAR-10 and CIFAR-100."""

from __future__ import annotations

import gzip
import math
import os
import stat
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal

import numpy as np
import numpy.typing as npt

from mgcompile.errors import InputError

__all__ = [
    "DataError",
    "Digits",
    "Pictures",
    "Split",
    "damaged",
    "file_bytes",
    "read_cifar",
    "read_idx",
    "read_mnist",
    "reading",
]

Split = Literal["train", "test"]

Stream = IO[bytes] | gzip.GzipFile

FETCH = "fetch {} into it, as `mgcompile train --fetch` does"

CHUNK_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTES = 0x08

DEFLATE_FACTOR = 1032
"""A byte that gzip has packed stands for so many at most."""

DIGIT_CELLS = 28
DIGIT_CLASSES = 10
MOST_VALUES = 300_000 * DIGIT_CELLS**2
"""Of an IDX file: five times as many digits as MNIST has."""

PICTURE_SHAPE = (3, 32, 32)
MOST_PICTURES = 50_000
"""Of one split, as published; of what has more not all is read into memory."""
MOST_NAME_BYTES = 1 << 16
MOST_ARCHIVE_BYTES = 1 << 28
MOST_MEMBERS = 1000
"""Of an archive, unpacked, beside its files: the published ones have 184 MB and 9 members at most."""


class DataError(InputError):
    """Data are missing, damaged or not what they should be. The message names the file, what it has, what to do."""


@dataclass(frozen=True, eq=False, slots=True)
class Digits:
    """Handwritten digits: `images` (n, 28, 28) uint8, 0 to 255; `labels` (n,) uint8, 0 to 9."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False, slots=True)
class Pictures:
    """Colour pictures: `images` (n, 3, 32, 32) uint8, red, green, blue; `labels` (n,) int64, indices of `classes`."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]


# --- what goes wrong


def damaged(
    where: str | os.PathLike[str], found: str, expected: str, advice: str = "remove it and fetch it again"
) -> DataError:
    """What is said of a damaged file."""
    return DataError(f"{os.fspath(where)}: damaged: {found}; expected {expected}; {advice}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong while `path` is read becomes a `DataError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing: it does not exist") from error
    except (gzip.BadGzipFile, zlib.error, EOFError, tarfile.TarError) as error:
        raise damaged(path, f"it cannot be unpacked ({error})", "a whole gzip file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def file_bytes(path: Path) -> int:
    """The size of a regular file; of a pipe or a device a read might never return. Raises `DataError`."""
    with reading(path):
        about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise DataError(f"{path}: is no regular file; expected one with data")
    return about.st_size


def _check_choice(name: str, value: object, known: Sequence[object]) -> None:
    if value not in known:
        raise DataError(f"{name} is {value!r}; expected {' or '.join(map(repr, known))}")


def _at_most(stream: Stream, limit_bytes: int) -> bytearray:
    """What the stream has, up to a limit. Takes memory for what is there, whatever was claimed."""
    data = bytearray()
    while len(data) < limit_bytes and (chunk := stream.read(min(CHUNK_BYTES, limit_bytes - len(data)))):
        data += chunk
    return data


# --- MNIST


def read_idx(path: str | os.PathLike[str], shape: Sequence[int | None] | None = None) -> npt.NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes, as MNIST has them: plain or gzip.

    `shape` is the one that is expected, None where any size is. The header is read first: what it claims and the file
    cannot hold, what is larger than `MOST_VALUES` and what has another shape is refused before anything is unpacked.
    Raises `DataError` where the file is missing or damaged, or holds other numbers than unsigned bytes.
    """
    file = Path(path)
    stored = file_bytes(file)
    with reading(file), file.open("rb") as raw:
        if raw.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC):
            with gzip.GzipFile(fileobj=raw) as unpacked:
                return _idx_array(file, unpacked, shape, stored * DEFLATE_FACTOR)
        return _idx_array(file, raw, shape, stored)


def _idx_array(file: Path, stream: Stream, expected: Sequence[int | None] | None, holds: int) -> npt.NDArray[np.uint8]:
    """`holds` is how many bytes the file can hold at most."""
    sizes = _idx_sizes(file, stream)
    count = math.prod(sizes)
    shape = " x ".join(map(str, sizes)) or "one value"
    if expected is not None and not _has_shape(sizes, expected):
        sought = str(tuple(expected)).replace("None", "n")
        raise damaged(file, f"an array of {sizes}", f"{sought}, n at least 1")
    if count > holds:
        raise damaged(file, f"it is too short for what it claims, {count:,} values ({shape})", f"at most {holds:,}")
    if count > MOST_VALUES:
        raise DataError(f"{file}: too large: {count:,} values ({shape}); expected at most {MOST_VALUES:,}")
    data = _at_most(stream, count + 1)  # the byte after the last also makes gzip compare its checksum
    if len(data) != count:
        found = "bytes follow the last value" if len(data) > count else f"it ends after {len(data):,} bytes of values"
        raise damaged(file, found, f"{count:,} ({shape})")
    try:
        return np.frombuffer(data, np.uint8).reshape(sizes)
    except ValueError as error:  # more dimensions than NumPy has, or sizes that overflow beside a 0
        raise damaged(file, f"its sizes are {shape}", "sizes that an array can have") from error


def _has_shape(sizes: Sequence[int], expected: Sequence[int | None]) -> bool:
    return len(sizes) == len(expected) and all(
        size == wanted or (wanted is None and size > 0) for size, wanted in zip(sizes, expected, strict=True)
    )


def _idx_sizes(file: Path, stream: Stream) -> tuple[int, ...]:
    """Reads the header: two zeros, the type, the number of dimensions, and each size in four bytes."""
    magic = bytes(_at_most(stream, 4))
    if magic[:2] != bytes(2)[: len(magic)]:
        raise damaged(file, f"it starts with {magic.hex(' ')}", "00 00 08 and the number of dimensions (an IDX file)")
    if len(magic) < 4:
        raise damaged(file, f"it ends after {len(magic)} bytes", "the header of an IDX file")
    if magic[2] != UNSIGNED_BYTES:
        raise DataError(f"{file}: its values are of IDX type {magic[2]:#04x}; only unsigned bytes (0x08) are read")
    header = _at_most(stream, 4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise damaged(file, f"it ends after {4 + len(header)} bytes", f"a header with {magic[3]} sizes")
    return tuple(int.from_bytes(header[at : at + 4], "big") for at in range(0, len(header), 4))


def read_mnist(folder: str | os.PathLike[str], split: Split) -> Digits:
    """The digits of one split, from the two files of the usual names in `folder`, as they are or with `.gz`.

    Raises `DataError` where one is missing or damaged, or where they do not fit together.
    """
    _check_choice("split", split, ("train", "test"))
    start = "train" if split == "train" else "t10k"
    image_file = _mnist_file(folder, f"{start}-images-idx3-ubyte")
    label_file = _mnist_file(folder, f"{start}-labels-idx1-ubyte")
    images, labels = read_idx(image_file, (None, DIGIT_CELLS, DIGIT_CELLS)), read_idx(label_file, (None,))
    if len(images) != len(labels):
        raise damaged(label_file, f"{len(labels):,} labels", f"{len(images):,}, one for each image of {image_file}")
    _check_labels(label_file, labels, DIGIT_CLASSES)
    return Digits(images, labels)


def _mnist_file(folder: str | os.PathLike[str], name: str) -> Path:
    for path in (Path(folder, name), Path(folder, f"{name}.gz")):
        if path.is_file():
            return path
    raise DataError(f"{os.fspath(folder)}: missing: neither {name} nor {name}.gz is there; {FETCH.format('mnist')}")


def _check_labels(where: str | os.PathLike[str], labels: npt.NDArray[np.uint8], classes: int) -> None:
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        raise damaged(where, f"label {labels[wrong[0]]} at index {wrong[0]:,}", f"labels from 0 to {classes - 1}")


# --- CIFAR


@dataclass(frozen=True, slots=True)
class _Layout:
    """The binary version of one CIFAR set. A record is `label_bytes`, of which the last counts, and a picture."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    label_bytes: int
    folder: str
    archive: str
    pickled: str
    fetched: str

    @property
    def record_bytes(self) -> int:
        return self.label_bytes + math.prod(PICTURE_SHAPE)


_LAYOUTS: Mapping[int, _Layout] = {
    10: _Layout(
        train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        test=("test_batch.bin",),
        names="batches.meta.txt",
        label_bytes=1,
        folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz",
        pickled="cifar-10-batches-py",
        fetched="cifar10",
    ),
    100: _Layout(
        train=("train.bin",),
        test=("test.bin",),
        names="fine_label_names.txt",
        label_bytes=2,
        folder="cifar-100-binary",
        archive="cifar-100-binary.tar.gz",
        pickled="cifar-100-python",
        fetched="cifar100",
    ),
}


def read_cifar(folder: str | os.PathLike[str], classes: Literal[10, 100], split: Split) -> Pictures:
    """The pictures of one split of CIFAR-10 or CIFAR-100 in their binary version, with the (fine) labels.

    The files lie in `folder`, in its sub-folder of the usual name, or in the archive of the usual name, and are looked
    for in this order. Raises `DataError` where one is missing or damaged.
    """
    _check_choice("classes", classes, tuple(_LAYOUTS))
    _check_choice("split", split, ("train", "test"))
    layout = _LAYOUTS[classes]
    batches = layout.train if split == "train" else layout.test
    limits = dict.fromkeys(batches, MOST_PICTURES // len(batches) * layout.record_bytes)
    limits[layout.names] = MOST_NAME_BYTES
    where, files = _cifar_files(Path(folder), layout, limits)
    for name, limit in limits.items():
        if len(files[name]) > limit:
            raise damaged(where[name], f"more than {limit:,} bytes", "at most those")
    names = _class_names(where[layout.names], files[layout.names], classes)
    parts = [_records(where[name], files[name], layout, classes) for name in batches]
    images = np.concatenate([records[:, layout.label_bytes :] for records in parts]).reshape(-1, *PICTURE_SHAPE)
    labels = np.concatenate([records[:, layout.label_bytes - 1] for records in parts])
    return Pictures(images, labels.astype(np.int64), names)


def _records(where: str, data: bytearray, layout: _Layout, classes: int) -> npt.NDArray[np.uint8]:
    """(n, record) uint8, with labels that are in range."""
    if not data or len(data) % layout.record_bytes:
        expected = f"a whole number of pictures, {layout.record_bytes:,} bytes each with the label"
        raise damaged(where, f"{len(data):,} bytes", expected)
    records = np.frombuffer(data, np.uint8).reshape(-1, layout.record_bytes)
    _check_labels(where, records[:, layout.label_bytes - 1], classes)
    return records


def _class_names(where: str, data: bytearray, classes: int) -> tuple[str, ...]:
    try:
        names = tuple(data.decode("ascii").split())
    except UnicodeDecodeError as error:
        raise damaged(where, "bytes that are no text", f"{classes} names") from error
    if len(names) != classes or len(set(names)) != classes:
        raise damaged(where, f"{len(set(names))} different names in {len(names)}", f"{classes}, one a class")
    return names


def _cifar_files(
    folder: Path, layout: _Layout, limits: Mapping[str, int]
) -> tuple[dict[str, str], dict[str, bytearray]]:
    """Where each file is, and up to a byte more than its limit of it."""
    for place in (folder, folder / layout.folder):
        if any((place / name).is_file() for name in limits):
            return {name: str(place / name) for name in limits}, dict(_folder_files(place, limits))
    archive = folder / layout.archive
    if not archive.is_file():
        pickled = any((folder / name).exists() for name in (layout.pickled, f"{layout.pickled}.tar.gz"))
        raise DataError(
            f"{folder}: missing: no {next(iter(limits))}, no folder {layout.folder} with it and no {layout.archive} is "
            f"there{f' ({layout.pickled} is pickled, which is never read)' if pickled else ''}; "
            f"{FETCH.format(layout.fetched)}"
        )
    with reading(archive), gzip.open(archive) as unpacked:
        files = dict(_archive_files(_Bounded(archive, unpacked), layout, limits))
    for name in limits:
        if name not in files:
            raise damaged(archive, f"no {layout.folder}/{name} in it", "all files of the binary version")
    return {name: f"{archive}: {layout.folder}/{name}" for name in limits}, files


def _folder_files(place: Path, limits: Mapping[str, int]) -> Iterator[tuple[str, bytearray]]:
    for name, limit in limits.items():
        file_bytes(place / name)
        with reading(place / name), (place / name).open("rb") as stream:
            yield name, _at_most(stream, limit + 1)


class _Bounded:
    """A stream of which no more than `MOST_ARCHIVE_BYTES` are read."""

    def __init__(self, file: Path, stream: Stream) -> None:
        self.file, self.stream, self.left = file, stream, MOST_ARCHIVE_BYTES

    def read(self, count: int) -> bytes:
        data = self.stream.read(count)
        self.left -= len(data)
        if self.left < 0:
            raise DataError(f"{self.file}: too large: more than {MOST_ARCHIVE_BYTES:,} bytes are packed in it")
        return data


def _archive_files(unpacked: _Bounded, layout: _Layout, limits: Mapping[str, int]) -> Iterator[tuple[str, bytearray]]:
    # As a stream: tarfile does not go back in it, and so never unpacks anything twice.
    with tarfile.open(fileobj=unpacked, mode="r|") as archive:  # type: ignore[call-overload]
        for number, member in enumerate(archive):
            if number == MOST_MEMBERS:
                raise DataError(f"{unpacked.file}: too large: more than {MOST_MEMBERS:,} files are packed in it")
            path = PurePosixPath(member.name)
            if path.name in limits and str(path.parent) == layout.folder and member.isfile():
                stream = archive.extractfile(member)
                if stream is not None:
                    yield path.name, _at_most(stream, limits[path.name] + 1)
    while unpacked.read(CHUNK_BYTES):  # to the end, where gzip compares its checksum
        pass
