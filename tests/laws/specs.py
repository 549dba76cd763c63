"""Generated specs over the whole language.

A spec is grown layer by layer: a layer of any kind with any of its options is proposed, and stays if the spec with it
is right. So validity is decided in one place, by mgcompile itself, and what it accepts must then keep all laws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hypothesis import strategies as st

from mgcompile import Op, SpecError, load, register_op
from mgcompile.graph.ops import Kind
from mgcompile.graph.types import Value

MOST_ELEMENTS = 300_000
MOST_NODES = 250


@dataclass(frozen=True)
class Negate(Op):
    """The registered operation that generated specs use: minus its input, `times` times."""

    times: int = 1

    kind: ClassVar[Kind] = Kind.CUSTOM

    def infer(self, *inputs: Value) -> Value:
        return inputs[0]

    def emit(self, graph: Any, args: Sequence[Any], *inputs: Value) -> Any:
        import operator

        return graph.call_function(operator.mul, (args[0], (-1) ** self.times))


register_op("negate", Negate)

FUSE = ["concat", "sum", "mean", "max", "product", "weighted"]
JOINS = [*FUSE, "none"]
NORMALIZE = ["none", "relu", "softmax"]
ACTS = [
    "relu",
    "silu",
    "tanh",
    "prelu",
    "softmax",
    "none",
    {"by": "leaky_relu", "slope": 0.2},
    {"by": "elu", "alpha": 2},
]
NORMS = [
    "batch",
    "layer",
    "instance",
    "none",
    {"by": "group", "groups": 2},
    {"eps": 0.001, "momentum": 0.5, "affine": False},
]
CONV1 = {"conv": {"kernel": 1, "reach": 0}}
BODIES = [[], [CONV1], ["act"], [{"norm": "layer"}, {"act": "tanh"}], [{"conv": {"channels": 4, "reach": 0}}, CONV1]]
DOWN = [
    "max",
    "avg",
    "nearest",
    "conv",
    "none",
    [{"conv": {"stride": 2, "reach": 0, "channels": "${target}"}, "repeat": "${distance}"}],
]
UP = ["nearest", "bilinear", "transposed", "conv", "none", [CONV1, {"up": {"by": "bilinear", "steps": "${distance}"}}]]
LEVELS = ["finest", "coarsest", {"finest": 2}, {"coarsest": -1}, 0, 1, 2, [0, 1], [1, 2]]
SHORTCUT = ["auto", "identity", "pad", "project"]

COMMUNICATION = {
    "reach": [0, 1, 2, "all"],
    "fuse": FUSE,
    "normalize": NORMALIZE,
    "down": DOWN,
    "up": UP,
    "flow": ["parallel", "top-down", "bottom-up"],
}
CHANNELS = [2, 4, 6, "per level", "${2 * w}", "${incoming}", "${incoming * 2}"]
CONV = COMMUNICATION | {
    "channels": CHANNELS,
    "kernel": [1, 2, 3, 4, 5, "1x3", "per level", "${w + 1}"],
    "stride": [1, 2],
    "dilation": [1, 2],
    "groups": [1, 2, "depthwise"],
    "bias": [True, False],
    "padding": [0, 1, 2],
    "norm": NORMS,
    "act": ACTS,
    "order": ["conv-norm-act", "norm-act-conv", "act-conv-norm", "conv-act-norm"],
    "dropout": [0.1, {"p": 0.3, "unit": "channel"}],
}
UNIT = CONV | {"by": ["residual", "conv"], "shortcut": SHORTCUT, "act_after": ACTS}

OPTIONS: dict[str, dict[str, list[Any]]] = {
    "pyramid": {"levels": [1, 2, 3], "by": ["avg", "max", "nearest"]},
    "conv": CONV,
    "exchange": COMMUNICATION | {"same": BODIES, "body": BODIES, "with": ["refs"], "to": LEVELS},
    "unit": UNIT,
    "residual": {"body": BODIES, "shortcut": SHORTCUT, "act_after": ACTS},
    "grow": {name: values for name, values in UNIT.items() if name not in ("channels", "stride")}
    | {
        "repeat": [0, 1, 2],
        "towards": ["finer", "coarser"],
        "start": [1, 2],
        "schedule": [[4], [2, 4], [2, [4, 2]], [2, 4, 6], [2, [2, 4], [4, 4, 2]]],
        "layers": [[], [{"conv": {"channels": "${channels}"}}], [{"act": "tanh"}]],
    },
    "pool": {"by": ["max", "avg"], "kernel": [1, 2, 3, "per level"], "stride": [1, 2, 4], "merge": [True, False]},
    "up": {
        "by": ["nearest", "bilinear", "transposed"],
        "steps": [0, 1, 2],
        "channels": [2, 4],
        "kernel": [2, 3, 4],
        "bias": [True, False],
        "like": ["ref"],
    },
    "select": {"levels": LEVELS},
    "drop": {"levels": LEVELS},
    "extend": {"at": ["coarser", "finer"], "layers": [[], [{"conv": {"stride": 2, "reach": 0}}], [CONV1, "up"]]},
    "join": {"with": ["refs"], "fuse": JOINS, "normalize": NORMALIZE, "crop": [True, False]},
    "parallel": {"branches": [[[], [CONV1]], [[CONV1], ["act"], []]], "fuse": JOINS, "normalize": NORMALIZE},
    "gate": {"body": [[{"act": "sigmoid"}], ["global_pool", {"act": "sigmoid"}], ["global_pool", CONV1]]},
    "shortcut": {"like": ["ref"], "by": SHORTCUT},
    "norm": {
        "by": ["batch", "group", "instance", "layer", "none"],
        "groups": [1, 2],
        "eps": [0.01],
        "momentum": [0.3],
        "affine": [True, False],
    },
    "act": {
        "by": ["relu", "gelu", "hardswish", "leaky_relu", "elu", "sigmoid", "none"],
        "slope": [0.3],
        "alpha": [0.5],
    },
    "dropout": {"p": [0, 0.2], "unit": ["element", "channel", "sample"]},
    "pad": {"channels": [4, 6, 8, "${incoming + 1}"]},
    "slice": {"start": [0, 1], "stop": [2, 3]},
    "global_pool": {"by": ["avg", "max"], "cells": [1, 2]},
    "flatten": {},
    "linear": {"features": [3, 5], "bias": [True, False]},
    "classify": {
        "classes": [3],
        "level": LEVELS,
        "pool": ["avg", "max"],
        "cells": [1, 2],
        "hidden": [[], [4], [4, 5]],
        "act": ACTS,
        "dropout": [0.2],
    },
    "predict": {
        "classes": [1, 3],
        "level": LEVELS,
        "kernel": [1, 3],
        "bias": [True, False],
        "act": ["sigmoid", "none"],
        "to": [0, 1],
        "by": ["nearest", "bilinear"],
    },
    "group": {"layers": [[], [CONV1, "act"], [{"id": "inner", "conv": {"channels": 4}}, {"join": "start"}]]},
    "block": {"use": ["plain", "nested"], "width": [2, "${2 * w}"], "deep": [True, False]},
    "op": {"name": ["negate"], "times": [1, 2]},
}
REQUIRED = {
    "select": ["levels"],
    "drop": ["levels"],
    "join": ["with"],
    "parallel": ["branches"],
    "gate": ["body"],
    "residual": ["body"],
    "shortcut": ["like"],
    "pad": ["channels"],
    "linear": ["features"],
    "classify": ["classes"],
    "predict": ["classes"],
    "group": ["layers"],
    "block": ["use"],
    "op": ["name"],
}
BLOCKS = {
    "plain": {"params": {"width": 4, "deep": False}, "layers": [{"conv": {"channels": "${width}", "reach": 0}}]},
    "nested": {
        "params": {"width": {"default": 2, "min": 1}, "deep": False},
        "layers": [
            {"block": {"use": "plain", "width": "${width + 2}"}},
            {"id": "again", "act": "tanh", "repeat": "${1 if deep else 0}"},
            {"residual": [CONV1]},
        ],
    },
}
DEFAULTS = [
    {},
    {"conv": {"bias": False}, "unit": {"by": "conv"}},
    {"exchange": {"fuse": "sum", "down": "conv", "up": "conv"}, "act": "tanh"},
    {"norm": {"momentum": 0.2}, "pool": {"by": "avg"}, "join": {"fuse": "sum"}},
]
SHARES = ["levels", "repeats", {"levels": True, "norm": False}, "with"]


def types_of(spec: dict[str, Any]) -> dict[int, Value]:
    """What a right spec ends with, by level. Raises `SpecError` for one that is wrong."""
    graph = load(spec).graph
    if len(graph) > MOST_NODES or sum(_elements(shape) for shape in graph.shapes().values()) > MOST_ELEMENTS:
        raise SpecError([])
    return {graph[node].level: graph.types[node] for node in graph.outputs.values()}


def _elements(shape: tuple[int, ...]) -> int:
    product = 1
    for side in shape:
        product *= side
    return product


@st.composite
def items(draw: st.DrawFn, levels: Sequence[int], ids: Sequence[str]) -> dict[str, Any]:
    """A layer that may fit after a pyramid with these levels and earlier layers of these ids."""
    kind = draw(st.sampled_from(sorted(OPTIONS)))
    chosen = draw(st.sets(st.sampled_from(sorted(OPTIONS[kind])), max_size=3)) if OPTIONS[kind] else set()
    item: dict[str, Any] = {
        kind: {option: _value(draw, kind, option, levels, ids) for option in {*REQUIRED.get(kind, []), *sorted(chosen)}}
    }
    if draw(st.integers(0, 4)) == 0:
        item["on"] = draw(st.sampled_from([*levels, list(levels), *LEVELS[:4]]))
    if draw(st.integers(0, 4)) == 0:
        item["repeat"] = draw(st.sampled_from([0, 1, 2, 3, "${w}"]))
    if draw(st.integers(0, 4)) == 0:
        item["from"] = draw(st.sampled_from([*ids, "start", "input"]))
    if draw(st.integers(0, 4)) == 0:
        share = draw(st.sampled_from(SHARES))
        item["share"] = {"with": draw(st.sampled_from(["start", *ids]))} if share == "with" else share
    return item


def _value(draw: st.DrawFn, kind: str, option: str, levels: Sequence[int], ids: Sequence[str]) -> Any:
    value = draw(st.sampled_from(OPTIONS[kind][option]))
    if value == "per level":
        numbers = [1, 3] if option == "kernel" else [2, 4, 6]
        return [draw(st.sampled_from(numbers)) for _ in levels]
    if value == "refs":
        return draw(st.lists(st.sampled_from([*ids, "start", "input"]), min_size=1, max_size=2))
    return draw(st.sampled_from([*ids, "start"])) if value == "ref" else value


@st.composite
def specs(draw: st.DrawFn, most_layers: int = 7) -> dict[str, Any]:
    """A right spec as plain data."""
    side = st.integers(9, 24)
    spec: dict[str, Any] = {
        "version": 1,
        "name": draw(st.sampled_from(["net", "net-${w}"])),
        "input": {
            "channels": draw(st.integers(1, 4)),
            "size": draw(st.one_of(side, st.lists(side, min_size=2, max_size=2))),
        },
        "params": {"w": draw(st.integers(1, 3)), "half": "${w / 2}"},
        "blocks": BLOCKS,
        "layers": [],
    }
    if defaults := draw(st.sampled_from(DEFAULTS)):
        spec["defaults"] = defaults
    layers: list[Any] = spec["layers"]
    if draw(st.booleans()):
        layers += [{"pyramid": draw(st.integers(2, 3))}, {"id": "embed", "conv": {"channels": 4, "reach": 0}}]
    else:
        layers.append({"id": "embed", "conv": {"channels": 4, "stride": draw(st.sampled_from([1, 2]))}})
    types, ids = types_of(spec), ["embed"]
    for number in range(draw(st.integers(1, most_layers))):
        item = {"id": f"layer{number}", **draw(items(tuple(types), tuple(ids)))}
        layers.append(item)
        try:
            types = types_of(spec)
            ids.append(item["id"])
        except SpecError:
            layers.pop()
    if len(ids) > 1 and draw(st.integers(0, 3)) == 0:
        spec["outputs"] = {"early": ids[-2], "late": {"from": "previous"}}
    return spec
