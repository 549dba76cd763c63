"""The figures of a training, as CSV and for TensorBoard."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

from mgcompile.errors import InputError, MgcompileError
from mgcompile.training.runs import PICTURES, Run, writing
from mgcompile.training.sheet import as_png

__all__ = ["Records", "Table"]

Figure = int | float | str


class Table:
    """A CSV file of a run with a row a step, to which rows are added.

    Numbers are written so that they are read back to the last bit. A row of a step that a resumed training makes again
    is dropped, and so is one that was cut off when it was killed.
    """

    def __init__(self, run: Run, name: str, columns: tuple[str, ...], *, start: int) -> None:
        self.path, self.columns = run.folder / name, columns
        text = io.StringIO(newline="")
        self.writer = csv.DictWriter(text, columns, lineterminator="\n")
        self.writer.writeheader()
        for row in self._rows():
            if int(row["step"]) <= start:
                self.writer.writerow(row)
        run.write(name, text.getvalue().encode())
        with writing(self.path):
            self.file = self.path.open("a", encoding="utf-8", newline="")
        self.writer = csv.DictWriter(self.file, columns, lineterminator="\n")

    def _rows(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8", errors="replace")
        whole = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
        if tuple(whole.fieldnames or self.columns) != self.columns:
            found, expected = ", ".join(whole.fieldnames or ()), ", ".join(self.columns)
            raise InputError(f"{self.path}: its columns are {found}; expected {expected}; move it away to go on")
        return [row for row in whole if None not in (*row, *row.values()) and row["step"].isdecimal()]

    def add(self, row: Mapping[str, Figure]) -> None:
        """Raises `MgcompileError` where the disk is full."""
        with writing(self.path):
            self.writer.writerow(row)
            self.file.flush()

    def keep(self) -> None:
        """See what was added on the disk."""
        with writing(self.path):
            os.fsync(self.file.fileno())

    def close(self) -> None:
        with writing(self.path):
            self.file.close()


class _Board:
    """An event file for TensorBoard. Written at once: a thread that fails would let the training wait for ever."""

    def __init__(self, run: Run, start: int) -> None:
        folder = run.folder / "tensorboard"
        # Several may begin in one second; TensorBoard reads them in the order of their names.
        self.path = folder / f"events.out.tfevents.{int(time.time()):010}.{start:010}"
        with writing(self.path):
            folder.mkdir(exist_ok=True)
            self.writer = RecordWriter(str(self.path))
        self._add(0, file_version="brain.Event:2")
        if start:  # what a training that was killed wrote of later steps is not shown
            self._add(start + 1, session_log=SessionLog(status=SessionLog.START))

    def _add(self, step: int, **what: Any) -> None:
        with writing(self.path):
            self.writer.write(Event(wall_time=time.time(), step=step, **what).SerializeToString())

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._add(step, summary=summary.scalar(name, value))

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        self._add(step, summary=summary.image(name, picture, dataformats="HWC"))

    def keep(self) -> None:
        with writing(self.path):
            self.writer.flush()

    def close(self) -> None:
        with writing(self.path):
            self.writer.close()


class Records:
    """What is written of a run: `training.csv`, `evaluation.csv`, and `tensorboard/` with the same figures.

    `start` is how many steps are done already, of `steps`: those after the last are tested again, so that the row of a
    test that was made is dropped. As a context, it is closed at the end.
    """

    def __init__(self, run: Run, metrics: tuple[str, ...], *, start: int, steps: int | None = None) -> None:
        self.run = run
        columns = ("step", "split", "samples", "loss", *metrics)
        with ExitStack() as opened:
            self.training = Table(run, "training.csv", ("step", "lr", "loss"), start=start)
            opened.callback(self.training.close)
            self.evaluation = Table(run, "evaluation.csv", columns, start=start - 1 if start == steps else start)
            opened.callback(self.evaluation.close)
            self.board = _Board(run, start)
            opened.pop_all()

    def step(self, step: int, lr: float, loss: float) -> None:
        """A step that was made: its number, from 1 on."""
        self.training.add({"step": step, "lr": lr, "loss": loss})
        self.board.figures(step, {"training/loss": loss, "training/lr": lr})

    def evaluated(self, step: int, split: str, samples: int, loss: float, metrics: Mapping[str, float]) -> None:
        """An evaluation after so many steps."""
        self.evaluation.add({"step": step, "split": split, "samples": samples, "loss": loss, **metrics})
        self.board.figures(step, {f"{split}/{name}": value for name, value in {"loss": loss, **metrics}.items()})

    def picture(self, step: int, picture: NDArray[np.uint8]) -> None:
        """What the network answers after so many steps, (height, width, 3), into `pictures/`."""
        self.run.write(f"{PICTURES}/{step:010}.png", as_png(picture))
        self.board.picture(step, "answers", picture)

    def keep(self) -> None:
        """See all of it on the disk: a checkpoint that is written next must not know of steps that are not there."""
        for part in (self.training, self.evaluation, self.board):
            part.keep()

    def close(self) -> None:
        """Raises `MgcompileError` where the disk is full."""
        with ExitStack() as stack:
            for part in (self.training, self.evaluation, self.board):
                stack.callback(part.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with suppress(*((MgcompileError,) if kind else ())):  # the first failure is the one to tell
            self.close()
