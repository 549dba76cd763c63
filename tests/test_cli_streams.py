"""Standard streams that are closed, full or gone, and interrupts at any time: never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

SPEC = "{version: 1, name: small, input: {channels: 3, size: 8}, layers: [conv: {channels: 4}]}"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="shells differ")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SPEC)
    return tmp_path


def shell(line: str) -> subprocess.CompletedProcess[str]:
    command = f'mgcompile() {{ "{sys.executable}" -m mgcompile.cli "$@"; }}\n{line}'
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("args", ["--help", "--version", "check small.yaml", "audit small.yaml", "draw small.yaml"])
def test_standard_output_that_is_closed(folder: Path, args: str) -> None:
    done = shell(f"mgcompile {args} >&-")
    assert done.stderr == "standard output: Bad file descriptor\n"
    assert done.returncode == 1


def test_all_that_is_closed(folder: Path) -> None:
    done = shell("mgcompile draw small.yaml -o a.png >&- 2>&- <&-")
    assert done.returncode == 0
    assert (folder / "a.png").read_bytes().startswith(b"\x89PNG")
    assert shell("mgcompile check - <&- 2>&-").returncode == 2
    assert shell("mgcompile check none.yaml 2>&-").returncode == 2
    assert shell("mgcompile check none.yaml 2>/dev/full").returncode == 2
    assert shell("mgcompile chek >&- 2>&-").returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("args", ["--help", "audit small.yaml --format json"])
def test_standard_output_that_is_full(folder: Path, args: str) -> None:
    done = shell(f"mgcompile {args} >/dev/full")
    assert (done.returncode, done.stderr) == (1, "standard output: No space left on device\n")


def test_a_reader_of_one_line(folder: Path) -> None:
    done = shell("mgcompile schema | head -1")
    assert (done.stdout, done.stderr) == ("{\n", "")


def interrupted(args: Sequence[str], after: float) -> tuple[int, bytes]:
    with subprocess.Popen(
        [sys.executable, "-m", "mgcompile.cli", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        time.sleep(after)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
        return running.returncode, said


@pytest.mark.slow
@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("tenths", range(1, 16, 2))
def test_an_interrupt_at_any_time(folder: Path, tenths: int) -> None:
    status, said = interrupted(["compile", "small.yaml", "-o", "w.safetensors"], tenths / 10)
    assert b"Traceback" not in said
    assert status in (0, 130), said
    assert set(os.listdir(folder)) <= {"small.yaml", "w.safetensors"}


IMPORTS = """
import os, signal, sys

wanted = sys.argv.pop(1)

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from mgcompile.cli import main
main(prog_name="mgcompile")
"""


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("module", ["mgcompile.cli.interrupts", "click", "mgcompile.api", "torch", "numpy"])
def test_an_interrupt_while_a_module_is_imported(folder: Path, module: str) -> None:
    """Wherever it comes, and whoever would catch it."""
    command = [sys.executable, "-c", IMPORTS, module, "compile", "small.yaml", "-o", "w.safetensors"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (130, "")
    assert os.listdir(folder) == ["small.yaml"]


def test_interrupts_that_are_ignored_stay_so() -> None:
    from mgcompile.cli.interrupts import quiet_interrupts

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with quiet_interrupts():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt), quiet_interrupts():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
