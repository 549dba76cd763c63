"""CIFAR and folders of pictures as tasks: what is asked for is what lies on the disk, augmented or cropped as
published; a training on each, and every mistake.
"""

from __future__ import annotations

import csv
import itertools
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

import mgcompile
from mgcompile.errors import InputError
from mgcompile.spec import Spec
from mgcompile.training import folders
from mgcompile.training.augmentation import CIFAR_10, CIFAR_100, IMAGENET, Augmentation, flips, positions
from mgcompile.training.evaluation import evaluate
from mgcompile.training.feeding import Place, batches, held_out_batches
from mgcompile.training.files import DataError
from mgcompile.training.fitting import fit
from mgcompile.training.loop import train
from mgcompile.training.recipe import Recipe, recipe_for
from mgcompile.training.runs import Run
from mgcompile.training.schedules import learning_rate
from mgcompile.training.tasks import TASKS, Data, Settings
from mgcompile.training.tasks.classes import with_classes

BILINEAR = Image.Resampling.BILINEAR
KINDS = ("cifar10", "cifar100", "image-folder")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).integers(0, 256, shape, np.uint8)


def cifar(folder: Path, classes: int) -> Path:
    """The binary files of a few pictures: 10 or 8 to train on, 6 to test with."""
    folder.mkdir(parents=True)
    parts = {"train": ["train.bin"], "test": ["test.bin"], "names": ["fine_label_names.txt"]}
    if classes == 10:
        batch_files = [f"data_batch_{number}.bin" for number in range(1, 6)]
        parts = {"train": batch_files, "test": ["test_batch.bin"], "names": ["batches.meta.txt"]}
    (folder / parts["names"][0]).write_text("".join(f"kind{number}\n" for number in range(classes)))
    for number, name in enumerate([*parts["train"], *parts["test"]]):
        count = 6 if name in parts["test"] else 10 if classes == 100 else 2
        labels = noise(count, 1 if classes == 10 else 2, seed=number) % classes
        (folder / name).write_bytes(np.concatenate([labels, noise(count, 3072, seed=number)], axis=1).tobytes())
    return folder


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    soft = Image.fromarray(noise(5, 5, 4, seed=seed)).resize((width, height), Image.Resampling.BICUBIC)
    return soft.convert(mode)


PICTURES = {
    "train/cat/a.png": picture(40, 30, seed=1),
    "train/cat/b.jpg": picture(25, 60, seed=2),
    "train/cat/c.png": picture(1, 1, seed=3),
    "train/dog/a.png": picture(33, 33, "L", seed=4),
    "train/dog/b.png": picture(50, 20, "RGBA", seed=5),
    "train/owl/a.gif": picture(20, 20, "P", seed=6),
    "train/owl/b.png": picture(3, 70, "LA", seed=7),
    "train/owl/c.bmp": picture(64, 48, seed=8),
    "val/cat/a.png": picture(41, 31, seed=9),
    "val/dog/a.png": picture(31, 41, "L", seed=10),
    "val/owl/a.jpg": picture(28, 36, seed=11),
    "val/owl/b.png": picture(1, 1, seed=12),
}


def tree(folder: Path, pictures: dict[str, Image.Image] = PICTURES) -> Path:
    for name, image in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name)
    return folder


def written(folder: Path, kind: str) -> Path:
    return tree(folder) if kind == "image-folder" else cifar(folder, int(kind.removeprefix("cifar")))


def opened(folder: Path, kind: str, **settings: int) -> Data:
    small = {"size": 16} if kind == "image-folder" else {}
    return TASKS[kind].open(written(folder, kind), Settings(**(small | settings)))


@pytest.fixture(params=KINDS)
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Data:
    return opened(tmp_path / "data", request.param, seed=5)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    return str(caught.value)


def all_of(split: str, data: Data) -> np.ndarray:
    return np.arange(data.samples(split))


# --- what all of them keep to


def test_examples_have_the_shapes_and_types_that_a_network_takes(data: Data) -> None:
    train, test = all_of("train", data), all_of("test", data)
    shape = (data.channels, data.size, data.size)
    assert data.crops == (1, 10)
    assert not data.in_maps
    assert data.samples("validation") == 0
    assert data.selection == "test"
    assert len(data.classes) == data.outputs
    for examples, expected in (
        (data.training(train, train), (len(train), *shape)),
        (data.held_out("test", test), (len(test), *shape)),
        (data.held_out("test", test, 10), (len(test), 10, *shape)),
        (data.held_out("test", test[:0], 10), (0, 10, *shape)),
    ):
        assert examples.inputs.shape == expected
        assert examples.inputs.dtype == torch.float32
        assert examples.inputs.isfinite().all()
        assert examples.targets.dtype == torch.int64
        assert len(examples) == expected[0]


def test_an_example_does_not_depend_on_batch_and_order(data: Data) -> None:
    samples = np.arange(24) % data.samples("train")
    numbers = 100 + np.arange(24)
    whole = data.training(samples, numbers)
    for order in ([3], [23, 0], [*range(23, -1, -1)], [7, 7, 1]):
        part = data.training(samples[order], numbers[order])
        assert torch.equal(part.inputs, whole.inputs[order])
        assert torch.equal(part.targets, whole.targets[order])
    test = all_of("test", data)
    for crops in data.crops:
        assert torch.equal(
            data.held_out("test", test[2:3], crops).inputs, data.held_out("test", test, crops).inputs[2:3]
        )


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_and_seeds_change_what_is_trained_on_and_nothing_else(tmp_path: Path, kind: str) -> None:
    data = opened(tmp_path / "data", kind)
    other = TASKS[kind].open(tmp_path / "data", Settings(seed=1, size=data.size))
    same, numbers, test = np.zeros(40, np.int64), np.arange(40), all_of("test", data)
    found = data.training(same, numbers)
    assert len({example.numpy().tobytes() for example in found.inputs}) > 20  # CIFAR's are cropped in 50 ways
    assert len(set(found.targets.tolist())) == 1
    assert torch.equal(data.training(same, numbers).inputs, found.inputs)
    assert not torch.equal(other.training(same, numbers).inputs, found.inputs)
    for crops in data.crops:
        assert torch.equal(other.held_out("test", test, crops).inputs, data.held_out("test", test, crops).inputs)


def test_the_centre_is_the_fifth_of_ten_crops_and_five_are_mirrored(data: Data) -> None:
    test = all_of("test", data)
    ten = data.held_out("test", test, 10).inputs
    assert torch.equal(ten[:, 4], data.held_out("test", test).inputs)
    assert torch.equal(ten[:, 5:], ten[:, :5].flip(-1))


def test_workers_make_the_same(data: Data) -> None:
    samples = np.arange(8)
    copy = pickle.loads(pickle.dumps(data))  # as a spawned worker has it
    assert torch.equal(copy.training(samples, samples).inputs, data.training(samples, samples).inputs)
    assert torch.equal(copy.held_out("test", samples[:4], 10).inputs, data.held_out("test", samples[:4], 10).inputs)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads of the tests beside it
@pytest.mark.parametrize("kind", ["cifar10", "image-folder"])
def test_forked_workers_make_the_same(tmp_path: Path, kind: str) -> None:
    data = opened(tmp_path / "data", kind)
    recipe = Recipe(task=kind, steps=3, batch=4, seed=2)
    alone, helped = (list(batches(data, recipe, Place(), workers=workers)) for workers in (0, 2))
    for (step, [one]), (same, [other]) in zip(alone, helped, strict=True):
        assert step == same
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)


def test_other_numbers_of_crops_and_splits_that_are_not_there_are_refused(data: Data) -> None:
    assert "3 crops of a picture; expected 1 or 10" in refusal(lambda: data.held_out("test", np.arange(2), 3))
    assert "no validation samples" in refusal(lambda: data.held_out("validation", np.arange(2)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_crop_is_not_larger_than_what_it_is_cut_from(tmp_path: Path, kind: str) -> None:
    said = refusal(lambda: opened(tmp_path / "data", kind, size=20, resize=19))
    assert said.startswith(f"{kind}: resize is 19 and size 20; expected a resize of at least the size")
    assert TASKS[kind].open(tmp_path / "data", Settings(size=20, resize=20)).size == 20
    assert TASKS[kind].options == {"size", "resize"}


# --- CIFAR


@pytest.mark.parametrize(("classes", "colours"), [(10, CIFAR_10), (100, CIFAR_100)])
def test_cifar_is_resized_cropped_mirrored_and_normalised(tmp_path: Path, classes: int, colours) -> None:
    data = TASKS[f"cifar{classes}"].open(cifar(tmp_path / "data", classes), Settings(seed=3))
    assert (data.size, data.resize, data.channels, data.outputs) == (32, 36, 3, classes)
    assert data.classes == tuple(f"kind{number}" for number in range(classes))
    assert [data.samples(split) for split in ("train", "validation", "test")] == [10, 0, 6]
    samples, numbers = np.array([3, 9, 0, 3, 3, 5]), np.array([0, 7, 8, 10**12, 5, 6])
    found = data.training(samples, numbers)
    places, mirrored = positions(3, numbers, 4), flips(3, numbers)
    assert 0 < mirrored.sum() < 6
    stored = np.concatenate([noise(2, 3072, seed=file) for file in range(5)]) if classes == 10 else noise(10, 3072)
    labels = [noise(2, 1, seed=sample // 2)[sample % 2, -1] % 10 for sample in samples]
    if classes == 100:
        labels = [noise(10, 2)[sample, -1] % 100 for sample in samples]
    assert found.targets.tolist() == labels
    for row, channel in itertools.product(range(6), range(3)):
        plane = stored[samples[row]].reshape(3, 32, 32)[channel].astype(np.float32)
        whole = Image.fromarray(plane).resize((36, 36), BILINEAR)
        top, left = places[row]
        expected = np.asarray(whole.crop((left, top, left + 32, top + 32)))
        if mirrored[row]:
            expected = np.fliplr(expected)
        expected = (expected / 255 - colours.mean[channel]) / colours.deviation[channel]
        np.testing.assert_allclose(found.inputs[row, channel], expected, atol=1e-4)


def test_cifar_is_tested_on_crops_of_the_resized_picture(tmp_path: Path) -> None:
    data = opened(tmp_path / "data", "cifar10", size=24, resize=40)
    ten = data.held_out("test", np.array([4, 1]), 10)
    stored = noise(6, 3072, seed=5)
    assert ten.targets.tolist() == [int(noise(6, 1, seed=5)[sample, 0]) % 10 for sample in (4, 1)]
    for row, sample in enumerate((4, 1)):
        planes = stored[sample].reshape(3, 32, 32).astype(np.float32)
        whole = np.stack([np.asarray(Image.fromarray(plane).resize((40, 40), BILINEAR)) for plane in planes])
        for crop, (top, left) in enumerate([(0, 0), (0, 16), (16, 0), (16, 16), (8, 8)]):
            cut = whole[:, top : top + 24, left : left + 24] / 255
            expected = (cut - np.reshape(CIFAR_10.mean, (3, 1, 1))) / np.reshape(CIFAR_10.deviation, (3, 1, 1))
            np.testing.assert_allclose(ten.inputs[row, crop], expected, atol=1e-4)


def test_cifar_that_is_not_there_or_damaged_is_refused(tmp_path: Path) -> None:
    assert "fetch cifar10 into it" in refusal(lambda: TASKS["cifar10"].open(tmp_path, Settings()))
    assert TASKS["cifar10"].data_set == "cifar10"
    assert TASKS["cifar100"].data_set == "cifar100"
    folder = cifar(tmp_path / "data", 100)
    (folder / "test.bin").write_bytes(b"half a picture")
    assert "test.bin: damaged: 14 bytes" in refusal(lambda: TASKS["cifar100"].open(folder, Settings()))


# --- folders


def test_folders_are_augmented_as_published(tmp_path: Path) -> None:
    data = opened(tmp_path / "data", "image-folder", seed=8)
    names = [name for name in PICTURES if name.startswith("train/")]
    samples, numbers = np.array([7, 0, 2, 3, 4, 1, 5, 6]), np.arange(40, 48)
    found, drawn = data.training(samples, numbers), Augmentation.drawn(8, numbers)
    assert found.targets.tolist() == [["cat", "dog", "owl"].index(names[sample].split("/")[1]) for sample in samples]
    for row, sample in enumerate(samples):
        with Image.open(tmp_path / "data" / names[sample]) as stored:
            white = Image.new("RGBA", stored.size, "white")
            image = Image.alpha_composite(white, stored.convert("RGBA")).convert("RGB")
        expected = drawn.apply(row, image, 16)
        for channel in range(3):
            plain = (expected[channel] - IMAGENET.mean[channel]) / IMAGENET.deviation[channel]
            np.testing.assert_allclose(found.inputs[row, channel], plain, atol=1e-5)


def test_folders_are_tested_on_crops_of_the_resized_picture(tmp_path: Path) -> None:
    data = opened(tmp_path / "data", "image-folder", size=16, resize=24)
    assert (data.size, data.resize) == (16, 24)
    assert data.samples("train") == 8
    assert data.samples("test") == 4
    found = data.held_out("test", np.arange(4))
    assert found.targets.tolist() == [0, 1, 2, 2]
    for row, name in enumerate(name for name in PICTURES if name.startswith("val/")):
        with Image.open(tmp_path / "data" / name) as stored:
            image = stored.convert("RGB")
        scale = 24 / min(image.size)
        whole = np.asarray(image.resize([math.floor(side * scale + 0.5) for side in image.size], BILINEAR))
        top, left = (whole.shape[0] - 16) // 2, (whole.shape[1] - 16) // 2
        plain = (whole[top : top + 16, left : left + 16] / 255 - IMAGENET.mean) / IMAGENET.deviation
        np.testing.assert_allclose(found.inputs[row].numpy().transpose(1, 2, 0), plain, atol=2.1 / 255 / 0.22)


def renamed(**places: str) -> dict[str, Image.Image]:
    """The pictures with the folders of other names: `val="test"` has those of val in test."""
    return {f"{places[name.split('/')[0]]}{name[name.index('/') :]}": image for name, image in PICTURES.items()}


def test_val_or_test_is_the_test_set_and_of_both_val_is_for_validation(tmp_path: Path) -> None:
    task, settings = TASKS["image-folder"], Settings(size=16)
    data = task.open(tree(tmp_path / "one", renamed(train="train", val="test")), settings)
    assert [data.samples(split) for split in ("train", "validation", "test")] == [8, 0, 4]
    more = renamed(train="test", val="val") | {name: image for name, image in PICTURES.items() if "train" in name}
    data = task.open(tree(tmp_path / "both", more), settings)
    assert [data.samples(split) for split in ("train", "validation", "test")] == [8, 4, 8]
    assert data.selection == "validation"
    assert data.classes == ("cat", "dog", "owl")
    assert data.held_out("validation", np.arange(4)).targets.tolist() == [0, 1, 2, 2]
    assert data.held_out("test", np.arange(8)).targets.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    task, settings = TASKS["image-folder"], Settings(size=16)
    assert refusal(lambda: task.open(tmp_path, settings)).startswith(
        f"{tmp_path / 'train'}: missing; expected a folder"
    )
    only = {name: image for name, image in PICTURES.items() if "train" in name}
    folder = tree(tmp_path / "only", only)
    said = refusal(lambda: task.open(folder, settings))
    assert said.startswith(f"{folder}: missing: neither val nor test is there; expected one")
    (folder / "val").mkdir()
    assert refusal(lambda: task.open(folder, settings)).startswith(f"{folder / 'val'}: no folder in it")
    tree(folder, {"val/cat/a.png": picture(9, 9), "val/yak/a.png": picture(9, 9)})
    said = refusal(lambda: task.open(folder, settings))
    assert said == (
        f"{folder / 'val'}: its 2 classes are not the 3 of {folder / 'train'}: it lacks dog, owl; only it has yak; "
        "expected the same folders in both, with pictures in each; move pictures, rename or remove folders"
    )
    (folder / "val" / "owl").mkdir()
    assert "only it has yak; the folder owl is empty; expected" in refusal(lambda: task.open(folder, settings))
    tree(folder, {"val/eel/a.png": picture(9, 9)})  # as many as in train
    assert "it lacks dog, owl; only it has eel, yak;" in refusal(lambda: task.open(folder, settings))
    tree(folder, {f"val/{number}/a.png": picture(9, 9) for number in range(10, 18)})
    assert "only it has 10, 11, 12, 13, 14 and 5 more" in refusal(lambda: task.open(folder, settings))


# --- trainings


def tiny(kind: str, size: int, classes: int) -> Spec:
    layers = [{"conv": {"channels": 4}}, "pool", {"classify": classes}]
    return mgcompile.load({"version": 1, "name": kind, "input": {"channels": 3, "size": size}, "layers": layers})


def by_hand(model: torch.nn.Module, data: Data) -> tuple[float, float]:
    """Per cent of wrong samples and the mean loss, a crop at a time, of the mean probabilities of ten."""
    wrong, losses = 0, []
    for sample in range(data.samples("test")):
        examples = data.held_out("test", np.array([sample]), 10)
        total = np.zeros(data.outputs)
        for crop in examples.inputs[0]:
            with torch.no_grad():
                logits = model(crop[None])[0].double().numpy()
            total += np.exp(logits) / np.exp(logits).sum() / 10
        target = int(examples.targets[0])
        wrong += int(total.argmax()) != target
        losses.append(-math.log(total[target]))
    return 100 * wrong / len(losses), sum(losses) / len(losses)


@pytest.mark.parametrize(("kind", "size"), [("cifar10", 32), ("image-folder", 16)])
def test_a_network_is_trained_and_tested_with_one_and_ten_crops(tmp_path: Path, kind: str, size: int) -> None:
    data = opened(tmp_path / "data", kind, size=size)
    spec = tiny(kind, size, data.outputs)
    recipe = recipe_for(
        {"task": kind, "size": size, "steps": 3, "batch": 4, "evaluate_every": 2, "lr": 0.05}, spec.graph
    )
    trained = train(spec, recipe, data, tmp_path / "run", device="cpu")
    run = Run(tmp_path / "run")
    assert run.steps() == [2, 3]
    with (run.folder / "training.csv").open() as file:
        steps = list(csv.DictReader(file))
    assert [int(row["step"]) for row in steps] == [1, 2, 3]
    assert all(math.isfinite(float(row["loss"])) for row in steps)
    with (run.folder / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["split"]) for row in rows] == [("2", "test"), ("3", "test")]
    assert set(rows[0]) >= {"samples", "loss", "top1_error", "top5_error"}
    assert trained.test.samples == data.samples("test")
    ten = evaluate(
        trained.model,
        data,
        fit(spec, data, kind),
        "test",
        accelerator=Accelerator(cpu=True),
        limit=100,
        batch=4,
        crops=10,
    )
    error, loss = by_hand(trained.model, data)
    assert ten.samples == data.samples("test")
    assert ten.metrics["top1_error"] == pytest.approx(error)
    assert ten.loss == pytest.approx(loss, rel=1e-5)
    assert ten.loss != pytest.approx(trained.test.loss, rel=1e-4)  # one crop is something else


def test_a_picture_that_is_damaged_ends_a_training_with_its_name(tmp_path: Path) -> None:
    data = opened(tmp_path / "data", "image-folder")
    damaged = tmp_path / "data" / "train" / "owl" / "c.bmp"
    damaged.write_bytes(damaged.read_bytes()[:100])
    spec = tiny("image-folder", 16, 3)
    recipe = recipe_for(
        {"task": "image-folder", "size": 16, "steps": 2, "batch": 8, "schedule": "constant"}, spec.graph
    )
    said = refusal(lambda: train(spec, recipe, data, tmp_path / "run", device="cpu"))
    assert said.startswith(f"{damaged}: damaged: it cannot be decoded")
    (tmp_path / "data" / "val" / "dog" / "a.png").unlink()
    said = refusal(lambda: list(held_out_batches(data, "test", Place(), limit=4, batch=2)))
    assert said.endswith("a.png: missing: it does not exist")


def test_what_is_wrong_with_pictures_is_known_before_the_first_step(tmp_path: Path) -> None:
    data = opened(tmp_path / "data", "image-folder")
    assert data.found == (
        f"{tmp_path}/data/train: 8 pictures of 3 classes",
        f"{tmp_path}/data/val: 4 pictures of 3 classes",
    )
    told: list[tuple[int, int]] = []
    assert data.check(progress=lambda *report: told.append(report)) == (
        "the headers of all 12 pictures are right; --check-data decodes them"
    )
    assert told[-1] == (12, 12)
    assert data.check(decode=True) == "all 12 pictures can be decoded"
    cut = tmp_path / "data" / "train" / "cat" / "b.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])  # the header is whole
    assert "are right" in str(data.check())
    assert refusal(lambda: data.check(decode=True)).startswith(f"{cut}: damaged: it cannot be decoded")
    for name in PICTURES:
        (tmp_path / "data" / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0")
    lines = refusal(data.check).split("\n")
    assert len(lines) == 11
    assert all(": is none of the pictures that are read" in line for line in lines[:10])
    assert lines[10] == "and 2 more"


def test_headers_are_looked_at_for_a_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = opened(tmp_path / "data", "image-folder")
    monkeypatch.setattr(folders, "HEADER_SECONDS", -1.0)
    assert data.check() == "the headers of 0 of 12 pictures are right; --check-data decodes them"
    assert data.check(decode=True) == "all 12 pictures can be decoded"


@pytest.mark.parametrize("kind", ["cifar10", "image-folder"])
def test_classes_have_the_numbers_of_a_network_by_their_names(tmp_path: Path, kind: str) -> None:
    data = opened(tmp_path / "data", kind)
    assert with_classes(data, data.classes) is data
    order = [*data.classes[::-1], "one more"]
    said = "it lacks one more; say --some-classes to go on without these"
    with pytest.raises(InputError, match=said):
        with_classes(data, order)
    renumbered = with_classes(data, order, some=True)
    test = all_of("test", data)
    before, after = data.held_out("test", test), renumbered.held_out("test", test)
    assert torch.equal(before.inputs, after.inputs)
    assert torch.equal(renumbered.targets("test", test), after.targets)
    assert [data.classes[label] for label in before.targets] == [order[label] for label in after.targets]
    assert (renumbered.outputs, renumbered.identity) == (len(order), data.identity)
    train = renumbered.training(test[:2], test[:2])
    assert [order[label] for label in train.targets] == [
        data.classes[label] for label in data.training(test[:2], test[:2]).targets
    ]
    for other in (order[1:], [*order[:-2], "renamed"]):
        with pytest.raises(InputError, match=r"only it has .*; name them as they were in the training"):
            with_classes(data, other, some=True)
    with pytest.raises(InputError, match="not told apart"):
        with_classes(data, [*data.classes, data.classes[0]])


def test_what_is_not_said_is_as_published() -> None:
    spec = tiny("any", 32, 10)
    small = recipe_for({"task": "cifar100"}, spec.graph)
    assert (small.steps, small.batch, small.lr, small.momentum, small.weight_decay) == (60_000, 128, 0.1, 0.9, 5e-4)
    assert (small.schedule, small.evaluate_every, small.size, small.resize) == ("exponential", 300, None, None)
    residual = [{"conv": {"channels": 4}}, {"unit": {"channels": 4}}, {"classify": 10}]
    source = {"version": 1, "name": "residual", "input": {"channels": 3, "size": 32}, "layers": residual}
    assert recipe_for({"task": "cifar10"}, mgcompile.load(source).graph).schedule == "step"
    large = recipe_for({"task": "image-folder"}, spec.graph)
    assert (large.batch, large.lr, large.momentum, large.weight_decay) == (256, 0.1, 0.9, 1e-4)
    epoch = math.floor(1_281_167 / 256)
    assert (large.steps, large.evaluate_every) == (90 * epoch, epoch)
    for epochs, rate in ((0, 0.1), (30, 0.01), (60, 0.001)):
        assert learning_rate(large, epochs * epoch) == pytest.approx(rate)
        assert learning_rate(large, (epochs + 30) * epoch - 1) == pytest.approx(rate)


# --- which data they are


@pytest.mark.parametrize("kind", KINDS)
def test_data_are_known_wherever_they_lie_and_however_they_are_set(tmp_path: Path, kind: str) -> None:
    one = opened(tmp_path / "one", kind, seed=5).identity
    assert opened(tmp_path / "two", kind, size=20).identity == one
    assert one.classes == tuple(TASKS[kind].open(tmp_path / "one", Settings()).classes)
    if kind == "image-folder":
        picture(9, 9).save(tmp_path / "two" / "val" / "owl" / "more.png")
    else:
        file = tmp_path / "two" / ("test_batch.bin" if kind == "cifar10" else "test.bin")
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    other = TASKS[kind].open(tmp_path / "two", Settings()).identity
    assert other.classes == one.classes
    assert other.fingerprint != one.fingerprint
