"""Downloads of the public data sets, each file held to its checksum."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import secrets
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Literal, cast
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from mgcompile.training.files import DataError, Stream, file_bytes, reading

__all__ = ["REMOTES", "DataSet", "Progress", "Remote", "fetch"]

DataSet = Literal["mnist", "cifar10", "cifar100"]

Progress = Callable[[str, int, int | None], None]
"""Called with the name of a file, how many of its bytes have come, and how many there are where the server says so."""

SCHEMES = frozenset({"https"})
CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 30.0
MOST_BYTES = 1 << 28
"""Of a file, as it comes and unpacked; the largest has 170 MB."""
PATIENCE_SECONDS, LEAST_BYTES = 60.0, 1 << 16
"""In so long at least so many bytes have to come."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A file, its address and its MD5; for MNIST also that of what is packed in it, which may have been packed anew."""

    name: str
    address: str
    md5: str
    content_md5: str | None = None


_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_CIFAR = "https://www.cs.toronto.edu/~kriz/"

REMOTES: Mapping[str, tuple[Remote, ...]] = {
    "mnist": tuple(
        Remote(name, _MNIST + name, md5, content_md5)
        for name, md5, content_md5 in (
            (
                "train-images-idx3-ubyte.gz",
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "6bbc9ace898e44ae57da46a324031adb",
            ),
            (
                "train-labels-idx1-ubyte.gz",
                "d53e105ee54ea40749a09fcbcd1e9432",
                "a25bea736e30d166cdddb491f175f624",
            ),
            (
                "t10k-images-idx3-ubyte.gz",
                "9fb629c4189551a2d022fa330f9573f3",
                "2646ac647ad5339dbf082846283269ea",
            ),
            (
                "t10k-labels-idx1-ubyte.gz",
                "ec29112dd5afa0611ce80d1b7f02629c",
                "27ae3e4e09519cfbb04c329615203637",
            ),
        )
    ),
    "cifar10": (
        Remote("cifar-10-binary.tar.gz", _CIFAR + "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
    ),
    "cifar100": (
        Remote("cifar-100-binary.tar.gz", _CIFAR + "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
    ),
}
"""The files of each data set, as `read_mnist` and `read_cifar` read them."""


def fetch(name: DataSet, folder: str | os.PathLike[str], *, progress: Progress | None = None) -> tuple[Path, ...]:
    """Download what is not yet in `folder`, which is made where it is missing; the paths of all files of the data set.

    A file that is there already is held to its checksum too, and never replaced. A download is whole or not there at
    all. Raises `DataError` for an unknown name, where a file cannot be downloaded or written, and where a checksum
    differs.
    """
    if name not in REMOTES:
        raise DataError(f"the data set {name!r} is not known; expected {' or '.join(map(repr, REMOTES))}")
    targets = {remote: Path(folder, remote.name) for remote in REMOTES[name]}
    missing = {remote: target for remote, target in targets.items() if not _is_there(remote, target)}
    by_hand = f"or bring {', '.join(remote.name for remote in missing)} into {os.fspath(folder)} by hand"
    for remote, target in missing.items():
        _download(remote, target, by_hand, progress)
    return tuple(targets.values())


def _is_there(remote: Remote, target: Path) -> bool:
    if not os.path.lexists(target):
        return False
    file_bytes(target)
    with reading(target), target.open("rb") as file:
        found = _md5(file)
    if found != remote.md5 and not _has_content(remote, target):
        raise DataError(f"{target}: is there with the MD5 {found}; expected {remote.md5}; remove it to have it fetched")
    return True


def _has_content(remote: Remote, target: Path) -> bool:
    if remote.content_md5 is None:
        return False
    with reading(target), gzip.open(target) as content:
        return _md5(content) == remote.content_md5


def _md5(file: Stream) -> str:
    """Of at most so many bytes as any file has, packed or not."""
    digest, left = _new_md5(), MOST_BYTES
    while left > 0 and (chunk := file.read(CHUNK_BYTES)):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest()


def _new_md5() -> hashlib._Hash:
    return hashlib.md5(usedforsecurity=False)


# --- over the network


def _download(remote: Remote, target: Path, by_hand: str, progress: Progress | None) -> None:
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        found = _receive(remote, draft, by_hand, progress)
        if found != remote.md5:
            raise DataError(
                f"{remote.address}: what came has the MD5 {found}; expected {remote.md5}; it is removed again; try "
                f"later, {by_hand}"
            )
        with _writing(target):
            draft.replace(target)
    finally:
        with suppress(OSError):  # it may never have been made
            draft.unlink()


def _receive(remote: Remote, draft: Path, by_hand: str, progress: Progress | None) -> str:
    """Writes what the server sends into `draft`; its MD5. The folder is made once the server has answered."""
    digest, received = _new_md5(), 0
    with closing(_connect(remote, by_hand)) as response:
        total = response.length
        if total is not None and total > MOST_BYTES:
            raise _failed(remote, f"the server has {total:,} bytes of it; expected at most {MOST_BYTES:,}", by_hand)
        with _writing(draft):
            draft.parent.mkdir(parents=True, exist_ok=True)
            file = draft.open("wb")
        with file:
            for chunk in _chunks(response, remote, by_hand):
                with _writing(draft):
                    file.write(chunk)
                    file.flush()
                digest.update(chunk)
                received += len(chunk)
                if progress is not None:
                    progress(remote.name, received, total)
    if total is not None and received != total:
        raise _failed(remote, f"the connection ended after {received:,} of {total:,} bytes", by_hand)
    return digest.hexdigest()


def _connect(remote: Remote, by_hand: str) -> http.client.HTTPResponse:
    if urlsplit(remote.address).scheme not in SCHEMES:
        raise _failed(remote, f"only {', '.join(SCHEMES)} is allowed", by_hand)
    request = urllib.request.Request(remote.address, headers={"User-Agent": "mgcompile"})
    opener = urllib.request.build_opener(_Redirects)
    with _network(remote, by_hand):
        return cast(http.client.HTTPResponse, opener.open(request, timeout=TIMEOUT_SECONDS))


def _chunks(response: http.client.HTTPResponse, remote: Remote, by_hand: str) -> Iterator[bytes]:
    """What the server sends, as it comes: no more than any file has, and not for ever."""
    received = before = 0
    since = time.monotonic()
    while chunk := _next_chunk(response, remote, by_hand):
        received += len(chunk)
        if received > MOST_BYTES:
            raise _failed(remote, f"the server sends more than {MOST_BYTES:,} bytes", by_hand)
        if time.monotonic() - since > PATIENCE_SECONDS:
            if received - before < LEAST_BYTES:
                slow = f"only {received - before:,} bytes came in {PATIENCE_SECONDS:g} seconds"
                raise _failed(remote, slow, by_hand)
            since, before = time.monotonic(), received
        yield chunk


def _next_chunk(response: http.client.HTTPResponse, remote: Remote, by_hand: str) -> bytes:
    with _network(remote, by_hand):
        return response.read1(CHUNK_BYTES)  # what has come, not what fills a chunk


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server only to addresses that `fetch` would go to by itself."""

    def redirect_request(  # noqa: PLR0917, the signature is the standard library's
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in SCHEMES:
            allowed = ", ".join(SCHEMES)
            raise HTTPError(newurl, code, f"it leads to {newurl}, and only {allowed} is allowed", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


# --- what goes wrong


def _failed(remote: Remote, reason: object, by_hand: str) -> DataError:
    return DataError(f"{remote.address}: cannot be fetched: {reason}; try later, {by_hand}")


@contextmanager
def _network(remote: Remote, by_hand: str) -> Iterator[None]:
    """Whatever goes wrong between here and the server becomes a `DataError`."""
    try:
        yield
    except HTTPError as error:
        error.close()
        raise _failed(remote, f"the server answers {error.code} ({error.reason})", by_hand) from error
    except URLError as error:
        raise _failed(remote, _said(error.reason), by_hand) from error
    except (OSError, http.client.HTTPException) as error:
        raise _failed(remote, _said(error), by_hand) from error


def _said(reason: object) -> str:
    """The words of an error; its name, where it has none."""
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason) or type(reason).__name__


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
