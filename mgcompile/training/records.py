"""The figures of a training, as CSV and for TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mgcompile.training.runs import Run, writing

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

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
        text = self.path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        return [row for row in csv.DictReader(io.StringIO(whole)) if None not in row.values()]

    def add(self, row: Mapping[str, Figure]) -> None:
        """Raises `MgcompileError` where the disk is full."""
        with writing(self.path):
            self.writer.writerow(row)
            self.file.flush()

    def close(self) -> None:
        with writing(self.path):
            self.file.close()


class Records:
    """What is written of a run: `training.csv`, `evaluation.csv`, and `tensorboard/` with the same figures.

    `start` is how many steps are done already.
    """

    def __init__(self, run: Run, metrics: tuple[str, ...], *, start: int) -> None:
        self.training = Table(run, "training.csv", ("step", "lr", "loss"), start=start)
        self.evaluation = Table(run, "evaluation.csv", ("step", "split", "samples", "loss", *metrics), start=start)
        self.board = _board(run, start)

    def step(self, step: int, lr: float, loss: float) -> None:
        """A step that was made: its number, from 1 on."""
        self.training.add({"step": step, "lr": lr, "loss": loss})
        self.board.add_scalar("training/loss", loss, step)
        self.board.add_scalar("training/lr", lr, step)

    def evaluated(self, step: int, split: str, samples: int, loss: float, metrics: Mapping[str, float]) -> None:
        """An evaluation after so many steps."""
        self.evaluation.add({"step": step, "split": split, "samples": samples, "loss": loss, **metrics})
        for name, value in {"loss": loss, **metrics}.items():
            self.board.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        self.training.close()
        self.evaluation.close()
        self.board.close()


def _board(run: Run, start: int) -> SummaryWriter:
    from tensorboardX import SummaryWriter

    folder = run.folder / "tensorboard"
    with writing(folder):
        return SummaryWriter(str(folder), purge_step=start + 1 if start else None)
