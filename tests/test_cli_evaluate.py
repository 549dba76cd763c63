"""The commands `evaluate` and `explain`: what they read, what they say, their exit statuses."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file

import mgcompile
from mgcompile.cli import main
from mgcompile.training import subject
from mgcompile.training.recipe import recipe_for
from mgcompile.training.tasks import TASKS, ClassData, Examples, Identity, Settings, Task

TASK = ("--task", "mnist-translation", "--size", "16", "--digit", "7")
CPU = ("--device", "cpu")


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


class Stripes(ClassData):
    """Pictures of stripes in three directions, as if normalised."""

    channels, size, outputs, crops = 3, 10, 3, (1, 10)
    classes = ("rows", "columns", "diagonals")
    identity = Identity(classes, "of stripes")

    def samples(self, split: Literal["train", "validation", "test"]) -> int:
        return {"train": 8, "validation": 0, "test": 4}[split]

    def training(self, samples: Any, numbers: Any) -> Examples:
        raise NotImplementedError

    def held_out(self, split: Any, samples: Any, crops: int = 1) -> Examples:
        rows, columns = np.mgrid[:10, :10]
        pictures = [((rows, columns, rows + columns)[sample % 3] % 4 - 1.5) for sample in samples]
        inputs = torch.tensor(np.array(pictures), dtype=torch.float32)[:, None].repeat(1, 3, 1, 1)
        shifts = [inputs.roll(shift, 3) for shift in range(crops)]
        return Examples(inputs if crops == 1 else torch.stack(shifts, 1), torch.tensor([int(s) % 3 for s in samples]))


class StripesTask(Task):
    name, about, options, published = "stripes", "tell directions", frozenset({"size"}), {"steps": 1}

    def open(self, folder: Path, settings: Settings) -> Stripes:
        return Stripes()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `mnist/`, the models `maps.safetensors` and `classes.safetensors`, and a training's folder."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "mnist").mkdir()
    noise = np.random.default_rng(0)
    for name, count in (("train", 20), ("t10k", 12)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 6:22, 6:22] = noise.integers(0, 2, (count, 4, 4)).repeat(4, 1).repeat(4, 2) * 255
        (folder / "mnist" / f"{name}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / "mnist" / f"{name}-labels-idx1-ubyte").write_bytes(idx((np.arange(count) % 10).astype(np.uint8)))
    spec = mgcompile.load("mnist-spatial/sg-11", params={"width": 2})
    for number in (1, 2):
        mgcompile.save(mgcompile.compile(spec, seed=number), folder / f"maps{number}.safetensors")
    classes = {
        "name": "c",
        "input": {"channels": 3, "size": 10},
        "layers": [{"conv": {"channels": 4}}, {"classify": 3}],
    }
    mgcompile.save(mgcompile.compile(classes, seed=1), folder / "classes.safetensors")
    run = folder / "run"
    for step, number in ((5, 1), (10, 2)):
        (run / "checkpoints" / f"{step:010}").mkdir(parents=True)
        shutil.copy(folder / f"maps{number}.safetensors", run / "checkpoints" / f"{step:010}" / "model.safetensors")
    recipe = recipe_for({"task": "mnist-translation", "size": 16, "digit": 7, "steps": 10}, spec.graph)
    (run / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: another, so that nothing is written beside what is read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TASKS, "stripes", StripesTask())
    return tmp_path


def call(made: Path, command: str, model: str, *args: str, data: str = "mnist") -> Result:
    """A command on a model."""
    return CliRunner().invoke(main, [command, str(made / model), "--data", str(made / data), *CPU, *args])


def figures(made: Path, model: str, *args: str) -> dict[str, Any]:
    result = call(made, "evaluate", model, "--format", "json", *args)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


# --- evaluate


def test_the_figures_are_those_of_a_loop(made: Path) -> None:
    found = figures(made, "maps1.safetensors", *TASK, "--samples", "7", "--batch", "3")
    data = TASKS["mnist-translation"].open(made / "mnist", Settings(size=16, digit=7))
    model = mgcompile.load_model(made / "maps1.safetensors").eval()
    losses, overlaps, hits = [], [], []
    for sample in (0, 1428, 2857, 4285, 5714, 7142, 8571):  # of 10,000, at equal distances
        one = data.held_out("test", np.array([sample]))
        with torch.no_grad():
            answer = model(one.inputs).double().numpy().ravel()
        target = one.targets.numpy().ravel()
        losses.append(-np.mean([np.log(p if t else 1 - p) for p, t in zip(answer, target, strict=True)]))
        if target.any():
            both, either = ((answer >= 0.5) & (target > 0)).sum(), ((answer >= 0.5) | (target > 0)).sum()
            overlaps.append(both / either)
            hits.append(both / target.sum())
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["iou"] == pytest.approx(100 * np.mean(overlaps), rel=1e-6)
    assert found["error"] == pytest.approx(100 - 100 * np.mean(hits), rel=1e-6)
    plain = {name: found[name] for name in ("network", "task", "size", "split", "samples")}
    assert plain == {"network": "SG-11", "task": "mnist-translation", "size": 16, "split": "test", "samples": 7}
    assert set(found["conventions"]) == {"loss", "iou", "error", "baseline"}


def test_all_formats_have_the_same_figures(made: Path) -> None:
    asked = ("maps1.safetensors", *TASK, "--samples", "5")
    found = figures(made, *asked)
    (row,) = csv.DictReader(io.StringIO(call(made, "evaluate", *asked, "--format", "csv").stdout))
    assert {name: float(row[name]) for name in ("loss", "iou", "error")} == {
        name: found[name] for name in ("loss", "iou", "error")
    }
    constant = found["baseline"]
    assert {name: float(row[f"{name}_baseline"]) for name in constant} == constant
    assert set(constant) == {"loss", "iou", "error"}
    for format in ("table", "markdown"):
        text = call(made, "evaluate", *asked, "--format", format).stdout
        for said in ("SG-11", "mnist-translation", f"{found['loss']:.5g}", f"{found['iou']:.2f}",
                     "baseline", f"{constant['loss']:.5g}", f"{constant['error']:.2f}"):  # fmt: skip
            assert said in text
    call(made, "evaluate", *asked, "-o", "figures.json")
    assert json.loads(Path("figures.json").read_text(encoding="utf-8")) == found


def test_a_training_says_task_and_sizes_and_gives_its_last_weights(made: Path, here: Path) -> None:
    asked = ("--samples", "4")
    last = figures(made, "maps2.safetensors", *TASK, *asked)
    assert figures(made, "run", *asked) == last
    assert figures(made, "run", *asked, "--size", "20") == figures(
        made, "maps2.safetensors", *TASK, *asked, "--size", "20"
    )
    # Another task has the published sizes, where flags do not say.
    assert figures(made, "run", *asked, "--task", "mnist-scaling")["size"] == 64
    shutil.copytree(made / "run", here / "run")
    shutil.copy(made / "maps1.safetensors", here / "run" / "model.safetensors")
    finished = figures(here, "run", *asked, "--data", str(made / "mnist"))
    assert finished == figures(made, "maps1.safetensors", *TASK, *asked) != last
    # What it was trained by need not be a recipe that would be taken today.
    recipe = here / "run" / "recipe.yaml"
    rising = recipe.read_text().replace("\nlr: 0.1\n", "\nlr: 1.0e-05\n")
    assert rising != recipe.read_text()
    recipe.write_text(rising + "former: 3\n")
    assert figures(here, "run", *asked, "--data", str(made / "mnist")) == finished


def test_the_picture_does_not_disturb_the_figures(made: Path) -> None:
    asked = ("maps1.safetensors", *TASK, "--samples", "3")
    assert figures(made, *asked, "--pictures", "answers.png") == figures(made, *asked)
    with Image.open("answers.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 3 * 96


def test_of_ten_crops_the_probabilities_are_averaged(made: Path) -> None:
    asked = ("classes.safetensors", "--task", "stripes")
    found = figures(made, *asked, "--crops", "10", "--pictures", "answers.png")
    model = mgcompile.load_model(made / "classes.safetensors").eval()
    examples = Stripes().held_out("test", np.arange(4), 10)
    with torch.no_grad():
        chances = torch.stack([model(crops).softmax(1).mean(0) for crops in examples.inputs])
    right = chances[torch.arange(4), examples.targets]
    assert found["loss"] == pytest.approx(float(-right.log().mean()), rel=1e-5)
    assert found["top1_error"] == 100 * float((chances.argmax(1) != examples.targets).double().mean())
    assert found["crops"] == 10
    assert found["loss"] != figures(made, *asked)["loss"]


# --- classes by their names


def trained_on(monkeypatch: pytest.MonkeyPatch, classes: object) -> None:
    """As if models had been trained on these."""

    def loaded(*args: Any, **more: Any) -> Any:
        model = mgcompile.load_model(*args, **more)
        model.meta["mgcompile"]["data"] = {"classes": classes, "fingerprint": "another"}
        return model

    monkeypatch.setattr(subject, "load_model", loaded)


STRIPES = ("classes.safetensors", "--task", "stripes")


def test_classes_are_those_of_the_training_by_name(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = figures(made, *STRIPES)
    trained_on(monkeypatch, ["rows", "columns", "diagonals"])
    assert figures(made, *STRIPES) == plain
    assert call(made, "evaluate", *STRIPES).stderr == ""
    trained_on(monkeypatch, ["columns", "diagonals", "rows"])
    found = figures(made, *STRIPES)
    assert found["baseline"] == plain["baseline"]
    model = mgcompile.load_model(made / "classes.safetensors").eval()
    examples = Stripes().held_out("test", np.arange(4))
    with torch.no_grad():
        right = model(examples.inputs).log_softmax(1)[torch.arange(4), torch.tensor([2, 0, 1, 2])]
    assert found["loss"] == pytest.approx(float(-right.mean()), rel=1e-5)
    assert call(made, "explain", *STRIPES, "--saliency", "--stride", "4", "--sample", "1").exit_code == 0


@pytest.mark.parametrize("command", ["evaluate", "explain"])
@pytest.mark.parametrize(
    ("classes", "more", "said"),
    [
        (["rows", "columns", "slopes"], (), "it lacks slopes; only it has diagonals; name them as they were"),
        (["rows", "columns", "slopes"], ("--some-classes",), "it lacks slopes; only it has diagonals; name them"),
        (["rows", "columns", "diagonals", "dots"], (), "it lacks dots; say --some-classes to go on without these"),
        (["rows", "columns"], ("--some-classes",), "only it has diagonals; name them"),
        (["rows", "rows", "columns"], (), "not told apart by their names"),
        ("rows", (), "damaged: what it says of its classes is no list of names"),
        ([1, 2, 3], (), "damaged: what it says of its classes is no list of names"),
    ],
)
def test_other_classes_are_refused(
    made: Path, monkeypatch: pytest.MonkeyPatch, *, command: str, classes: object, more: tuple[str, ...], said: str
) -> None:
    trained_on(monkeypatch, classes)
    result = call(made, command, *STRIPES, *more, *(["--saliency"] if command == "explain" else []))
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.stderr.split())


def test_a_model_that_does_not_say_its_classes_is_evaluated_with_a_line(made: Path) -> None:
    result = call(made, "evaluate", *STRIPES)
    assert result.exit_code == 0
    assert result.stderr == (
        f"{made}/classes.safetensors: does not say which classes it was trained on; those of the data are taken in "
        "their order\n"
    )


# --- what is wrong

WRONG = {
    "no model": ("gone.safetensors", TASK, "gone.safetensors: missing"),
    "no weights in a folder": ("mnist", TASK, "no model.safetensors and no checkpoint"),
    "not a model": ("mnist/t10k-images-idx3-ubyte", TASK, "cannot read"),
    "no spec": ("bare.safetensors", TASK, "holds weights and no spec"),
    "no task": ("maps1.safetensors", (), "no task is said"),
    "unknown task": ("maps1.safetensors", ("--task", "mnist-dance"), "mnist-translation"),
    "no such option": ("maps1.safetensors", (*TASK, "--resize", "40"), "mnist-translation has no resize to set"),
    "a digit that does not divide": ("maps1.safetensors", (*TASK, "--digit", "9"), "28"),
    "channels": ("classes.safetensors", TASK, "gives images of 1 channel, the network takes 3"),
    "maps": ("maps1.safetensors", ("--task", "mnist-seg"), "set the number of maps to 10"),
    "no validation": ("maps1.safetensors", (*TASK, "--split", "validation"), "has no validation set; --split test"),
    "no data": ("maps1.safetensors", (*TASK, "--data", "nowhere"), "nowhere"),
}


@pytest.mark.parametrize("command", ["evaluate", "explain"])
@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_with_status_2(made: Path, command: str, case: str) -> None:
    save_file({"weight": torch.zeros(2)}, made / "bare.safetensors")
    model, args, said = WRONG[case]
    result = call(made, command, model, *args, *(["--saliency"] if command == "explain" else []))
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.stderr.split())
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--crops", "10"), "no 10 crops; expected 1"),
        (("--pictures", "a.jpg"), "ends in .png"),
        (("--pictures", "gone/a.png"), "there is no folder gone"),
        (("--samples", "0"), "0"),
    ],
)
def test_what_evaluate_refuses(made: Path, args: tuple[str, ...], said: str) -> None:
    result = call(made, "evaluate", "maps1.safetensors", *TASK, *args)
    assert result.exit_code == 2
    assert said in result.stderr


# --- explain


def test_there_is_one_explanation(made: Path) -> None:
    result = call(made, "explain", "maps1.safetensors", *TASK)
    assert result.exit_code == 2
    assert "--saliency" in result.stderr
    assert "the only explanation" in result.stderr


def test_a_row_a_sample(made: Path) -> None:
    heights = []
    for samples in (("--sample", "3"), ("--sample", "3", "--sample", "11", "--sample", "3")):
        asked = ("--saliency", *TASK, *samples, "--points", "2", "--stride", "3", "-o", "a.png")
        result = call(made, "explain", "maps1.safetensors", *asked)
        assert result.exit_code == 0, result.output
        assert "wrote a.png" in result.stdout
        assert "test sample 3" in result.stderr
        with Image.open("a.png") as picture:
            assert picture.format == "PNG"
            heights.append(picture.height)
    assert 1.4 * heights[0] < heights[1] < 2 * heights[0]  # what was asked for twice is there once


def test_classes_are_explained_too(made: Path) -> None:
    asked = ("classes.safetensors", "--saliency", "--task", "stripes", "--sample", "0", "--stride", "2")
    assert call(made, "explain", *asked).exit_code == 0
    with Image.open("saliency.png") as picture:
        assert picture.format == "PNG"
    refused = call(made, "explain", *asked, "--points", "2")
    assert refused.exit_code == 2
    assert "points are of maps" in refused.stderr


def test_a_sample_that_is_not_there(made: Path) -> None:
    result = call(made, "explain", "classes.safetensors", "--saliency", "--task", "stripes", "--sample", "4")
    assert result.exit_code == 2
    assert "no sample 4; expected 0 to 3" in " ".join(result.stderr.split())
