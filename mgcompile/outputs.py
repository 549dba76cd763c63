"""Files that are whole or not there. This module imports nothing of the project but its errors."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mgcompile.errors import MgcompileError

__all__ = ["draft_name", "is_stream", "obstacle", "replacing", "write_file"]

OPEN_FILES = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/self/fd/")

NAME_LETTERS = 40
"""So much of a file's name is in that of its draft, which has to fit where the name itself fits."""


def write_file(path: str | os.PathLike[str], data: bytes, *, sync: bool = False) -> None:
    """Write a file whole or not at all; see `replacing`. Raises `MgcompileError` where that fails."""
    try:
        with replacing(path, sync=sync) as draft:
            draft.write_bytes(data)
    except OSError as error:
        raise MgcompileError(f"{os.fspath(path)}: cannot be written: {error.strerror or error}") from error


@contextmanager
def replacing(path: str | os.PathLike[str], *, sync: bool = False) -> Iterator[Path]:
    """A new file, beside the one at `path`, that takes its place at the end, unless something is raised.

    Symbolic links are written through, and a file keeps its mode and its other names; a new one has the mode that the
    umask says. A stream is written to at the end. With `sync` all is on the disk before that. Raises `OSError`; a file
    without leave to write is not replaced, although its folder would let one.
    """
    if reason := obstacle(path):
        raise reason
    if is_stream(path):
        with tempfile.TemporaryDirectory() as folder:
            yield (draft := Path(folder, "draft"))
            _pour(draft, Path(path), "ab")
        return
    target = Path(os.path.realpath(path))
    before = target.stat() if target.exists() else None
    draft = draft_name(target)
    try:
        # Made before it is written, so that its mode is the umask's, whoever writes it.
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        mode = stat.S_IMODE((before or draft.stat()).st_mode)
        yield draft
        draft.chmod(mode)
        if sync:
            _synchronize(draft)
        if before is not None and before.st_nlink > 1:
            _pour(draft, target, "r+b")
        else:
            draft.replace(target)
        if sync:
            _synchronize(target.parent)
    finally:
        draft.unlink(missing_ok=True)


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether what is there is written to and not replaced: a pipe, a device, an open file by its number."""
    return os.path.exists(path) and (not os.path.isfile(path) or os.path.abspath(path).startswith(OPEN_FILES))


def obstacle(path: str | os.PathLike[str]) -> OSError | None:
    """Why nothing can be written there, as far as that is known beforehand."""
    name = os.fspath(path)
    if "\0" in name:
        return OSError(errno.EINVAL, "a NUL in its name", name)
    if os.path.isdir(name):
        return IsADirectoryError(errno.EISDIR, f"{name} is a folder; expected a file", name)
    target = os.path.realpath(name)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        folder = folder if os.path.islink(name) else os.path.dirname(name)
        return FileNotFoundError(errno.ENOENT, f"No such file or directory: there is no folder {folder}", name)
    if not os.path.lexists(target):
        return None
    # The superuser may write everywhere; where nobody may, it is meant to stay.
    if not os.access(target, os.W_OK) or (os.path.isfile(target) and not os.stat(target).st_mode & 0o222):
        return PermissionError(errno.EACCES, f"{name} is there and read-only", name)
    return None


def draft_name(target: Path) -> Path:
    """A new name beside the target, by which it is known that what bears it was never whole."""
    return target.with_name(f".{target.name[:NAME_LETTERS]}.{secrets.token_hex(4)}")


def _pour(draft: Path, target: Path, mode: str) -> None:
    """The content of one file into another, which stays the same file."""
    with draft.open("rb") as source, open(target, mode) as file:
        shutil.copyfileobj(source, file)
        if mode == "r+b":
            file.truncate()


def _synchronize(path: Path) -> None:
    """What is written there outlives a power cut; not every system knows this for folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
