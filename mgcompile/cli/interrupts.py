"""Interrupts that end the program without a traceback, whatever it is just importing. This module imports little."""

from __future__ import annotations

import atexit
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

__all__ = ["INTERRUPTED", "quiet_interrupts"]

INTERRUPTED = 130
"""The exit status of a program that was interrupted."""

IMPORTING = "<frozen importlib._bootstrap>"
"""What Python calls the file of the frames that import."""


class quiet_interrupts:
    """While it lasts, an interrupt in the middle of an import ends the process at once; others are raised as ever.

    What is being imported may catch a `KeyboardInterrupt`, print it, or make another exception of it.
    """

    def __enter__(self) -> None:
        self.replaced = False
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # neither ignored nor somebody's own
            try:
                signal.signal(signal.SIGINT, _interrupted)
                self.replaced = True
                atexit.register(_ignore)  # what is registered twice runs twice, to the same end
            except ValueError:  # not in the main thread, which is the one that is interrupted
                return

    def __exit__(self, *_: object) -> None:
        if self.replaced:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _ignore() -> None:
    """All is done: an interrupt while Python cleans up would only change the status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupted(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename == IMPORTING:
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt
