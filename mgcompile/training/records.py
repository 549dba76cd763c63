"""The figures of a training, as CSV and for TensorBoard."""

from __future__ import annotations

import csv
import io
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import Any, Self, get_args

import numpy as np
from numpy.typing import NDArray
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

from mgcompile.errors import InputError, MgcompileError
from mgcompile.escaping import brief
from mgcompile.inputs import open_regular
from mgcompile.training.runs import BOARD, MOST_TOLD, PICTURES, Run, writing
from mgcompile.training.sheet import as_png
from mgcompile.training.tasks import HeldOut

__all__ = ["Records", "Table"]

Figure = int | float | str

SPLITS = get_args(HeldOut)


class Table:
    """A CSV file of a run with a row a step, to which rows are added.

    Numbers are written so that they are read back to the last bit. A row of a step that a resumed training makes again
    is dropped, and so is one that was cut off when it was killed. `due` are the steps up to `start` that have a row;
    where the file was moved away once, the first of them have none. `optional` says that the last may have none too.

    Raises `InputError` where the file is damaged, and `MgcompileError` where it cannot be written.
    """

    def __init__(
        self,
        run: Run,
        name: str,
        columns: tuple[str, ...],
        *,
        start: int,
        due: range = range(0),
        optional: bool = False,
    ) -> None:
        self.path, self.columns = run.own(name), columns
        rows = self._kept(start, due, optional) if self.path.exists() else []
        self.last = int(rows[-1][0]) if rows else 0
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([columns, *rows])
        run.write(name, text.getvalue().encode())
        with writing(self.path):
            self.file = self.path.open("a", encoding="utf-8", newline="")
        self.writer = csv.DictWriter(self.file, columns, lineterminator="\n")

    def _kept(self, start: int, due: range, optional: bool) -> list[list[str]]:
        """The rows up to step `start`, in which none is missing of those that are due."""
        reader = csv.reader(io.StringIO(self._text()))
        header = self._next(reader)
        if header is not None and tuple(header) != self.columns:
            shown = brief(", ".join(header), MOST_TOLD)
            raise self._damaged(f"its columns are {shown}; expected {', '.join(self.columns)}")
        if header is None and due:
            raise self._damaged(f"line 1: expected the columns {', '.join(self.columns)}")
        kept: list[list[str]] = []
        while (row := self._next(reader)) is not None and self._is_whole(row) and int(row[0]) <= start:
            kept.append(row)
        steps = [int(row[0]) for row in kept]
        if not (_ends(steps, due) or (optional and _ends(steps, due[:-1]))):
            wanted = sorted({*due[-len(steps) - 1 :]} - {*steps})
            what = f"the row of step {wanted[0]:,} is not there" if wanted else "a row is there twice"
            raise self._damaged(f"damaged at line {reader.line_num}: {what}, and a checkpoint is after it")
        return kept

    def _text(self) -> str:
        """All whole lines."""
        try:
            with open_regular(self.path) as file:
                text = file.read().decode(errors="replace")
        except OSError as error:
            raise self._damaged(f"it cannot be read: {error.strerror}") from error
        return text[: text.rfind("\n") + 1]

    @staticmethod
    def _next(reader: Iterator[list[str]]) -> list[str] | None:
        """The next row; None at the end, and where it is none."""
        try:
            return next(reader, None)
        except csv.Error:
            return None

    def _is_whole(self, row: list[str]) -> bool:
        if len(row) != len(self.columns) or not re.fullmatch(r"\d{1,10}", row[0], re.ASCII):
            return False
        try:
            for column, text in zip(self.columns, row, strict=True):
                if column == "split":
                    SPLITS.index(text)
                else:
                    float(text)
        except ValueError:
            return False
        return True

    def _damaged(self, what: str) -> InputError:
        return InputError(f"{self.path}: {what}; bring back a copy, or move it away to go on without what it holds")

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


def _ends(steps: list[int], due: range) -> bool:
    """Whether these are the last of the steps that are due; none are if none is."""
    return steps == list(due[-len(steps) :]) if steps else not due


class _Board:
    """An event file for TensorBoard. Written at once: a thread that fails would let the training wait for ever."""

    def __init__(self, run: Run, start: int) -> None:
        folder = run.folder / BOARD
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

    Raises `InputError` where a table is damaged, and `MgcompileError` where one cannot be written.
    """

    def __init__(
        self,
        run: Run,
        metrics: tuple[str, ...],
        *,
        start: int,
        steps: int | None = None,
        evaluate_every: int | None = None,
    ) -> None:
        self.run = run
        columns = ("step", "split", "samples", "loss", *metrics)
        known = start - 1 if start == steps else start
        judged = range(evaluate_every, known + 1, evaluate_every) if evaluate_every else range(0)
        at_start = start in judged
        with ExitStack() as opened:
            self.training = Table(run, "training.csv", ("step", "lr", "loss"), start=start, due=range(1, start + 1))
            opened.callback(self.training.close)
            self.evaluation = Table(run, "evaluation.csv", columns, start=known, due=judged, optional=at_start)
            opened.callback(self.evaluation.close)
            self.board = _Board(run, start)
            opened.pop_all()
        self.lacks_evaluation = at_start and self.evaluation.last != start
        """Whether step `start` was to be evaluated, and was not."""

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
