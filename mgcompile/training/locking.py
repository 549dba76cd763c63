"""One training in a folder: a lock that says who holds it, and that dies with its holder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from mgcompile.errors import InputError, MgcompileError

__all__ = ["locked"]

MOST_BYTES = 1000
"""What is read of a lock that another process holds."""

HELD: set[int] = set()
"""The descriptors of the locks of this process."""


def _forget() -> None:
    """A lock belongs to its process alone: what is forked, as a data loader's workers are, may outlive it."""
    for descriptor in HELD:
        with suppress(OSError):
            os.close(descriptor)
    HELD.clear()


os.register_at_fork(after_in_child=_forget)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock in a file, which is made where it is not there and taken away at the end.

    It is one of the system (`flock`): whoever dies, by whatever means, holds it no longer, and the file that is left is
    in nobody's way. Raises `InputError` that says who holds it where another process or training does, and
    `MgcompileError` where the file cannot be opened or the file system has no locks.
    """
    descriptor = _opened(path)
    try:
        while not _acquired(descriptor, path):  # its holder has just taken it away
            os.close(descriptor)
            descriptor = _opened(path)
        HELD.add(descriptor)
        with suppress(OSError):  # a full disk hides who holds it, and not that somebody does
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(_holder()).encode(), 0)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is held: who comes now makes another
    finally:
        HELD.discard(descriptor)
        os.close(descriptor)


def _opened(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise MgcompileError(f"{path}: cannot be written: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise MgcompileError(f"{path}: is no file; a training keeps its lock there")
    return descriptor


def _acquired(descriptor: int, path: Path) -> bool:
    """Whether the lock is held now, and that of the file that is there."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            reason = error.strerror
            raise MgcompileError(f"{path}: cannot be locked: {reason}; take a folder on another disk") from error
        said = _told(os.pread(descriptor, MOST_BYTES, 0))
        raise InputError(
            f"{path.parent}: is being trained in by {said}; wait for its end or stop it, or take another folder"
        ) from None
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    return False


def _holder() -> dict[str, str | int]:
    return {"host": socket.gethostname(), "process": os.getpid(), "since": datetime.now(UTC).isoformat(" ", "seconds")}


def _told(content: bytes) -> str:
    """Who holds a lock, by what stands in it; it may be that nothing is written yet."""
    try:
        holder = json.loads(content)
        host, process, since = (str(holder[key]) for key in ("host", "process", "since"))
    except (ValueError, LookupError, TypeError, RecursionError):
        return "another process"
    said = f"process {process} on {host} since {since}"
    return said if said.isprintable() else "another process"
