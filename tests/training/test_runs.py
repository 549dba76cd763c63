"""The folder of a training: what is in it is whole or not there, and nothing that was there is lost."""

from __future__ import annotations

import io
import os
import resource
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

import mgcompile
from mgcompile.errors import InputError, MgcompileError
from mgcompile.training import runs
from mgcompile.training.identity import Identity
from mgcompile.training.loop import train
from mgcompile.training.records import Records, Table
from mgcompile.training.runs import Run
from mgcompile.training.tasks.digits import Scenes
from tests.training.made import SMALL, figures, recipe, rows, scenes

pytestmark = pytest.mark.usefixtures("one_thread")

SPEC = mgcompile.load(SMALL)
OTHER = mgcompile.load(SMALL | {"layers": [{"conv": {"channels": 6}}, *SMALL["layers"][1:]]})
USUAL = {"steps": 6, "evaluate_every": 3, "checkpoint_every": 2, "keep": 2}


def go(run: Path, digits: Path, *, spec: mgcompile.Spec = SPEC, resume: bool = False, **given: Any) -> None:
    train(spec, recipe(spec, **(USUAL | given)), scenes(digits), run, resume=resume, device="cpu")


@pytest.fixture(scope="module")
def finished(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("finished") / "run"
    go(run, digits)
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished training."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(call: Callable[[], object], kind: type[MgcompileError] = MgcompileError) -> str:
    with pytest.raises(MgcompileError) as caught:
        call()
    assert type(caught.value) is kind
    return str(caught.value)


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes, as if the disk were full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# --- what is there


def test_a_run_has_what_the_readme_promises(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "recipe.yaml",
        "spec.yaml",
        "training.csv",
        "evaluation.csv",
        "tensorboard",
        "pictures",
        "checkpoints",
        "model.safetensors",
        "data.json",
    }
    assert [path.name for path in sorted((finished / "checkpoints").iterdir())] == ["0000000004", "0000000006"]
    assert mgcompile.load(finished / "spec.yaml").graph == SPEC.graph
    assert mgcompile.load_model(finished / "model.safetensors").meta["mgcompile"]["name"] == "small"


@pytest.mark.parametrize(("keep", "left"), [(1, [6]), (2, [4, 6]), (9, [2, 4, 6])])
def test_the_last_checkpoints_are_kept(digits: Path, tmp_path: Path, keep: int, left: list[int]) -> None:
    go(tmp_path / "run", digits, keep=keep, pictures=0)
    assert Run(tmp_path / "run").steps() == left


def test_keep_and_checkpoints_may_differ_when_a_training_goes_on(run: Path, digits: Path) -> None:
    shutil.rmtree(run / "checkpoints/0000000006")
    before = figures(run)
    go(run, digits, resume=True, keep=5, checkpoint_every=1)
    assert Run(run).steps() == [4, 5, 6]
    after = figures(run)
    assert {name: after[name] for name in before} == before


# --- pictures and TensorBoard


def events(folder: Path) -> list[Event]:
    """Those of all files, in the order of their names. Each record is its length and itself, with a checksum each."""
    found = []
    for path in sorted(folder.iterdir()):
        assert "tfevents" in path.name
        file = io.BytesIO(path.read_bytes())
        while head := file.read(8):
            assert struct.unpack("<I", file.read(4)) == (masked_crc32c(head),)
            data = file.read(*struct.unpack("<Q", head))
            assert struct.unpack("<I", file.read(4)) == (masked_crc32c(data),)
            found.append(Event.FromString(data))
    return found


def shown(folder: Path) -> dict[tuple[str, int], float | bytes]:
    """What TensorBoard has at last: a start drops what there was of its step and later."""
    found: dict[tuple[str, int], float | bytes] = {}
    for event in events(folder):
        if event.session_log.status == SessionLog.START:
            found = {key: value for key, value in found.items() if key[1] < event.step}
        for value in event.summary.value:
            image = value.image.encoded_image_string
            found[value.tag, event.step] = image or value.simple_value
    return found


def written(run: Path) -> dict[tuple[str, int], float | bytes]:
    """The same from the other files."""
    found: dict[tuple[str, int], float | bytes] = {}
    for row in rows(run / "training.csv"):
        for name in ("lr", "loss"):
            found[f"training/{name}", int(row["step"])] = float(np.float32(row[name]))
    for row in rows(run / "evaluation.csv"):
        for name in ("loss", "iou", "error"):
            found[f"{row['split']}/{name}", int(row["step"])] = float(np.float32(row[name]))
    for path in (run / "pictures").iterdir():
        found["answers", int(path.stem)] = path.read_bytes()
    return found


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_tensorboard_has_the_figures_of_the_tables(finished: Path) -> None:
    ours, theirs = written(finished), shown(finished / "tensorboard")
    assert ours.keys() == theirs.keys()
    assert {key[0] for key in ours} == {
        *("training/lr", "training/loss", "test/loss", "test/iou", "test/error", "answers")
    }
    for key, value in ours.items():
        if isinstance(value, bytes):
            assert np.array_equal(pixels(value), pixels(theirs[key]))  # type: ignore[arg-type]
        else:
            assert theirs[key] == value
    first = events(finished / "tensorboard")[0]
    assert first.file_version == "brain.Event:2"


def test_tensorboard_shows_no_step_that_a_resumed_training_made_again(run: Path, digits: Path) -> None:
    shutil.rmtree(run / "checkpoints/0000000006")
    (old,) = (run / "tensorboard").iterdir()
    go(run, digits, resume=True)
    assert len(list((run / "tensorboard").iterdir())) == 2
    assert old.exists()
    starts = [event.step for event in events(run / "tensorboard") if event.HasField("session_log")]
    assert starts == [5]
    ours, theirs = written(run), shown(run / "tensorboard")
    assert ours.keys() == theirs.keys()
    assert all(theirs[key] == value for key, value in ours.items() if not isinstance(value, bytes))


def test_pictures_are_of_the_samples_asked_for(finished: Path) -> None:
    assert [path.name for path in sorted((finished / "pictures").iterdir())] == ["0000000003.png", "0000000006.png"]
    for path in (finished / "pictures").iterdir():
        with Image.open(path) as image:
            assert image.format == "PNG"
            width, height = image.size
            assert (image.mode, width > height // 2) == ("RGB", True)
            # Image, target, prediction of 16 pixels, enlarged six times: two columns of them.
            assert height == 3 * 96 + 2 + 2 * 4
            assert width > 2 * 96 + 3 * 4


# --- what is refused


def test_a_folder_with_a_training_is_not_overwritten(run: Path, digits: Path) -> None:
    before = everything(run)
    said = refusal(lambda: go(run, digits), InputError)
    assert said == f"{run}: holds a training already; --resume goes on with it"
    assert everything(run) == before


def test_a_folder_with_something_else_is_refused(tmp_path: Path, digits: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/dear.txt").write_text("mine")
    (tmp_path / "letters/.mgcompile.lock").write_text("theirs")
    for folder in (tmp_path / "letters", tmp_path / "letters/dear.txt"):
        for resume in (False, True):
            said = refusal(lambda folder=folder, resume=resume: go(folder, digits, resume=resume), InputError)
            assert said == f"{folder}: is there and holds no training; expected a new or an empty folder"
    assert everything(tmp_path / "letters") == {"dear.txt": b"mine", ".mgcompile.lock": b"theirs"}
    (tmp_path / "checkpoints of old/checkpoints/0000000009").mkdir(parents=True)
    refusal(lambda: go(tmp_path / "checkpoints of old", digits), InputError)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, digits: Path) -> None:
    (tmp_path / "file").touch()
    said = refusal(lambda: go(tmp_path / "file/run", digits))
    assert said == f"{tmp_path / 'file/run'}: cannot be written: Not a directory"


def test_another_recipe_is_refused(run: Path, digits: Path) -> None:
    before = everything(run)
    said = refusal(lambda: go(run, digits, resume=True, lr=0.2, seed=3, size=None), InputError)
    assert said == (
        f"{run}: its recipe has seed 0 and not 3, lr 0.1 and not 0.2, size 16 and not None; go on with the same, or "
        "begin in another folder"
    )
    assert everything(run) == before


def test_another_spec_is_refused_with_what_differs(run: Path, digits: Path) -> None:
    before = everything(run)
    said = refusal(lambda: go(run, digits, spec=OTHER, resume=True), InputError).splitlines()
    assert said[0] == f"{run}: is of another spec than small; it differs in"
    assert any(line.startswith("  -") and "4" in line for line in said[1:])
    assert any(line.startswith("  +") and "6" in line for line in said[1:])
    (run / "spec.yaml").unlink()  # the checkpoint knows it too
    said = refusal(lambda: go(run, digits, spec=OTHER, resume=True), InputError).splitlines()
    assert said[0].startswith(f"{run / 'checkpoints/0000000006/model.safetensors'}: is of another spec")
    before.pop("spec.yaml")
    after = everything(run)
    assert {name: after[name] for name in before} == before
    (run / "spec.yaml").write_bytes(b"\xff\xfe\x00")
    refusal(lambda: go(run, digits, resume=True), InputError)


def test_other_data_are_refused_with_what_differs(run: Path, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(run)
    ours = scenes(digits).identity
    assert mgcompile.load_model(run / "model.safetensors").meta["mgcompile"]["data"] == {
        "classes": None,
        "fingerprint": ours.fingerprint,
    }
    monkeypatch.setattr(Scenes, "identity", Identity(None, "0" * 32))
    said = refusal(lambda: go(run, digits, resume=True), InputError)
    assert said == (
        f"{run}: began with other data: they have another fingerprint, {ours.fingerprint!r} before and {'0' * 32!r} "
        "now: other samples; bring them back, or begin in another folder"
    )
    assert everything(run) == before
    monkeypatch.setattr(Scenes, "identity", Identity(("cat", "dog"), ours.fingerprint))
    said = refusal(lambda: go(run, digits, resume=True), InputError)
    assert "there were 0 classes and are 2" in said
    for damage, told in ((b"", "damaged"), (b"[1]", "damaged"), (b'{"classes": 3}', "there were 0 classes and are 2")):
        (run / "data.json").write_bytes(damage)
        assert told in refusal(lambda: go(run, digits, resume=True), InputError)
    monkeypatch.undo()
    (run / "data.json").unlink()  # of a training that knew nothing of its data
    go(run, digits, resume=True)
    assert figures(run)["data.json"] == before["data.json"]


# --- what is damaged


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("harm", ["cut", "emptied", "text", "foreign", "nothing", "gone"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_goes_on(
    run: Path, finished: Path, digits: Path, name: str, harm: str
) -> None:
    file = run / "checkpoints/0000000006" / name
    match harm:
        case "cut":
            file.write_bytes(file.read_bytes()[:-5])
        case "emptied":
            file.write_bytes(b"")
        case "text":
            file.write_text("this is no such file, but it is long enough to have a head", encoding="utf-8")
        case "foreign":
            save_file({"somebody/else": torch.zeros(3)}, file)
        case "nothing":
            save_file({}, file)
        case _:
            file.unlink()
    before = everything(run)
    said = refusal(lambda: go(run, digits, resume=True))
    assert said.startswith(f"{file.parent}: is no checkpoint of this training: ")
    assert said.endswith("; without it --resume goes on after step 4")
    assert everything(run) == before
    shutil.rmtree(file.parent)
    go(run, digits, resume=True)
    assert figures(run) == figures(finished)
    shutil.rmtree(run / "checkpoints/0000000004")
    (run / "checkpoints/0000000006" / name).write_bytes(b"")
    assert refusal(lambda: go(run, digits, resume=True)).endswith("; without it --resume begins again")


@pytest.mark.parametrize("end", [b"7,0.1", b"5,0.1,0.3\n6,0.0", b"7\n", b"\xff,\xff", b"7,0.1,0.3,9,9\n", b"x,1,2\n"])
def test_a_row_that_is_cut_off_is_dropped(run: Path, finished: Path, digits: Path, end: bytes) -> None:
    shutil.rmtree(run / "checkpoints/0000000006")
    for name in ("training.csv", "evaluation.csv"):
        with (run / name).open("ab") as file:
            file.write(end)
    go(run, digits, resume=True)
    assert figures(run) == figures(finished)


def test_a_table_with_other_columns_is_not_overwritten(run: Path, digits: Path) -> None:
    (run / "evaluation.csv").write_text("mine,yours\n1,2\n")
    before = everything(run)
    said = refusal(lambda: go(run, digits, resume=True), InputError)
    assert said == (
        f"{run / 'evaluation.csv'}: its columns are mine, yours; expected step, split, samples, loss, iou, error; "
        "bring back a copy, or move it away to go on without what it holds"
    )
    assert everything(run) == before
    (run / "evaluation.csv").unlink()  # then what was evaluated before is lost, but not the training
    go(run, digits, resume=True)
    assert [row["step"] for row in rows(run / "evaluation.csv")] == ["6"]


HARMS: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: path.write_bytes(b""),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "header": lambda path: path.write_bytes(path.read_bytes().partition(b"\n")[0] + b"\n"),
    "no header": lambda path: path.write_bytes(path.read_bytes().partition(b"\n")[2]),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: -len(path.read_bytes()) // 2]),
    "a row is gone": lambda path: path.write_text(without(path.read_text(), 2)),
    "a row is harmed": lambda path: path.write_text(path.read_text().replace("\n3,", "\n3,x,", 1)),
    "a row twice": lambda path: path.write_text(path.read_text().replace("\n3,", "\n3,1,1\n3,", 1)),
    "a number is none": lambda path: path.write_text(path.read_text().replace("\n3,", "\n3,zero", 1)),
    "a step is none": lambda path: path.write_text(path.read_text().replace("\n3,", "\n" + "3" * 5000 + ",", 1)),
    "NUL": lambda path: path.write_text(path.read_text().replace("\n3,", "\n3\0,", 1)),
    "quotes": lambda path: path.write_text(path.read_text().replace("\n3,", '\n3"",""', 1)),
    "an open quote": lambda path: path.write_text(path.read_text().replace("\n3,", '\n"3,', 1)),
    "a huge field": lambda path: path.write_text(path.read_text().replace("\n3,", "\n3," + "1" * 200_000, 1)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


def without(text: str, row: int) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(lines[:row] + lines[row + 1 :])


@pytest.mark.parametrize(
    ("name", "harm"),
    [*product(["training.csv"], HARMS), *product(["evaluation.csv"], sorted(HARMS.keys() - {"a row is gone"}))],
)
def test_a_damaged_table_is_told_and_moved_away_it_is_no_obstacle(
    finished: Path, run: Path, digits: Path, name: str, harm: str
) -> None:
    HARMS[harm](run / name)
    before = everything(run)
    said = refusal(lambda: go(run, digits, resume=True), InputError)
    assert said.startswith(f"{run / name}: ")
    assert said.endswith("; bring back a copy, or move it away to go on without what it holds")
    assert said.isprintable()
    assert len(said) < 700
    assert everything(run) == before
    (run / name).rename(run / "pictures/away")
    go(run, digits, resume=True)
    assert figures(run)["model.safetensors"] == figures(finished)["model.safetensors"]


def test_after_a_table_was_moved_away_its_rows_begin_later(run: Path, digits: Path) -> None:
    shutil.rmtree(run / "checkpoints/0000000006")
    (run / "training.csv").unlink()
    go(run, digits, resume=True)
    assert [row["step"] for row in rows(run / "training.csv")] == ["5", "6"]
    go(run, digits, resume=True)
    assert [row["step"] for row in rows(run / "training.csv")] == ["5", "6"]


@pytest.mark.parametrize("name", ["recipe.yaml", "spec.yaml", "tensorboard", "pictures", "checkpoints"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff\x1b[2J" * 9, b"{" * 500])
def test_any_other_damage_is_told_in_lines(run: Path, digits: Path, name: str, content: bytes) -> None:
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.write_bytes(content)
    with pytest.raises(MgcompileError) as caught:
        go(run, digits, resume=True)
    assert str(run) in str(caught.value)
    assert str(caught.value).replace("\n", "").isprintable()


@pytest.mark.parametrize("name", ["recipe.yaml", "spec.yaml", "data.json", "training.csv", "evaluation.csv"])
def test_what_a_link_leads_to_is_never_shown(run: Path, digits: Path, tmp_path: Path, name: str) -> None:
    (secret := tmp_path / "secret").write_text("key: hunter2\n")
    (run / name).unlink()
    (run / name).symlink_to(secret)
    said = refusal(lambda: go(run, digits, resume=True), InputError)
    assert said == f"{run / name}: is a link; a training keeps a file there: put the file itself in its place"
    assert secret.read_text() == "key: hunter2\n"


@pytest.mark.parametrize("name", ["tensorboard", "pictures", "checkpoints"])
def test_what_is_in_the_place_of_a_folder_is_told_at_once(run: Path, digits: Path, name: str) -> None:
    shutil.rmtree(run / name)
    (run / name).symlink_to("nowhere")
    said = refusal(lambda: go(run, digits, resume=True), InputError)
    assert said == f"{run / name}: is no folder; a training keeps one there: move it away"


def test_a_checkpoint_of_a_longer_training_is_refused(run: Path, digits: Path) -> None:
    shutil.copytree(run / "checkpoints/0000000006", run / "checkpoints/0000000099")
    said = refusal(lambda: go(run, digits, resume=True), InputError)
    assert said == (
        f"{run / 'checkpoints/0000000099'}: is a checkpoint after 99 steps, and the recipe has 6; move it away to go "
        "on without it"
    )


def test_numbers_are_read_back_to_the_last_bit(tmp_path: Path) -> None:
    numbers = [0.1 + 0.2, 1e-310, 2**0.5, 1 / 3]
    table = Table(Run(tmp_path), "t.csv", ("step", "value"), start=0)
    for step, number in enumerate(numbers):
        table.add({"step": step, "value": number})
    table.close()
    assert [float(row["value"]) for row in rows(tmp_path / "t.csv")] == numbers


# --- what is killed, and full disks


def test_a_checkpoint_that_fails_between_its_files_is_not_there(
    run: Path, finished: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(run / "checkpoints/0000000006")

    def full(state: object, path: Path) -> None:
        assert (path.parent / "model.safetensors").exists()
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "save_file", full)
        said = refusal(lambda: go(run, digits, resume=True))
    assert said == f"{run / 'checkpoints/0000000006'}: cannot be written: No space left on device"
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["0000000004"]
    go(run, digits, resume=True)
    assert figures(run) == figures(finished)


def test_what_a_killed_training_was_writing_is_swept_away(run: Path, finished: Path, digits: Path) -> None:
    draft = run / "checkpoints/.0000000008.0123abcd"
    draft.mkdir()
    (draft / "model.safetensors").write_bytes(b"half")
    for name in (".training.csv.0123abcd", "pictures/.0000000003.png.00000000", ".model.safetensors.ffffffff"):
        (run / name).write_bytes(b"half")
    (run / "checkpoints/.DS_Store").write_bytes(b"of another program")
    go(run, digits, resume=True)
    left = everything(run)
    assert left.pop("checkpoints/.DS_Store") == b"of another program"
    (run / "checkpoints/.DS_Store").unlink()
    assert figures(run) == figures(finished)


def test_a_training_that_was_killed_before_it_began_can_begin(tmp_path: Path, digits: Path, finished: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "spec.yaml").write_bytes(b"")
    (run / ".recipe.yaml.0123abcd").write_bytes(b"half")
    go(run, digits)
    assert figures(run) == figures(finished)
    assert not list(run.glob(".*"))


def test_a_full_disk_loses_nothing(run: Path, finished: Path, digits: Path) -> None:
    shutil.rmtree(run / "checkpoints/0000000006")
    kept = everything(run / "checkpoints")
    least = min(len(kept[f"0000000004/{name}.safetensors"]) for name in ("model", "optimizer"))
    said = []
    for size in (0, 100, least - 1):  # at the recipe, at a table, at a checkpoint
        with disk_of(size):
            said.append(refusal(lambda: go(run, digits, resume=True)))
        assert everything(run / "checkpoints") == kept
        assert not list(run.rglob(".*"))
    assert said[0] == f"{run / 'spec.yaml'}: cannot be written: File too large"
    assert all("cannot be written: " in each or "cannot write" in each for each in said)
    go(run, digits, resume=True)
    assert figures(run) == figures(finished)


def test_a_training_that_never_began_for_a_full_disk_can_begin(tmp_path: Path, digits: Path, finished: Path) -> None:
    with disk_of(0):
        refusal(lambda: go(tmp_path / "run", digits))
    go(tmp_path / "run", digits)
    assert figures(tmp_path / "run") == figures(finished)


def test_records_that_cannot_be_closed_do_not_hide_what_failed(tmp_path: Path) -> None:
    def use() -> None:
        with Records(Run(tmp_path), ("iou",), start=0) as records, disk_of(1):
            for step in range(1, 10_000):
                records.step(step, 0.1, 0.5)

    assert refusal(use) == f"{tmp_path / 'training.csv'}: cannot be written: File too large"


def test_a_checkpoint_of_a_step_twice_is_one(tmp_path: Path, digits: Path) -> None:
    """The state of the optimiser is that of the weights: all of it comes back."""
    go(tmp_path / "run", digits, pictures=0)
    state = load_file(tmp_path / "run/checkpoints/0000000006/optimizer.safetensors")
    weights = load_file(tmp_path / "run/model.safetensors")
    learned = {name for name in weights if "running" not in name and "tracked" not in name}
    assert {name.rpartition("/")[0] for name in state} == learned
    assert all(tensor.shape == weights[name.rpartition("/")[0]].shape for name, tensor in state.items())
