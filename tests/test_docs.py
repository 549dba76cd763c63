"""Everything that README, docs and CONTRIBUTING show is run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

import mgcompile
from mgcompile.cli import main
from mgcompile.graph import verify
from mgcompile.lowering import tuning, ways
from mgcompile.lowering.machine import CACHE
from mgcompile.measuring import peak
from mgcompile.training import tasks
from mgcompile.training.files import read_mnist
from mgcompile.training.identity import fingerprint_of_arrays
from mgcompile.training.loop import train
from mgcompile.training.recipe import Recipe, recipe_for
from mgcompile.training.tasks import Settings, base
from tests.training import made

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PRELUDE = [{"pyramid": 3}, {"conv": {"channels": [64, 32, 16], "reach": 0}}]


def fenced(page: Path, language: str) -> list[str]:
    """The blocks of a language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


BLOCKS = [pytest.param(text, id=f"{page.name}-{n}") for page in PAGES for n, text in enumerate(fenced(page, "yaml"))]
SPECS = [block for block in BLOCKS if not block.values[0].startswith("task:")]  # type: ignore[union-attr]
RECIPES = [block for block in BLOCKS if block not in SPECS]
LINES = [line for text in fenced(ROOT / "README.md", "sh") for line in text.splitlines() if line.strip()]
TRAINING = [line for line in LINES if line.split()[1] in ("train", "evaluate", "explain")]
COMMANDS = [line for line in LINES if line not in TRAINING]


@pytest.mark.parametrize("text", SPECS)
def test_every_spec_shown_is_right(text: str, tmp_path: Path) -> None:
    if text.startswith("- "):
        fragment = "\n".join(f"  {line}" for line in text.splitlines())
        prelude = yaml.safe_dump({"input": {"size": 64}})
        layers = "".join(f"  - {yaml.safe_dump(layer, default_flow_style=True).strip()}\n" for layer in PRELUDE)
        # Layers that are shown one below the other need not fit each other; each stands after the prelude alone.
        items = re.split(r"^  (?=- )", fragment, flags=re.MULTILINE)[1:]
        whole = prelude + "layers:\n" + layers + fragment + "\n"
        alone = [prelude + "layers:\n" + layers + "  " + item + "\n" for item in items]
        texts = [whole] if "id:" in text else alone
    else:
        texts = [text]
    for number, spec in enumerate(texts):
        path = tmp_path / f"{number}.yaml"
        path.write_text(spec)
        assert verify(mgcompile.load(path).graph)


@pytest.mark.parametrize("text", RECIPES)
def test_every_recipe_shown_is_right(text: str) -> None:
    recipe = recipe_for(yaml.safe_load(text), mgcompile.load("mnist-spatial/r-pmg-20").graph)
    assert recipe.steps == 1200


def run(*words: str) -> str:
    """What a command prints, in this process: tests/test_cli.py is about processes."""
    result = CliRunner().invoke(main, list(words), prog_name="mgcompile")
    assert result.exit_code == 0, f"{words}: {result.output}{result.exception!r}"
    return result.output


def test_the_training_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    """On made-up digits, for two steps, and with few samples."""
    monkeypatch.chdir(tmp_path)
    made.mnist(tmp_path / "mnist")
    for command in TRAINING:
        words = shlex.split(command)
        words += {"train": ["--steps", "2", "--batch", "4", "--test-samples", "9"], "evaluate": ["--samples", "9"]}.get(
            words[1], []
        )
        run(*words[1:])
    for picture in ("answers.png", "saliency.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_the_python_of_the_page_on_training_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made.mnist(tmp_path / "mnist")
    (text,) = fenced(ROOT / "docs" / "training.md", "python")
    exec(text, {})
    assert set(yaml.safe_load(capsys.readouterr().out)) == {"iou", "error"}
    assert (tmp_path / "runs/small/model.safetensors").is_file()


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, and hardly any time for what measures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    tuning.forget()
    monkeypatch.setattr(tuning, "SECONDS", 0.0)
    monkeypatch.setattr(peak, "SECONDS", 0.0)
    (tmp_path / "demo").mkdir()
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_runs(command: str, quick: Path) -> None:
    words = shlex.split(command, comments=True)
    assert words[0] == "mgcompile"
    assert run(*words[1:])
    if "-o" in words:
        assert (quick / words[words.index("-o") + 1]).stat().st_size > 0


@pytest.mark.parametrize("text", fenced(ROOT / "README.md", "python"))
def test_the_python_of_the_readme_runs(text: str, quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(text, {})
    assert "torch.Size([" in capsys.readouterr().out


BENCHMARKS = [
    "startup.py --quick", "scale.py --layers 10 20 --runs 1", "inference.py --quick", "training.py --quick",
    "peers.py --quick", "growth.py --quick", "roofline.py --quick", "tasks.py --quick",
    "paper_mnist.py --quick --parts segmentation",
]  # fmt: skip
ONE_AFTER_THE_OTHER = """
import runpy, sys
for line in sys.argv[1:]:
    sys.argv = line.split()
    print("$", line, flush=True)
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_benchmarks_of_the_readme_run() -> None:
    """All in one process: to start takes each as long as to run."""
    readme, folder = (ROOT / "README.md").read_text(), ROOT / "benchmarks"
    assert all(f"python benchmarks/{script.split(maxsplit=1)[0]}" in readme for script in BENCHMARKS)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    command = [sys.executable, "-c", ONE_AFTER_THE_OTHER, *(f"{folder}/{script}" for script in BENCHMARKS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout.split("$ ")[1:]
    assert len(printed) == len(BENCHMARKS)
    assert all(len(lines.splitlines()) > 4 for lines in printed), printed


def test_the_readme_holds_the_spec_of_the_zoo() -> None:
    spec = fenced(ROOT / "README.md", "yaml")[0]
    shown = mgcompile.load(yaml.safe_load(spec))
    assert mgcompile.audit(shown).params == mgcompile.audit("cifar100/r-pmg-30").params
    assert mgcompile.audit(shown).macs == mgcompile.audit("cifar100/r-pmg-30").macs


def test_pages_link_to_what_is_there() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_way_that_contributing_shows_computes_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = (text for text in fenced(ROOT / "CONTRIBUTING.md", "python") if "class Pointwise" in text)
    names = dict(vars(ways))
    exec(text, names)
    way = names["Pointwise"]()
    monkeypatch.setattr(way, "nanoseconds", lambda call: 0.0)  # it goes first
    monkeypatch.setattr(ways, "WAYS", {**ways.WAYS, way.name: way})
    model = mgcompile.compile("beyond/densenet-121", seed=0, optimize="inference")
    image = torch.randn(2, 3, 64, 64)
    found = model(image)
    packed = [each.way for module in model.modules() for each in getattr(module, "packed", {}).values()]
    assert packed.count("pointwise") > 20
    plain = mgcompile.compile("beyond/densenet-121", seed=0).eval()
    torch.testing.assert_close(found, plain(image), rtol=1e-3, atol=1e-3 * float(found.abs().max()))


def test_the_task_that_contributing_shows_is_trained_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = (text for text in fenced(ROOT / "CONTRIBUTING.md", "python") if "class DigitClassesTask" in text)
    names = {**vars(tasks), **vars(base), "np": np, "torch": torch, "__name__": __name__}
    names |= {"read_mnist": read_mnist, "fingerprint_of_arrays": fingerprint_of_arrays}
    exec("from __future__ import annotations\n" + text, names)
    task = names["DigitClassesTask"]()
    monkeypatch.setitem(tasks.TASKS, task.name, task)
    spec = mgcompile.load(
        {"input": {"channels": 1, "size": 28}, "layers": [{"conv": {"channels": 8}}, "pool", {"classify": 10}]}
    )
    data = task.open(made.mnist(tmp_path / "mnist"), Settings())
    recipe = Recipe(task=task.name, **{**task.published, "steps": 3})
    trained = train(spec, recipe, data, tmp_path / "run", device="cpu")
    assert trained.test.samples == data.samples("test") > 0
    assert set(trained.test.metrics) == {"top1_error", "top5_error"}


def test_the_tests_that_hold_the_security_page_exist() -> None:
    """A name stands for the file before it where it begins with `::`."""
    text, file, found = (ROOT / "docs" / "security.md").read_text(encoding="utf-8"), "", 0
    for name, inside in re.findall(r"`(tests/[\w/.]*)?(?:::(\w+))?`", text):
        file = name or file
        if name or inside:
            found += 1
            assert (ROOT / file).exists(), file
            if inside:
                assert re.search(rf"^ *(?:def|class) {inside}\b", (ROOT / file).read_text(), re.MULTILINE), inside
    assert found > 30
