"""The command line of optimised models: `show --passes`, `draw` and `audit` with `--optimize`, `tune`."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import mgcompile
from mgcompile.analysis import audit_graph
from mgcompile.analysis.rewriting_report import rewriting
from mgcompile.cli import console, main
from mgcompile.lowering import machine, tuning
from mgcompile.lowering.ways import WAYS
from mgcompile.passes import MODES, PIPELINES, optimize

SMALL = """\
name: small
input: {channels: 3, size: 32}
params: {width: 8}
layers:
  - pyramid: 2
  - conv: {channels: ["${2 * width}", "${width}"], reach: 0}
  - unit: {channels: ["${2 * width}", "${width}"]}
  - drop: coarsest
  - classify: 10
"""
VALID = "input: {size: 32}\nlayers:\n  - conv: {channels: 8, padding: 0, kernel: 5}\n"
BROKEN = "input: {size: 32}\nlayers:\n  - conv: {chanels: 8}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with three specs and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(machine.CACHE, str(tmp_path / "cache"))
    tuning.forget()
    for name, text in (("small.yaml", SMALL), ("valid.yaml", VALID), ("broken.yaml", BROKEN)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def run(*args: str) -> Result:
    result = CliRunner().invoke(main, args, prog_name="mgcompile")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_choices_are_those_of_the_passes() -> None:
    assert set(console.OPTIMIZE) == set(MODES)


# --- show --passes


@pytest.mark.parametrize("mode", MODES)
def test_the_figures_of_each_pass(mode: str) -> None:
    result = run("show", "small.yaml", "--passes", mode, "--size", "40x24", "--format", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    graph = mgcompile.load("small.yaml").graph
    assert (document["name"], document["mode"], document["size"]) == ("small", mode, [40, 24])
    assert [step["pass"] for step in document["passes"]] == [each.__name__ for each in PIPELINES[mode]]
    for each, step in zip(PIPELINES[mode], document["passes"], strict=True):
        for when in ("before", "after"):
            figures = audit_graph(graph, (40, 24))
            assert step[when] == {
                "nodes": len(graph),
                "macs": figures.macs,
                "activation_bytes": figures.activation_bytes,
            }
            graph = each(graph) if when == "before" else graph
    for figure in ("nodes", "macs", "activation_bytes"):
        assert sum(each[figure] for each in document["left"]) == document["passes"][-1]["after"][figure]
    assert {each["kind"] for each in document["left"]} == {str(node.op.kind) for node in graph}


def test_passes_for_people() -> None:
    text = run("show", "small.yaml", "--passes").stdout
    assert "small for inference, 32x32" in text
    assert text.isascii()
    lines = [line.split() for line in text.splitlines()]
    before, after = (len(optimize(mgcompile.load("small.yaml").graph, mode)) for mode in (None, "inference"))
    assert next(line for line in lines if line[:1] == ["all"])[1:4] == [str(before), "->", str(after)]
    assert next(line for line in lines if line[:1] == ["share"])[1] == str(before)  # nothing happens
    assert any(line[:1] == ["conv"] for line in lines)
    assert "| subpixel |" in run("show", "small.yaml", "--passes", "--format", "markdown").stdout


def test_passes_to_a_file(folder: Path) -> None:
    assert run("show", "small.yaml", "--passes", "training", "--set", "width=4", "-o", "p.csv").exit_code == 0
    rows = list(csv.DictReader((folder / "p.csv").read_text().splitlines()))
    assert [row["pass"] for row in rows] == [each.__name__ for each in PIPELINES["training"]]
    assert [row["nodes_before"] for row in rows[1:]] == [row["nodes_after"] for row in rows[:-1]]
    assert int(rows[0]["macs_before"]) == mgcompile.audit("small.yaml", params={"width": 4}).macs


def test_passes_of_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, run("show", "small.yaml", "--passes").stdout.splitlines())) <= 80


def test_a_graph_without_work() -> None:
    graph = mgcompile.load({"input": {"size": 8}, "layers": ["pool"]}).graph
    found = rewriting([("build", graph), ("nothing", graph)], "inference")
    assert [step.macs for step in found.steps] == [0, 0]


# --- draw and audit


@pytest.mark.parametrize("mode", MODES)
def test_draw_and_audit_what_is_optimised(mode: str) -> None:
    drawn = run("draw", "small.yaml", "--optimize", mode)
    assert (drawn.exit_code, drawn.stderr) == (0, "")
    assert drawn.stdout == mgcompile.draw("small.yaml", optimize=mode).decode()  # type: ignore[arg-type]
    assert drawn.stdout != run("draw", "small.yaml").stdout
    (figures,) = json.loads(run("audit", "small.yaml", "--optimize", mode, "--format", "json").stdout)["audits"]
    expected = mgcompile.audit("small.yaml", optimize=mode)  # type: ignore[arg-type]
    assert (figures["macs"], figures["nodes"]) == (expected.macs, len(expected.rows))
    plain = mgcompile.audit("small.yaml")
    assert (expected.params, expected.macs < plain.macs) == (plain.params, True)


# --- tune


def test_tune(folder: Path) -> None:
    threads = torch.get_num_threads()
    result = run("tune", "small.yaml", "valid.yaml", "--batch", "1,3", "--threads", "1", "--format", "json")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [f"{name}, batch {n}" for name in ("small", "network") for n in (1, 3)]
    assert torch.get_num_threads() == threads
    document = json.loads(result.stdout)
    rows = document["networks"]
    assert [(row["network"], row["batch"]) for row in rows] == [
        ("small", 1),
        ("small", 3),
        ("network", 1),
        ("network", 3),
    ]
    for row in rows:
        assert row["convolutions"] == sum(row[way] for way in WAYS)
    assert rows[-1]["convolutions"] == rows[-1]["whole"] == 1
    kept = json.loads(Path(document["file"]).read_text())
    assert Path(document["file"]).parent == folder / "cache"
    assert kept["machine"] == document["machine"]
    again = json.loads(
        run("tune", "small.yaml", "valid.yaml", "--batch", "1,3", "--threads", "1", "--format", "json").stdout
    )
    assert again == document
    assert json.loads(Path(document["file"]).read_text()) == kept


def test_tune_for_people_and_forget() -> None:
    text = run("tune", "small.yaml", "--size", "16", "--precision", "bf16", "--threads", "1").stdout
    lines = text.splitlines()
    assert lines[0].split() == ["network", "input", "batch", "convolutions", *WAYS]
    assert lines[2].split()[:3] == ["small", "16x16", "1"]
    (file,) = (line.removeprefix("kept in ") for line in lines if line.startswith("kept in "))
    path = Path(file)
    text = path.read_text()
    path.write_text(text.replace('"ways": {', '"ways": {"another": "whole", '))
    run("tune", "small.yaml", "--size", "16", "--precision", "bf16", "--threads", "1")
    assert "another" in path.read_text()
    assert run("tune", "small.yaml", "--size", "16", "--threads", "1", "--forget").exit_code == 0
    assert "another" not in path.read_text()
    assert "bfloat16" not in path.read_text()


def test_tune_where_there_is_nothing_to_choose(folder: Path) -> None:
    result = run("tune", "valid.yaml", "--format", "csv", "-o", "t.csv")
    assert result.exit_code == 0
    (row,) = csv.DictReader((folder / "t.csv").read_text().splitlines())
    assert (row["convolutions"], row["whole"]) == ("1", "1")
    assert not (folder / "cache").exists()
    assert "no choice was to be made" in run("tune", "valid.yaml").stdout


def test_tune_goes_on_after_a_wrong_spec() -> None:
    result = run("tune", "broken.yaml", "valid.yaml", "small.yaml", "--size", "4", "--format", "csv")
    assert result.exit_code == 2
    assert [line.split(",")[0] for line in result.stdout.splitlines()] == ["network", "small"]
    assert "broken.yaml:3:12: " in result.stderr
    assert "valid.yaml: an input of 4x4 is too small" in result.stderr


def test_a_batch_that_cannot_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> torch.Tensor:
        raise RuntimeError("can't allocate memory\n  at ...")

    monkeypatch.setattr("mgcompile.lowering.fused.FusedConv2d.forward", full)
    result = run("tune", "valid.yaml", "--batch", "8")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1] == "valid.yaml: batch 8: can't allocate memory"


def test_choices_that_cannot_be_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    result = run("tune", "small.yaml", "--forget")
    assert result.exit_code == 1
    assert result.stderr.endswith(".json: Permission denied\n")


# --- what is refused, what is not imported


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["show", "small.yaml", "--passes", "fast"], "'inference', 'training'"),
        (["show", "small.yaml", "--passes", "--format", "yaml"], "--passes has no yaml"),
        (["show", "small.yaml", "--passes", "--expand"], "choose one"),
        (["show", "small.yaml", "--size", "64"], "--size goes with --passes"),
        (["show", "small.yaml", "--size", "64", "--format", "json"], "--size goes with --passes or --format graph"),
        (["show", "small.yaml", "--expand", "--format", "graph"], "--expand prints a spec"),
        (["show", "small.yaml", "--format", "csv"], "--format csv goes with --passes"),
        (["show", "valid.yaml", "--passes", "--size", "4"], "too small"),
        (["draw", "small.yaml", "--optimize", "auto"], "'inference', 'training'"),
        (["audit", "small.yaml", "--optimize", "training", "--verify"], "--optimize"),
        (["tune"], "Missing argument 'SPEC...'"),
        (["tune", "small.yaml", "--batch", "0"], "'0' is no batch size"),
        (["tune", "small.yaml", "--batch", "1,,2"], "'' is no batch size"),
        (["tune", "small.yaml", "--threads", "0"], "--threads"),
        (["tune", "small.yaml", "--precision", "fp8"], "'fp32', 'bf16'"),
        (["tune", "broken.yaml"], "broken.yaml:3:12: "),
    ],
    ids=" ".join,
)
def test_wrong_use(args: list[str], said: str) -> None:
    result = run(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


WITHOUT_TORCH = """
import sys
from mgcompile.cli import main

try:
    main(prog_name="mgcompile")
except SystemExit as end:
    sys.exit("imports torch" if "torch" in sys.modules else end.code)
"""


@pytest.mark.parametrize(
    "args",
    [
        ("show", "small.yaml", "--passes"),
        ("draw", "small.yaml", "--optimize", "inference", "-o", "a.svg"),
        ("audit", "small.yaml", "--optimize", "training", "--by", "op"),
        ("tune", "--help"),
    ],
    ids=" ".join,
)
def test_torch_is_not_imported(args: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="pseudo terminals differ")
def test_a_terminal_gets_a_bar() -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "mgcompile.cli", "tune", "valid.yaml", "--format", "csv"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
    ) as running:
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 65536):
                parts.append(part)
        except OSError:  # what Linux says at the end
            pass
        assert running.stdout is not None
        assert running.stdout.read().startswith(b"network,")
        assert running.wait(20) == 0
    os.close(ours)
    assert "network, batch 1" in b"".join(parts).decode()
