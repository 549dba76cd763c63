"""The command `bench`: its options, its formats, its exit statuses. What is measured is in tests/measuring."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from jsonschema import validate

from mgcompile.cli import main
from mgcompile.cli.progress import progress_bar
from mgcompile.measuring import peak

SMALL = """\
name: small
input: {channels: 3, size: 16}
params: {width: 8}
layers:
  - conv: {channels: "${width}"}
  - classify: 10
"""
TIGHT = "name: tight\ninput: {size: 16}\nlayers:\n  - conv: {channels: 8, padding: 0, kernel: 5}\n"
BROKEN = "name: broken\ninput: {size: 32}\nlayers:\n  - conv: {chanels: 8}\n"
QUICK = ("--runs", "2", "--warmup", "0")

TEXT = {"type": "string"}
POSITIVE = {"type": "number", "exclusiveMinimum": 0}
COUNT = {"type": "integer", "minimum": 1}
FIGURES = {
    "network": TEXT,
    "mode": {"enum": ["inference", "training"]},
    "form": {"type": "string", "pattern": r"^(none|training|inference)(\+compile|\+tune)?$"},
    "precision": {"enum": ["fp32", "bf16"]},
    **dict.fromkeys(("batch", "height", "width", "peak_bytes", "nominal_flops", "executed_flops"), COUNT),
    **dict.fromkeys(("median_ms", "lower_quartile_ms", "upper_quartile_ms", "images_per_second"), POSITIVE),
    "spread_percent": {"type": ["number", "null"], "minimum": 0},
    **dict.fromkeys(("nominal_gflops_per_second", "nominal_percent_of_peak"), POSITIVE),
    **dict.fromkeys(("executed_gflops_per_second", "executed_percent_of_peak"), POSITIVE),
}
MACHINE = {
    **dict.fromkeys(("processor", "torch", "python"), TEXT),
    "threads": COUNT,
    "peak_gflops_per_second": {"type": "object", "additionalProperties": POSITIVE, "minProperties": 1},
}


def exactly(properties: dict[str, object]) -> dict[str, object]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


SCHEMA = exactly(
    {
        "conventions": {"type": "object", "additionalProperties": TEXT},
        "machine": exactly(MACHINE),
        "runs": COUNT,
        "warmup": {"type": "integer"},
        "rows": {"type": "array", "items": exactly(FIGURES)},
    }
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with three specs, on a machine whose peak is found at once."""
    monkeypatch.setattr(peak, "PEAK_SHAPES", ((1, 8, 8),))
    monkeypatch.setattr(peak, "SECONDS", 0.0)
    monkeypatch.setenv("MGCOMPILE_CACHE", str(tmp_path / "cache"))
    peak._peak.cache_clear()
    monkeypatch.chdir(tmp_path)
    for name, text in (("small.yaml", SMALL), ("tight.yaml", TIGHT), ("broken.yaml", BROKEN)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def run(*args: str) -> Result:
    result = CliRunner().invoke(main, ["bench", *args], prog_name="mgcompile")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def rows(*args: str) -> list[dict[str, Any]]:
    result = run(*QUICK, *args, "--format", "json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    validate(document, SCHEMA)
    found: list[dict[str, Any]] = document["rows"]
    return found


def test_json_of_all_combinations() -> None:
    found = rows(
        "small.yaml", "--batch", "2,3", "--mode", "inference,training", "--precision", "fp32,bf16", "--size", "12x16"
    )
    assert len(found) == 2 * 2 * 2 * 2
    assert {(row["height"], row["width"]) for row in found} == {(12, 16)}
    assert {row["batch"] for row in found} == {2, 3}
    assert [row["form"] for row in found[:2]] == ["none", "inference"]
    assert [row["form"] for row in found[-2:]] == ["none", "training"]


def test_one_run_has_no_spread() -> None:
    assert rows("small.yaml", "--optimize", "none", "--runs", "1")[0]["spread_percent"] is None
    assert rows("small.yaml", "--optimize", "none", "--runs", "2")[0]["spread_percent"] is not None


def test_set_and_several_specs() -> None:
    (narrow, tight) = rows("small.yaml", "tight.yaml", "--optimize", "none", "--threads", "1")
    assert (narrow["network"], tight["network"]) == ("small", "tight")
    (wide,) = rows("small.yaml", "--optimize", "none", "--set", "width=16")
    assert wide["nominal_flops"] > narrow["nominal_flops"]


def test_csv_is_what_json_says_and_goes_to_a_file(folder: Path) -> None:
    result = run("small.yaml", *QUICK, "-o", "figures.csv")
    assert result.exit_code == 0
    assert result.stdout.startswith("wrote figures.csv")
    lines = list(csv.DictReader(io.StringIO((folder / "figures.csv").read_text())))
    assert set(lines[0]) == set(FIGURES)
    assert [line["form"] for line in lines] == ["none", "inference"]


def test_table_fits_and_says_what_figures_mean() -> None:
    result = run("small.yaml", *QUICK)
    assert result.exit_code == 0
    assert "executed" in result.stdout
    assert "2 interleaved rounds" in result.stdout
    assert "peak memory: " in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 120
    assert result.stdout.isascii()


def test_markdown() -> None:
    result = run("small.yaml", *QUICK, "--format", "markdown")
    head, line, *_ = result.stdout.splitlines()
    assert head.startswith("| network | mode | form | precision | batch | size | time ms |")
    assert line.count("|") == head.count("|")


def test_progress_is_lines_on_standard_error() -> None:
    result = run("small.yaml", *QUICK, "--optimize", "none")
    assert result.stderr.splitlines() == [
        "small.yaml: inference, none, fp32, batch 1",
        "2 rounds of 1",
        "peak of the machine, fp32",
    ]


def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("TERM", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress_bar() as progress:
        progress(1, 4, "small: [inference]")
        progress(2, 4, "2 rounds of 1")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "1/4" in shown.err
    assert "[inference]" in shown.err
    assert "2 rounds of 1" in shown.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--batch", "0"], "'0' is no batch size; expected numbers from 1 to 65536, such as 1,8"),
        (["--batch", "1,,2"], "'' is no batch size"),
        (["--batch", "eight"], "'eight' is no batch size"),
        (["--mode", "trainin"], "unknown 'trainin'; did you mean training?"),
        (["--optimize", "speed"], "unknown 'speed'; expected one or several of none, training, inference, auto"),
        (["--precision", "fp32,int8"], "unknown 'int8'; expected one or several of fp32, bf16"),
        (["--runs", "0"], "0 is not in the range"),
        (["--warmup", "-1"], "-1 is not in the range"),
        (["--threads", "0"], "0 is not in the range"),
        (["--size", "big"], "'big' is no size"),
        (["--format", "xml"], "'xml' is not one of"),
        (["-o", "nowhere/figures.csv"], "there is no folder nowhere"),
        (["--mode", "training", "--optimize", "inference"], "cannot be trained"),
        (["--tune", "--optimize", "none"], "--tune is for optimised forms of inference"),
        (["--tune", "--mode", "training"], "--tune is for optimised forms of inference"),
    ],
)
def test_wrong_options_are_refused(args: list[str], words: str) -> None:
    result = run("small.yaml", *args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert words in " ".join(result.stderr.split())


def test_no_spec_is_refused() -> None:
    assert run().exit_code == 2


def test_a_wrong_spec_does_not_stop_the_others() -> None:
    result = run("nothere", "broken.yaml", "tight.yaml", "small.yaml", "--size", "4", *QUICK, "--format", "json")
    assert result.exit_code == 2
    assert [row["network"] for row in json.loads(result.stdout)["rows"]] == ["small", "small"]
    assert "nothere: no such file" in result.stderr
    assert "broken.yaml:4:12" in result.stderr
    assert "tight.yaml: " in result.stderr


def test_a_candidate_that_fails_does_not_stop_the_others() -> None:
    result = run("small.yaml", "--size", "1", "--mode", "inference,training", *QUICK, "--format", "json")
    assert result.exit_code == 1
    assert {row["mode"] for row in json.loads(result.stdout)["rows"]} == {"inference"}
    assert "small.yaml: training, none, fp32, batch 1: Expected more than 1 value per channel" in result.stderr


def test_nothing_that_could_be_measured_prints_nothing() -> None:
    result = run("tight.yaml", "--size", "4", *QUICK)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_help_has_examples() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "mgcompile bench imagenet/r-mg-34 --batch 1,8" in result.stdout
