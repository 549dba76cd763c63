"""Signals: a training that is asked to stop finishes its step, saves, and then stops."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mgcompile.errors import MgcompileError

__all__ = ["Asked", "Stopped", "asked_to_stop", "left_to_the_trainer"]

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SECONDS = 2.0
"""A signal that comes again so soon is the same one: a scheduler sends it to a whole group, and torchrun once more."""


class Stopped(MgcompileError):
    """A signal stopped the training; a checkpoint holds all of its steps. `signal` is the signal's number."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number

    def __reduce__(self) -> tuple[type[Stopped], tuple[str, int]]:
        return type(self), (str(self), self.signal)


class Asked:
    """Whether a training was asked to stop, and by which signal; 0 where it was not."""

    def __init__(self) -> None:
        self.signal = 0
        self.at = 0.0

    def __bool__(self) -> bool:
        return self.signal != 0

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler of a signal. One that is meant a second time stops at once, and nothing is saved."""
        now = time.monotonic()
        if not self.signal:
            self.signal, self.at = number, now
        elif now - self.at > SECONDS:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(128 + number)


@contextmanager
def asked_to_stop() -> Iterator[Asked]:
    """While this lasts, SIGTERM, SIGINT and SIGHUP are noted. A signal that is ignored stays so, and where this is not
    the main thread, which alone may handle signals, nothing is noted.
    """
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    # One that is not Python's is None: it could not be set again.
    handled = {number: each for number, each in handlers.items() if each not in (signal.SIG_IGN, None)}
    try:
        for number in handled:
            signal.signal(number, asked.note)
        yield asked
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)


def left_to_the_trainer(worker: int) -> None:
    """For a data loader's worker: a signal to the whole group is the trainer's to answer, who needs the worker."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
