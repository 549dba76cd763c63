"""Text is not code: of what stands in a spec, plain names alone reach code, and no value is read twice."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from torch import fx, nn

import mgcompile
from mgcompile import SpecError, load
from mgcompile.graph import Graph, Node, verify
from mgcompile.graph.contract import GraphError
from mgcompile.graph.names import MODEL_WORDS, MODULE_WORDS, path_fault, reserved
from mgcompile.graph.ops import Activation, Conv, Input, Pool, Resize, WeightedSum
from mgcompile.lowering.exporting import to_source
from mgcompile.lowering.lowering import lower
from mgcompile.spec import parse_spec
from tests.laws.specs import BLOCKS, OPTIONS, REQUIRED

MARK = "pwned"
CODE = f'",None) or print("{MARK}") or getattr(self,"'
HOSTILE = [
    CODE,
    f"${{'$${{{CODE}'}}",  # an expression whose value looks like one
    f"${{'${{{MARK}}}'}}",
    "${text}",
    f"a\nfile.yaml:1:1: {MARK}\x1b[2J",
    f"__import__('os').system('{MARK}')",
    f'"""\nimport {MARK}\n"""',
    f"{MARK}\u2028\u202e\x00",
    MARK * 1000,
]


def strings(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all texts in some data, keys too: there the path ends with None."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key, None)
            yield from strings(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from strings(inner, (*path, index))
    elif isinstance(value, str):
        yield path


def replaced(data: Any, path: tuple[Any, ...], text: str) -> Any:
    """The data with a text in place of the value or key at a path."""
    changed = copy.deepcopy(data)
    holder = changed
    *steps, last = path[:-1] if path[-1] is None else path
    for step in steps:
        holder = holder[step]
    if path[-1] is None:
        holder[text] = holder.pop(last)
    else:
        holder[last] = text
    return changed


def whole() -> dict[str, Any]:
    """A right spec that says something everywhere; with every layer in it, some of them in a block."""
    return {
        "version": 1,
        "name": "net",
        "description": "a network",
        "input": {"channels": 3, "size": "16x16"},
        "params": {"text": f"$${{{CODE}", "w": {"default": 4, "help": "width", "choices": [4, 8]}, "act": "relu"},
        "defaults": {"conv": {"act": "${act}", "bias": False}},
        "blocks": BLOCKS,
        "layers": [
            {"id": "stem", "conv": {"channels": "${w}", "kernel": "1x3", "order": "conv-norm-act"}},
            {"id": "twice", "from": "stem", "on": "finest", "repeat": "${2}", "share": "repeats", "block": "plain"},
            {"id": "nested", "block": {"use": "nested", "deep": True}},
            {"id": "op", "op": {"name": "negate", "times": 1}},
            {"id": "skip", "join": {"with": ["nested"], "fuse": "sum"}},
            {"id": "head", "classify": {"classes": 3, "level": "finest", "act": "relu", "hidden": [4]}},
        ],
        "outputs": {"result": {"from": "head", "level": "finest"}},
    }


def code_of(spec: mgcompile.spec.Spec) -> str:
    """All code that a spec becomes, but for the name of the class, which is an identifier."""
    model = lower(verify(spec.graph))
    name = type(model).__name__
    assert name.isidentifier()
    assert name.isascii()
    source = to_source(model)
    compile(source, "source", "exec")
    return (model.code + str(model.graph) + source).replace(name, "Network")


def check_harmless(data: Any) -> bool:
    """Whether a spec is right; if so, nothing hostile is in its code, and it is the same when it is written."""
    try:
        spec = load(data)
    except SpecError as error:
        for line in str(error).splitlines():
            assert line.startswith(("<mapping>: ", "and ")), line
            assert line.isprintable()
        return False
    assert MARK not in code_of(spec)
    assert parse_spec(spec.to_yaml(), "written").graph == spec.graph
    assert parse_spec(spec.expand().to_yaml(), "canonical").graph == spec.graph
    return True


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_in_every_text_of_a_spec(text: str) -> None:
    assert check_harmless(whole())
    right = [path for path in strings(whole()) if check_harmless(replaced(whole(), path, text))]
    # Where a text is for readers alone it may be any; a name is no code.
    free = {("name",), ("description",), ("params", "text"), ("params", "w", "help")}
    assert set(right) <= free, set(right) - free


@pytest.mark.parametrize("kind", OPTIONS)
def test_hostile_text_in_every_option_of_every_layer(kind: str) -> None:
    for option in OPTIONS[kind]:
        for text in HOSTILE[:4]:
            given = {name: OPTIONS[kind][name][0] for name in REQUIRED.get(kind, [])} | {option: text}
            data = {
                "input": {"size": 16},
                "params": {"text": f"$${{{CODE}"},
                "blocks": BLOCKS,
                "layers": [{"id": "a", "conv": {"channels": 4}}, {kind: given}],
            }
            assert not check_harmless(data), (option, text)


def test_a_value_that_looks_like_an_expression_is_checked_as_if_it_were_written() -> None:
    for option, value in [("act", "${'${1}'}"), ("channels", "${'${1}'}"), ("groups", "${['${1}'][0]}")]:
        with pytest.raises(SpecError, match=r"expected .*, found '\$\{1\}'"):
            load({"input": {"size": 8}, "layers": [{"conv": {"channels": 4, option: value}}]})
    with pytest.raises(SpecError, match=r"expected .*, found '\$\{1\}'"):
        load({"input": {"size": 8}, "params": {"p": 1}, "layers": [{"act": "${p}"}]}, params={"p": "${'${1}'}"})


def test_a_text_with_a_dollar_and_a_brace_is_written_so_that_it_reads_back() -> None:
    spec = load({"input": {"size": 8}, "name": "n-${p}", "params": {"p": "$${1}"}, "layers": ["pool"]})
    assert spec.name == "n-${1}"
    assert load(spec.data).name == parse_spec(spec.to_yaml(), "s").name == spec.expand().name == spec.name


def graph(name: str = "a", weights: str = "", output: str = "out", **options: Any) -> Graph:
    nodes = [
        Node("input", Input(2), (), 0, "input", "input"),
        Node(name, Conv(2), ("input",), 0, options.get("layer", "a"), weights or name),
    ]
    return Graph("net", nodes, {output: name}, size=(8, 8))


@pytest.mark.parametrize(
    "made",
    [
        {"name": CODE},
        {"name": "a", "weights": CODE},
        {"name": "a", "weights": f"a..{CODE}"},
        {"name": "a.b", "output": CODE},
        {"name": "a b"},
        {"name": "é"},
        {"name": "half"},
        {"name": "a.in"},
        {"name": "graph"},
        {"name": "a.__class__"},
        {"layer": "a\nb"},
    ],
    ids=repr,
)
def test_the_contract_admits_no_name_that_could_be_code(made: dict[str, Any]) -> None:
    verify(graph())
    with pytest.raises(GraphError):
        verify(graph(**made))
    if "layer" not in made:
        with pytest.raises(mgcompile.MgcompileError):
            lower(graph(**made)) if made.get("output") != CODE else to_source(lower(graph(**made)))


def test_a_layer_within_another_breaks_the_contract() -> None:
    nodes = [
        Node("input", Input(2), (), 0, "input", "input"),
        Node("a", Conv(2), ("input",), 0, "a", "a"),
        Node("a.b", Conv(2), ("a",), 0, "a.b", "a.b"),
    ]
    with pytest.raises(GraphError, match=r"'a\.b' lies within 'a'"):
        verify(Graph("net", nodes, {"out": "a.b"}, size=(8, 8)))


@pytest.mark.parametrize("make", [Activation, Pool, Resize, WeightedSum])
def test_an_operation_takes_no_word_that_it_does_not_know(make: Any) -> None:
    with pytest.raises(mgcompile.ShapeError, match="known: "):
        make(CODE)


def test_a_source_holds_only_calls_with_literals() -> None:
    module = nn.Module()
    module.a = nn.Upsample(scale_factor=2)
    module.a.extra_repr = lambda: f"scale_factor=2), print('{MARK}'"  # type: ignore[method-assign]
    code = fx.Graph()
    code.output(code.call_module("a", (code.placeholder("x"),)))
    with pytest.raises(mgcompile.MgcompileError, match="is no call"):
        to_source(fx.GraphModule(module, code))


def test_reserved_words_are_those_of_the_installed_torch() -> None:
    module = {name for name in dir(nn.Module()) if not name.startswith("__")}
    model = {name for name in dir(fx.GraphModule(nn.Module(), fx.Graph())) if not name.startswith("__")}
    assert module <= MODULE_WORDS
    assert model <= MODEL_WORDS
    assert all(reserved(name, first=False) for name in dir(nn.Module()))


@pytest.mark.parametrize("word", ["in", "for", "half", "train", "graph", "code", "opaque", "__class__", "None"])
def test_ids_that_cannot_be_compiled_are_refused_at_their_place(word: str) -> None:
    layer = f"  - id: {word!r}\n    conv: {{channels: 4}}\n"
    text = f"input: {{size: 8}}\nlayers:\n  - pool\n{layer}  - from: {word!r}\n    act: relu\n"
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "s.yaml")
    (problem,) = caught.value.errors
    assert (problem.line, problem.column, problem.path) == (4, 9, "layers[1].id")
    assert "cannot be an id" in problem.message


def test_names_of_the_model_alone_are_free_inside() -> None:
    spec = load({"input": {"size": 8}, "layers": [{"id": "g", "group": [{"id": "graph", "conv": {"channels": 3}}]}]})
    assert "g.graph.conv" in code_of(spec)


@pytest.mark.parametrize("name", ["a.level-1", "stage.0.conv1", "with-hyphens", "_"])
def test_plain_names(name: str) -> None:
    assert path_fault(name) == ""
