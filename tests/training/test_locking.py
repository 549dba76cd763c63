"""Two trainings are never in one folder, and whoever is dead is in nobody's way."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mgcompile
from mgcompile.errors import InputError, MgcompileError
from mgcompile.training.locking import locked
from mgcompile.training.loop import train
from tests.training.made import SMALL, figures, recipe, scenes

SPEC = mgcompile.load(SMALL)


def refusal(path: Path, kind: type[MgcompileError] = InputError) -> str:
    with pytest.raises(kind) as caught, locked(path):
        pass
    return str(caught.value)


def test_the_lock_says_who_holds_it_and_is_given_back(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    for _ in range(2):
        with locked(lock):
            said = refusal(lock)
            shape = rf"is being trained in by process {os.getpid()} on \S+ since [\d-]+ [\d:]+\+00:00; wait for its end"
            assert re.match(f"{re.escape(str(tmp_path))}: {shape}", said), said
        assert not lock.exists()


def test_a_training_refuses_another_in_its_folder(digits: Path, tmp_path: Path, one_thread: None) -> None:
    told, said = recipe(SPEC, steps=2), []

    class Begins:
        def transferred(self, record: Any) -> None: ...
        def started(self, step: int, recipe: Any, folder: Path) -> None: ...
        def evaluated(self, step: int, evaluation: Any) -> None: ...
        def stepped(self, step: int, lr: float, loss: float) -> None:
            for resume in (False, True):
                with pytest.raises(InputError) as caught:
                    train(SPEC, told, scenes(digits), tmp_path / "run", device="cpu", resume=resume)
                said.append(str(caught.value))

    train(SPEC, told, scenes(digits), tmp_path / "run", device="cpu", watcher=Begins())
    assert len(said) == 4
    assert all(f"{tmp_path / 'run'}: is being trained in by process {os.getpid()} on " in each for each in said)
    train(SPEC, told, scenes(digits), tmp_path / "alone", device="cpu")
    assert figures(tmp_path / "run") == figures(tmp_path / "alone")


def test_a_lock_that_was_taken_away_lets_nobody_in(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with locked(lock):
        lock.unlink()
        assert refusal(lock).startswith(f"{tmp_path}: is being trained in by another process, whose lock was taken")
    with locked(lock):
        pass


def test_a_folder_that_was_moved_is_written_by_nobody_else(digits: Path, tmp_path: Path, one_thread: None) -> None:
    told = recipe(SPEC, steps=4, checkpoint_every=2)
    folder, away, other = tmp_path / "run", tmp_path / "away", tmp_path / "other"
    train(SPEC, told, scenes(digits), other, device="cpu")
    expected = figures(other)

    class Moves:
        def transferred(self, record: Any) -> None: ...
        def started(self, step: int, recipe: Any, folder: Path) -> None: ...
        def evaluated(self, step: int, evaluation: Any) -> None: ...
        def stepped(self, step: int, lr: float, loss: float) -> None:
            if step == 3:
                folder.rename(away)
                other.rename(folder)

    with pytest.raises(MgcompileError) as caught:
        train(SPEC, told, scenes(digits), folder, device="cpu", watcher=Moves())
    assert str(caught.value).startswith(f"{folder}: was moved or removed while it was being trained in, and nothing")
    assert figures(folder) == expected
    train(SPEC, told, scenes(digits), away, device="cpu", resume=True)
    assert figures(away) == expected


@pytest.mark.parametrize(
    "left",
    [b"", b"\x00\xff", b"[" * 100_000, b"null", json.dumps({"host": "h", "process": 1, "since": "\x1b[2J"}).encode()],
)
def test_what_the_dead_have_left_is_no_obstacle_and_never_shown(tmp_path: Path, left: bytes) -> None:
    lock = tmp_path / ".lock"
    lock.write_bytes(left)
    with locked(lock):
        lock.write_bytes(left)
        assert refusal(lock).startswith(f"{tmp_path}: is being trained in by another process; wait")


def test_a_forked_process_holds_nothing(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with locked(tmp_path / ".lock"):
        child = os.fork()
        if not child:
            os.read(reading, 1)
            os._exit(0)
    with locked(tmp_path / ".lock"):
        pass
    os.write(writing, b"1")
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)


HARM: dict[str, Callable[[Path], object]] = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a link": lambda path: path.symlink_to(path.with_name("elsewhere")),
}


@pytest.mark.parametrize("harm", HARM)
def test_what_is_no_file_is_refused(tmp_path: Path, harm: str) -> None:
    HARM[harm](tmp_path / ".lock")
    (tmp_path / "elsewhere").write_text("mine")
    assert refusal(tmp_path / ".lock", MgcompileError).startswith(f"{tmp_path / '.lock'}: ")
    assert (tmp_path / "elsewhere").read_text() == "mine"
