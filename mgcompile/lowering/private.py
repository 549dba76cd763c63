"""Files that are kept from run to run, in a folder in which this user alone writes.

What lies there is run as code or believed: a folder or a file that belongs to somebody else, or that others may write,
is not used. A file is read through a descriptor of its folder, so that nobody can put another in its place meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["locked", "opened", "read", "read_at", "write"]

MOST_BYTES = 1 << 24
"""What is kept is smaller."""
POSIX = os.name == "posix"
"""Elsewhere the folder is as safe as the system makes a user's own."""
LOCK_SECONDS = 2.0


@contextlib.contextmanager
def opened(folder: Path, *, make: bool = False) -> Iterator[int | None]:
    """A descriptor of the folder, None where there are none; with `make`, the folder is made, for this user alone.

    Raises `OSError` where there is no such folder, or it is not this user's alone to write in.
    """
    if make:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not POSIX:
        yield None
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check_own(os.fstat(descriptor), str(folder))
        yield descriptor
    finally:
        os.close(descriptor)


def read_at(folder: int | None, path: Path) -> bytes:
    """What is in a file of an `opened` folder. Raises `OSError` where it is no regular file of this user's alone."""
    if folder is None:
        return path.read_bytes()
    # Not blocking: there may be a pipe where a file should be.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path.name, flags, dir_fd=folder), "rb") as file:
        found = os.fstat(file.fileno())
        _check_own(found, str(path))
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            raise OSError(f"{path}: expected a regular file of at most {MOST_BYTES} bytes")
        return file.read()


def read(path: Path) -> bytes:
    """What is in a file; see `read_at`."""
    with opened(path.parent) as folder:
        return read_at(folder, path)


def write(path: Path, data: bytes) -> None:
    """Put a whole file in place of what is there. Several processes may do so at once; the last one wins.

    Raises `OSError` where the folder cannot be written, or is not this user's alone to write in.
    """
    with opened(path.parent, make=True) as folder:
        draft = f".{path.name}.{secrets.token_hex(4)}"
        if folder is None:
            path.with_name(draft).write_bytes(data)
            path.with_name(draft).replace(path)
            return
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.replace(draft, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=folder)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time, by a file that is locked; after some seconds, or where there are no locks, anyone.

    Raises `OSError` as `write` does.
    """
    with opened(path.parent, make=True) as folder:
        if folder is None:
            yield
            return
        import fcntl

        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path.name, flags, 0o600, dir_fd=folder)
        try:
            end = time.monotonic() + LOCK_SECONDS
            while time.monotonic() < end:  # whoever holds it may have been stopped
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(0.01)
            yield
        finally:
            os.close(descriptor)


def _check_own(found: os.stat_result, what: str) -> None:
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{what}: not used, since others than this user own it or may write it")
