"""The networks that ship: exact counts for those of the paper, and one meaning for a spec and its canonical form."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mgcompile.graph import Graph
from mgcompile.spec import load, zoo_folder, zoo_names

COUNTS = Path(__file__).parent / "data" / "counts.csv"
FAMILIES = sorted(zoo_folder().glob("*/_*.yaml"))


def published() -> list[tuple[str, str, int, int]]:
    with COUNTS.open(encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return [(row["task"], row["model"], int(row["params"]), int(row["macs"])) for row in rows]


def counts(graph: Graph) -> tuple[int, int]:
    """Parameters, and multiply-accumulates at the nominal size."""
    shapes = graph.shapes()
    params = sum(node.op.parameters(*graph.input_types(node)) for node in graph.owners())
    macs = sum(node.op.macs([shapes[source] for source in node.inputs], shapes[node.name]) for node in graph)
    return params, macs


def test_the_paper_has_forty_networks_and_each_has_a_spec() -> None:
    names = [f"{task}/{model.lower()}" for task, model, _, _ in published()]
    assert len(set(names)) == 40
    assert set(names) == {name for name in zoo_names() if not name.startswith("beyond/")}


@pytest.mark.parametrize(("task", "model", "params", "macs"), published())
def test_counts_to_the_last_digit(task: str, model: str, params: int, macs: int) -> None:
    spec = load(f"{task}/{model.lower()}")
    assert spec.name == model
    assert counts(spec.graph) == (params, macs)


@pytest.mark.parametrize("name", zoo_names())
def test_the_canonical_form_means_the_same_and_is_its_own(name: str) -> None:
    spec = load(name)
    canonical = spec.expand()
    assert canonical.graph == spec.graph
    assert canonical.expand().data == canonical.data


@pytest.mark.parametrize("family", [path.relative_to(zoo_folder()).as_posix() for path in FAMILIES])
def test_families_are_networks_themselves(family: str) -> None:
    path = zoo_folder() / family
    spec = load(path)
    assert "${" not in spec.name
    assert spec.name.lower() in {file.stem for file in path.parent.glob("*.yaml")}


@pytest.mark.parametrize(
    ("family", "params", "name"),
    [
        ("cifar100/_vgg", {"n": 3}, "VGG-16"),
        ("cifar100/_res", {"n": 3}, "RES-32"),
        ("cifar100/_mg", {"n": 3, "by": "conv"}, "MG-16"),
        ("cifar100/_mg", {"n": 3, "by": "residual"}, "R-MG-32"),
        ("cifar100/_pmg", {"n": 2, "by": "conv"}, "PMG-16"),
        ("cifar100/_pmg", {"n": 2, "by": "residual"}, "R-PMG-30"),
    ],
)
def test_a_family_with_params_is_its_member(family: str, params: dict[str, object], name: str) -> None:
    spec = load(zoo_folder() / f"{family}.yaml", params=params)
    member = load(f"cifar100/{name.lower()}")
    assert spec.name == name
    assert spec.graph == member.graph


def channels(graph: Graph) -> list[int]:
    return [shape[0] for shape in graph.shapes().values()]


@pytest.mark.parametrize("name", [name for name in zoo_names() if not name.startswith("beyond/")])
def test_all_channels_follow_the_width(name: str) -> None:
    spec = load(name)
    least = spec.document.params["width"].min
    ends = {1, 3, 10, 100, 1000}  # those of the image and of the classes
    twice = load(name, params={"width": 128}).graph
    assert list(twice.nodes) == list(spec.graph.nodes)
    for before, after in zip(channels(spec.graph), channels(twice), strict=True):
        assert after == 2 * before or after == before in ends
    previous = (0, 0)
    for width in (least, 37, 63, 64, 65, 127):  # odd ones too; both figures grow
        figures = counts(load(name, params={"width": width}).graph)
        assert figures[0] > previous[0]
        assert figures[1] > previous[1]
        previous = figures


def test_names_of_weights_come_from_the_stages() -> None:
    names = {node.weights for node in load("cifar100/r-mg-22").graph.owners()}
    assert {"embed.conv.level0", "stage2.0.conv1.conv.level1", "stage5.1.conv2.norm.level5"} <= names
    assert "stage1.grow.step2.unit.0.conv1.conv.level0" in {
        node.weights for node in load("cifar100/r-pmg-16").graph.owners()
    }
