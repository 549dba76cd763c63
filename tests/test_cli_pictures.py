"""Folders of pictures from the command line: what is said of them, what is looked at before the first step, and what
`evaluate` makes of other classes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from mgcompile.cli import main

SPEC = "name: tiny\ninput: {channels: 3, size: 8}\nlayers:\n  - conv: {channels: 4}\n  - classify: 2\n"
SMALL = ("--task", "image-folder", "--size", "8", "--device", "cpu")
SHORT = ("--steps", "2", "--batch", "4", "--evaluate-every", "2", "--pictures", "0")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with pictures of two classes in `data/` and a spec."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(SPEC, encoding="utf-8")
    noise = np.random.default_rng(0)
    for split, kind, number in np.ndindex(2, 2, 3):
        path = Path("data", ("train", "val")[split], ("cat", "dog")[kind], "deep", f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (9, 12, 3), np.uint8)).save(path)
    Path("data", "train", "cat", "notes.txt").touch()
    return tmp_path


def train(*more: str) -> Result:
    return CliRunner().invoke(main, ["train", "tiny.yaml", *SMALL, *SHORT, "--data", "data", "-o", "run", *more])


def test_what_was_found_and_looked_at_is_said_once() -> None:
    done = train("--check-data", "--format", "json")
    assert done.exit_code == 0, done.output
    lines = done.stderr.splitlines()
    assert lines.count("data/val: 6 pictures of 2 classes") == 1
    assert [line for line in lines if line.startswith("data/train")] == [
        "data/train: 6 pictures of 2 classes; passed over: 1 file that is no picture by its suffix (cat/notes.txt)"
    ]
    assert "all 12 pictures can be decoded" in lines
    assert '"baseline": {\n' in done.stdout
    found = CliRunner().invoke(main, ["evaluate", "run", "--data", "data", "--device", "cpu"])
    assert found.exit_code == 0
    assert "data/val: 6 pictures of 2 classes\n" in found.stderr
    assert "baseline" in found.stdout


@pytest.mark.parametrize(("content", "more"), [(b"", ()), (b"%!PS-Adobe-3.0 EPSF-3.0", ()), (None, ("--check-data",))])
def test_damaged_pictures_are_known_before_anything_is_written(content: bytes | None, more: tuple[str, ...]) -> None:
    path = Path("data", "train", "dog", "deep", "1.png")
    path.write_bytes(path.read_bytes()[:120] if content is None else content)
    done = train(*more)
    assert done.exit_code == 2
    assert f"{path}: {'damaged' if content is None else 'is none of the pictures'}" in done.stderr
    assert not Path("run").exists()


def test_only_the_first_of_several_processes_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    from mgcompile.cli.evaluate import checked
    from mgcompile.training.tasks import TASKS, Settings

    data = TASKS["image-folder"].open(Path("data"), Settings(size=8))
    monkeypatch.setattr(type(data), "check", lambda self, **how: pytest.fail("looked"))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    checked(data, decode=True)
