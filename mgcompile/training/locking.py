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

__all__ = ["check_place", "locked"]

MOST_BYTES = 1000
"""What is read of a lock that another process holds."""

HELD: dict[int, Path] = {}
"""The descriptors of the locks of this process: of files, and of the folders that these are in, with their paths."""


def _forget() -> None:
    """A lock belongs to its process alone: what is forked, as a data loader's workers are, may outlive it."""
    for descriptor in HELD:
        with suppress(OSError):
            os.close(descriptor)
    HELD.clear()


os.register_at_fork(after_in_child=_forget)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock in a file, which is made where it is not there and taken away at the end, and that of the folder
    that it is in, which is held whatever becomes of the file.

    They are of the system (`flock`): whoever dies, by whatever means, holds them no longer, and the file that is left
    is in nobody's way. Raises `InputError` that says who holds it where another process or training does, and
    `MgcompileError` where the file cannot be opened or the file system has no locks.
    """
    with _held(path) as descriptor:
        with suppress(OSError):  # a full disk hides who holds it, and not that somebody does
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(_holder()).encode(), 0)
        with _held_folder(path.parent):
            try:
                yield
            finally:
                if _is_at(descriptor, path):  # while it is held: who comes now makes another
                    path.unlink(missing_ok=True)


def check_place(folder: Path) -> None:
    """See that a folder which this process holds is where it was, before anything is written there by its name.

    Raises `MgcompileError` where it was moved or removed: what is there now, if anything, is another's.
    """
    for descriptor, held in HELD.items():
        if held == folder and not _is_at(descriptor, folder):
            raise MgcompileError(
                f"{folder}: was moved or removed while it was being trained in, and nothing more is written there; "
                "bring it back, and the same command with --resume goes on after its last checkpoint"
            )


@contextmanager
def _held(path: Path) -> Iterator[int]:
    """The descriptor of the file with the lock, which is held."""
    descriptor = _opened(path)
    try:
        while not _acquired(descriptor, path):  # its holder has just taken it away
            os.close(descriptor)
            descriptor = _opened(path)
        HELD[descriptor] = path
        yield descriptor
    finally:
        _release(descriptor)


@contextmanager
def _held_folder(folder: Path) -> Iterator[None]:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise MgcompileError(f"{folder}: cannot be read: {error.strerror}") from error
    try:
        with suppress(OSError):  # NFS has no locks of folders; that of the file is held
            if not _acquires(descriptor):
                raise _in_use(folder, "another process, whose lock was taken away")
        HELD[descriptor] = folder
        yield
    finally:
        _release(descriptor)


def _opened(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if path.is_symlink() or path.is_dir():
            raise _no_file(path) from error
        raise MgcompileError(f"{path}: cannot be written: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_file(path)
    return descriptor


def _no_file(path: Path) -> MgcompileError:
    return MgcompileError(f"{path}: is no file, or a link to one; a training keeps its lock there: remove it")


def _acquired(descriptor: int, path: Path) -> bool:
    """Whether the lock is held now, and that of the file that is there."""
    try:
        if not _acquires(descriptor):
            raise _in_use(path.parent, _told(os.pread(descriptor, MOST_BYTES, 0)))
    except OSError as error:
        reason = error.strerror
        raise MgcompileError(f"{path}: cannot be locked: {reason}; take a folder on another disk") from error
    return _is_at(descriptor, path)


def _acquires(descriptor: int) -> bool:
    """Take the lock unless somebody has it. Raises `OSError` where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        return False
    return True


def _release(descriptor: int) -> None:
    """Give a lock back, also where a process that was just forked has it still: a lock is of what is open, not of who
    has it open.
    """
    HELD.pop(descriptor, None)
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether what is open is what is at a path."""
    opened = os.fstat(descriptor)
    with suppress(OSError):  # a link to the folder leads to it, one to the file is none
        return os.path.samestat(opened, os.stat(path, follow_symlinks=stat.S_ISDIR(opened.st_mode)))
    return False


def _in_use(folder: Path, holder: str) -> InputError:
    return InputError(f"{folder}: is being trained in by {holder}; wait for its end or stop it, or take another folder")


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
