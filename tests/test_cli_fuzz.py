"""Whatever arguments are given, a command says in words what is wrong with them: never a traceback, never a hang."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mgcompile.cli import main

SPEC = "{version: 1, name: f, params: {w: 2}, input: {channels: 3, size: 8}, layers: [conv: {channels: '${w}'}]}"

NUMBERS = ("0", "-1", "1.5", "1e9", "9" * 30, "nan", "inf", "-inf", "0x10", "٣", "1_0", "+1", "1000000", "00")
SIZES = ("1000000x1000000", "1000000000x1000000000", "0x1", "1x", "x", "1x1x1", "8X8", "8x-8", "nanxnan")
SETTINGS = ("w=", "=", "w", "w=[", "w={", "w=${", "w=${w}", "w=" + "[" * 5000, "w=9999999999", "w=\x00", "w=1:2")
WORDS = ("", " ", ",", "1,,2", "all", "\x00", "\x1b[31m", "\udcff", "é" * 200, "a" * 5000, "${w}", "%s", "{name}", "{}")
PATHS = ("-", ".", "/", "/dev/null", "/dev/full", "/proc/self/mem", "none/x.svg", "x" * 300 + ".svg", "f.yaml")
VALUES = st.sampled_from([*NUMBERS, *SIZES, *SETTINGS, *WORDS, *PATHS]) | st.text(max_size=8)

OPTIONS = {
    name: [param for param in command.params if isinstance(param, click.Option)]
    for name, command in main.commands.items()
}
LONG = {"bench", "tune", "machine", "train", "evaluate", "explain"}
"""Commands that would work for long, or on data: they are given specs that are wrong."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz")
    (path / "f.yaml").write_text(SPEC)
    (path / "empty.yaml").touch()
    return path


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    name = draw(st.sampled_from(sorted(OPTIONS)))
    args, options = [name], OPTIONS[name]
    for option in draw(st.lists(st.sampled_from(options), max_size=3)) if options else []:
        args.append(draw(st.sampled_from(option.opts)))
        if not option.is_flag:
            choices = option.type.choices if isinstance(option.type, click.Choice) else ()
            args.append(draw(st.sampled_from(choices) | VALUES if choices else VALUES))
    args += draw(st.lists(VALUES | st.just("f.yaml"), max_size=2))
    if name in LONG:
        args += ["empty.yaml", "--data", "none"] if name in {"train", "evaluate", "explain"} else ["empty.yaml"]
        args = [arg for arg in args if arg != "f.yaml"]
    return args


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(args=command_lines())
def test_any_arguments(folder: Path, monkeypatch: pytest.MonkeyPatch, args: list[str]) -> None:
    monkeypatch.chdir(folder)
    (folder / "f.yaml").write_text(SPEC)
    result = CliRunner().invoke(main, args, input="")
    assert result.exception is None or isinstance(result.exception, SystemExit), (args, result.exception)
    assert result.exit_code in (0, 1, 2), (args, result.output)
    assert not [path for path in folder.iterdir() if re.fullmatch(r"\..*\.[0-9a-f]{8}", path.name)], args


@pytest.mark.parametrize("command", ["show", "audit", "draw", "report", "plot", "tune", "bench"])
def test_what_is_read_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("spec.html").write_text(SPEC)
    Path("link.html").symlink_to("spec.html")
    more = ["receptive-field"] if command == "plot" else []
    result = CliRunner().invoke(main, [command, *more, "spec.html", "-o", "link.html"])
    assert result.exit_code == 2
    assert "it would take the place of spec.html" in result.stderr
    assert Path("spec.html").read_text() == SPEC


def test_names_that_are_no_text(folder: Path) -> None:
    """Bytes that are no UTF-8, in a file's name and in what is set."""
    name = folder / os.fsdecode(b"f\xff\xfe.yaml")
    name.write_text(SPEC)
    for args in (["check", str(name)], ["audit", str(name), "--set", os.fsdecode(b"w=\xff")], [os.fsdecode(b"\xff")]):
        done = subprocess.run([sys.executable, "-m", "mgcompile.cli", *args], capture_output=True, check=False)
        assert done.returncode == (0 if args[0] == "check" else 2), done.stderr
        assert b"Traceback" not in done.stderr
