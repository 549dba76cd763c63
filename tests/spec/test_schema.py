"""The JSON Schema: valid itself, true to what the language takes and refuses, of use in an editor."""

import copy
from functools import cache
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from mgcompile import SpecError, load
from mgcompile.spec import zoo_folder, zoo_names
from mgcompile.spec.base import Options
from mgcompile.spec.document import Document
from mgcompile.spec.items import CommonOptions, item_of
from mgcompile.spec.layers import LAYERS
from mgcompile.spec.schema import json_schema

FILES = sorted(zoo_folder().glob("*/*.yaml"))


@cache
def validator() -> Draft202012Validator:
    return Draft202012Validator(json_schema())


def problems(data: Any) -> list[str]:
    return [f"{error.json_path}: {error.message[:200]}" for error in validator().iter_errors(data)]


def item_problems(item: Any) -> list[str]:
    return problems({"input": {"size": 32}, "layers": [item]})


def compiles(data: Any) -> bool:
    try:
        load(data)
    except SpecError:
        return False
    return True


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(json_schema())


def test_every_reference_leads_somewhere_and_every_definition_is_used() -> None:
    schema = json_schema()
    used: set[str] = set()

    def walk(part: Any) -> None:
        if isinstance(part, dict):
            if "$ref" in part:
                used.add(part["$ref"].removeprefix("#/$defs/"))
            for inner in part.values():
                walk(inner)
        elif isinstance(part, list):
            for inner in part:
                walk(inner)

    walk(schema)
    assert used == set(schema["$defs"])


def test_it_is_made_anew() -> None:
    before = copy.deepcopy(json_schema())
    json_schema()["$defs"]["Expression"]["pattern"] = "changed"
    assert json_schema() == before


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(zoo_folder()).as_posix())
def test_the_zoo_is_valid(path: Any) -> None:
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert problems(data) == []


@pytest.mark.parametrize("name", zoo_names())
def test_canonical_and_merged_specs_are_valid(name: str) -> None:
    spec = load(name)
    assert problems(spec.data) == []
    assert problems(spec.expand().data) == []


RIGHT = [
    "pool",
    {"pool": None},
    {"conv": {"channels": 8}, "id": "a", "repeat": 2, "share": "repeats"},
    {"conv": {"channels": [8], "kernel": "1x7", "act": None, "norm": "none"}},
    {"conv": {"channels": "${2 * 4}", "kernel": ["${3}"]}},
    {"conv": {"down": [{"pool": {}}], "up": "nearest"}},
    {"pyramid": 3},
    {"act": "relu"},
    {"dropout": 0.5},
    {"select": "finest"},
    {"select": {"finest": 1}},
    {"drop": [1], "on": [0, 1]},
    {"join": "skip", "from": "previous"},
    {"join": ["a", "b"]},
    {"residual": ["conv", {"conv": {"act": "none"}}]},
    {"parallel": {"branches": [["conv"], []]}},
    {"block": {"use": "bottleneck", "width": 64}},
    {"op": {"name": "swish", "beta": 2}},
    {"classify": 10},
]


@pytest.mark.parametrize("item", RIGHT, ids=repr)
def test_right_items(item: Any) -> None:
    assert not item_of(item).faults, "the language takes it"
    assert item_problems(item) == []


WRONG = [
    "convolution",
    "classify",
    3,
    None,
    {},
    {"id": "a"},
    {"conv": {}, "pool": {}},
    {"conv": {}, "iff": 1},
    {"conv": {"chanels": 8}},
    {"conv": {"channels": "8"}},
    {"conv": {"channels": 0}},
    {"conv": {"kernel": "1x"}},
    {"conv": {"kernel": [[3, 3]]}},
    {"conv": {"act": "rulu"}},
    {"conv": {"act": {"by": "relu", "slop": 1}}},
    {"conv": {"order": "norm-conv"}},
    {"conv": {"bias": "yes"}},
    {"conv": {"dropout": 1.5}},
    {"conv": 8},
    {"select": None},
    {"select": "middle"},
    {"select": {"finest": 1, "coarsest": 1}},
    {"join": None},
    {"classify": {"level": 0}},
    {"linear": None},
    {"pool": {}, "repeat": -1},
    {"pool": {}, "share": "level"},
    {"residual": [{"conv": {"chanels": 8}}]},
    {"parallel": {"branches": [["conve"]]}},
]


@pytest.mark.parametrize("item", WRONG, ids=repr)
def test_wrong_items(item: Any) -> None:
    assert not compiles({"input": {"size": 32}, "layers": [item]}), "the language refuses it"
    assert item_problems(item)


@pytest.mark.parametrize(
    ("data", "right"),
    [
        ({"input": {"size": 32}, "layers": []}, True),
        ({"input": {"size": "32x48"}, "layers": ["conv"], "version": 1}, True),
        ({"extends": "family.yaml"}, True),
        ({"extends": "family.yaml", "input": {"channels": 1}, "params": {"n": 3}}, True),
        ({"extends": "family.yaml", "blocks": {"b": {"params": {"n": 3}}}}, True),
        (
            {"input": {"size": 32}, "layers": [], "defaults": {"conv": {"act": "gelu"}, "classify": {"pool": "max"}}},
            True,
        ),
        ({"input": {"size": 32}, "layers": [], "outputs": {"a": "stage1", "b": {"from": "stage2", "level": 0}}}, True),
        ({"layers": ["conv"]}, False),
        ({"input": {"size": 32}}, False),
        ({"input": {"channels": 1}, "layers": []}, False),
        ({"input": {"size": 32}, "layers": [], "blocks": {"b": {"params": {"n": 3}}}}, False),
        ({"input": {"size": 32}, "layers": {}}, False),
        ({"input": {"size": 32}, "layers": [], "layer": []}, False),
        ({"input": {"size": 32}, "layers": [], "version": 2}, False),
        ({"input": {"size": 32}, "layers": [], "params": {"2n": 1}}, False),
        ({"input": {"size": 32}, "layers": [], "params": {"n": {"defualt": 1}}}, False),
        ({"input": {"size": 32}, "layers": [], "defaults": {"cnv": {}}}, False),
        ({"input": {"size": 32}, "layers": [], "defaults": {"conv": {"kernl": 3}}}, False),
        ({"input": {"size": 32}, "layers": [], "blocks": {"${n}": {"layers": []}}}, False),
        ([], False),
    ],
    ids=str,
)
def test_documents(data: Any, right: bool) -> None:
    assert (problems(data) == []) == right


@pytest.mark.parametrize("kind", LAYERS)
def test_a_bare_name_is_right_where_the_language_takes_it(kind: str) -> None:
    assert (item_problems(kind) == []) == (not item_of(kind).faults)
    assert (item_problems({kind: None}) == []) == (not item_of({kind: None}).faults)


@pytest.mark.parametrize("cls", [Document, CommonOptions, *LAYERS.values()], ids=lambda cls: cls.__name__)
def test_everything_has_a_text_to_show(cls: type[Options]) -> None:
    schema = json_schema()
    assert cls.__doc__
    definition = {"Document": schema, "CommonOptions": schema["$defs"]["Item"]["anyOf"][0]}.get(cls.__name__)
    definition = definition or schema["$defs"][cls.__name__]
    options = next(part for part in [definition, *definition.get("anyOf", [])] if "properties" in part)["properties"]
    assert {name.removesuffix("_") for name in cls.model_fields} <= set(options)
    for name, option in options.items():
        assert option["description"].strip(), name
        assert "\n\n\n" not in option["description"]


def test_texts_and_defaults_are_as_people_write_them() -> None:
    definitions = json_schema()["$defs"]
    conv = definitions["Conv"]["anyOf"][0]["properties"]
    assert conv["kernel"]["default"] == 3
    assert conv["act"] == {
        "description": "The activation that belongs to the convolution, or none.",
        "default": "relu",
        "$ref": "#/$defs/Act",
    }
    assert conv["dropout"]["default"] == 0
    assert "default" not in conv["channels"]
    assert conv["stride"]["description"] == "A power of two; 2 takes every grid one level down."
    assert "title" not in definitions["Conv"]
    assert definitions["Predict"]["anyOf"][0]["properties"]["act"]["default"] == "none"
    item = definitions["Item"]["anyOf"][0]
    assert item["properties"]["pool"]["description"] == LAYERS["pool"].__doc__
