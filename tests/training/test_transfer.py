"""Beginning from the weights of another network: what became of every tensor is said, and nothing is forgotten."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import mgcompile
from mgcompile.errors import InputError, SpecError
from mgcompile.training.loop import Stopped, train
from mgcompile.training.runs import Run
from mgcompile.training.transfer import Weights, begin_from, record_of, renames_in, told
from tests.training.made import SMALL, figures, losses, recipe, scenes
from tests.training.test_stopping import Sends

pytestmark = pytest.mark.usefixtures("one_thread")

SPEC = mgcompile.load(SMALL)
WIDER = mgcompile.load(SMALL | {"layers": [{"conv": {"channels": 4}}, {"conv": {"channels": 3, "act": "none"}}]})
TOLD = recipe(SPEC, steps=6, evaluate_every=3, checkpoint_every=2)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a network with another head."""
    path = tmp_path_factory.mktemp("weights") / "wider.safetensors"
    mgcompile.save(mgcompile.compile(WIDER, seed=9), path)
    return path


def changed(file: Path, to: Path, change: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]]) -> Path:
    save_file(dict(change(load_file(file))), to)
    return to


def begun(file: Path, *renames: tuple[str, str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    model = mgcompile.compile(SPEC, seed=0)
    weights = Weights(file, renames)
    record = record_of(weights, begin_from(model, weights))
    return model.state_dict(), record


def refusal(file: Path, *renames: tuple[str, str]) -> str:
    with pytest.raises(InputError) as caught:
        begun(file, *renames)
    return str(caught.value)


# --- what becomes of a tensor

NAMES = list(mgcompile.compile(SPEC).state_dict())
FATES = st.lists(
    st.sampled_from(["kept", "renamed", "reshaped", "dropped", "new"]), min_size=len(NAMES), max_size=len(NAMES)
)


@given(fates=FATES)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_every_tensor_of_either_side_is_told_once(tmp_path_factory: pytest.TempPathFactory, fates: list[str]) -> None:
    drawn, tensors, expected = mgcompile.compile(SPEC, seed=0).state_dict(), {}, dict.fromkeys(NAMES, "new")
    for name, fate in zip(NAMES, fates, strict=True):
        tensor = torch.ones_like(drawn[name])
        if fate == "kept":
            tensors[name] = tensor
        elif fate == "renamed":
            tensors[f"old.{name}"] = tensor
        elif fate == "reshaped":
            tensors[name] = torch.ones(*tensor.shape, 2)
        elif fate == "dropped":
            tensors[f"other.{name}"] = tensor
        expected[name] = fate if fate not in ("dropped",) else "new"
    file = tmp_path_factory.mktemp("fates") / "w.safetensors"
    save_file(tensors, file)
    renames = (("old", ""),) if any(fate == "renamed" for fate in fates) else ()
    learned = {name for name, _ in mgcompile.compile(SPEC).named_parameters()}
    if not any(expected[name] in ("kept", "renamed") for name in learned):
        assert f"{file}: none of its {len(tensors)} tensors fits the network" in refusal(file, *renames)
        return
    state, record = begun(file, *renames)
    assert set(record["kept"]) == {name for name, fate in expected.items() if fate in ("kept", "renamed")}
    assert record["renamed"] == {f"old.{name}": name for name, fate in expected.items() if fate == "renamed"}
    assert set(record["reshaped"]) == {name for name, fate in expected.items() if fate == "reshaped"}
    assert set(record["new"]) == {name for name, fate in expected.items() if fate == "new"}
    assert set(record["dropped"]) == {name for name in tensors if name.startswith("other.")}
    for name in NAMES:
        wanted = torch.ones_like(drawn[name]) if name in record["kept"] else drawn[name]
        assert torch.equal(state[name], wanted)
    lines = told(record)
    assert f"{len(record['kept'])} tensors kept, of these" in lines[0]
    assert sum(len(record[sort]) for sort in ("renamed", "reshaped", "new", "dropped")) == len(lines) - 1


@pytest.mark.parametrize(
    ("old", "new", "name", "becomes"),
    [
        ("module.", "", "module.conv.weight", "conv.weight"),
        ("module", "", "module.conv.weight", "conv.weight"),
        ("module", "", "modules.conv.weight", "modules.conv.weight"),
        ("", "net", "conv.weight", "net.conv.weight"),
        ("a.b", "c", "a.b.weight", "c.weight"),
        ("a.b.weight", "c.kernel", "a.b.weight", "c.kernel"),
        ("a", "b.", "a.weight", "b.weight"),
    ],
)
def test_names_begin_otherwise(old: str, new: str, name: str, becomes: str) -> None:
    assert Weights(Path("x"), ((old, new),)).rename(name) == becomes


def test_the_longest_beginning_wins() -> None:
    weights = Weights(Path("x"), (("a", "x"), ("a.b", "y"), ("", "z")))
    assert [weights.rename(name) for name in ("a.c", "a.b.c", "c")] == ["x.c", "y.c", "z.c"]


@pytest.mark.parametrize(
    ("before", "advice"), [("module.", "module.="), ("_orig_mod.", "_orig_mod.="), ("a.b.", "a.b.=")]
)
def test_what_all_names_have_too_much_is_offered(file: Path, tmp_path: Path, before: str, advice: str) -> None:
    odd = changed(
        file, tmp_path / "odd.safetensors", lambda found: {before + name: each for name, each in found.items()}
    )
    said = refusal(odd)
    assert said.startswith(f"{odd}: none of its 14 tensors fits the network; ")
    assert said.endswith(f"--map {advice}")
    assert begun(odd, *renames_in([advice]))[1]["kept"]


def test_what_all_names_lack_is_offered(tmp_path: Path) -> None:
    first = NAMES[0].partition(".")[0]
    tensors = {
        name.partition(".")[2]: torch.ones(each.shape)
        for name, each in mgcompile.compile(SPEC).state_dict().items()
        if name.startswith(f"{first}.")
    }
    save_file(tensors, tmp_path / "w.safetensors")
    said = refusal(tmp_path / "w.safetensors")
    assert f"--map ={first}" in said
    assert begun(tmp_path / "w.safetensors", ("", first))[1]["kept"]


def test_what_cannot_be_begun_from_is_refused(file: Path, tmp_path: Path) -> None:
    assert "begins with 'backbone', which is to be renamed" in refusal(file, ("backbone", ""))
    nan = changed(
        file,
        tmp_path / "nan.safetensors",
        lambda found: {name: each / 0 if each.is_floating_point() else each for name, each in found.items()},
    )
    assert "has values that are not finite" in refusal(nan)
    below = changed(
        file,
        tmp_path / "below.safetensors",
        lambda found: {name: each - 2 if "var" in name else each for name, each in found.items()},
    )
    assert "running_var has variances below 0" in refusal(below)
    save_file({}, tmp_path / "empty.safetensors")
    assert "none of its 0 tensors fits the network" in refusal(tmp_path / "empty.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(InputError, match="it is a pipe or a device"):
        _ = Weights(tmp_path / "pipe.safetensors").origin
    for name in ("text.safetensors", "none.safetensors", "pipe.safetensors"):
        assert str(tmp_path / name) in refusal(tmp_path / name)
    whole = changed(
        file, tmp_path / "int.safetensors", lambda found: {name: each.to(torch.int8) for name, each in found.items()}
    )
    assert "the names fit and the shapes or types do not: " in refusal(whole)
    assert "would both be loaded" in refusal(file, (NAMES[0].rpartition(".")[0], NAMES[7].rpartition(".")[0]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\n", "m.yaml:1:4: a: expected what names become"),
        ("a: [b]\n", "m.yaml:1:4: a: expected what names become"),
        ("- a\n", "m.yaml:1:1: expected a mapping with keys like `old: new`"),
        ("", "m.yaml: is empty"),
        ("a: b\na: c\n", "m.yaml:2:1: "),
    ],
)
def test_a_file_of_names_is_held_to_its_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        renames_in(["m.yaml"])
    assert str(caught.value).startswith(said)
    Path("m.yaml").write_text('module.: ""\na.b: c\n')
    assert renames_in(["m.yaml", "a.b=d", "=e"]) == (("module.", ""), ("a.b", "d"), ("", "e"))


# --- trainings


def go(run: Path, digits: Path, *, resume: bool = False, weights: Any = None, watcher: Any = None) -> None:
    train(SPEC, TOLD, scenes(digits), run, device="cpu", resume=resume, weights=weights, watcher=watcher)


def test_it_begins_there_and_goes_on_without_the_file(digits: Path, tmp_path: Path, file: Path) -> None:
    copy, runs = Path(shutil.copy(file, tmp_path / "copy.safetensors")), [tmp_path / "whole", tmp_path / "stopped"]
    go(runs[0], digits, weights=copy)
    record = json.loads((runs[0] / "weights.json").read_text())
    assert (record["file"], record["map"], record["renamed"], record["new"]) == (str(copy), {}, {}, [])
    assert set(record["reshaped"]) == set(NAMES) - set(record["kept"]) != set()
    with pytest.raises(Stopped):
        go(runs[1], digits, weights=copy, watcher=Sends("started", 0))
    assert Run(runs[1]).steps() == [0]
    copy.unlink()
    go(runs[1], digits, resume=True)
    assert figures(runs[1]) == figures(runs[0])
    drawn = tmp_path / "drawn"
    go(drawn, digits)
    assert losses(drawn) != losses(runs[0])
    assert not (drawn / "weights.json").exists()


def test_other_weights_are_refused_when_it_goes_on(digits: Path, tmp_path: Path, file: Path) -> None:
    go(tmp_path / "run", digits, weights=file)
    other = changed(
        file, tmp_path / "other.safetensors", lambda found: {name: each * 2 for name, each in found.items()}
    )
    for weights, what in ((other, "digest"), (Weights(file, (("", ""),)), "map")):
        with pytest.raises(InputError, match=rf"began from weights of another {what}; leave --from away"):
            go(tmp_path / "run", digits, resume=True, weights=weights)
    go(tmp_path / "run", digits, resume=True, weights=file)
    before = figures(tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints")
    with pytest.raises(InputError, match="began from other weights, and has no checkpoint; say --from FILE again"):
        go(tmp_path / "run", digits, resume=True)
    go(tmp_path / "run", digits, resume=True, weights=file)
    assert figures(tmp_path / "run") == before
    go(tmp_path / "drawn", digits)
    with pytest.raises(InputError, match="began from no weights that were given"):
        go(tmp_path / "drawn", digits, resume=True, weights=file)


def test_weights_that_do_not_fit_leave_a_folder_that_can_begin(digits: Path, tmp_path: Path, file: Path) -> None:
    odd = changed(file, tmp_path / "odd.safetensors", lambda found: {f"x.{name}": each for name, each in found.items()})
    with pytest.raises(InputError, match="none of its"):
        go(tmp_path / "run", digits, weights=odd)
    go(tmp_path / "run", digits, weights=Weights(odd, (("x", ""),)))
    assert json.loads((tmp_path / "run/weights.json").read_text())["renamed"]
