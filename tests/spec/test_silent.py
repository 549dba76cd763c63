"""Nothing that a spec says is passed over: unread options, joins that meet nowhere, names with two meanings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import pytest

from mgcompile import Op, SpecError, load
from mgcompile.graph import Grid
from mgcompile.graph.ops import Kind
from mgcompile.graph.ops.registry import _registered
from mgcompile.graph.types import Extent, Value
from mgcompile.spec import Spec
from mgcompile.spec.layers import LAYERS


def spec_of(*layers: Any, **rest: Any) -> Spec:
    spec = load({"input": {"size": 16}, "layers": list(layers), **rest})
    assert spec.expand().graph == spec.graph
    return spec


def refusal(*layers: Any, **rest: Any) -> str:
    with pytest.raises(SpecError) as caught:
        load({"input": {"size": 16}, "layers": list(layers), **rest})
    assert len(caught.value.errors) == 1, str(caught.value)
    return str(caught.value).removeprefix("<mapping>: ")


PYRAMID = [{"pyramid": 2}, {"id": "a", "conv": {"channels": 4, "reach": 0}}]
CONV = ("conv", "unit")

UNREAD: list[tuple[str, dict[str, Any], str]] = [
    ("act", {"by": "relu", "slope": 0.2}, "slope"),
    ("act", {"alpha": 0.2}, "alpha"),
    ("norm", {"groups": 8}, "groups"),
    ("norm", {"by": "layer", "momentum": 0.2}, "momentum"),
    ("norm", {"by": "none", "eps": 0.1}, "eps"),
    ("norm", {"by": "none", "affine": False}, "affine"),
    ("dropout", {"p": 0, "unit": "channel"}, "unit"),
    ("pyramid", {"levels": 1, "by": "max"}, "by"),
    ("up", {"bias": False}, "bias"),
    ("join", {"with": ["a"], "normalize": "softmax"}, "normalize"),
    ("join", {"with": ["a"], "fuse": "sum", "normalize": "relu"}, "normalize"),
    ("parallel", {"branches": [[], ["act"]], "normalize": "softmax"}, "normalize"),
    ("parallel", {"branches": [["act"]], "fuse": "sum"}, "fuse"),
    ("classify", {"classes": 2, "level": 0, "act": "tanh"}, "act"),
    ("predict", {"classes": 2, "level": 0, "by": "nearest"}, "by"),
    ("exchange", {"normalize": "softmax"}, "normalize"),
    ("exchange", {"reach": 0, "down": "avg", "with": ["a"]}, "down"),
    ("exchange", {"reach": 0, "fuse": "sum"}, "fuse"),
    ("exchange", {"flow": "top-down", "down": "avg"}, "down"),
    ("exchange", {"flow": "bottom-up", "up": "bilinear"}, "up"),
    ("exchange", {"up": "none", "down": "none", "flow": "top-down"}, "flow"),
    ("grow", {"layers": ["act"], "kernel": 5}, "kernel"),
    ("grow", {"layers": ["act"], "repeat": 2}, "repeat"),
    ("unit", {"by": "conv", "shortcut": "pad"}, "shortcut"),
    ("unit", {"by": "conv", "act": "tanh", "act_after": "relu"}, "act"),
    *(
        (kind, {"reach": 0, option: value}, option)
        for kind in CONV
        for option, value in {"fuse": "sum", "down": "avg", "up": "bilinear", "flow": "top-down"}.items()
    ),
    *((kind, {"kernel": 1, "dilation": 2}, "dilation") for kind in CONV),
    *((kind, {"norm": "none", "act": "none", "order": "norm-act-conv"}, "order") for kind in CONV),
    *((kind, {"norm": {"by": "instance", "groups": 2}}, "norm.groups") for kind in CONV),
    *((kind, {"act": {"by": "elu", "slope": 2}}, "act.slope") for kind in CONV),
]


@pytest.mark.parametrize(("kind", "options", "unread"), UNREAD, ids=repr)
def test_an_option_that_nothing_reads_is_refused(kind: str, options: dict[str, Any], unread: str) -> None:
    found = refusal(*PYRAMID, {kind: options})
    assert found.startswith(f"layers[2].{kind}.{unread}: nothing reads {unread.rpartition('.')[2]}: ")


def test_unread_options_may_wait_in_defaults_and_for_the_values_of_an_expression() -> None:
    spec_of({"conv": {"channels": 4}}, defaults={"act": {"slope": 0.2}, "norm": {"groups": 2}})
    spec_of({"norm": {"by": "${n}", "groups": 3}}, params={"n": "batch"})
    spec_of({"conv": {"channels": 4, "kernel": "${k}", "dilation": 2}}, params={"k": 1})
    spec_of({"conv": {"channels": 4, "act": {"by": "${n}", "slope": 3}}}, params={"n": "relu"})


def test_every_reason_names_options_that_there_are() -> None:
    for kind, cls in LAYERS.items():
        for option, deciders, reason in cls.model_construct(
            **{name: [] for name, field in cls.model_fields.items() if field.is_required()}
        ).unread():
            assert {option, *deciders} <= cls.model_fields.keys(), kind
            assert reason


def test_pyramids_must_meet_where_they_are_joined() -> None:
    apart = [{"id": "a", "conv": {"channels": 4}}, "pool"]
    for join in ("a", ["a"], {"with": ["a"], "fuse": "sum"}):
        found = refusal(*apart, {"join": join})
        assert found.startswith(
            "layers[2].join.with: no two grids meet at a level: what this layer receives has level 1"
        )
    assert "no two grids meet" in refusal({"parallel": {"branches": [["pool"], []]}})
    side_by_side = spec_of(*apart, {"join": {"with": ["a"], "fuse": "none"}}).graph
    assert set(side_by_side.outputs) == {"level0", "level1"}
    assert "several grids at level 0" in refusal(apart[0], {"join": {"with": ["a"], "fuse": "none"}})
    assert "none of the levels" in refusal(apart[0], "pool", {"exchange": {"with": ["a"], "fuse": "sum"}})


def test_a_grid_that_only_one_side_has_still_passes_through() -> None:
    assert set(spec_of(*PYRAMID, {"select": [0]}, {"join": "a"}).graph.outputs) == {"level0", "level1"}


def test_an_index_of_two_repeats_is_named_by_its_layer() -> None:
    def nested(text: str, **ids: str) -> list[Any]:
        inner = {"conv": {"channels": text}, "repeat": 2, "id": ids.get("inner", "b")}
        return [{"id": ids.get("outer", "a"), "group": [inner], "repeat": 2}]

    assert "`index`: it could be that of several repeats; write ${a.index} or ${b.index}" in refusal(
        *nested("${index + 1}")
    )
    assert "'a-1' (by an id of letters)" in refusal(*nested("${index + 1}", outer="a-1"))
    assert "two repeats around this are called 'b'" in refusal(*nested("${b.index + 1}", outer="b"))
    assert "there is no name `c.index`" in refusal(*nested("${c.index + 1}"))
    spec_of(*nested("${a.index + 1}"))
    spec_of({"group": [{"conv": {"channels": "${index + 1}"}}], "repeat": 2})
    block = {"layers": [{"conv": {"channels": "${index + 1}"}, "repeat": 2}]}
    spec_of({"block": "b", "repeat": 2}, blocks={"b": block})


def test_a_name_that_hides_a_param_has_two_meanings() -> None:
    conv = {"conv": {"channels": "${index + 1}"}, "repeat": 2}
    assert "could be the param or the number of the repeat" in refusal(conv, params={"index": 1})
    grow = {"grow": {"layers": [{"conv": {"channels": "${channels}"}}]}}
    assert "could be the param" in refusal(*PYRAMID, grow, params={"channels": 1})


def test_sharing_that_shares_nothing_is_refused() -> None:
    exchange = {"exchange": {"down": "conv", "up": "conv", "fuse": "sum"}}
    assert "no two levels share" in refusal(*PYRAMID, {**exchange, "share": "levels"})
    assert "no two levels share" in refusal(*PYRAMID, {"pool": None, "share": "levels"})
    assert "no `repeat`" in refusal(*PYRAMID, {"conv": {"channels": 4}, "share": "repeats"})
    assert "nothing reads levels" in refusal(*PYRAMID, {"conv": {}, "share": {"with": "a", "levels": True}})
    spec_of(*PYRAMID, {"conv": {"channels": 4, "reach": 0}, "share": "levels"})


def test_repeats_at_several_levels_say_how_they_share() -> None:
    layer = {"conv": {"channels": 3, "stride": 2}, "repeat": 2}
    assert "`share: {levels: true, repeats: true}`" in refusal({**layer, "share": "repeats"})
    spec_of({**layer, "share": {"levels": True, "repeats": True}})


def test_up_by_a_transposed_convolution_goes_up() -> None:
    assert refusal({"up": {"by": "transposed", "steps": 0}}).startswith("layers[0].up.steps: ")
    assert "a has no grid at level 1" in refusal(
        {"id": "a", "act": None}, "pool", {"up": {"by": "bilinear", "like": "a"}}
    )


@dataclass(frozen=True)
class Odd(Op):
    """A registered operation that does not keep to its level."""

    how: str = "halve"

    kind: ClassVar[Kind] = Kind.CUSTOM

    def infer(self, *inputs: Value) -> Value:
        (grid,) = inputs
        assert isinstance(grid, Grid)
        height, width = grid.height, grid.width
        match self.how:
            case "halve":
                return Grid(grid.channels, height.shift(1), width.shift(1))
            case "half a side":
                return Grid(grid.channels, height, width.shift(1))
            case "raise":
                raise KeyError("oops")
            case "huge":
                return Grid(10**20, height, width)
            case "crop":
                return Grid(grid.channels, height.grow(-1), width)
        return Grid(grid.channels, Extent(0, Fraction(1, 2)), width)

    def emit(self, graph: Any, args: Sequence[Any], *inputs: Value) -> Any:
        return args[0]


def test_a_registered_operation_keeps_to_its_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_registered, "odd", Odd)
    for how, words in {
        "halve": "no grid of level 0",
        "half a side": "no grid of level 0",
        "raise": "fails on what it receives: KeyError",
        "huge": "more than 1,000,000,000 channels",
    }.items():
        found = refusal("act", {"op": {"name": "odd", "how": how}})
        assert found.startswith("layers[1].op: ")
        assert words in found
    spec_of({"op": {"name": "odd", "how": "crop"}})


def test_whole_floats_are_whole_numbers() -> None:
    conv = {"channels": "${64 * 0.25}", "kernel": 3.0, "dilation": [1.0], "reach": 0.0}
    spec = spec_of(
        {"conv": conv, "repeat": "${4 / 2.0}", "on": 0.0}, input={"size": "${2 ** 0.5 * 2 ** 0.5 * 0 + 8.0}"}
    )
    assert spec.graph.size == (8, 8)
    assert load({"input": {"size": 8}, "params": {"n": 2}, "layers": ["pool"]}, params={"n": 3.0}).params == {"n": 3}
    assert "found 16.5" in refusal({"conv": {"channels": "${66 * 0.25}"}})


def test_a_sum_says_where_its_operands_come_from() -> None:
    block = {
        "params": {"w": 4},
        "layers": [{"residual": {"body": [{"conv": {"channels": "${w}"}}], "shortcut": "identity"}}],
    }
    layers = [
        {"id": "stem", "conv": {"channels": 8}},
        {"conv": {"channels": 4}},
        {"join": {"with": ["stem"], "fuse": "sum"}},
    ]
    assert "the operands are 4 channels of s from conv1.act, 8 channels of s from stem.act" in refusal(*layers)
    assert refusal({"block": "b"}, blocks={"b": block})


@pytest.mark.parametrize(
    ("layer", "words"),
    [("add", "fuse: sum"), ({"add": "a"}, "fuse: sum"), ("MaxPool2d", "pool: {by: max}"), ("relu", "act: relu")],
    ids=repr,
)
def test_layers_as_other_tools_call_them(layer: Any, words: str) -> None:
    assert words in refusal(layer)


@pytest.mark.parametrize("name", ["in", "if", "True", "None", "lambda"])
def test_a_param_has_a_name_that_expressions_can_read(name: str) -> None:
    assert "cannot be read in an expression" in refusal("pool", params={name: 3})
    block = {"params": {name: 3}, "layers": ["pool"]}
    assert "cannot be read in an expression" in refusal({"block": "b"}, blocks={"b": block})


def test_a_parameter_of_a_block_can_be_given() -> None:
    said = refusal({"block": "b"}, blocks={"b": {"params": {"use": 3}, "layers": [{"pad": "${use}"}]}})
    assert said == "blocks.b.params.use: `use` says which block; choose another name"


def test_defaults_that_would_reach_nothing_are_refused() -> None:
    assert refusal("pool", defaults={"op": {"times": 3}}) == (
        "defaults.op.times: nothing reads it: what stands beside name is said where op is used"
    )
    assert refusal("pool", defaults={"block": {"use": "b", "w": 3}}) == (
        "defaults.block.w: nothing reads it: what stands beside use is said where block is used"
    )


@pytest.mark.parametrize("layer", [{"norm": {"eps": 0}}, {"conv": {"norm": {"by": "batch", "eps": "${0 * 1}"}}}])
def test_a_batch_norm_that_could_not_be_trained_is_refused(layer: Any) -> None:
    assert "eps: 0 divides by zero in training; expected a positive number" in refusal(layer)
    assert spec_of({"norm": {"by": "layer", "eps": 0}})


@pytest.mark.parametrize("layer", [{"extend": "finer"}, {"up": {"steps": 1}}, {"pool": {}}])
def test_levels_go_as_far_as_they_can_be_named(layer: dict[str, Any]) -> None:
    assert spec_of({**layer, "repeat": 24})
    assert "is out of reach; levels go from -24 to 24" in refusal({**layer, "repeat": 25})


@pytest.mark.parametrize("share", ["repeats", {"with": "a"}])
def test_a_layer_without_weights_shares_none(share: Any) -> None:
    repeat = {"repeat": 2} if share == "repeats" else {}
    said = refusal({"id": "a", "pool": {}}, {"act": "relu", "share": share, **repeat})
    assert said.endswith("there are no weights here to share")
    assert spec_of({"id": "a", "act": "prelu"}, {"act": "prelu", "share": share, **repeat})


def test_an_option_that_stands_beside_its_layer() -> None:
    """The commonest mistake in indentation: `- conv:`, and below it `channels: 4` as far to the right."""
    assert refusal({"conv": None, "channels": 4}) == (
        "layers[0].channels: `channels` is an option of conv: it belongs under `conv:`, further to the right"
    )
