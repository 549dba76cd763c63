"""How far a command that measures is."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mgcompile.cli.console import say

__all__ = ["Progress", "progress_bar"]

Progress = Callable[[int, int, str], None]
"""Told how many steps are done, of how many, and what is being done."""

SECONDS = 0.25
"""The bar is drawn again after so long."""


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """How far it is, on standard error: a bar on a terminal, elsewhere a line whenever something else is done."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield _Lines()
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.description}", markup=False),
    )
    # Drawn between runs alone: a thread that draws would take time from what is measured.
    with progress.Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=None)
        drawn = -SECONDS

        def step(done: int, total: int, what: str) -> None:
            nonlocal drawn
            other = what != bar.tasks[0].description
            bar.update(task, completed=done, total=total, description=what)
            if other or time.monotonic() - drawn > SECONDS:
                bar.refresh()
                drawn = time.monotonic()

        yield step


class _Lines:
    """Says what is being done when it changes."""

    def __init__(self) -> None:
        self.last = ""

    def __call__(self, done: int, total: int, what: str) -> None:
        if what != self.last:
            say(what)
        self.last = what
