"""Graphs made by hand and by chance."""

from dataclasses import replace

from hypothesis import strategies as st

from mgcompile.errors import ShapeError
from mgcompile.graph import Graph, Grid, Node, Vector
from mgcompile.graph.ops import (
    ACTIVATIONS,
    Activation,
    BatchNorm,
    Concat,
    Conv,
    Crop,
    Dropout,
    Flatten,
    GlobalPool,
    GroupNorm,
    Input,
    InstanceNorm,
    LayerNorm,
    Linear,
    Maximum,
    Mean,
    PadChannels,
    Pool,
    PReLU,
    Product,
    Resize,
    SliceChannels,
    Sum,
    TransposedConv,
    WeightedSum,
)

FEW = st.integers(1, 6)
KERNELS = st.tuples(st.integers(1, 5), st.integers(1, 5))
POOLS = [(2, 2), (3, 2), (3, 1), (4, 2), (4, 4), (5, 4), (1, 1), (1, 2)]

GRID_OPS = [
    st.builds(
        Conv,
        FEW,
        KERNELS,
        stride=st.sampled_from([1, 2, 4]),
        dilation=st.integers(1, 3),
        groups=st.sampled_from([1, 1, 2, 3]),
        bias=st.booleans(),
        padding=st.sampled_from([None, None, 0, 1, 2]),
    ),
    st.builds(Activation, st.sampled_from(sorted(ACTIVATIONS))),
    st.builds(PReLU, st.sampled_from([0.25, 0.5])),
    st.builds(Dropout, st.just(0.3), st.sampled_from(["element", "channel", "sample"])),
    st.builds(BatchNorm, affine=st.booleans()),
    st.builds(GroupNorm, groups=st.sampled_from([1, 2]), affine=st.booleans()),
    st.builds(InstanceNorm),
    st.builds(LayerNorm, affine=st.booleans()),
    st.sampled_from(POOLS).flatmap(
        lambda pool: st.builds(Pool, st.sampled_from(["max", "avg"]), st.just(pool[0]), st.just(pool[1]))
    ),
    st.builds(GlobalPool, st.sampled_from(["avg", "max"]), st.integers(1, 3)),
    st.builds(PadChannels, st.integers(3, 8)),
    st.integers(0, 3).flatmap(
        lambda start: st.builds(SliceChannels, st.just(start), st.integers(start + 1, start + 4))
    ),
    st.builds(Flatten),
]
VECTOR_OPS = [
    st.builds(Linear, FEW, bias=st.booleans()),
    st.builds(Activation, st.sampled_from(sorted(ACTIVATIONS))),
    st.builds(PReLU),
    st.builds(Dropout, st.just(0.3), st.sampled_from(["element", "channel", "sample"])),
    st.builds(BatchNorm),
    st.builds(LayerNorm),
]
SAME_OPS = [
    st.builds(Sum),
    st.builds(Mean),
    st.builds(Maximum),
    st.builds(Product),
    st.builds(Concat),
    st.builds(WeightedSum, st.sampled_from(["none", "relu", "softmax"])),
]
LIKE_OPS = [
    st.builds(Resize, st.sampled_from(["nearest", "bilinear"]), st.integers(1, 2)),
    st.builds(TransposedConv, FEW, KERNELS, st.integers(1, 2), groups=st.sampled_from([1, 1, 2]), bias=st.booleans()),
    st.builds(Crop),
]


def node(name, op, *inputs, level=0, weights=None):
    return Node(name, op, inputs, level, f"layer of {name}", weights or name)


def graph_of(op, *inputs, size=(12, 9)):
    """A graph of one operation over values of the given types; each is made from the image by a convolution."""
    nodes = [node("input", Input(2))]
    for i, value in enumerate(inputs):
        nodes += source_of(f"in{i}", value)
    level = value_level(op.infer(*inputs), value_level(inputs[0]))
    nodes.append(node("out", op, *(f"in{i}" for i in range(len(inputs))), level=level))
    return Graph("one", nodes, {"out": "out"}, size=size)


def source_of(name, value):
    """Nodes of which the last is called `name` and has a value of this type, made from an image of two channels."""
    if isinstance(value, Vector):
        return [
            node(f"{name}_pool", GlobalPool(), "input"),
            node(f"{name}_flat", Flatten(), f"{name}_pool"),
            node(name, Linear(value.features), f"{name}_flat"),
        ]
    if value.height.fixed is not None:
        return [
            node(f"{name}_pool", GlobalPool("avg", value.height.fixed), "input"),
            node(name, Conv(value.channels, (1, 1)), f"{name}_pool"),
        ]
    nodes, last = [], "input"
    for level in range(1, value.height.level + 1):
        nodes.append(node(f"{name}_pool{level}", Pool(), last, level=level))
        last = nodes[-1].name
    padding = int(value.height.offset >> value.height.level) // 2 if value.height.offset else 0
    return [*nodes, node(name, Conv(value.channels, (1, 1), padding=padding), last, level=value.height.level)]


def value_level(value, default=0):
    return value.height.level if isinstance(value, Grid) and value.height.fixed is None else default


@st.composite
def graphs(draw, most=14, exclude=()):
    """A graph of up to `most` operations besides the input; `exclude` are classes of operations to leave out.

    Some nodes share the weights of another. One to three outputs.
    """
    types = {"input": Grid(draw(st.integers(1, 4)))}
    nodes = [node("input", Input(types["input"].channels))]
    for i in range(draw(st.integers(1, most))):
        last = nodes[-1].name
        name = draw(st.sampled_from([f"unit{i}.0.conv.level0", f"n{i}", f"{i}", f"unit.{i}.x"]))
        made = _shared(draw, nodes, types, name) if draw(st.integers(0, 5)) == 0 else _fresh(draw, types, last, name)
        if made is None or isinstance(made.op, exclude):
            continue
        value = made.op.infer(*(types[source] for source in made.inputs))
        nodes.append(replace(made, level=value_level(value, 0)))
        types[name] = value
    ends = draw(st.lists(st.sampled_from(list(types)), min_size=0, max_size=2, unique=True))
    outputs = {f"out{i}": end for i, end in enumerate(dict.fromkeys([nodes[-1].name, *ends]))}
    return Graph("by chance", nodes, outputs, size=draw(sizes))


sizes = st.tuples(st.integers(20, 40), st.integers(20, 40))
"""Input sizes, (height, width), odd ones among them."""


def _fresh(draw, types, last, name):
    """A node of an operation that fits, with weights of its own; or None."""
    value = types[last]
    choices = [GRID_OPS if isinstance(value, Grid) else VECTOR_OPS, SAME_OPS]
    kind = draw(st.sampled_from([*choices, LIKE_OPS] if isinstance(value, Grid) else choices))
    op = draw(st.one_of(kind))
    inputs = [last]
    if kind is SAME_OPS:
        same = [n for n, v in types.items() if v == value or (isinstance(op, Concat) and _same_size(v, value))]
        inputs += draw(st.lists(st.sampled_from(same), min_size=1, max_size=2))
    elif kind is LIKE_OPS:
        inputs.append(draw(st.sampled_from([n for n, v in types.items() if isinstance(v, Grid)])))
    return _fitting(types, node(name, op, *inputs))


def _shared(draw, nodes, types, name):
    """A node that applies the weights of an earlier one to another value; or None."""
    owners = [n for n in nodes if n.op.weights(*(types[s] for s in n.inputs)) and len(n.inputs) == 1]
    if not owners:
        return None
    owner = draw(st.sampled_from(owners))
    given = types[owner.inputs[0]]
    alike = [n for n, v in types.items() if type(v) is type(given) and _width(v) == _width(given)]
    return _fitting(types, node(name, owner.op, draw(st.sampled_from(alike)), weights=owner.weights))


def _fitting(types, made):
    try:
        value = made.op.infer(*(types[source] for source in made.inputs))
    except ShapeError:
        return None
    if made.name in types or not _sensible(value):
        return None
    return made


def _sensible(value):
    """Whether a value is small, and there at all sizes that are drawn."""
    if isinstance(value, Vector):
        return value.features <= 200
    # Heights and widths of 20 cells leave two: batch norm over a single value is an error.
    return value.channels <= 24 and value_level(value) >= -1 and min(value.at((20, 20))[1:]) >= 1


def _same_size(one, other):
    return type(one) is type(other) and (isinstance(one, Vector) or one.same_size(other))


def _width(value):
    return value.channels if isinstance(value, Grid) else value.features
