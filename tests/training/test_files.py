"""Data as they lie on disk: what is written is read, and every damage is told by its name, never by a traceback."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import random
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from mgcompile.errors import MgcompileError
from mgcompile.training import files
from mgcompile.training.fetching import REMOTES, fetch
from mgcompile.training.files import DataError, read_cifar, read_idx, read_mnist

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


def drawn(*shape: int, below: int = 256) -> np.ndarray:
    return np.random.default_rng(math.prod(shape)).integers(0, below, shape, np.uint8)


def written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    return str(caught.value)


# --- IDX


@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 4), (2, 3, 4), (0, 28, 28), (2, 1, 3, 1, 2)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_gives_what_was_written(tmp_path: Path, shape: tuple[int, ...], pack: Callable[[bytes], bytes]) -> None:
    array = drawn(*shape)
    read = read_idx(written(tmp_path / "any name", pack(idx(array))))
    assert read.dtype == np.uint8
    assert read.shape == shape
    assert np.array_equal(read, array)
    assert read.flags.writeable  # as torch.from_numpy wants it


WHOLE = idx(drawn(5, 6))
HUGE = bytes([0, 0, 8, 4]) + b"\xff" * 16  # 2**128 bytes
OVERFLOWING = bytes([0, 0, 8, 4]) + bytes(4) + b"\xff" * 12
PACKED = gzip.compress(WHOLE)

DAMAGES = {
    "empty": (b"", "ends after 0 bytes"),
    "wrong magic": (b"\x89PNG" + WHOLE, "starts with 89 50 4e 47"),
    "half a magic": (b"\x00", "ends after 1 bytes; expected the header"),
    "half a header": (WHOLE[:9], "ends after 9 bytes; expected a header with 2 sizes"),
    "truncated": (WHOLE[:-1], "ends after 29 bytes of values; expected 30 (5 x 6)"),
    "trailing": (WHOLE + b"\0", "bytes follow the last value; expected 30 (5 x 6)"),
    "more than there is": (HUGE, "too short for what it claims, 340,282,366,604,025,813,516,997,721,482,669,850,625"),
    "more than gzip can hold": (gzip.compress(HUGE), "too short for what it claims"),
    "sizes that overflow": (OVERFLOWING, "expected sizes that an array can have"),
    "too many dimensions": (bytes([0, 0, 8, 65]) + b"\0\0\0\1" * 65 + b"\0", "sizes that an array can have"),
    "half a gzip": (PACKED[:-12], "cannot be unpacked"),
    "a gzip header": (PACKED[:2], "cannot be unpacked"),
    "wrong checksum": (PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], "cannot be unpacked (CRC check failed"),
    "bytes after a gzip": (PACKED + b"more", "cannot be unpacked (Not a gzipped file"),
    "a gzip after a gzip": (PACKED + gzip.compress(b"\0"), "bytes follow the last value"),
    "packed twice": (gzip.compress(PACKED), "starts with 1f 8b"),
    "a gzip of half": (gzip.compress(WHOLE[:-3]), "ends after 27 bytes"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_idx_says_how(tmp_path: Path, damage: str) -> None:
    data, said = DAMAGES[damage]
    path = written(tmp_path / "labels", data)
    message = refusal(lambda: read_idx(path))
    assert message.startswith(f"{path}: damaged: ")
    assert said in message
    assert message.endswith("; remove it and fetch it again")


def test_missing_unreadable_and_other_types_are_not_damaged(tmp_path: Path) -> None:
    assert refusal(lambda: read_idx(tmp_path / "none")) == f"{tmp_path / 'none'}: missing: it does not exist"
    assert refusal(lambda: read_idx(tmp_path)) == f"{tmp_path}: is no regular file; expected one with data"
    floats = written(tmp_path / "floats", bytes([0, 0, 0x0D, 1, 0, 0, 0, 0]))
    assert refusal(lambda: read_idx(floats)) == (
        f"{floats}: its values are of IDX type 0x0d; only unsigned bytes (0x08) are read"
    )
    assert issubclass(DataError, MgcompileError)


ZEROS = gzip.compress(bytes(1 << 24), 9)  # gzip files may be joined


def claim(*sizes: int) -> bytes:
    return bytes([0, 0, 8, len(sizes)]) + b"".join(size.to_bytes(4, "big") for size in sizes)


@contextmanager
def little_memory(most: int = 8 * files.CHUNK_BYTES) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most


CLAIMS = {
    "a short file": claim(2**32 - 1) + bytes(100),
    "a short gzip": gzip.compress(claim(2**32 - 1) + bytes(100)),
    "a gzip that has it": gzip.compress(claim(1_500_000, 28, 28)) + ZEROS * 70,  # 1.1 GiB from 1.2 MB
    "labels that are there": gzip.compress(claim(1 << 30)) + ZEROS * 64,
    "another shape": gzip.compress(claim(1 << 13, 1 << 14)) + ZEROS * 8,
    "more than is claimed": gzip.compress(claim(2, 28, 28)) + ZEROS * 70,
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_takes_no_memory(tmp_path: Path, name: str) -> None:
    for file in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        written(tmp_path / file, CLAIMS[name])
    with little_memory():
        message = refusal(lambda: read_mnist(tmp_path, "train"))
    assert message.startswith(f"{tmp_path}/train-images-idx3-ubyte: ")
    if name != "another shape":
        with little_memory():
            refusal(lambda: read_idx(tmp_path / file))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    assert "is no regular file" in refusal(lambda: read_idx("/dev/zero"))
    laid(tmp_path, 100, "folder", cifar(100))
    (tmp_path / "train.bin").unlink()
    os.mkfifo(tmp_path / "train.bin")
    assert "train.bin: is no regular file" in refusal(lambda: read_cifar(tmp_path, 100, "train"))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_any_flipped_byte_is_an_array_or_an_error(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    whole = pack(WHOLE)
    for at in range(len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            data = bytearray(whole)
            data[at] ^= flip
            path = written(tmp_path / "flipped", bytes(data))
            try:
                read = read_idx(path)
            except DataError:
                continue
            assert read.shape == (5, 6)


# --- MNIST


def mnist(folder: Path, images: np.ndarray, labels: np.ndarray, *, start: str = "train", suffix: str = "") -> None:
    pack = gzip.compress if suffix else bytes
    written(folder / f"{start}-images-idx3-ubyte{suffix}", pack(idx(images)))
    written(folder / f"{start}-labels-idx1-ubyte{suffix}", pack(idx(labels)))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_reads_both_splits(tmp_path: Path, suffix: str) -> None:
    train, test = drawn(12, 28, 28), drawn(3, 28, 28)
    mnist(tmp_path, train, np.arange(12, dtype=np.uint8) % 10, suffix=suffix)
    mnist(tmp_path, test, np.array([9, 0, 5], np.uint8), start="t10k", suffix=suffix)
    digits = read_mnist(str(tmp_path), "train")
    assert np.array_equal(digits.images, train)
    assert digits.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    digits = read_mnist(tmp_path, "test")
    assert np.array_equal(digits.images, test)
    assert digits.labels.tolist() == [9, 0, 5]


@pytest.mark.parametrize(
    ("images", "labels", "at", "said"),
    [
        (drawn(2, 28, 28), drawn(3, below=10), "labels", "3 labels; expected 2, one for each image of "),
        (drawn(2, 28, 27), drawn(2, below=10), "images", "an array of (2, 28, 27); expected (n, 28, 28)"),
        (drawn(2, 784), drawn(2, below=10), "images", "an array of (2, 784)"),
        (drawn(0, 28, 28), drawn(0), "images", "an array of (0, 28, 28); expected (n, 28, 28), n at least 1"),
        (drawn(2, 28, 28), drawn(2, 1, below=10), "labels", "an array of (2, 1)"),
        (drawn(2, 28, 28), np.array([9, 10], np.uint8), "labels", "label 10 at index 1; expected labels from 0 to 9"),
    ],
)
def test_files_that_do_not_fit_together(
    tmp_path: Path, images: np.ndarray, labels: np.ndarray, at: str, said: str
) -> None:
    mnist(tmp_path, images, labels)
    message = refusal(lambda: read_mnist(tmp_path, "train"))
    assert message.startswith(f"{tmp_path}/train-{at}-idx{3 if at == 'images' else 1}-ubyte: damaged: ")
    assert said in message


def test_mnist_that_is_not_there(tmp_path: Path) -> None:
    mnist(tmp_path, drawn(2, 28, 28), drawn(2, below=10))
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    assert refusal(lambda: read_mnist(tmp_path, "train")) == (
        f"{tmp_path}: missing: neither train-labels-idx1-ubyte nor train-labels-idx1-ubyte.gz is there; fetch mnist "
        "into it, as `mgcompile train --fetch` does"
    )
    message = refusal(lambda: read_mnist(tmp_path, "validation"))  # type: ignore[arg-type]
    assert message == "split is 'validation'; expected 'train' or 'test'"


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST is not there")
def test_the_real_digits() -> None:
    for split, start, count in (("train", "train", 60_000), ("test", "t10k", 10_000)):
        digits = read_mnist(MNIST, split)  # type: ignore[arg-type]
        assert digits.images.shape == (count, 28, 28)
        assert digits.labels.shape == (count,)
        assert np.unique(digits.labels).tolist() == list(range(10))
        md5 = {remote.name: remote.content_md5 for remote in REMOTES["mnist"]}
        for kind, array in (("images-idx3", digits.images), ("labels-idx1", digits.labels)):
            found = hashlib.md5(idx(array), usedforsecurity=False).hexdigest()
            assert found == md5[f"{start}-{kind}-ubyte.gz"]
    assert all(path.is_file() for path in fetch("mnist", MNIST))  # nothing is missing, so nothing is asked for


# --- CIFAR

NAMES = {classes: [f"class_{number}" for number in range(classes)] for classes in (10, 100)}


def cifar(classes: int, pictures: int = 3) -> dict[str, bytes]:
    """The files of a small CIFAR set. Picture i of a file is full of red i, green i + 1, blue i + 2."""
    layout = files._LAYOUTS[classes]
    data = {layout.names: ("\n".join(NAMES[classes]) + "\n\n").encode()}
    for number, name in enumerate((*layout.train, *layout.test)):
        records = []
        for index in range(pictures):
            label = (number * pictures + index) % classes
            colours = b"".join(bytes([index + channel]) * 1024 for channel in range(3))
            records.append(bytes([0] * (layout.label_bytes - 1) + [label]) + colours)
        data[name] = b"".join(records)
    return data


def packed(data: dict[str, bytes], folder: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in data.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def laid(root: Path, classes: int, way: str, data: dict[str, bytes]) -> None:
    layout = files._LAYOUTS[classes]
    if way == "archive":
        written(root / layout.archive, gzip.compress(packed(data, layout.folder), 1))
        return
    for name, content in data.items():
        written((root / layout.folder if way == "sub-folder" else root) / name, content)


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("way", ["folder", "sub-folder", "archive"])
def test_cifar_reads_what_was_written(tmp_path: Path, classes: int, way: str) -> None:
    laid(tmp_path, classes, way, cifar(classes))
    train = read_cifar(tmp_path, classes, "train")  # type: ignore[arg-type]
    test = read_cifar(tmp_path, classes, "test")  # type: ignore[arg-type]
    count = 15 if classes == 10 else 3
    assert train.images.shape == (count, 3, 32, 32)
    assert train.images.dtype == np.uint8
    assert train.images.flags.c_contiguous
    assert train.images.flags.writeable
    assert train.labels.dtype == np.int64
    assert train.labels.tolist() == [index % classes for index in range(count)]
    assert test.labels.tolist() == [(count + index) % classes for index in range(3)]
    assert test.classes == train.classes == tuple(NAMES[classes])
    for index, picture in enumerate(train.images):
        assert [np.unique(channel).tolist() for channel in picture] == [[index % 3 + of] for of in range(3)]


@pytest.mark.parametrize("way", ["folder", "sub-folder", "archive"])
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train.bin", b"", "0 bytes; expected a whole number of pictures, 3,074 bytes each with the label"),
        ("train.bin", bytes(3073), "3,073 bytes; expected a whole number"),
        ("train.bin", bytes(3074) + b"\0\x64" + bytes(3072), "label 100 at index 1; expected labels from 0 to 99"),
        ("fine_label_names.txt", b"apple\nbear\n", "2 different names in 2; expected 100"),
        ("fine_label_names.txt", b"apple\n" * 100, "1 different names in 100; expected 100"),
        ("fine_label_names.txt", b"\xff" * 100, "bytes that are no text"),
        ("fine_label_names.txt", b"a" * 70_000, "more than 65,536 bytes"),
    ],
)
def test_a_damaged_cifar_says_how(tmp_path: Path, way: str, name: str, content: bytes, said: str) -> None:
    laid(tmp_path, 100, way, cifar(100) | {name: content})
    message = refusal(lambda: read_cifar(tmp_path, 100, "train"))
    place = {
        "folder": f"{tmp_path}/{name}",
        "sub-folder": f"{tmp_path}/cifar-100-binary/{name}",
        "archive": f"{tmp_path}/cifar-100-binary.tar.gz: cifar-100-binary/{name}",
    }
    assert message.startswith(f"{place[way]}: damaged: {said}")


@pytest.mark.parametrize("way", ["folder", "archive"])
def test_a_file_that_holds_too_much(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_PICTURES", 2)
    laid(tmp_path, 100, way, cifar(100))
    assert "more than 6,148 bytes" in refusal(lambda: read_cifar(tmp_path, 100, "train"))


def test_cifar_that_is_not_there(tmp_path: Path) -> None:
    assert refusal(lambda: read_cifar(tmp_path, 10, "test")) == (
        f"{tmp_path}: missing: no test_batch.bin, no folder cifar-10-batches-bin with it and no "
        "cifar-10-binary.tar.gz is there; fetch cifar10 into it, as `mgcompile train --fetch` does"
    )
    (tmp_path / "cifar-10-batches-py").mkdir()
    message = refusal(lambda: read_cifar(tmp_path, 10, "test"))
    assert "is there (cifar-10-batches-py is pickled, which is never read); fetch cifar10 into it" in message
    data = cifar(10)
    del data["data_batch_4.bin"]
    laid(tmp_path, 10, "archive", data)
    assert read_cifar(tmp_path, 10, "test").images.shape == (3, 3, 32, 32)
    message = refusal(lambda: read_cifar(tmp_path, 10, "train"))
    assert "cifar-10-binary.tar.gz: damaged: no cifar-10-batches-bin/data_batch_4.bin in it" in message
    laid(tmp_path, 10, "sub-folder", data)
    message = refusal(lambda: read_cifar(tmp_path, 10, "train"))
    assert message == f"{tmp_path}/cifar-10-batches-bin/data_batch_4.bin: missing: it does not exist"
    assert refusal(lambda: read_cifar(tmp_path, 20, "train")) == (  # type: ignore[arg-type]
        "classes is 20; expected 10 or 100"
    )


def test_links_and_folders_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    written(tmp_path / "train.txt", cifar(100)["train.bin"])
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            member = tarfile.TarInfo("cifar-100-binary/train.bin")
            member.type, member.linkname = kind, str(tmp_path / "train.txt")
            archive.addfile(member)
        written(tmp_path / "cifar-100-binary.tar.gz", gzip.compress(buffer.getvalue()))
        assert "no cifar-100-binary/train.bin in it" in refusal(lambda: read_cifar(tmp_path, 100, "train"))


def test_a_damaged_archive_is_found_wherever_it_is_damaged(tmp_path: Path) -> None:
    whole = gzip.compress(packed(cifar(100), "cifar-100-binary"))
    path = tmp_path / "cifar-100-binary.tar.gz"
    for data in (whole[:-1], whole[: len(whole) // 2], whole[:-8] + bytes(8), b"", b"no archive", gzip.compress(b"")):
        written(path, data)
        assert refusal(lambda: read_cifar(tmp_path, 100, "test")).startswith(f"{path}: damaged: ")


def test_an_archive_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_ARCHIVE_BYTES", 1 << 25)
    large = tarfile.TarInfo("cifar-100-binary/other.bin")
    large.size = 1 << 33
    path = written(tmp_path / "cifar-100-binary.tar.gz", gzip.compress(large.tobuf()) + ZEROS * 4)
    with little_memory():
        message = refusal(lambda: read_cifar(tmp_path, 100, "train"))
    assert message == f"{path}: too large: more than 33,554,432 bytes are packed in it"
    whole = packed(cifar(100), "cifar-100-binary")
    written(path, gzip.compress(whole) + ZEROS * 4)  # after its end
    assert "too large" in refusal(lambda: read_cifar(tmp_path, 100, "train"))
    written(path, gzip.compress(packed({str(number): b"" for number in range(1001)}, "x")))
    assert "too large: more than 1,000 files are packed in it" in refusal(lambda: read_cifar(tmp_path, 100, "train"))


HEADERS = (0, 3 * 512, 11 * 512)  # of the names, the training and the test pictures, in packed(cifar(100, 1))


def test_an_archive_with_random_headers_is_read_or_refused(tmp_path: Path) -> None:
    whole = packed(cifar(100, 1), "cifar-100-binary")
    chance = random.Random(0)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 2, 8))):
            data[chance.choice(HEADERS) + chance.randrange(512)] = chance.randrange(256)
        for start in HEADERS:  # with checksums that are right, so that what the headers claim is believed
            data[start + 148 : start + 156] = b" " * 8
            data[start + 148 : start + 156] = f"{sum(data[start : start + 512]):06o}\0 ".encode()
        written(tmp_path / "cifar-100-binary.tar.gz", gzip.compress(bytes(data), 1))
        try:
            read_cifar(tmp_path, 100, "train")
        except DataError:
            refused += 1
    assert 50 < refused < 350


def test_only_the_folder_of_the_usual_name_counts_in_an_archive(tmp_path: Path) -> None:
    written(tmp_path / "cifar-100-binary.tar.gz", gzip.compress(packed(cifar(100), "cifar-100-binary/old")))
    assert "no cifar-100-binary/train.bin in it" in refusal(lambda: read_cifar(tmp_path, 100, "train"))
