"""Files to read that end, and that are there at once. This module imports nothing else of the project."""

from __future__ import annotations

import errno
import os
import stat
from typing import IO

__all__ = ["open_regular"]


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """The open file. Raises `OSError`, also for what is none: a pipe would be waited for, a device never ends."""
    name = os.fspath(path)
    descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        found = "a directory" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise OSError(errno.EINVAL, f"it is {found}; expected a file", name)
    return os.fdopen(descriptor, "rb")
