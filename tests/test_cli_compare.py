"""`mgcompile compare` and `mgcompile plot`: what they print where, their exit status, what they refuse."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import mgcompile
from mgcompile.analysis import published_figures
from mgcompile.cli.compare import METRICS, compare, plot
from mgcompile.cli.console import Commands

NARROW = """\
name: narrow
input: {size: 32}
params: {width: 8, n: {default: 1, min: 1}}
layers:
  - conv: {channels: "${width}"}
    repeat: "${n}"
  - classify: 10
"""
WIDE = NARROW.replace("narrow", "wide").replace("width: 8, ", "width: 16, ")
FIXED = "name: fixed\ninput: {size: 48}\nlayers:\n  - conv: {channels: 8, padding: 0, kernel: 5}\n"
REQUIRED = (
    NARROW.replace("narrow", "required")
    .replace("width: 8", "width: {min: 1}")
    .replace("n: {", "m: {")
    .replace("${n}", "${m}")
)
BROKEN = "input: {size: 32}\nlayers:\n  - conv: {chanels: 8}\n"

MAIN = Commands("mgcompile", commands=[compare, plot])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    specs = {"narrow": NARROW, "wide": WIDE, "fixed": FIXED, "required": REQUIRED, "broken": BROKEN}
    for name, text in specs.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    for name in ("COLUMNS", "TERM", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(*args: str, input: str | None = None) -> Result:
    result = CliRunner().invoke(MAIN, args, input=input, prog_name="mgcompile")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def networks(*args: str, **options: Any) -> list[dict[str, Any]]:
    result = run("compare", *args, "--format", "json", **options)
    assert (result.exit_code, result.stderr) == (0, "")
    found: list[dict[str, Any]] = json.loads(result.stdout)["networks"]
    return found


# --- compare


def test_compare_counts_what_the_library_counts(folder: Path) -> None:
    narrow, wide = networks("narrow.yaml", "wide.yaml", "--size", "24x16", "--batch", "4")
    figures = [mgcompile.audit(name, size=(24, 16)) for name in ("narrow.yaml", "wide.yaml")]
    assert [each["params"] for each in (narrow, wide)] == [each.params for each in figures]
    assert (wide["input"], wide["batch"]) == ([3, 24, 16], 4)
    assert wide["ratios"]["macs"] == round(figures[1].macs / figures[0].macs, 4)
    assert [group["name"] for group in wide["groups"]] == ["level 0", "vectors"]
    alone = networks("narrow.yaml", "wide.yaml", "--size", "24x16")
    assert wide["inference_bytes"] > alone[1]["inference_bytes"]
    assert wide["params"] == alone[1]["params"]


def test_set_goes_to_those_that_have_the_param(folder: Path) -> None:
    fixed, narrow = networks("fixed.yaml", "narrow.yaml", "--set", "n=3")
    assert fixed["params"] == mgcompile.audit("fixed.yaml").params
    assert narrow["params"] == mgcompile.audit("narrow.yaml", params={"n": 3}).params
    narrow, required = networks("narrow.yaml", "required.yaml", "--set", "n=2", "--set", "width=4", "--set", "m=3")
    assert narrow["params"] == mgcompile.audit("narrow.yaml", params={"n": 2, "width": 4}).params
    assert required["params"] == mgcompile.audit("required.yaml", params={"m": 3, "width": 4}).params
    both = networks("-", "narrow.yaml", "--set", "n=2", "--set", "width=4", "--set", "m=3", input=REQUIRED)
    assert [each["params"] for each in both] == [required["params"], narrow["params"]]


def test_a_param_that_none_has(folder: Path) -> None:
    result = run("compare", "fixed.yaml", "narrow.yaml", "--set", "widht=3")
    assert result.exit_code == 2
    assert "none of the specs has a param 'widht'; did you mean width?" in result.stderr
    wrong = run("compare", "fixed.yaml", "narrow.yaml", "--set", "n=0")
    assert wrong.exit_code == 2
    assert "at least 1" in wrong.stderr


def test_specs_of_one_name_are_called_as_the_user_calls_them() -> None:
    found = networks("mnist-seg/sg-11", "mnist-spatial/sg-11", "mnist-seg/u-net-11")
    assert [each["name"] for each in found] == ["mnist-seg/sg-11", "mnist-spatial/sg-11", "U-NET-11"]


def test_compare_for_people(folder: Path) -> None:
    result = run("compare", "narrow.yaml", "wide.yaml")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "parameters by level" in result.stdout
    assert result.stdout.isascii()
    assert max(map(len, result.stdout.splitlines())) <= 120
    assert "parameters by layer" in run("compare", "narrow.yaml", "wide.yaml", "--by", "layer").stdout
    assert "| figure | narrow | wide |" in run("compare", "narrow.yaml", "wide.yaml", "--format", "markdown").stdout


def test_the_suffix_says_the_format(folder: Path) -> None:
    for name, start in (("a.csv", "name,channels,height"), ("a.json", "{"), ("a.md", "| figure"), ("a.txt", "figure")):
        result = run("compare", "narrow.yaml", "wide.yaml", "-o", name)
        assert (result.exit_code, result.stderr) == (0, "")
        assert (folder / name).read_text().startswith(start)


def test_compare_optimised() -> None:
    plain, fast = (
        networks("mnist-seg/u-mg-11", "mnist-seg/u-net-11", *options) for options in ((), ("--optimize", "inference"))
    )
    assert fast[0]["nodes"] < plain[0]["nodes"]
    assert fast[0]["params"] == plain[0]["params"]


def test_diff_says_which_layers_differ(folder: Path) -> None:
    text = run("compare", "narrow.yaml", "wide.yaml", "--diff").stdout
    assert "from narrow to wide" in text
    assert "channels 8 -> 16" in text
    document = json.loads(run("compare", "cifar100/mg-6", "cifar100/mg-11", "--diff", "--format", "json").stdout)
    total = mgcompile.audit("cifar100/mg-11").params - mgcompile.audit("cifar100/mg-6").params
    assert sum(change["params"] for change in document["diff"]["changes"]) == total
    rows = list(
        csv.DictReader(
            run("compare", "cifar100/mg-6", "cifar100/mg-11", "--diff", "--format", "csv").stdout.splitlines()
        )
    )
    assert sum(int(row["params"]) for row in rows) == total
    shallow, deep = (
        run("compare", "cifar100/mg-6", "cifar100/mg-11", "--diff", *options).stdout
        for options in ((), ("--depth", "9"))
    )
    assert len(deep.splitlines()) > len(shallow.splitlines())
    assert "no layer differs" in run("compare", "narrow.yaml", "narrow.yaml", "--diff").stdout


# --- plot


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<svg"), ("png", b"\x89PNG"), ("html", b"<!DOCTYPE html>")])
def test_plot_writes_a_file(folder: Path, suffix: str, start: bytes) -> None:
    for number, args in enumerate((("params", "mnist-seg"), ("receptive-field", "narrow.yaml", "wide.yaml"))):
        result = run("plot", *args, "-o", f"{number}.{suffix}")
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith(f"wrote {number}.{suffix} (")
        assert (folder / f"{number}.{suffix}").read_bytes().startswith(start)


def test_plot_to_standard_output() -> None:
    assert run("plot", "params", "mnist-seg").stdout.startswith("<svg")
    assert run("plot", "params", "mnist-seg", "--format", "png").stdout_bytes.startswith(b"\x89PNG")


def test_every_published_network_is_in_the_plot() -> None:
    text = run("plot", "macs", "cifar100").stdout
    for line in published_figures():
        if line.task == "cifar100":
            assert f">{line.model}</text>" in text
            assert line.error is not None
            figure = mgcompile.audit(line.zoo).macs / 1e6
            assert f"<title>{line.model}: top-1 accuracy (%) {100 - line.error:f}".rstrip("0") in text
            assert re.search(rf"{line.model}: .* \(millions\) {figure:.6g}<", text)


@pytest.mark.parametrize("task", list(dict.fromkeys(line.task for line in published_figures())))
@pytest.mark.parametrize("metric", METRICS)
def test_every_task_and_metric_is_a_plot_or_an_error(task: str, metric: str) -> None:
    there = any(getattr(line, METRICS[metric]) is not None for line in published_figures() if line.task == task)
    result = run("plot", "params", task, "--metric", metric)
    assert result.exit_code == (0 if there else 2)
    assert (
        result.stdout.startswith("<svg")
        if there
        else f"no {metric} is published for {task}; there is " in result.stderr
    )
    left_out = [
        line.model for line in published_figures() if line.task == task and getattr(line, METRICS[metric]) is None
    ]
    if there and left_out:
        assert result.stderr == f"{task}: no {metric} is published for {', '.join(left_out)}\n"


def test_fields_grow_as_the_library_says(folder: Path) -> None:
    names = ("cifar100/vgg-11", "cifar100/mg-11")
    page = run("plot", "receptive-field", *names, "--format", "html").stdout
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)][1:]
    for place, name in enumerate(names):
        graph = mgcompile.load(name).graph
        found = mgcompile.analysis.receptive_field(graph)
        for row in rows:
            fields = [
                max(each.unclipped)
                for each in found.rows
                if each.depth <= int(row[0]) and each.level is not None and None not in each.unclipped
            ]  # type: ignore[type-var]
            assert not row[place + 1] or int(row[place + 1]) == max(fields)
    assert "image: 32x32" in page
    assert "image: 40x64" in run("plot", "receptive-field", *names, "--size", "40x64").stdout


def test_a_field_is_the_largest_up_to_its_depth(folder: Path) -> None:
    layers = "  - {id: wide, conv: {channels: 4, kernel: 7}}\n" + "  - {from: input, conv: {channels: 4, kernel: 1}}\n"
    (folder / "fork.yaml").write_text(f"input: {{size: 32}}\nlayers:\n{layers}  - conv: {{channels: 4, kernel: 1}}\n")
    page = run("plot", "receptive-field", "fork.yaml", "--format", "html").stdout
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]
    assert rows[1:] == [["0", "1"], ["1", "7"], ["2", "7"]]


def test_several_image_sizes_have_no_line(folder: Path) -> None:
    result = run("plot", "receptive-field", "narrow.yaml", "fixed.yaml", "--scale", "linear")
    assert result.exit_code == 0
    assert "image:" not in result.stdout
    assert "--size sets one for all" in result.stderr


def test_params_of_plots(folder: Path) -> None:
    once, twice = (
        run("plot", "receptive-field", "narrow.yaml", "fixed.yaml", "--set", f"n={n}").stdout for n in (1, 2)
    )
    assert once != twice


# --- what is refused


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["compare", "narrow.yaml"], "one spec, narrow.yaml, has nothing to be compared with"),
        (["compare"], "Missing argument"),
        (["compare", "narrow.yaml", "wide.yaml", "fixed.yaml", "--diff"], "--diff is between two specs; there are 3"),
        (["compare", "narrow.yaml", "wide.yaml", "--depth", "2"], "--depth goes with --diff"),
        (["compare", "narrow.yaml", "wide.yaml", "--diff", "--by", "level", "--format", "csv"], "leave --by away"),
        (["compare", "narrow.yaml", "wide.yaml", "--diff", "--depth", "2", "--format", "json"], "--depth groups"),
        (["compare", "narrow.yaml", "wide.yaml", "--batch", "0"], "--batch"),
        (["compare", "narrow.yaml", "wide.yaml", "--batch", "x"], "--batch"),
        (["compare", "narrow.yaml", "wide.yaml", "--by", "op"], "'level', 'layer'"),
        (["compare", "narrow.yaml", "broken.yaml"], "broken.yaml:3:12: "),
        (["compare", "nothere.yaml", "broken.yaml"], "nothere.yaml: no such file"),
        (["compare", "narrow.yaml", "fixed.yaml", "--size", "3"], "fixed: an input of 3x3 is too small"),
        (["compare", "narrow.yaml", "wide.yaml", "-o", "missing/a.txt"], "there is no folder missing"),
        (["compare", "-", "-"], "read once"),
        (["plot", "macs", "cifar10"], "no published table of 'cifar10'; did you mean cifar100?"),
        (["plot", "macs", "x"], "there are cifar100, imagenet-10crop"),
        (["plot", "macs", "cifar100", "mnist-seg"], "macs takes one task; there are 2"),
        (["plot", "macs", "cifar100", "--metric", "iou"], "no iou is published for cifar100; there is accuracy"),
        (["plot", "macs", "cifar100", "--metric", "recall"], "'accuracy', 'top-5', 'iou'"),
        (["plot", "macs", "cifar100", "--size", "64"], "--size and --set go with receptive-field"),
        (["plot", "params", "cifar100", "--set", "n=2"], "--size and --set go with receptive-field"),
        (["plot", "receptive-field", "narrow.yaml", "--metric", "iou"], "--metric goes with macs and params"),
        (["plot", "receptive-field", "fixed.yaml", "--size", "3"], "fixed: an input of 3x3 is too small"),
        (["plot", "receptive-field", "cifar100/vgg-2"], "did you mean"),
        (["plot", "flops", "cifar100"], "'macs', 'params', 'receptive-field'"),
        (["plot", "macs"], "Missing argument"),
        (["plot", "macs", "cifar100", "-o", "a.pdf"], "'.pdf' names no plot; known are .svg, .png, .html"),
        (["plot", "macs", "cifar100", "-o", "a"], "no suffix"),
        (["plot", "macs", "cifar100", "-o", "missing/a.svg"], "there is no folder missing"),
    ],
    ids=lambda value: " ".join(value)[:70] if isinstance(value, list) else "",
)
def test_wrong_use(folder: Path, args: list[str], said: str) -> None:
    before = set(folder.iterdir())
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert set(folder.iterdir()) == before


@pytest.mark.parametrize("args", [("compare", "narrow.yaml", "wide.yaml"), ("plot", "receptive-field", "narrow.yaml")])
def test_a_file_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]) -> None:
    (folder / "kept.svg").write_text("as it was")

    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    result = run(*args, "-o", "kept.svg")
    assert result.exit_code == 1
    assert result.stderr == "kept.svg: cannot be written: No space left on device\n"
    assert (folder / "kept.svg").read_text() == "as it was"
