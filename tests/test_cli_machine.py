"""`mgcompile machine`: what it prints and writes. The measuring itself is tested beside its code."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mgcompile.analysis.machine import Machine, Rate, read_machine
from mgcompile.cli.console import Commands
from mgcompile.cli.machine import machine
from mgcompile.lowering.machine import CACHE
from mgcompile.measuring import machine as measuring

FOUND = Machine("made up", 2, "fp32", 1e11, 1e10, 4e10, 1 << 20, 1e-6, {"conv": Rate(2e-6, flops=((16.0, 1e10),))})


@pytest.fixture(autouse=True)
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the measuring was asked for; it is left out."""
    calls: list[tuple[Any, ...]] = []

    def measure(precision: str, threads: int | None, *, progress: measuring.Progress) -> Machine:
        calls.append((precision, threads))
        progress(0, 2, "a")
        progress(1, 2, "b")
        measuring._keep(FOUND)
        return FOUND

    monkeypatch.setattr(measuring, "measure_machine", measure)
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return calls


def run(*arguments: str) -> Result:
    return CliRunner().invoke(Commands(commands={"machine": machine}), ["machine", *arguments])


def test_a_table_with_units(asked: list[tuple[Any, ...]]) -> None:
    result = run()
    assert (result.exit_code, asked) == (0, [("fp32", None)])
    assert result.stdout.isascii()
    assert max(map(len, result.stdout.splitlines())) <= 120
    for part in ("made up, 2 threads, fp32", "100 GFLOP/s", "10 GB/s", "1 us", "conv", "kept in "):
        assert part in " ".join(result.stdout.split())
    assert result.stderr == "measuring, fp32\n"


def test_a_file_that_reads_back(asked: list[tuple[Any, ...]]) -> None:
    result = run("-o", "machine.json", "--precision", "bf16", "--threads", "3")
    assert (result.exit_code, asked) == (0, [("bf16", 3)])
    assert "wrote machine.json" in result.stderr
    assert "GFLOP/s" in result.stdout
    assert read_machine("machine.json") == FOUND


def test_formats() -> None:
    assert json.loads(run("--format", "json", "-o", "m.json").stdout)["convolution"] == 1e11
    rows = list(csv.DictReader(run("--format", "csv").stdout.splitlines()))
    assert {"operation": "machine", "figure": "bandwidth", "at": "", "value": "10000000000.0", "unit": "B/s"} in rows
    assert "| fastest convolution | 100 | GFLOP/s |" in run("--format", "markdown").stdout


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE, str(tmp_path / "file"))
    result = run()
    assert result.exit_code == 0
    assert "they could not be kept" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--threads", "0"), "0 is not in the range"),
        (("--precision", "fp16"), "'fp16' is not one of 'fp32', 'bf16'"),
        (("-o", "machine.csv"), "machine.csv would be JSON, whatever its name"),
        (("-o", "nowhere/machine.json"), "there is no folder nowhere"),
        (("-o", "."), "is a folder; expected a file"),
        (("spec.yaml",), "unexpected extra argument"),
    ],
)
def test_wrong_options(arguments: tuple[str, ...], said: str, asked: list[tuple[Any, ...]]) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout, asked) == (2, "", [])
    assert said in " ".join(result.stderr.split())
