"""The command line: what it prints where, its exit status, what it refuses, what it must not import."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result

import mgcompile
from mgcompile.analysis import published_figures
from mgcompile.cli import console, main
from mgcompile.cli.files import DRAWING_FORMATS
from mgcompile.drawing.lattice import DETAILS
from mgcompile.drawing.render import SUFFIXES
from mgcompile.spec import zoo_names

SMALL = """\
name: small
input: {channels: 3, size: 32}
params: {width: 8, n: {default: 1, min: 1}}
layers:
  - pyramid: 2
  - conv: {channels: ["${2 * width}", "${width}"]}
    repeat: "${n}"
  - drop: coarsest
  - classify: 10
"""
VALID = "input: {size: 32}\nlayers:\n  - conv: {channels: 8, padding: 0, kernel: 5}\n"
BROKEN = "name: broken\ninput: {size: 32}\nlayers:\n  - conv: {chanels: 8}\n  - pol\n"


@pytest.fixture(autouse=True)
def usual_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM", "PYTHONUNBUFFERED"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with three specs."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("small.yaml", SMALL), ("valid.yaml", VALID), ("broken.yaml", BROKEN)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def run(*args: str, input: str | bytes | None = None) -> Result:
    result = CliRunner().invoke(main, args, input=input, prog_name="mgcompile")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def process(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"capture_output": True, "text": True} | options
    return subprocess.run([sys.executable, "-m", "mgcompile.cli", *args], check=False, **options)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"small.yaml", "valid.yaml", "broken.yaml"}


# --- check


def test_check_says_what_is_right(folder: Path) -> None:
    result = run("check", "small.yaml", "valid.yaml")
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    graph = mgcompile.load("small.yaml").graph
    params = mgcompile.audit("small.yaml").params
    assert first == f"ok  small: {len(graph)} nodes, 2 levels, {params:,} parameters"
    assert second.startswith("ok  network: ")
    assert result.stderr == ""


def test_check_says_all_that_is_wrong_and_goes_on(folder: Path) -> None:
    result = run("check", "nothere.yaml", "broken.yaml", "small.yaml")
    assert result.exit_code == 2
    assert result.stdout.startswith("ok  small: ")
    missing, option, layer = result.stderr.splitlines()
    assert missing == "nothere.yaml: no such file"
    assert option.startswith("broken.yaml:4:12: layers[0].conv.chanels: ")
    assert "did you mean channels?" in option
    assert layer.startswith("broken.yaml:5:5: layers[1]: ")
    assert "did you mean pool?" in layer


def test_check_refuses_a_nominal_size_that_is_too_small(folder: Path) -> None:
    (folder / "tiny.yaml").write_text(VALID.replace("32", "4"))
    result = run("check", "tiny.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "too small" in result.stderr
    assert "tiny.yaml" in result.stderr


def test_standard_input_is_a_spec() -> None:
    assert run("check", "-", input=SMALL).stdout.startswith("ok  small: ")
    assert run("check", "-", "--set", "n=3", input=SMALL).exit_code == 0
    required = SMALL.replace("width: 8", "width: {min: 1}")
    assert run("check", "-", input=required).exit_code == 2
    assert run("check", "-", "--set", "width=4", input=required).exit_code == 0
    wrong = run("check", "-", input=BROKEN)
    assert wrong.exit_code == 2
    assert wrong.stderr.startswith("<stdin>:4:12: ")
    assert run("check", "-", input=b"\xff\xfe\x00").exit_code == 2
    assert run("check", "-", input="").exit_code == 2
    assert "read once" in run("check", "-", "-", input=SMALL).stderr


def test_params_are_set(folder: Path) -> None:
    once, thrice = (run("check", "small.yaml", "--set", f"n={n}").stdout for n in (1, 3))
    assert once != thrice
    assert yaml.safe_load(run("show", "small.yaml", "--set", "n=3", "--set", "width=2").stdout)["params"] == {
        "width": 2,
        "n": {"default": 3, "min": 1},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n", "expected name=value"),
        ("=3", "expected name=value"),
        ("n=0", "at least 1"),
        ("widht=3", "no such param; did you mean width?"),
        ("n=[", "--set n"),
        ("n=many", "--set n"),
    ],
)
def test_wrong_params(folder: Path, text: str, said: str) -> None:
    result = run("check", "small.yaml", "--set", text)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


# --- show


def test_show_prints_what_reads_back(folder: Path) -> None:
    (folder / "child.yaml").write_text("extends: small.yaml\nname: child\nparams: {n: 2}\n")
    shown, as_json = run("show", "child.yaml").stdout, run("show", "child.yaml", "--format", "json").stdout
    assert yaml.safe_load(shown) == json.loads(as_json)
    assert "extends" not in json.loads(as_json)
    assert mgcompile.load(json.loads(as_json)).graph == mgcompile.load("child.yaml").graph


def test_show_expands(folder: Path) -> None:
    expanded = yaml.safe_load(run("show", "small.yaml", "--expand").stdout)
    assert "params" not in expanded
    assert mgcompile.load(expanded).graph == mgcompile.load("small.yaml").graph


def test_show_lists_the_graph(folder: Path) -> None:
    lines = run("show", "small.yaml", "--format", "graph").stdout.splitlines()
    graph = mgcompile.load("small.yaml").graph
    assert lines[0].split() == ["node", "op", "level", "output", "inputs"]
    assert [line.split()[0] for line in lines[1 : len(graph) + 1]] == list(graph.nodes)
    assert lines[-1] == f"output output: {graph.outputs['output']}"


def test_show_to_a_file(folder: Path) -> None:
    result = run("show", "small.yaml", "-o", "copy.yaml")
    assert result.stderr == ""
    assert result.stdout.startswith("wrote copy.yaml (0.")
    assert mgcompile.load("copy.yaml").graph == mgcompile.load("small.yaml").graph


# --- audit


def test_audit_counts_what_the_library_counts(folder: Path) -> None:
    result = run("audit", "small.yaml", "valid.yaml", "--size", "40x24", "--format", "json")
    small, valid = json.loads(result.stdout)["audits"]
    figures = mgcompile.audit("small.yaml", size=(40, 24))
    assert (small["params"], small["macs"], small["size"]) == (figures.params, figures.macs, [40, 24])
    assert valid["name"] == "network"


@pytest.mark.parametrize("by", ["layer", "level", "op"])
def test_audit_by(folder: Path, by: str) -> None:
    rows = list(csv.DictReader(run("audit", "small.yaml", "--by", by, "--format", "csv").stdout.splitlines()))
    assert sum(int(row["macs"]) for row in rows) == mgcompile.audit("small.yaml").macs
    assert by in rows[0]


def test_audit_by_depth(folder: Path) -> None:
    shallow, deep = (
        run("audit", "small.yaml", "--by", "layer", "--depth", n, "--format", "csv").stdout for n in ("1", "2")
    )
    assert len(deep.splitlines()) > len(shallow.splitlines())


def test_audit_for_people(folder: Path) -> None:
    table = run("audit", "small.yaml", "--by", "level").stdout
    assert "small by level" in table
    assert table.isascii()
    assert max(map(len, table.splitlines())) <= 120
    assert "| small |" in run("audit", "small.yaml", "--format", "markdown").stdout


@pytest.mark.parametrize(
    ("name", "start"), [("a.json", "{"), ("a.csv", "name,"), ("a.md", "| network"), ("a.txt", "network  ")]
)
def test_the_suffix_says_the_format(folder: Path, name: str, start: str) -> None:
    result = run("audit", "small.yaml", "-o", name)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"wrote {name} (")
    assert (folder / name).read_text().startswith(start)
    assert files(folder) == {name}


def test_audit_goes_on_after_a_wrong_spec_and_a_size_that_is_too_small(folder: Path) -> None:
    result = run("audit", "broken.yaml", "valid.yaml", "small.yaml", "--size", "3", "--format", "csv")
    assert result.exit_code == 2
    assert [line.split(",")[0] for line in result.stdout.splitlines()] == ["name", "small"]
    assert "valid.yaml: an input of 3x3 is too small: a grid would vanish below 5x5" in result.stderr
    assert "broken.yaml:4:12: " in result.stderr
    assert run("audit", "broken.yaml").stdout == ""


@pytest.mark.slow
def test_audit_verifies(folder: Path) -> None:
    result = run("audit", "small.yaml", "valid.yaml", "--verify", "--format", "json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert [found["ok"] for found in document["reconciliations"]] == [True, True]
    assert len(document["audits"]) == 2
    table = run("audit", "small.yaml", "--verify")
    assert "agrees" in table.stdout
    assert "every node with MACs" not in table.stdout
    assert "every node with MACs" in run("audit", "small.yaml", "--verify", "--by", "op").stdout


@pytest.mark.slow
def test_a_real_difference_is_a_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mgcompile.graph.ops import Conv

    macs = Conv.macs
    monkeypatch.setattr(Conv, "macs", lambda *args: macs(*args) + 1)
    result = run("audit", "small.yaml", "--verify")
    assert result.exit_code == 1
    assert "DIFFERENT" in result.stdout
    assert "small: the counts differ" in result.stderr


# --- draw


@pytest.mark.parametrize(
    ("format", "start"), [("svg", b"<svg"), ("png", b"\x89PNG"), ("pdf", b"%PDF"), ("dot", b"digraph")]
)
def test_draw(folder: Path, format: str, start: bytes) -> None:
    result = run("draw", "small.yaml", "-o", f"out.{format}")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"wrote out.{format} (")
    assert start in (folder / f"out.{format}").read_bytes()[:200]
    assert files(folder) == {f"out.{format}"}


def test_draw_to_standard_output(folder: Path) -> None:
    result = run("draw", "small.yaml")
    assert "<svg" in result.stdout
    assert result.stdout == mgcompile.draw("small.yaml").decode()
    assert run("draw", "small.yaml", "--format", "png").stdout_bytes.startswith(b"\x89PNG")


def test_draw_options(folder: Path) -> None:
    texts = [
        run("draw", "small.yaml", "--set", "n=4", *options).stdout
        for options in ((), ("--no-fold",), ("--detail", "op"), ("--detail", "op", "--no-fold"))
    ]
    assert len(set(texts)) == 4
    assert run("draw", "small.yaml", "-o", "a.txt", "--format", "svg").exit_code == 0
    assert "<svg" in (folder / "a.txt").read_text()


def test_draw_several(folder: Path) -> None:
    (folder / "out").mkdir()
    assert run("draw", "small.yaml", "valid.yaml", "-o", "out").exit_code == 0
    assert files(folder / "out") == {"small.svg", "valid.svg"}
    assert run("draw", "small.yaml", "cifar100/vgg-6", "imagenet/wrn-34-2.0", "-o", "out/x-{name}.dot").exit_code == 0
    assert files(folder / "out") == {"small.svg", "valid.svg", "x-small.dot", "x-vgg-6.dot", "x-wrn-34-2.0.dot"}
    result = run("draw", "broken.yaml", "small.yaml", "-o", "out", "--format", "dot")
    assert result.exit_code == 2
    assert (folder / "out" / "small.dot").is_file()
    assert not (folder / "out" / "broken.dot").exists()


def test_choices_are_those_of_the_drawings() -> None:
    assert set(DRAWING_FORMATS) == set(SUFFIXES.values())
    detail = next(param for param in main.commands["draw"].params if param.name == "detail")
    assert isinstance(detail.type, click.Choice)
    assert tuple(detail.type.choices) == DETAILS


# --- compile


def test_compile_weights(folder: Path) -> None:
    import torch

    result = run("compile", "small.yaml", "--set", "width=4", "--seed", "3", "-o", "w.safetensors")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("wrote w.safetensors (")
    model = mgcompile.load_model("w.safetensors")
    expected = mgcompile.compile("small.yaml", params={"width": 4}, seed=3)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


def test_compile_dtype_and_size(folder: Path) -> None:
    import torch

    from mgcompile.lowering.checkpoints import read_checkpoint

    assert run("compile", "valid.yaml", "--dtype", "bfloat16", "--size", "24x20", "-o", "w.safetensors").exit_code == 0
    text, tensors = read_checkpoint("w.safetensors")
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.bfloat16}
    assert yaml.safe_load(text or "")["input"]["size"] == [24, 20]
    result = run("compile", "valid.yaml", "--size", "4", "-o", "x.safetensors")
    assert result.exit_code == 2
    assert "too small" in result.stderr
    assert files(folder) == {"w.safetensors"}


def test_compile_source(folder: Path) -> None:
    assert run("compile", "small.yaml", "-o", "net.py").exit_code == 0
    code = "import torch, net; print(tuple(net.small()(torch.zeros(2, 3, 32, 32)).shape))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(2, 10)", done.stderr


# --- tables, list, schema


def test_tables() -> None:
    rows = json.loads(run("tables", "--format", "json").stdout)["comparisons"]
    assert len(rows) == len(published_figures())
    some = list(csv.DictReader(run("tables", "cifar100", "mnist-seg", "--format", "csv").stdout.splitlines()))
    assert {row["task"] for row in some} == {"cifar100", "mnist-seg"}
    assert "R-PMG-30" in run("tables", "cifar100").stdout
    wrong = run("tables", "cifar10")
    assert wrong.exit_code == 2
    assert "cifar100" in wrong.stderr


def test_list() -> None:
    networks = json.loads(run("list", "--format", "json").stdout)["networks"]
    assert sorted(row["network"] for row in networks) == list(zoo_names())
    order = [row["network"] for row in networks]
    assert order.index("cifar100/mg-6") < order.index("cifar100/mg-11")
    row = next(row for row in networks if row["network"] == "cifar100/vgg-6")
    figures = mgcompile.audit("cifar100/vgg-6")
    assert (row["params"], row["macs"], row["height"], row["width"]) == (figures.params, figures.macs, 32, 32)
    assert "cifar100/vgg-6" in run("list").stdout
    assert run("list", "--format", "csv").stdout.splitlines()[0] == "network,params,macs,height,width,description"
    assert "| cifar100/vgg-6 |" in run("list", "--format", "markdown").stdout


def test_a_wrong_spec_of_the_zoo_does_not_hide_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "task").mkdir()
    for name in ("broken.yaml", "small.yaml"):
        (folder / name).rename(folder / "task" / name)
    monkeypatch.setattr("mgcompile.spec.loading.zoo_folder", lambda: folder)
    result = run("list", "--format", "csv")
    assert result.exit_code == 2
    assert "broken.yaml:4:12: " in result.stderr
    assert [line.split(",")[0] for line in result.stdout.splitlines()] == ["network", "task/small"]


def test_schema(folder: Path) -> None:
    from mgcompile.spec.schema import json_schema

    assert json.loads(run("schema").stdout) == json_schema()
    assert run("schema", "-o", "s.json").exit_code == 0
    assert json.loads((folder / "s.json").read_text()) == json_schema()


def test_shapes_of_a_graph_at_a_size(folder: Path) -> None:
    graph = mgcompile.load("small.yaml").graph
    rows = [
        line.split() for line in run("show", "small.yaml", "--format", "graph", "--size", "64x48").stdout.splitlines()
    ]
    shown = {row[0]: row for row in rows if row and row[0] in graph.nodes}
    for name, shape in graph.shapes((64, 48)).items():
        assert "x".join(map(str, shape)) in shown[name]


def test_a_spec_is_written_as_its_suffix_says(folder: Path) -> None:
    for name in ("new.json", "new.yaml"):
        assert run("show", "small.yaml", "-o", name).exit_code == 0
        assert mgcompile.load(name).graph == mgcompile.load("small.yaml").graph
    assert json.loads((folder / "new.json").read_text())["name"] == "small"
    assert not (folder / "new.yaml").read_text().startswith("{")


# --- what is refused


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["chek"], "did you mean check?"),
        (["check"], "Missing argument 'SPEC...'"),
        (["check", "small.yaml", "--sett", "n=1"], "No such option"),
        (["audit", "small.yaml", "--size", "0"], "no size"),
        (["audit", "small.yaml", "--size", "32x"], "no size"),
        (["audit", "small.yaml", "--size", "-3"], "no size"),
        (["audit", "small.yaml", "--by", "cell"], "'layer', 'level', 'op', 'node'"),
        (["audit", "small.yaml", "--depth", "2"], "--by layer"),
        (["audit", "small.yaml", "--by", "layer", "--depth", "0"], "--depth"),
        (["audit", "small.yaml", "--verify", "--format", "csv"], "no CSV"),
        (["audit", "small.yaml", "--format", "xml"], "'xml'"),
        (["audit", "small.yaml", "-o", "out"], "out is a folder"),
        (["audit", "small.yaml", "-o", "missing/a.txt"], "there is no folder missing"),
        (["draw", "small.yaml", "-o", "a.jpg"], "'.jpg'"),
        (["draw", "small.yaml", "-o", "a"], "no suffix"),
        (["draw", "small.yaml", "-o", "missing/a.svg"], "there is no folder missing"),
        (["draw", "small.yaml", "valid.yaml"], "{name}"),
        (["draw", "small.yaml", "valid.yaml", "-o", "a.svg"], "{name}"),
        (["draw", "small.yaml", "small.yaml", "-o", "out"], "small.svg"),
        (["compile", "small.yaml"], "Missing option '-o'"),
        (["compile", "small.yaml", "-o", "w.pt"], ".safetensors"),
        (["compile", "small.yaml", "-o", "w"], "no suffix"),
        (["compile", "small.yaml", "-o", "out"], "no suffix"),
        (["compile", "small.yaml", "-o", "missing/w.py"], "there is no folder missing"),
        (["compile", "small.yaml", "-o", "w.py", "--seed", "1"], "holds none"),
        (["compile", "small.yaml", "-o", "w.safetensors", "--seed", "-1"], "--seed"),
        (["compile", "small.yaml", "-o", "w.safetensors", "--dtype", "int8"], "--dtype"),
        (["compile", "broken.yaml", "-o", "w.safetensors"], "broken.yaml:4:12: "),
        (["show", "broken.yaml"], "broken.yaml:5:5: "),
        (["show", "out"], "out: is a folder"),
        (["check", "imagenet/r-mg-43"], "did you mean imagenet/r-mg-34"),
        (["check", "x" * 5000], "no such file"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_wrong_use(folder: Path, args: list[str], said: str) -> None:
    (folder / "out").mkdir()
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in result.stderr
    assert files(folder) == {"out"}
    assert not list((folder / "out").iterdir())


@pytest.mark.parametrize(
    "args",
    [("audit", "small.yaml", "-o"), ("draw", "small.yaml", "--format", "svg", "-o"), ("schema", "-o")],
    ids=lambda args: args[0],
)
def test_a_file_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch, args: Sequence[str]) -> None:
    (folder / "kept.svg").write_text("as it was")

    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    result = run(*args, "kept.svg")
    assert result.exit_code == 1
    assert "kept.svg: cannot be written: No space left on device" in result.stderr
    assert (folder / "kept.svg").read_text() == "as it was"
    assert files(folder) == {"kept.svg"}


def test_weights_that_cannot_be_written(folder: Path) -> None:
    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = process("compile", "small.yaml", "-o", "w.safetensors", preexec_fn=limited)
    assert done.returncode == 1, done.stderr
    assert "w.safetensors" in done.stderr
    assert "Traceback" not in done.stderr
    assert files(folder) == set()


def test_a_failure_of_ours_is_no_fault_of_the_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> bytes:
        raise mgcompile.MgcompileError("Graphviz fails")

    monkeypatch.setattr("mgcompile.api.draw", fail)
    result = run("draw", "small.yaml", "-o", "a.png")
    assert result.exit_code == 1
    assert result.stderr == "small.yaml: Graphviz fails\n"


# --- as a process


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("args", [("check", "small.yaml"), ("list",), ("draw", "small.yaml"), ("schema",)])
def test_standard_output_that_is_full(folder: Path, args: Sequence[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = process(*args, stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 1
    assert done.stderr == "standard output: No space left on device\n"


@pytest.mark.parametrize("args", [("schema",), ("list",), ("check", "small.yaml")])
def test_a_reader_that_goes_away(folder: Path, args: Sequence[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        done = process(*args, stdout=pipe, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Processes that are started listen to SIGINT, even where a shell has had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "mgcompile.cli", "check", "small.yaml", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith(b"ok  small")  # now it reads standard input
        time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
        assert running.stderr is not None
        assert b"Traceback" not in running.stderr.read()


def test_standard_output_by_its_name(folder: Path) -> None:
    done = process("show", "small.yaml", "-o", "/dev/stdout")
    assert (done.returncode, done.stderr) == (0, "")
    assert mgcompile.load(yaml.safe_load(done.stdout)).name == "small"


def test_any_encoding(folder: Path) -> None:
    (folder / "greek.yaml").write_text(SMALL.replace("small", "μικρό"), encoding="utf-8")
    plain = os.environ | {"PYTHONIOENCODING": "latin-1"}
    for args in (("check", "greek.yaml"), ("show", "greek.yaml"), ("check", "μη.yaml"), ("audit", "greek.yaml")):
        done = process(*args, env=plain)
        assert done.returncode == (2 if "μη.yaml" in args else 0), done.stderr
        assert "Traceback" not in done.stderr


def test_a_narrow_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for width in ("80", "1", "0"):
        monkeypatch.setenv("COLUMNS", width)
        assert run("audit", "small.yaml", "--by", "op").exit_code == 0
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, run("audit", "small.yaml").stdout.splitlines())) <= 80


def test_colours_for_terminals_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", Terminal(sys.stdout))
    assert console.page(None)["terminal"]
    assert "terminal" not in console.page("file.txt")
    monkeypatch.setenv("TERM", "dumb")
    assert not console.page(None)["terminal"]
    monkeypatch.undo()
    assert not console.page(None)["terminal"]


class Terminal:
    encoding = "utf-8"

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def isatty(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def pseudo_terminal(args: Sequence[str], **env: str) -> str:
    """What a command writes to a terminal of 100 columns."""
    pty = pytest.importorskip("pty")
    termios, fcntl = pytest.importorskip("termios"), pytest.importorskip("fcntl")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, (40).to_bytes(2, "little") + (100).to_bytes(2, "little") + bytes(4))
    clean = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR", "TERM")}
    with subprocess.Popen(
        [sys.executable, "-m", "mgcompile.cli", *args],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        env=clean | {"TERM": "xterm", "PYTHONIOENCODING": "utf-8"} | env,
    ) as running:
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 65536):
                parts.append(part)
        except OSError:  # what Linux says at the end
            pass
        assert running.wait(20) == 0
    os.close(ours)
    return b"".join(parts).decode()


@pytest.mark.skipif(sys.platform != "linux", reason="pseudo terminals differ")
def test_a_terminal_gets_its_width_and_colours_unless_it_wants_none(folder: Path) -> None:
    text = pseudo_terminal(("audit", "small.yaml"))
    assert "\x1b[" in text
    assert "─" in text
    plain = pseudo_terminal(("audit", "small.yaml"), NO_COLOR="1")
    assert "\x1b[3" not in plain
    assert 80 < max(map(len, plain.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines())) <= 120


WITHOUT_TORCH = """
import sys
from mgcompile.cli import main

heavy = {"torch", "fvcore", "safetensors"} if sys.argv[1:2] != ["--help"] else {"torch", "pydantic", "rich", "networkx"}
try:
    main(prog_name="mgcompile")
except SystemExit as end:
    found = heavy & set(sys.modules)
    sys.exit(f"imports {found}" if found else end.code)
"""


@pytest.mark.parametrize(
    "args",
    [
        ("--help",),
        ("--version",),
        ("check", "small.yaml"),
        ("show", "small.yaml", "--expand"),
        ("show", "small.yaml", "--format", "graph"),
        ("audit", "small.yaml", "--by", "op"),
        ("draw", "small.yaml", "-o", "a.svg"),
        ("draw", "small.yaml", "-o", "a.png"),
        ("list",),
        ("tables",),
        ("schema",),
    ],
    ids=" ".join,
)
def test_torch_is_not_imported(folder: Path, args: Sequence[str]) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_help_of_every_command_has_examples_that_are_commands(folder: Path) -> None:
    assert set(main.commands) >= {"check", "show", "audit", "draw", "compile", "tables", "list", "schema", "bench"}
    for name, command in main.commands.items():
        text = run(name, "-h").stdout
        assert text == run(name, "--help").stdout
        examples = [
            line.split()[1:] for line in text.splitlines() if line.startswith("  mgcompile ") or "  mgcompile" in line
        ]
        assert examples, name
        for example in examples:
            assert example[0] == name
            with command.make_context(name, [part.strip("'") for part in unfolded(example[1:])]):
                pass
        assert name in run("--help").stdout


def unfolded(args: list[str]) -> list[str]:
    """An example's arguments, without the folder of a file that it writes."""
    return [Path(arg).name if "/" in arg and "." in arg and not arg.startswith("-") else arg for arg in args]


def test_version() -> None:
    assert run("--version").stdout == f"mgcompile {mgcompile.__version__}\n"


def test_every_public_name_is_there() -> None:
    for name in mgcompile.__all__:
        assert getattr(mgcompile, name) is not None
        assert name in dir(mgcompile)
    with pytest.raises(AttributeError, match="nothing"):
        _ = mgcompile.nothing  # type: ignore[attr-defined]


def test_the_entry_point() -> None:
    done = process("check", "cifar100/vgg-6")
    assert done.returncode == 0
    assert done.stdout.startswith("ok  VGG-6: ")
    assert process("check", "nothere").returncode == 2
