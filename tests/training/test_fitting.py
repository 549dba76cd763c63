"""Whether a network fits a task: every paper's spec does, and every misfit is told with its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import mgcompile
from mgcompile.errors import SpecError
from mgcompile.spec import parse_spec, zoo_names
from mgcompile.training.fitting import Fit, check_norms, fit
from mgcompile.training.recipe import Recipe
from mgcompile.training.tasks import ClassData, Data, MapData


def maps(channels: int = 1, size: int = 64, outputs: int = 10) -> Data:
    """Data whose targets are maps; only what they look like."""
    return made(MapData, channels, size, outputs)


def classes(channels: int = 3, size: int = 32, outputs: int = 10) -> Data:
    return made(ClassData, channels, size, outputs)


def made(kind: type[Data], channels: int, size: int, outputs: int) -> Data:
    stub = type("Stub", (kind,), {"channels": channels, "size": size, "outputs": outputs})
    stub.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    return stub()


DATA = {
    "mnist-seg": maps(),
    "mnist-spatial": maps(outputs=1),
    "cifar100": classes(outputs=100),
    "imagenet": classes(size=224, outputs=1000),
}
PAPER = [name for name in zoo_names() if name.split("/")[0] in DATA]


def test_there_are_forty_specs_of_the_paper() -> None:
    assert len(PAPER) == 40


@pytest.mark.parametrize("name", PAPER)
def test_a_spec_of_the_paper_fits_its_task(name: str) -> None:
    task = name.split("/", maxsplit=1)[0]
    spec = mgcompile.load(name)
    found = fit(spec, DATA[task], task)
    assert found.logits != task.startswith("mnist")  # those have a sigmoid at the end
    assert found.output in spec.graph.outputs


def test_a_network_of_another_size_serves_what_the_data_have() -> None:
    spec = mgcompile.load("mnist-seg/pmg-11", params={"width": 8})
    assert fit(spec, maps(size=24), "mnist-seg") == fit(spec, maps(), "mnist-seg")


HEAD = "name: n\ninput:\n  channels: {channels}\n  size: {size}\n"


def spec_of(layers: str, channels: int = 1, size: int = 16) -> mgcompile.Spec:
    return parse_spec(HEAD.format(channels=channels, size=size) + layers, "net.yaml")


@pytest.mark.parametrize(
    ("end", "data", "logits"),
    [
        ("  - act: sigmoid\n", maps(outputs=2), False),
        ("  - act: relu\n", maps(outputs=2), True),
        ("", maps(outputs=2), True),
        ("  - classify: 5\n", classes(1, outputs=5), True),
        ("  - classify: 5\n  - act: softmax\n", classes(1, outputs=5), False),
        ("  - classify: 5\n  - act: tanh\n", classes(1, outputs=5), True),
    ],
)
def test_what_a_network_ends_in_says_whether_it_returns_logits(end: str, data: Data, logits: bool) -> None:
    found = fit(spec_of(f"layers:\n  - conv: {{channels: 2, act: none}}\n{end}"), data, "task")
    assert isinstance(found, Fit)
    assert found.logits is logits


CONV = "layers:\n  - conv: {channels: 2}\n"
PYRAMID = "layers:\n  - pyramid: 2\n  - id: a\n    conv: {channels: 2}\n  - id: b\n    conv: {channels: [2, 4]}\n"

MISFITS = {
    "channels": (
        spec_of(CONV, channels=3),
        maps(1, 16, 2),
        r"net\.yaml:3:13: input\.channels: t gives images of 1 channel, the network takes 3; set it to 1",
    ),
    "maps": (
        spec_of(CONV),
        maps(1, 16, 10),
        r"net\.yaml:6:3: layers: t takes 10 maps of 16x16 of an input of 16x16; none of its outputs is: "
        r"\w+ 2 maps of 16x16; set the number of maps to 10",
    ),
    "halved": (
        spec_of(CONV + "  - pool\n"),
        maps(1, 16, 2),
        r"net\.yaml:6:3: layers: t takes 2 maps of 16x16 of an input of 16x16; none of its outputs is: "
        r"\w+ 2 maps of 8x8; .*",
    ),
    "classes": (
        spec_of(CONV + "  - classify: 5\n"),
        classes(1, 16, 10),
        r"net\.yaml:6:3: layers: t takes 10 classes of an input of 16x16; none of its outputs is: \w+ 5 classes; "
        r"set the number of classes to 10",
    ),
    "maps for classes": (
        spec_of(CONV),
        classes(1, 16, 10),
        r"net\.yaml:6:3: layers: .*none of its outputs is: \w+ 2 maps of 16x16; set the number of classes to 10",
    ),
    "too small": (
        spec_of("layers:\n  - conv: {channels: 2, kernel: 5, padding: 0}\n", size=16),
        maps(1, 4, 2),
        r"net\.yaml:4:9: input\.size: t gives images of 4x4: .+",
    ),
    "two that fit": (
        spec_of(PYRAMID + "  - drop: coarsest\noutputs: {one: a, two: b}\n"),
        maps(1, 16, 2),
        r"net\.yaml:\d+:\d+: outputs: t takes 2 maps of 16x16 of an input of 16x16; more than one of its outputs is: "
        r".+; keep one of them under outputs",
    ),
    "softmax over maps": (
        spec_of(CONV + "  - act: softmax\n"),
        maps(1, 16, 2),
        r"net\.yaml:6:3: layers: t takes logits, or what sigmoid makes of them; the network ends in softmax",
    ),
    "sigmoid of classes": (
        spec_of(CONV + "  - classify: 5\n  - act: sigmoid\n"),
        classes(1, 16, 5),
        r"net\.yaml:6:3: layers: t takes logits, or what softmax makes of them; the network ends in sigmoid",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_misfit_is_told_with_its_place(case: str) -> None:
    spec, data, said = MISFITS[case]
    with pytest.raises(SpecError) as caught:
        fit(spec, data, "t")
    assert re.fullmatch(said, str(caught.value)), str(caught.value)


def test_of_several_outputs_the_one_that_fits_is_taken() -> None:
    pyramid = spec_of(PYRAMID)  # a pyramid's grids are its outputs
    names = list(pyramid.graph.outputs)
    assert len(names) == 2
    assert fit(pyramid, maps(1, 16, 2), "t").output == names[0]
    with pytest.raises(
        SpecError, match=r"none of its outputs is: .* 2 maps of 16x16, .* 4 maps of 8x8; set the number"
    ):
        fit(pyramid, maps(1, 16, 3), "t")


def test_a_file_is_named_as_it_was_given(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(HEAD.format(channels=2, size=16) + CONV, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        fit(mgcompile.load(file), maps(1, 16, 2), "t")
    assert str(caught.value).startswith(f"{file}:3:13: input.channels: ")


# --- batch norms of a single value

CELLS = """\
layers:
  - conv: {channels: 4}
  - gate:
      - global_pool
      - conv: {kernel: 1, reach: 0}
      - conv: {kernel: 1, reach: 0, channels: 4, norm: NORM, act: sigmoid}
  - pool
  - conv: {channels: 4, norm: NORM}
  - classify: 2
"""


def parts(batch: int, accumulate: int = 1, **said: bool) -> Recipe:
    return Recipe(task="cifar10", steps=1, batch=batch, accumulate=accumulate, **said)


def problems_with(text: str, recipe: Recipe, size: int = 2) -> list[str]:
    spec = parse_spec(HEAD.format(channels=3, size=size) + text, "n.yaml")
    try:
        check_norms(spec, classes(size=size, outputs=2), recipe)
    except SpecError as error:
        return str(error).splitlines()
    return []


def trains(text: str, part: int, size: int, *, optimize: bool) -> bool:
    """Whether PyTorch takes a part of so many examples."""
    spec = parse_spec(HEAD.format(channels=3, size=size) + text, "n.yaml")
    model = mgcompile.compile(spec, optimize="training" if optimize else None, seed=0)
    try:
        model(torch.zeros(part, 3, size, size))
    except ValueError:  # expected more than 1 value per channel
        return False
    return True


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("norm", ["batch", "none", "{by: group, groups: 2}"])
@pytest.mark.parametrize(
    ("batch", "accumulate", "size"), [(1, 1, 2), (1, 1, 4), (2, 2, 2), (2, 1, 2), (4, 2, 2), (3, 3, 3)]
)
def test_what_pytorch_would_refuse_is_known_before(
    norm: str, batch: int, accumulate: int, size: int, optimize: bool
) -> None:
    text = CELLS.replace("NORM", norm).replace("reach: 0}", f"reach: 0, norm: {norm}}}")
    found = problems_with(text, parts(batch, accumulate, optimize=optimize), size)
    assert (not found) == trains(text, batch // accumulate, size, optimize=optimize)


def test_each_norm_of_a_single_value_is_told_with_its_line_and_what_is_enough() -> None:
    found = problems_with(CELLS.replace("NORM", "batch"), parts(4, 4))
    places = [line.split(": ")[0] for line in found]
    assert sorted(places) == ["n.yaml:10", "n.yaml:12", "n.yaml:9"]
    for line in found:
        assert "batch norm over a single value: at an input of 2x2 its grid has one cell" in line
        assert "take 8 at least (--batch), or fewer parts (--accumulate), or choose another norm here" in line
    assert "take 2 at least (--batch), or choose another" in problems_with(CELLS.replace("NORM", "batch"), parts(1))[0]


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(
    "norm", ["none", "instance", "layer", "{by: group, groups: 1}", "{by: group, groups: CHANNELS}"]
)
def test_what_a_norm_would_return_whatever_it_receives_is_known_before(
    norm: str, size: int, channels: int, optimize: bool
) -> None:
    text = f"layers:\n  - pool\n  - conv: {{channels: {channels}, norm: {norm}}}\n  - classify: 2\n"
    text = text.replace("CHANNELS", str(channels))
    found = problems_with(text, parts(4, optimize=optimize), size)
    spec = parse_spec(HEAD.format(channels=3, size=size) + text, "n.yaml")
    model = mgcompile.compile(spec, optimize="training" if optimize else None, seed=0)
    outputs = model(torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0)))
    assert bool(found) == torch.allclose(outputs, outputs[:1].expand_as(outputs), atol=1e-5)
    assert all(line.startswith("n.yaml:7: conv1.norm: ") and "would not depend on it" in line for line in found)


def test_a_norm_that_is_pruned_is_in_nobodys_way() -> None:
    spec = """\
layers:
  - pyramid: 2
  - conv: {channels: 4, reach: 0}
  - drop: coarsest
  - classify: 2
"""
    for optimize in (False, True):
        assert bool(problems_with(spec, parts(1, optimize=optimize))) != trains(spec, 1, 2, optimize=optimize)
    assert trains(spec, 1, 2, optimize=True)
