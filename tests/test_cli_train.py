"""The command `train`: what it prints where, its exit statuses, and a training that is killed and goes on."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file, save_file

from mgcompile.cli import main
from mgcompile.training import fetching
from mgcompile.training.recipe import Recipe, given_in
from mgcompile.training.runs import Run
from tests.training.made import figures, losses, rows
from tests.training.together import KILLED_AT, command, prepared, start

MNIST = ("--task", "mnist-spatial", "--size", "16", "--digit", "7")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM", "RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network and data."""
    return prepared(tmp_path_factory.mktemp("train"))


def run(*args: object) -> Result:
    result = CliRunner().invoke(main, [str(arg) for arg in args], prog_name="mgcompile")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def train(folder: Path, output: Path, *more: object) -> Result:
    """A short training on pictures."""
    told = ("--task", "cifar10", "--size", "8", "--resize", "10", "--batch", "4", "--device", "cpu", "--lr", "0.01")
    return run("train", folder / "tiny.yaml", *told, "--data", folder / "cifar", "-o", output, *more)


def refused(result: Result, status: int = 2) -> str:
    assert result.exit_code == status, result.output
    assert not result.stdout
    return " ".join(result.stderr.split())


# --- what it says


def test_help_shows_every_field_of_a_recipe() -> None:
    text = " ".join(run("train", "--help").stdout.split())
    for name, field in Recipe.model_fields.items():
        assert f"--{name.replace('_', '-')} " in text
        assert str(field.description) in text
    for said in (
        "Default: 0.3,0.6,0.8.",
        "Default: false.",
        "Default: 0.1.",
        "torchrun --nproc-per-node 2",
        "--resume",
    ):
        assert said in text
    assert "PydanticUndefined" not in text


def test_progress_goes_to_standard_error_and_the_result_to_standard_output(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = train(folder, out, "--steps", "6", "--evaluate-every", "3", "--evaluate-samples", "5")
    assert result.exit_code == 0, result.stderr
    shapes = [
        rf"{re.escape(str(out))}: cifar10, begins",
        r"step 1 of 6: loss \d\.\d{4}, lr 0\.01, [\d,]+ samples/s",
        r"step 3 of 6: test: loss \d\.\d{4}, top1_error [\d.]+ %, top5_error [\d.]+ % \(5 samples\)",
        r"step 6 of 6: loss \d\.\d{4}, lr 0\.0001, [\d,]+ samples/s",
        r"step 6 of 6: test: loss \d\.\d{4}, top1_error [\d.]+ %, top5_error [\d.]+ % \(12 samples\)",
    ]
    lines = result.stderr.splitlines()
    assert len(lines) == len(shapes)
    assert all(re.fullmatch(shape, line) for shape, line in zip(shapes, lines, strict=True)), result.stderr
    last = rows(out / "evaluation.csv")[-1]
    for said in ("baseline", "tiny", "cifar10", "top1_error", f"{float(last['loss']):.5g}"):
        assert said in result.stdout
    again = train(folder, out, "--steps", "6", "--evaluate-every", "3", "--evaluate-samples", "5", "--resume")
    assert again.stdout == result.stdout
    assert again.stderr.startswith(f"{out}: cifar10, goes on after step 6")


def test_all_formats_have_the_same_figures(folder: Path, tmp_path: Path) -> None:
    record = json.loads(train(folder, tmp_path / "json", "--steps", "2", "--format", "json").stdout)
    plain = {key: record[key] for key in ("network", "task", "size", "split", "samples", "crops")}
    assert plain == {"network": "tiny", "task": "cifar10", "size": 8, "split": "test", "samples": 12, "crops": 1}
    (row,) = csv.DictReader(io.StringIO(train(folder, tmp_path / "csv", "--steps", "2", "--format", "csv").stdout))
    assert {key: float(row[key]) for key in ("loss", "top1_error", "top5_error")} == {
        key: record[key] for key in ("loss", "top1_error", "top5_error")
    }
    markdown = train(folder, tmp_path / "markdown", "--steps", "2", "--format", "markdown").stdout
    assert "| figure | tiny | baseline |" in markdown
    assert f"{record['loss']:.5g}" in markdown


# --- recipes


def test_flags_win_over_a_file_and_a_file_over_the_paper(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("task: cifar10\nsteps: 9\nlr: 0.5\nmomentum: 0.5\nbatch: 4\ndrops: [0.5]\nschedule: step\n")
    sizes = ("--size", "8", "--resize", "10", "--device", "cpu")
    given = ("--steps", "2", "--lr", "0.02", "--drops", "0.5,0.9")
    result = run(
        "train",
        folder / "tiny.yaml",
        "--recipe",
        file,
        "--data",
        folder / "cifar",
        "-o",
        tmp_path / "run",
        *sizes,
        *given,
    )
    assert result.exit_code == 0, result.stderr
    written = Recipe.model_validate(given_in(tmp_path / "run/recipe.yaml").data)
    assert (written.steps, written.lr, written.drops) == (2, 0.02, (0.5, 0.9))
    assert (written.momentum, written.batch, written.schedule) == (0.5, 4, "step")
    assert (written.weight_decay, written.evaluate_every) == (5e-4, 300)
    assert len(losses(tmp_path / "run")) == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--steps", "0"), "Invalid value for '--steps': expected an integer from 1 to 2147483647, found 0"),
        (("--lr", "fast"), "Invalid value for '--lr': expected a number from 1e-12 to 1e+06, found 'fast'"),
        (("--drops", "0.5,2"), "Invalid value for '--drops': expected a number from 0 to 1, found 2"),
        (("--nesterov", "perhaps"), "Invalid value for '--nesterov': expected true or false, found 'perhaps'"),
        (("--optimizer", "adam"), "Invalid value for '--optimizer': expected one of sgd, adamw, found 'adam'"),
        (("--task", "cifar"), "Invalid value for '--task': expected one of mnist-seg, "),
        (("--digit", "7"), "digit: cifar10 has no such option; of data it has resize, size"),
        (("--batch", "5", "--accumulate", "2"), "--accumulate: a batch of 5 cannot be computed in 2 equal parts; "),
        (
            ("--lr", "1e-5"),
            "--lr: the rate of schedule exponential would rise from 1e-05 (--lr) to 0.0001 (--final-lr)",
        ),
        (("--step", "5"), "No such option"),
        (("--recipe", "none.yaml"), "none.yaml: no such file"),
        (("--threads", "0"), "Invalid value for '--threads': 0 is not in the range 1<=x<=1024"),
    ],
)
def test_wrong_flags_are_told(folder: Path, tmp_path: Path, flags: tuple[str, ...], said: str) -> None:
    assert said in refused(train(folder, tmp_path / "run", *flags))
    assert not (tmp_path / "run").exists()


def test_all_mistakes_of_a_file_are_told_with_their_places(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("task: cifar10\nlr: -1\nstep: 9\ndigit: 7\n")
    result = run("train", folder / "tiny.yaml", "--recipe", file, "--data", folder / "cifar", "-o", tmp_path / "run")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"{file}:2:5: lr: expected a number from 1e-12 to 1e+06, found -1",
        f"{file}:3:1: step: unknown key 'step'; did you mean steps?",
        f"{file}:4:1: digit: cifar10 has no such option; of data it has resize, size",
    ]


def test_without_a_task_it_says_so(folder: Path, tmp_path: Path) -> None:
    said = refused(run("train", folder / "tiny.yaml", "--data", folder / "cifar", "-o", tmp_path / "run"))
    assert "task: task is missing; it must be given" in said


# --- data


def test_data_must_be_named(folder: Path, tmp_path: Path) -> None:
    said = refused(run("train", folder / "tiny.yaml", "--task", "cifar10", "-o", tmp_path / "run"))
    assert "Missing option '--data'" in said


def test_data_that_are_missing_or_damaged_are_told(folder: Path, tmp_path: Path) -> None:
    def asked(data: Path) -> str:
        return refused(run("train", "mnist-spatial/pmg-11", *MNIST, "--data", data, "-o", tmp_path / "run"))

    assert str(tmp_path / "none") in asked(tmp_path / "none")
    (tmp_path / "cut").mkdir()
    for file in (folder / "mnist").iterdir():
        data = file.read_bytes()
        (tmp_path / "cut" / file.name).write_bytes(data[:-10] if file.name.startswith("train-images") else data)
    said = asked(tmp_path / "cut")
    assert f"{tmp_path / 'cut' / 'train-images-idx3-ubyte'}: damaged: " in said
    (tmp_path / "cut/train-images-idx3-ubyte").unlink()
    packed = gzip.compress((folder / "mnist/train-images-idx3-ubyte").read_bytes())
    (tmp_path / "cut/train-images-idx3-ubyte.gz").write_bytes(packed[:-20])
    assert "it cannot be unpacked" in asked(tmp_path / "cut")
    assert not (tmp_path / "run").exists()


def test_digits_that_do_not_fit_are_told(folder: Path, tmp_path: Path) -> None:
    sizes = ("--task", "mnist-spatial", "--size", "8", "--digit", "7", "--data", folder / "mnist")
    said = refused(run("train", "mnist-spatial/pmg-11", *sizes, "-o", tmp_path / "run"))
    assert said.startswith("mnist-spatial: ")


def test_what_cannot_be_fetched_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = ("--task", "image-folder", "--data", tmp_path / "data", "--fetch", "-o", tmp_path / "run")
    said = refused(run("train", folder / "tiny.yaml", *told))
    assert "the data of image-folder cannot be fetched; --data names a folder that has them" in said

    nobody = fetching.Remote("pictures.tar.gz", "https://127.0.0.1:9/pictures.tar.gz", "0" * 32)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetching, "REMOTES", {"cifar10": (nobody,)})
    told = ("--task", "cifar10", "--data", tmp_path / "data", "--fetch", "-o", tmp_path / "run")
    said = refused(run("train", folder / "tiny.yaml", *told))
    assert said.startswith("https://127.0.0.1:9/pictures.tar.gz: cannot be fetched: ")
    assert "bring pictures.tar.gz into" in said
    assert not (tmp_path / "run").exists()


# --- networks and folders that do not fit


def test_a_network_that_does_not_fit_is_told_with_its_place(folder: Path, tmp_path: Path) -> None:
    told = ("--task", "cifar100", "--data", folder / "cifar", "-o", tmp_path / "run", "--size", "8", "--resize", "10")
    assert "cifar100" in refused(run("train", folder / "tiny.yaml", *told))  # the data of another task
    network = tmp_path / "seven.yaml"
    network.write_text((folder / "tiny.yaml").read_text().replace("classify: 10", "classify: 7"), encoding="utf-8")
    told = ("--task", "cifar10", "--data", folder / "cifar", "-o", tmp_path / "run", "--size", "8", "--resize", "10")
    said = refused(run("train", network, *told))
    assert re.match(
        rf"{re.escape(str(network))}:\d+:\d+: layers: cifar10 takes 10 classes .*: \w+ 7 classes; set", said
    )
    assert not (tmp_path / "run").exists()


def test_folders_that_cannot_be_used_are_told(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train(folder, out, "--steps", "2").exit_code == 0
    assert refused(train(folder, out, "--steps", "2")) == f"{out}: holds a training already; --resume goes on with it"
    said = refused(train(folder, out, "--steps", "3", "--resume"))
    assert said.startswith(f"{out}: its recipe has steps 2 and not 3; go on with the same")
    (Run(out).checkpoint(2) / "model.safetensors").write_bytes(b"")
    said = refused(train(folder, out, "--steps", "2", "--resume"), 1)
    assert said.startswith(f"{Run(out).checkpoint(2)}: is no checkpoint of this training: ")
    (tmp_path / "file").touch()
    said = refused(train(folder, tmp_path / "file/run", "--steps", "2"), 1)
    assert said == f"{tmp_path / 'file/run'}: cannot be written: Not a directory"


def test_classes_with_other_names_are_refused_when_it_goes_on(folder: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(folder, tmp_path / "mine"))
    out = tmp_path / "run"
    assert train(mine, out, "--steps", "2").exit_code == 0
    names = mine / "cifar/batches.meta.txt"
    names.write_text(names.read_text().replace("kind3", "dog"))
    said = refused(train(mine, out, "--steps", "2", "--resume"))
    assert said == (
        f"{out}: began with other data: class 3 was 'kind3' and is 'dog'; bring them back, or begin in another folder"
    )
    shutil.copy(folder / "cifar/batches.meta.txt", names)
    batch = mine / "cifar/data_batch_2.bin"
    batch.write_bytes(batch.read_bytes()[:-1] + b"?")
    said = refused(train(mine, out, "--steps", "2", "--resume"))
    assert "began with other data: " in said


def test_a_training_begins_from_other_weights_and_says_what_became_of_them(folder: Path, tmp_path: Path) -> None:
    network = tmp_path / "seven.yaml"
    network.write_text((folder / "tiny.yaml").read_text().replace("classify: 10", "classify: 7"), encoding="utf-8")
    weights = tmp_path / "seven.safetensors"
    assert run("compile", network, "-o", weights).exit_code == 0
    tensors = load_file(weights)
    extra = {"extra": next(iter(tensors.values())).clone()}
    save_file({f"module.{name}": tensor for name, tensor in tensors.items()} | extra, weights)
    out = tmp_path / "run"
    said = refused(train(folder, out, "--steps", "2", "--from", weights))
    assert said.endswith("--map module.=")
    result = train(folder, out, "--steps", "2", "--from", weights, "--map", "module.=")
    assert result.exit_code == 0, result.stderr
    record = json.loads((out / "weights.json").read_text())
    lines = result.stderr.splitlines()
    kept = f"{len(record['kept'])} tensors kept, of these {len(record['kept'])} renamed"
    assert lines[0].startswith(f"begins from {weights}: {kept}, 2 reshaped, as drawn, 0 of another type")
    assert sum("reshaped, as drawn: " in line for line in lines) == 2
    assert "  dropped: extra" in lines
    assert f"{out}: cifar10, begins" in lines
    weights.unlink()
    assert train(folder, out, "--steps", "2", "--resume").exit_code == 0
    assert "--map is for the names" in refused(train(folder, out, "--steps", "2", "--map", "a=b"))
    missing = refused(train(folder, tmp_path / "none", "--steps", "2", "--from", weights))
    assert missing == f"{weights}: cannot be read: No such file or directory"
    folder_said = refused(train(folder, tmp_path / "none", "--steps", "2", "--from", out))
    assert folder_said == f"{out}: is a folder; expected a .safetensors file, such as model.safetensors in it"


def test_a_signal_ends_it_with_its_status_and_a_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stepped(self: object, step: int, lr: float, loss: float) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("mgcompile.cli.progress._Training.stepped", stepped)
        result = train(folder, tmp_path / "run", "--steps", "9")
    assert result.exit_code == 143
    assert not result.stdout
    last = result.stderr.splitlines()[-1]
    said = "stopped by SIGTERM after step 2, and that is saved; the same command with --resume goes on"
    assert last == f"{tmp_path / 'run'}: {said}"
    assert train(folder, tmp_path / "run", "--steps", "9", "--resume").exit_code == 0


def test_a_norm_of_a_single_value_is_told_before_there_is_a_folder(folder: Path, tmp_path: Path) -> None:
    network = tmp_path / "gated.yaml"
    gate = "  - gate: [global_pool, conv: {kernel: 1, reach: 0, channels: 8}]\n"
    text = (folder / "tiny.yaml").read_text()
    network.write_text(text.replace("  - classify", gate + "  - classify"), encoding="utf-8")
    sizes = ("--task", "cifar10", "--size", "8", "--resize", "10", "--data", folder / "cifar", "-o", tmp_path / "run")
    said = refused(run("train", network, *sizes, "--steps", "2", "--batch", "3", "--accumulate", "3"))
    assert said.startswith(f"{network}:7: gate1.body.conv")
    assert "take 6 at least (--batch), or fewer parts (--accumulate), or choose another norm here" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("surrounding", "said"),
    [
        ({"WORLD_SIZE": "many"}, "the environment has WORLD_SIZE='many'; expected a number of processes"),
        ({"WORLD_SIZE": "0"}, "the environment has WORLD_SIZE='0'; expected a number of processes"),
        ({"RANK": "first"}, "the environment has RANK='first'; expected a number of this process"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK=2 and WORLD_SIZE=2; expected a rank below the size"),
        ({"WORLD_SIZE": "2"}, "cannot be set up as the environment says: "),
        ({"LOCAL_RANK": "0"}, "it has LOCAL_RANK: start several with torchrun, or unset these"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "it has OMPI_COMM_WORLD_SIZE: start several with torchrun"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "cannot be set up as the environment says: "),
    ],
)
def test_processes_that_were_started_oddly_are_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surrounding: dict[str, str], said: str
) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)  # as in a process of its own
    for name, value in surrounding.items():
        monkeypatch.setenv(name, value)
    assert said in refused(train(folder, tmp_path / "run", "--steps", "2"))


def test_what_a_launcher_tells_a_single_process_changes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(folder, tmp_path / "plain", "--steps", "1")
    told = {"RANK": "1", "ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}
    AcceleratorState._reset_state(reset_partial_state=True)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    result = train(folder, tmp_path / "told", "--steps", "1")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == plain.stdout != ""


def test_a_loss_that_is_not_finite_ends_with_status_1(folder: Path, tmp_path: Path) -> None:
    network = tmp_path / "bare.yaml"
    bare = "{channels: 4, norm: none, act: none}"
    network.write_text(f"input: {{channels: 3, size: 8}}\nlayers:\n  - conv: {bare}\n  - classify: 10\n")
    told = ("--task", "cifar10", "--size", "8", "--resize", "10", "--batch", "4", "--steps", "60", "--lr", "1e6")
    often = ("--checkpoint-every", "1", "--schedule", "constant", "--device", "cpu")
    result = run("train", network, *told, *often, "--data", folder / "cifar", "-o", tmp_path / "run")
    assert result.exit_code == 1
    assert not result.stdout
    said = re.escape(str(tmp_path / "run/checkpoints"))
    last = result.stderr.splitlines()[-1]
    assert re.fullmatch(
        rf"step \d+: the loss is \w+; the last good checkpoint is {said}/\d{{10}}; try a lower lr", last
    )


# --- processes of their own


@pytest.fixture(scope="module")
def resumed(folder: Path) -> subprocess.CompletedProcess[str]:
    """A training that was killed in the middle of a row, at a step that has no checkpoint, and that went on."""
    killed = start("tests.training.together", str(folder), "killed")
    assert killed.returncode == -9, killed.stderr
    assert (folder / "killed/training.csv").read_text().splitlines()[-1] == f"{KILLED_AT},0.0"
    assert Run(folder / "killed").steps() == [20, 40]
    assert not (folder / "killed/model.safetensors").exists()
    return start("mgcompile.cli", *command(folder, "killed", "--resume", "--workers", "1", "--format", "json"))


@pytest.mark.slow
def test_what_was_killed_goes_on_to_the_same_numbers(resumed: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert resumed.returncode == 0, resumed.stderr
    result = run(*command(folder, "whole", "--format", "json"))
    assert result.exit_code == 0, result.stderr
    assert figures(folder / "killed") == figures(folder / "whole")
    assert len(losses(folder / "whole")) == 100
    assert [row["step"] for row in rows(folder / "whole/evaluation.csv")] == ["25", "50", "75", "100"]
    assert json.loads(resumed.stdout) == json.loads(result.stdout)
    for file in (folder / "killed/pictures").iterdir():
        with Image.open(file) as image:
            assert image.format == "PNG"


@pytest.mark.slow
def test_a_process_says_only_what_it_should(resumed: subprocess.CompletedProcess[str], folder: Path) -> None:
    lines = resumed.stderr.splitlines()
    assert lines[0] == f"{folder / 'killed'}: cifar10, goes on after step 40"
    assert all(line.startswith("step ") for line in lines[1:]), resumed.stderr
    assert lines[-1].startswith("step 100 of 100: test: ")
