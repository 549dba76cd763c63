"""How far a command that measures is."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgcompile.cli.console import say
from mgcompile.escaping import visible

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from mgcompile.training.evaluation import Evaluation
    from mgcompile.training.loop import Watcher
    from mgcompile.training.recipe import Recipe

__all__ = ["Progress", "progress_bar", "training_progress"]

Progress = Callable[[int, int, str], None]
"""Told how many steps are done, of how many, and what is being done."""

SECONDS = 0.25
"""The bar is drawn again after so long."""


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """How far it is, on standard error: a bar on a terminal, elsewhere a line whenever something else is done."""
    if not _is_terminal():
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
            what = visible(what)
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


def _is_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


LINE_SECONDS = 30
"""Elsewhere than on a terminal, a training says how far it is so often."""


@contextmanager
def training_progress() -> Iterator[Watcher]:
    """How a training goes, on standard error: a line for its start and each evaluation, and in between a bar on a
    terminal, elsewhere a line now and then.
    """
    if not _is_terminal():
        yield _Training(None)
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.description}", markup=False),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        yield _Training(bar)


class _Training:
    """Says how a training goes; `bar` is None where none can be drawn."""

    def __init__(self, bar: Bar | None) -> None:
        self.bar = bar
        self.steps = self.batch = self.first = 0
        self.task: Any = None
        self.began = self.told = time.monotonic()

    def transferred(self, record: Mapping[str, Any]) -> None:
        from mgcompile.training.transfer import told

        for line in told(record):
            self._say(line)

    def started(self, step: int, recipe: Recipe, folder: Path) -> None:
        self.steps, self.batch, self.first = recipe.steps, recipe.batch, step
        self.began = self.told = time.monotonic()
        if self.bar:
            self.task = self.bar.add_task("", total=recipe.steps, completed=step)
        self._say(f"{folder}: {recipe.task}, " + (f"goes on after step {step:,}" if step else "begins"))

    def stepped(self, step: int, lr: float, loss: float) -> None:
        now = time.monotonic()
        rate = (step - self.first) * self.batch / max(now - self.began, 1e-9)
        told = f"loss {loss:.4f}, lr {lr:.3g}, {rate:,.0f} samples/s"
        if self.bar:
            self.bar.update(self.task, completed=step, description=told)
            if now - self.told > SECONDS or step == self.steps:
                self.bar.refresh()
                self.told = now
        elif now - self.told > LINE_SECONDS or step in (self.first + 1, self.steps):
            say(f"step {step:,} of {self.steps:,}: {told}")
            self.told = now

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        figures = "".join(f", {name} {value:.2f} %" for name, value in evaluation.metrics.items())
        self._say(
            f"step {step:,} of {self.steps:,}: {evaluation.split}: loss {evaluation.loss:.4f}{figures} "
            f"({evaluation.samples:,} samples)"
        )

    def _say(self, text: str) -> None:
        if self.bar:
            self.bar.console.print(visible(text), markup=False, highlight=False)
        else:
            say(text)
