"""What `audit` says beside counts: receptive fields, memory, the roofline, budgets; and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import mgcompile
from mgcompile import load
from mgcompile.analysis import receptive_field
from mgcompile.analysis.machine import Machine, machine_text
from mgcompile.analysis.memory import memory
from mgcompile.analysis.roofline import roofline
from mgcompile.cli import main
from mgcompile.spec import zoo_names

SMALL = """\
name: small
input: {channels: 3, size: 32}
layers:
  - pyramid: 2
  - conv: {channels: [16, 8]}
    repeat: 2
  - drop: coarsest
  - classify: 10
"""
VALID = "input: {size: 32}\nlayers:\n  - conv: {channels: 8, padding: 0, kernel: 5}\n"
BROKEN = "name: broken\ninput: {size: 32}\nlayers:\n  - pol\n"
NOTHING = "{}"
ALL = ("--receptive-field", "--memory", "--roofline")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with three specs; nothing is kept of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MGCOMPILE_CACHE", str(tmp_path / "cache"))
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, text in (("small.yaml", SMALL), ("valid.yaml", VALID), ("broken.yaml", BROKEN), ("no.json", NOTHING)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def run(*args: str) -> Result:
    result = CliRunner().invoke(main, ("audit", *args), prog_name="mgcompile")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def audits(*args: str) -> list[dict[str, Any]]:
    result = run(*args, "--format", "json")
    assert result.exit_code == 0, result.output
    return list(json.loads(result.stdout)["audits"])


def lines(*args: str) -> Iterator[dict[str, str]]:
    result = run(*args, "--format", "csv")
    assert result.exit_code == 0, result.output
    return csv.DictReader(result.stdout.splitlines())


# --- every operation


def test_every_operation_is_listed(folder: Path) -> None:
    """A record a node, whose figures add up to the network's, the same in JSON and CSV."""
    graph = load("small.yaml").graph
    (audit,) = audits("small.yaml", "--by", "node", "--size", "40x24")
    listed = audit["operations"]
    rows = list(lines("small.yaml", "--by", "node", "--size", "40x24"))
    assert [record["node"] for record in listed] == [row["node"] for row in rows] == list(graph.nodes)
    shapes = graph.shapes((40, 24))
    for record, row in zip(listed, rows, strict=True):
        node = graph[record["node"]]
        assert (record["layer"], record["op"]) == (row["layer"], row["op"]) == (node.layer, node.op.label)
        assert record["output"] == list(shapes[node.name])
        assert row["output"] == "x".join(map(str, shapes[node.name]))
        assert record["inputs"] == [list(shapes[source]) for source in node.inputs]
        assert row["level"] == ("" if record["level"] is None else str(record["level"]))
    for figure in ("params", "macs", "flops", "activation_bytes"):
        assert sum(record[figure] for record in listed) == audit[figure] == sum(int(row[figure]) for row in rows)
    table = run("small.yaml", "--by", "node", "--roofline", "--receptive-field", "--memory").stdout
    assert "small by node" in table
    assert "small: roofline by node" in table
    assert run("small.yaml", "--by", "node", "--format", "markdown").stdout.count("\n| ") > len(graph)


# --- receptive fields


def test_receptive_fields_are_what_the_library_finds() -> None:
    small, valid = audits("small.yaml", "valid.yaml", "--receptive-field", "--size", "40x24")
    found = receptive_field(load("small.yaml").graph, (40, 24))
    (output,) = small["receptive_field"]["outputs"]
    assert (output["size"], output["depth"]) == (list(found.outputs[0].size), found.outputs[0].depth)
    assert small["receptive_field"]["covered_at"] == found.covered_at
    assert valid["receptive_field"]["outputs"][0]["size"] == [5, 5]
    assert "memory" not in small


@pytest.mark.parametrize("by", ["layer", "level"])
def test_receptive_fields_by(by: str) -> None:
    table = run("small.yaml", "--receptive-field", "--by", by).stdout
    assert f"small: receptive field by {by}" in table
    assert f"small by {by}" in table
    (record,) = audits("small.yaml", "--receptive-field", "--by", by)
    names = [group["name"] for group in record["receptive_field"]["groups"]]
    assert names == [line[by] for line in lines("small.yaml", "--receptive-field", "--by", by)]
    assert names == [group["name"] for group in record["groups"]]


def test_receptive_fields_are_not_by_operation() -> None:
    table = run("small.yaml", "--receptive-field", "--by", "op").stdout
    assert "small by op" in table
    assert "receptive field by op" not in table


# --- memory


def test_memory_is_what_the_library_finds() -> None:
    options = ("--batch", "8", "--dtype", "bf16", "--optimizer", "adam")
    (record,) = audits("small.yaml", "--memory", *options)
    found = memory(load("small.yaml").graph, batch=8, bytes_per_element=2, optimizer="adam")
    assert record["memory"]["training"]["total"] == found.training_total
    assert record["memory"]["inference"]["peak"]["node"] == found.inference_peak_at
    assert record["activation_bytes"] == mgcompile.audit("small.yaml", bytes_per_element=2).activation_bytes
    (line,) = lines("small.yaml", "--memory", *options)
    assert (int(line["training_total"]), line["optimizer"]) == (found.training_total, "adam")
    assert (line["name"], line["height"], line["batch"]) == ("small", "32", "8")


def test_memory_for_people() -> None:
    text = run("small.yaml", "valid.yaml", "--memory", "--batch", "3").stdout
    assert "small, 32x32, batch 3, 4 bytes a number" in text
    assert "optimiser (sgd-momentum)" in text
    assert "inference: the peak is at " in text
    assert text.count("kept: bytes that autograd holds") == 1  # what figures mean, once for all networks


def test_memory_of_an_optimised_network() -> None:
    plain, better = (audits("small.yaml", "--memory", *how)[0]["memory"] for how in ((), ("--optimize", "inference")))
    assert better["inference"]["peak"]["bytes"] < plain["inference"]["peak"]["bytes"]


# --- the roofline


def test_a_roofline_without_a_machine_has_bytes_and_intensity() -> None:
    result = run("small.yaml", "--roofline")
    assert result.exit_code == 0
    assert result.stdout.count("`mgcompile machine` measures them") == 1
    (record,) = audits("small.yaml", "--roofline", "--batch", "4")
    assert record["roofline"]
    rows = list(lines("small.yaml", "--roofline", "--batch", "4"))
    assert {row["seconds"] for row in rows} == {""}
    assert sum(int(row["flops"]) for row in rows) == 4 * mgcompile.audit("small.yaml").flops


def test_numbers_for_which_no_machine_is_measured() -> None:
    assert run("small.yaml", "--roofline", "--dtype", "fp64").exit_code == 0


# --- budgets


def test_a_budget_that_is_kept() -> None:
    result = run("small.yaml", "--max", "params=1G", "--max", "memory=1GiB")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "budgets" in result.stdout
    (record,) = audits("small.yaml", "--max", "params=1G")
    assert record["budgets"][0]["found"] == mgcompile.audit("small.yaml").params


@pytest.mark.parametrize("format", ["table", "json", "csv", "markdown"])
def test_a_budget_that_is_broken(format: str) -> None:
    result = run("imagenet/r-mg-34", "small.yaml", "--max", "params=9M", "--format", format)
    assert result.exit_code == 1
    assert result.stderr == "R-MG-34: 32,899,176 parameters are over the budget of 9,000,000 (params=9M)\n"
    assert "R-MG-34" in result.stdout
    assert "small" in result.stdout


def test_budgets_of_memory_are_of_the_batch_type_and_optimizer() -> None:
    limit = memory(load("small.yaml").graph, batch=4, bytes_per_element=2, optimizer="adam").training_total
    options = ("--batch", "4", "--dtype", "bf16", "--optimizer", "adam")
    assert run("small.yaml", "--max", f"training-memory={limit}B", *options).exit_code == 0
    assert run("small.yaml", "--max", f"training-memory={limit - 1}B", *options).exit_code == 1


def test_a_wrong_spec_is_worse_than_a_broken_budget() -> None:
    result = run("broken.yaml", "small.yaml", "--max", "params=1", "--memory")
    assert result.exit_code == 2
    assert "small: " in result.stderr
    assert "broken.yaml:4:5: " in result.stderr


# --- together, for all networks


@pytest.mark.parametrize(("name", "start"), [("a.json", "{"), ("a.md", "| network"), ("a.txt", "network  ")])
def test_everything_into_a_file(folder: Path, name: str, start: str) -> None:
    result = run("small.yaml", *ALL, "--max", "params=1G", "--by", "level", "-o", name)
    assert (result.exit_code, result.stderr) == (0, "")
    text = (folder / name).read_text()
    assert text.startswith(start)
    assert text.isascii() or name != "a.txt"


def test_everything_in_json() -> None:
    result = run("small.yaml", *ALL, "--max", "params=1G", "--format", "json")
    document = json.loads(result.stdout)
    assert {"receptive_field", "memory", "roofline", "budgets"} <= set(document["audits"][0])
    assert {"params", "unclipped", "training_peak"} <= set(document["conventions"])


def test_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = run("small.yaml", "valid.yaml", *ALL, "--max", "params=1G", "--by", "level")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert result.stdout.isascii()


@pytest.mark.slow
def test_all_networks() -> None:
    result = run(*zoo_names(), *ALL, "--max", "params=1T", "--format", "json")
    assert result.exit_code == 0, result.stderr
    assert len(json.loads(result.stdout)["audits"]) == len(zoo_names())


@pytest.mark.slow
def test_ten_thousand_layers(folder: Path) -> None:
    text = "name: deep\ninput: {size: 64}\nlayers:\n  - conv: {channels: 4, norm: none}\n    repeat: 10000\n"
    (folder / "deep.yaml").write_text(text)
    start = time.process_time()
    result = run("deep.yaml", "--allow-large", *ALL, "--max", "memory=1GiB")
    assert time.process_time() - start < 100  # about 10 s
    assert result.exit_code == 0
    assert "24 of the 10001 depths at which the field grows" in result.stdout


@pytest.mark.parametrize(
    "args",
    [("--receptive-field", "--memory", "--by", "level"), ("--max", "params=1G", "--max", "memory=1GiB")],
    ids=" ".join,
)
def test_torch_is_not_imported(args: Sequence[str]) -> None:
    code = (
        "import sys\nfrom mgcompile.cli import main\ntry:\n    main(prog_name='mgcompile')\n"
        "except SystemExit as end:\n    sys.exit('imports torch' if 'torch' in sys.modules else end.code)\n"
    )
    called = [sys.executable, "-c", code, "audit", "small.yaml", *args]
    done = subprocess.run(called, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- what is refused


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--memory", "--receptive-field", "--format", "csv"], "CSV holds one table"),
        (["--batch", "2"], "--batch goes with --memory, --roofline or --max"),
        (["--memory", "--batch", "0"], "'--batch'"),
        (["--memory", "--batch", "1000000"], "65536"),
        (["--memory", "--batch", "1,8"], "'--batch'"),
        (["--memory", "--dtype", "int8"], "'fp32', 'bf16', 'fp64'"),
        (["--memory", "--optimizer", "lion"], "'none', 'sgd', 'sgd-momentum', 'adam'"),
        (["--receptive-field", "--optimizer", "adam"], "--optimizer goes with --memory or --max"),
        (["--machine", "no.json"], "--machine goes with --roofline"),
        (["--roofline", "--machine", "missing.json"], "missing.json"),
        (["--roofline", "--machine", "no.json"], "no.json"),
        (["--max", "params"], "no budget"),
        (["--max", "parms=9M"], "did you mean params?"),
        (["--max", "params=9X"], "'X' is no unit"),
        (["--max", "memory=9"], "bytes"),
        (["--max", "params=9M", "--max", "params=8M"], "2 limits for params; expected one"),
        (["--receptive-field", "--depth", "2"], "--depth goes with --by layer"),
        # Nothing that is said is passed over.
        (["--max", "params=9M", "--batch", "2"], "--max of a memory"),
        (["--max", "memory=9MB", "--optimizer", "adam"], "--max training-memory"),
        (["--memory", "--by", "level", "--format", "csv"], "--memory as CSV has a line for each network"),
        (["--roofline", "--by", "level", "--format", "csv"], "--roofline as CSV has a line for each operation"),
        (["--receptive-field", "--by", "op", "--format", "csv"], "no sums by op"),
        (["--receptive-field", "--by", "node", "-o", "x.csv"], "no sums by node"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use(args: list[str], said: str) -> None:
    result = run("small.yaml", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_peaks_that_never_end(folder: Path) -> None:
    os.mkfifo(folder / "pipe.json")
    for name in ("pipe.json", "/dev/zero"):
        result = run("small.yaml", "--roofline", "--machine", name)
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"{name}: it is a pipe or a device; expected a file" in result.stderr


def test_an_input_that_is_too_small() -> None:
    result = run("valid.yaml", "--size", "3", "--receptive-field", "--memory")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "valid.yaml: an input of 3x3 is too small" in result.stderr


def test_the_peaks_of_a_file(folder: Path) -> None:
    peaks = Machine("mine", 2, "fp32", 1e11, 1e10, 5e10, 2**20, 1e-5)
    (folder / "mine.json").write_text(machine_text(peaks))
    (record,) = audits("small.yaml", "--roofline", "--machine", "mine.json")
    assert record["roofline"]["seconds"] == roofline(load("small.yaml").graph, peaks).seconds > 0
    text = run("small.yaml", "--roofline", "--machine", "mine.json").stdout
    assert "predicted for mine" in text
    assert "mgcompile machine" not in text
    other = run("small.yaml", "--roofline", "--machine", "mine.json", "--dtype", "bf16")
    assert other.exit_code == 2
    assert "mine.json holds peaks for fp32, and --dtype is bf16" in other.stderr
