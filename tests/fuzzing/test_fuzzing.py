"""Some mutated inputs of each kind; `benchmarks/fuzz.py` tries twenty thousand."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fuzzing import judging, targets
from tests.fuzzing.judging import generated, judged
from tests.fuzzing.mutation import MARK, MUTATIONS

SOME = {"spec": 150, "recipe": 60, "checkpoint": 60}
MANY = {"spec": 1500, "recipe": 400, "checkpoint": 400}


@pytest.mark.parametrize(
    ("kind", "seed", "count"),
    [
        *((kind, 0, count) for kind, count in SOME.items()),
        *(pytest.param(kind, 1, count, marks=pytest.mark.slow) for kind, count in MANY.items()),
    ],
)
def test_mutated_inputs(kind: str, seed: int, count: int) -> None:
    found = list(judged(kind, seed, range(count)))
    assert len(found) == count
    assert not [each for each in found if each.fault]
    assert any(each.accepted for each in found)
    assert any(not each.accepted for each in found)


def test_inputs_follow_from_seed_and_number() -> None:
    for kind in MUTATIONS:
        assert generated(kind, 3, 5) == generated(kind, 3, 5)
        assert len({generated(kind, 3, number) for number in range(20)}) > 10


def raises(path: Path) -> targets.Told:
    raise ValueError(path)


def is_slow(path: Path) -> targets.Told:
    start = time.process_time()
    while time.process_time() < start + 1.01:
        pass
    return 2, f"{path}: slow"


def takes_memory(path: Path) -> targets.Told:
    taken = b"x" * (1100 << 20)
    return 2, f"{path}: {len(taken)}"


def runs(path: Path) -> targets.Told:
    setattr(builtins, MARK, 1)
    return 0, ""


def starts(path: Path) -> targets.Told:
    subprocess.run([sys.executable, "-c", ""], check=True)
    return 0, ""


def writes(path: Path) -> targets.Told:
    Path("/var/tmp/mgcompile-fuzzing").write_text("")
    Path("/var/tmp/mgcompile-fuzzing").unlink()
    return 0, ""


def dies(path: Path) -> targets.Told:
    os._exit(7)


FAULTS = {
    raises: "traceback",
    is_slow: "takes 1.",
    takes_memory: "takes 11",
    runs: "runs its text",
    starts: "does subprocess.Popen",
    writes: "does open",
    dies: "ends with 7",
    lambda path: (1, f"{path}: no"): "status 1",
    lambda path: (2, "it is wrong"): "no place",
    lambda path: (2, f"{path}: \x1b[31m"): "puts '\\x1b'",
    lambda path: (2, ""): "says nothing",
}


@pytest.mark.parametrize("target", FAULTS, ids=FAULTS.values())
def test_what_is_wrong_is_found(target: targets.Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "warm_up", lambda: None)
    monkeypatch.setattr(judging, "prepare", lambda: None)
    monkeypatch.setitem(targets.TARGETS, "recipe", target)  # type: ignore[arg-type]
    (found,) = judged("recipe", 0, [0])
    assert found.fault.startswith(FAULTS[target])


def test_one_that_dies_does_not_hide_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "warm_up", lambda: None)
    monkeypatch.setitem(
        targets.TARGETS, "recipe", lambda path: dies(path) if b"ends" in path.read_bytes() else (2, f"{path}: refused")
    )
    monkeypatch.setattr(judging, "generated", lambda kind, seed, number: (".yaml", b"ends" if number == 1 else b""))
    assert [each.fault for each in judged("recipe", 0, range(3))] == ["", "ends with 7", ""]
