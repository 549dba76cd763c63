"""Signals: what was stopped is saved, goes on to the same numbers, and is never half there."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import mgcompile
from mgcompile.training import runs, stopping
from mgcompile.training.loop import Stopped, train
from mgcompile.training.runs import Run
from mgcompile.training.stopping import asked_to_stop
from mgcompile.training.tasks import Examples
from mgcompile.training.tasks.digits import Scenes
from tests.training.made import SMALL, figures, losses, recipe, scenes
from tests.training.together import prepared, start

pytestmark = [
    pytest.mark.usefixtures("one_thread", "interrupts"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]

SPEC = mgcompile.load(SMALL)
TOLD = recipe(SPEC, steps=10, evaluate_every=4, checkpoint_every=3)


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


class Sends:
    """A watcher that sends a signal once, at the start or after a step or an evaluation."""

    def __init__(self, at: str, step: int, number: int = signal.SIGTERM) -> None:
        self.at, self.step, self.number = at, step, number

    def _met(self, at: str, step: int) -> None:
        if (at, step) == (self.at, self.step):
            send(self.number)

    def transferred(self, record: Any) -> None:
        pass

    def started(self, step: int, recipe: Any, folder: Path) -> None:
        self._met("started", step)

    def stepped(self, step: int, lr: float, loss: float) -> None:
        self._met("stepped", step)

    def evaluated(self, step: int, evaluation: Any) -> None:
        self._met("evaluated", step)


class Signalled(Scenes):
    """Data that send a signal when the samples of a call are asked for, in the process that makes them."""

    call: int
    calls = 0
    split = "test"

    def held_out(self, split: Any, samples: Any, crops: int = 1) -> Examples:
        if self.split == split:
            self._count()
        return super().held_out(split, samples, crops)

    def training(self, samples: Any, numbers: Any) -> Examples:
        if self.split == "train":
            self._count()
        return super().training(samples, numbers)

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.call:
            send()


def signalled(digits: Path, call: int, split: str = "test") -> Signalled:
    data = scenes(digits)
    data.__class__ = Signalled
    data.call, data.split = call, split  # type: ignore[attr-defined]
    return data  # type: ignore[return-value]


@pytest.fixture(scope="module")
def whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("whole") / "run"
    train(SPEC, TOLD, scenes(digits), run, device="cpu")
    return run


def stopped(run: Path, data: Scenes, *, resume: bool = False, **given: Any) -> Stopped:
    handlers = [signal.getsignal(number) for number in stopping.SIGNALS]
    with pytest.raises(Stopped) as caught:
        train(SPEC, TOLD, data, run, device="cpu", resume=resume, **given)
    assert [signal.getsignal(number) for number in stopping.SIGNALS] == handlers
    assert not list(run.rglob(".*"))
    return caught.value


@pytest.mark.parametrize(
    "when",
    [
        ("started", 0, 0),
        ("stepped", 1, 2),
        ("stepped", 2, 3),
        ("evaluated", 4, 5),
        ("stepped", 3, 4),
        ("stepped", 9, 10),
    ],
)
def test_a_signal_saves_and_what_goes_on_is_the_same(
    whole: Path, digits: Path, tmp_path: Path, when: tuple[str, int, int]
) -> None:
    run, (at, step, saved) = tmp_path / "run", when
    number = signal.SIGINT if step % 2 else signal.SIGTERM
    found = stopped(run, scenes(digits), watcher=Sends(at, step, number))
    after = f"after step {saved}, and that is saved" if saved else "before the first step"
    name = signal.Signals(number).name
    assert str(found) == f"{run}: stopped by {name} {after}; the same command with --resume goes on"
    assert found.signal == number
    assert len(losses(run)) == saved
    assert Run(run).steps()[-1:] == ([saved] if saved else [])
    train(SPEC, TOLD, scenes(digits), run, device="cpu", resume=True)
    assert figures(run) == figures(whole)


@pytest.mark.parametrize(("call", "saved"), [(1, 4), (2, 5), (3, 8), (5, 10)])
def test_an_evaluation_that_is_cut_short_is_made_again(
    whole: Path, digits: Path, tmp_path: Path, call: int, saved: int
) -> None:
    run = tmp_path / "run"
    stopped(run, signalled(digits, call))  # its pictures are the second call of an evaluation
    assert Run(run).steps()[-1] == saved
    stopped(run, scenes(digits), resume=True, watcher=Sends("started", saved))
    train(SPEC, TOLD, scenes(digits), run, device="cpu", resume=True)
    assert figures(run) == figures(whole)


def test_a_checkpoint_that_is_being_written_is_written(
    whole: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, save_file = tmp_path / "run", runs.save_file

    def signalling(state: Any, path: Path) -> None:
        send()
        save_file(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "save_file", signalling)
        stopped(run, scenes(digits))
    assert Run(run).steps() == [3, 4]
    train(SPEC, TOLD, scenes(digits), run, device="cpu", resume=True)
    assert figures(run) == figures(whole)


def test_a_signal_to_the_whole_group_does_not_take_the_workers(whole: Path, digits: Path, tmp_path: Path) -> None:
    train(SPEC, TOLD, signalled(digits, 3, "train"), tmp_path / "run", device="cpu", workers=1)
    assert figures(tmp_path / "run") == figures(whole)


class SendsAgain(Sends):
    """It sends the signal after that step and after the next one, which is finished meanwhile."""

    def _met(self, at: str, step: int) -> None:
        if at == self.at and step in (self.step, self.step + 1):
            send(self.number)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, "143"), (signal.SIGINT, ""), (signal.SIGHUP, "129")])
def test_a_second_signal_stops_at_once(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: str
) -> None:
    monkeypatch.setattr(stopping, "SECONDS", -1)
    watcher = SendsAgain("stepped", 5, number)
    with pytest.raises((KeyboardInterrupt, SystemExit)) as caught:
        train(SPEC, TOLD, scenes(digits), tmp_path / "run", device="cpu", watcher=watcher)
    assert str(caught.value) == status
    assert Run(tmp_path / "run").steps() == [3]
    assert len(losses(tmp_path / "run")) == 6


def test_a_signal_that_comes_twice_in_a_moment_is_one() -> None:
    with asked_to_stop() as asked:
        send()
        send()
        send(signal.SIGINT)
    assert asked.signal == signal.SIGTERM


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with asked_to_stop() as asked:
            send(signal.SIGINT)
        assert not asked
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_thread_trains_too(whole: Path, digits: Path, tmp_path: Path) -> None:
    thread = threading.Thread(target=lambda: train(SPEC, TOLD, scenes(digits), tmp_path / "run", device="cpu"))
    thread.start()
    thread.join()
    assert figures(tmp_path / "run") == figures(whole)


# --- at random moments


@pytest.mark.slow
def test_signals_at_random_moments_lose_nothing_that_was_saved(tmp_path: Path) -> None:
    done = start("tests.training.together", str(prepared(tmp_path)), "signals")
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads(done.stdout)
    assert found["sent"] == 18
    assert {-9, 130, 143} <= set(found["statuses"]), found
