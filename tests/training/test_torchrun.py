"""The command of the page on training, as it is written: two processes without a GPU, one folder, signals, resuming."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from mgcompile.cli import main
from tests.training.made import figures, losses, mnist
from tests.training.together import ROOT

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/training.md").read_text(encoding="utf-8")
SHORT = (
    "--set width=8 --size 16 --digit 7 --samples 24 --batch 8 --steps 12 --lr 0.01 --evaluate-every 6 --pictures 2 "
    "--checkpoint-every 4"
)
SECONDS = 240


def command(home: Path, output: str, *more: str) -> list[str]:
    """The command of the page, trained for less and into another folder of a home."""
    (line,) = re.findall(r"^torchrun .*$", PAGE, re.MULTILINE)
    words = [word.replace("~", str(home)) for word in shlex.split(line)]
    words[words.index("-o") + 1] = str(home / output)
    return [str(Path(sys.executable).with_name("torchrun")), *words[1:], *shlex.split(SHORT), *more]


def surroundings(home: Path) -> Mapping[str, str]:
    """A home with the data, a port that no other test has, and nothing that says which device."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return os.environ | {
        "HOME": str(home),
        "PET_MASTER_PORT": str(port),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }


def run(home: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=home,
        env=surroundings(home),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    mnist(folder / "mnist")
    done = run(folder, command(folder, "two"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("begins") == done.stdout.count(", mnist-spatial,") == 1
    return folder


def test_two_processes_have_the_losses_of_one(home: Path, one_thread: None) -> None:
    words = command(home, "one")
    done = CliRunner().invoke(main, words[words.index("train") :])
    assert done.exit_code == 0, done.stderr
    assert len(losses(home / "two")) == 12
    assert losses(home / "two") == pytest.approx(losses(home / "one"), rel=1e-4)


def waited(folder: Path, process: subprocess.Popen[str], step: int) -> None:
    """Until so many steps are written."""
    table = folder / "training.csv"
    ends = time.monotonic() + SECONDS
    while not table.exists() or table.read_bytes().count(b"\n") <= step:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_folder_takes_one_training_and_what_is_stopped_goes_on_to_the_same_bits(home: Path) -> None:
    words = command(home, "stopped")
    first = subprocess.Popen(
        words, cwd=home, env=surroundings(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    waited(home / "stopped", first, 2)
    holder = json.loads((home / "stopped/.mgcompile.lock").read_text())["process"]
    os.kill(holder, signal.SIGSTOP)  # and with it the other, which waits for its gradients
    second = run(home, command(home, "stopped", "--resume"))
    os.kill(holder, signal.SIGCONT)
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=SECONDS)
    assert second.returncode != 0
    assert f"/stopped: is being trained in by process {holder} on " in second.stderr
    assert "Traceback" not in second.stderr.partition("torch/distributed")[0]
    assert first.returncode != 0
    assert said.count("/stopped: stopped by SIGTERM after step ") == 1, said
    steps = len(losses(home / "stopped"))
    assert steps < 12
    assert f"after step {steps}, and that is saved; the same command with --resume goes on" in said
    third = run(home, command(home, "stopped", "--resume"))
    assert third.returncode == 0, third.stderr
    assert f"goes on after step {steps}" in third.stderr
    assert figures(home / "stopped") == figures(home / "two")
