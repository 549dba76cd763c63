"""Laws of reading: data as JSON and YAML 1.2 say, every value at its place, every limit held, every fault reported."""

from __future__ import annotations

import enum
import itertools
import json
import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mgcompile.errors import Problem, SpecError
from mgcompile.spec import scanning
from mgcompile.spec.source import Mark, Source, SourcePath, parse_source, read_source, source_of_mapping
from mgcompile.spec.tree import path_text


@pytest.fixture(params=["libyaml", "pure Python"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "pure Python":
        monkeypatch.setattr(scanning, "_LOADER", yaml.SafeLoader)
    return str(request.param)


def problems(text: str | bytes, *, as_json: bool = False) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        parse_source(text, "s.yaml", json=as_json)
    return caught.value.errors


def only_problem(text: str | bytes, *, as_json: bool = False) -> tuple[int, int, str]:
    (problem,) = problems(text, as_json=as_json)
    return problem.line, problem.column, problem.message


def paths(data: Any, path: SourcePath = ()) -> Iterator[tuple[SourcePath, Any]]:
    yield path, data
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for step, item in items:
        yield from paths(item, (*path, step))


def text_from(text: str, mark: Mark) -> str:
    return "".join(text.splitlines(keepends=True)[mark.line - 1 :])[mark.column - 1 :]


# --- Laws -----------------------------------------------------------------------------------------------------------

KEYS = st.text(max_size=8).filter(lambda key: key != "extends")
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**29), 10**29),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
)
VALUES = st.recursive(SCALARS, lambda v: st.one_of(st.lists(v, max_size=4), st.dictionaries(KEYS, v, max_size=4)))
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)
INDENTS = st.sampled_from([None, 1, 2, "\t"])


@given(DOCUMENTS, INDENTS, st.booleans())
def test_json_loads_equal_to_json(data: dict[str, Any], indent: int | str | None, ascii_only: bool) -> None:
    text = json.dumps(data, indent=indent, ensure_ascii=ascii_only)
    source = parse_source(text, "s.json", json=True)
    assert json.dumps(source.data) == json.dumps(json.loads(text))  # as text, which tells 1 from 1.0 and True


@given(DOCUMENTS, INDENTS)
def test_every_value_is_located_where_it_begins(data: dict[str, Any], indent: int | str | None) -> None:
    text = json.dumps(data, indent=indent)
    source = parse_source(text, "s.json", json=True)
    for path, value in paths(data):
        found, _ = json.JSONDecoder().raw_decode(text_from(text, source.locate(path)))
        assert found == value
        if path and isinstance(path[-1], str):
            key, _ = json.JSONDecoder().raw_decode(text_from(text, source.locate(path, key=True)))
            assert key == path[-1]
        else:
            assert source.locate(path, key=True) == source.locate(path)


# Line separators are left out: YAML 1.1 scanners fold them, and str.splitlines splits at them.
PLAIN_TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=12)
YAML_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**29), 10**29), PLAIN_TEXT),
    lambda v: st.one_of(st.lists(v, max_size=4), st.dictionaries(PLAIN_TEXT, v, max_size=4)),
)
YAML_DOCUMENTS = st.dictionaries(PLAIN_TEXT.filter(lambda k: k != "extends"), YAML_VALUES, min_size=1, max_size=4)


def block_yaml(data: Any, indent: int, path: SourcePath, places: dict[SourcePath, tuple[int, int]]) -> list[str]:
    """Block style with one line a scalar; notes where each scalar begins, line counted from 0 in the lines returned."""
    lines: list[str] = []
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for step, value in items:
        lead = " " * indent + ("- " if isinstance(step, int) else f"{json.dumps(step, ensure_ascii=False)}: ")
        if isinstance(value, list | dict) and value:
            inner: dict[SourcePath, tuple[int, int]] = {}
            nested = block_yaml(value, indent + 2, (*path, step), inner)
            places.update({where: (line + len(lines) + 1, column) for where, (line, column) in inner.items()})
            lines += [lead.rstrip(), *nested]
        else:
            places[(*path, step)] = (len(lines), len(lead))
            lines.append(lead + json.dumps(value, ensure_ascii=False))
    return lines


@pytest.mark.usefixtures("loader")
def test_block_yaml_loads_and_locates() -> None:
    @given(YAML_DOCUMENTS)
    def law(data: dict[str, Any]) -> None:
        places: dict[SourcePath, tuple[int, int]] = {}
        text = "\n".join(block_yaml(data, 0, (), places))
        source = parse_source(text, "s.yaml")
        assert source.data == data
        for path, (line, column) in places.items():
            assert source.locate(path) == Mark("s.yaml", line + 1, column + 1)

    law()


@given(DOCUMENTS)
def test_a_mapping_is_copied(data: dict[str, Any]) -> None:
    source = source_of_mapping(data)
    assert json.dumps(source.data) == json.dumps(data)
    assert source.data is not data
    for path, _ in paths(data):
        assert source.locate(path) == Mark("<mapping>", 0, 0)


def merged(child: Any, base: Any) -> Any:
    if not isinstance(child, dict) or not isinstance(base, dict):
        return child
    return {**base, **{key: merged(value, base[key]) if key in base else value for key, value in child.items()}}


def test_extends_merges_mappings_and_replaces_the_rest(tmp_path: Path) -> None:
    short = st.sampled_from(["a", "b", "c"])
    tree = st.recursive(st.integers(0, 3), lambda v: st.one_of(st.lists(v, max_size=2), st.dictionaries(short, v)))

    @given(st.dictionaries(short, tree), st.dictionaries(short, tree))
    def law(child: dict[str, Any], base: dict[str, Any]) -> None:
        (tmp_path / "base.json").write_text(json.dumps(base))
        text = json.dumps({"extends": "base.json", **child})
        source = parse_source(text, str(tmp_path / "child.json"), json=True)
        expected = merged(child, base)
        assert source.data == expected
        for path, value in paths(expected):
            mark = source.locate(path)
            origin = text if mark.file.endswith("child.json") else json.dumps(base)
            found, _ = json.JSONDecoder().raw_decode(text_from(origin, mark))
            assert isinstance(value, dict) or found == value

    law()


@given(
    st.one_of(st.text(max_size=60), st.text("ab:-[]{}&*!|>'\"#%@`\n\t 1.,?<\\", max_size=60), st.binary(max_size=40))
)
def test_any_text_is_read_or_refused_with_a_reason(text: str | bytes) -> None:
    for as_json in (False, True):
        try:
            source = parse_source(text, "s", json=as_json)
        except SpecError as error:
            reasons = [problem.message for problem in error.errors]
        else:
            reasons = []
            assert isinstance(source, Source)
        assert all(reasons)


# --- YAML 1.2 -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, None) for text in ("", "~", "null", "Null", "NULL")),
        *((text, True) for text in ("true", "True", "TRUE")),
        *((text, False) for text in ("false", "False", "FALSE")),
        *((text, text) for text in ("no", "on", "yes", "off", "y", "nULL", "tRUE", "1:30", "1_000", "2001-01-01")),
        *((text, text) for text in ("0b11", "0o8", "0xg", "+0x1", "1e", "e3", ".", "+", "1.2.3", "<<", "٣", "inf")),
        ("0777", 777),
        ("-12", -12),
        ("+12", 12),
        ("0o17", 15),
        ("0xFf", 255),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1.5e+2", -150.0),
        ("'1'", "1"),
        ('"true"', "true"),
        ("'<<'", "<<"),
        ("|\n  1", "1\n"),
        ("[1, [a], {b: c}]", [1, ["a"], {"b": "c"}]),
        ("&x 1", 1),
    ],
)
def test_core_schema(text: str, value: Any) -> None:
    found = parse_source(f"a: {text}\n", "s.yaml").data["a"]
    assert (found, type(found)) == (value, type(value))


def test_keys_that_look_like_yaml_1_1_booleans_are_text() -> None:
    assert parse_source("on: 1\nno: 2\n'1': 3\n'<<': 4\n? y\n: 5", "s").data == {
        "on": 1,
        "no": 2,
        "1": 3,
        "<<": 4,
        "y": 5,
    }


def test_aliases_are_copies_and_locate_to_what_they_stand_for() -> None:
    source = parse_source("a: &x\n  - {b: 1}\nc: *x\nd: &k key\n*k : 2\n", "s.yaml")
    assert source.data == {"a": [{"b": 1}], "c": [{"b": 1}], "d": "key", "key": 2}
    assert source.data["a"][0] is not source.data["c"][0]
    assert source.locate(("c",)) == Mark("s.yaml", 3, 4)
    assert source.locate(("c", 0, "b")) == Mark("s.yaml", 2, 9)


def test_locate_falls_back_to_the_nearest_ancestor() -> None:
    source = parse_source("# first\na:\n  - b: 1\n  - 2\n", "s.yaml")
    assert source.locate(("a", 0, "zz", 3)) == Mark("s.yaml", 3, 5)
    assert source.locate(("a", 7)) == Mark("s.yaml", 3, 3)
    assert source.locate(("a", -1), key=True) == Mark("s.yaml", 2, 1)
    assert source.locate(("a", 1, "x")) == Mark("s.yaml", 4, 5)
    assert source.locate((5,)) == source.locate(("x",)) == source.locate(()) == Mark("s.yaml", 2, 1)


def test_a_byte_order_mark_is_skipped() -> None:
    source = parse_source(b"\xef\xbb\xbf" + "é: ü".encode(), "s.yaml")
    assert source.data == {"é": "ü"}
    assert source.locate(("é",)) == Mark("s.yaml", 1, 4)
    assert parse_source('\ufeff{"a": 1}', "s.json", json=True).data == {"a": 1}


# --- Refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("", 0, 0, "is empty"),
        ("# nothing\n", 0, 0, "is empty"),
        ("---\n", 0, 0, "is empty"),
        ("- a", 1, 1, "found a list"),
        ("text", 1, 1, "found text"),
        ("a: 1\nb: 2\na: 3", 3, 1, "second time; the first one is in line 1"),
        ("a: !!python/object:os.system x", 1, 4, "tag `!!python/object:os.system`"),
        ("a: !foo [1]", 1, 4, "tag `!foo`"),
        ("a: ! 5", 1, 4, "tag `!`"),
        ("a: !x!y 5", 1, 4, "tags are refused"),
        ("!!map {a: 1}", 1, 1, "tag `!!map`"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n  d: 1", 3, 3, "no merge key"),
        ("1: a", 1, 1, "found a number (1); put it in quotes"),
        ("true: a", 1, 1, "found true or false (true); put it in quotes"),
        ("null: a", 1, 1, "found nothing (null); put it in quotes"),
        ("[a]: b", 1, 1, "found a list"),
        ("? {a: 1}\n: b", 1, 3, "found a mapping"),
        ("a: 1\n---\nb: 2", 2, 1, "a second document"),
        ("a: 1\n...\nb: 2", 3, 1, "one mapping"),
        ("a: .inf", 1, 4, "finite"),
        ("a: -.INF", 1, 4, "finite"),
        ("a: .NaN", 1, 4, "finite"),
        ("a: 1e999", 1, 4, "finite"),
        ("a: 1" + "0" * 30, 1, 4, "at most 30 digits"),
        ("a: " + "9" * 100_000, 1, 4, "at most 30 digits"),
        ("a: 0x" + "f" * 2000, 1, 4, "at most 30 digits"),
        ("a: *x", 1, 4, "no anchor `&x`"),
        ("a: &x [*x]", 1, 8, "without end"),
        ("a: &x {b: [*x]}", 1, 12, "without end"),
        ("a:\n\tb: 1", 2, 1, "tabs are not allowed for indentation"),
        ("a:\n  b: 1\n\tc: 2", 3, 1, "tabs are not allowed for indentation"),
        ("a: b: c", 1, 5, "`:` cannot stand here"),
        ("a: [1, 2\nb: 3", 2, 2, "list that begins in line 1 is still open"),
        ("a: {b c: 1, ]", 1, 13, ""),
        ("a: @b", 1, 4, "cannot begin with `@`"),
        ("a:\n  - 1\n b: 2", 3, 2, "expected a key of the mapping that begins in line 1"),
        ("- a\nb: 1", 2, 1, "expected a `- ` of the list that begins in line 1"),
        ("a: }", 1, 4, "expected a value"),
        ("%YAML 2.0\n---\na: 1", 1, 1, "YAML 1.2"),
        ("a: 1\nb: \x07", 2, 4, "U+0007"),
        ("a: \x85", 1, 4, "U+0085"),
        ("a: \ud800", 1, 4, "U+D800"),
        ("a: " + "[" * 100_000, 1, 67, "nested more than 64 deep"),
    ],
)
def test_refusals_of_yaml(text: str, line: int, column: int, words: str) -> None:
    *place, message = only_problem(text)
    assert place == [line, column]
    assert words in message


@pytest.mark.usefixtures("loader")
def test_an_open_quote_names_the_line_where_it_begins() -> None:
    (problem,) = problems('a: 1\nb: "x\nc: 2\n')
    assert "quoted text that begins in line 2 has no closing quote" in problem.message


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("", 0, 0, "is empty"),
        ("[1]", 1, 1, "found a list"),
        ('{"a": 1,\n "b" 2}', 2, 6, "expecting ':' delimiter"),
        ('{"a": 1}\n{"b": 2}', 2, 1, "extra data"),
        ('{"a": 1,\n\t"a": 2}', 2, 2, "second time; the first one is in line 1"),
        ('{"a": NaN}', 1, 7, "finite"),
        ('{"a": -Infinity}', 1, 7, "finite"),
        ('{"a": 1e999}', 1, 7, "finite"),
        ('{"a": ' + "1" * 5000 + "}", 1, 7, "at most 30 digits"),
        ('{"a": "\\ud83d"}', 1, 7, "surrogate"),
        ('{"a": "x\n"}', 1, 9, "control character"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", 1, 70, "nested more than 64 deep"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", 1, 70, "nested more than 64 deep"),
    ],
)
def test_refusals_of_json(text: str, line: int, column: int, words: str) -> None:
    *place, message = only_problem(text, as_json=True)
    assert place == [line, column]
    assert words in message


@pytest.mark.parametrize(
    ("content", "line", "column", "words"),
    [
        (b"a: 1\nb: \xe9t\xe9", 2, 4, "0xe9 is not UTF-8"),
        ("a: 1".encode("utf-16"), 0, 0, "UTF-16"),
        ("a: 1".encode("utf-16-le"), 0, 0, "NUL bytes"),
        (b"\x7fELF\x00\x01", 0, 0, "NUL bytes"),
        (b"a: 1\n" * 2_000_000, 0, 0, "larger than 8 MiB"),
    ],
)
def test_refusals_of_bytes(content: bytes, line: int, column: int, words: str) -> None:
    *place, message = only_problem(content)
    assert place == [line, column]
    assert words in message


def test_everything_wrong_in_a_file_is_reported_at_once_with_its_path() -> None:
    text = "a: !x 1\nlayers:\n  - conv: {k: 1, k: 2, 3: 4}\n  - {<<: {}}\n  - *no\nb: .nan\na: [\n"
    found = [(problem.line, problem.path) for problem in problems(text)]
    assert found == [
        (1, "a"),
        (3, "layers[0].conv"),
        (3, "layers[0].conv"),
        (4, "layers[1]"),
        (5, "layers[2]"),
        (6, "b"),
        (7, ""),
        (8, ""),
    ]


def test_reports_end_after_a_hundred() -> None:
    found = problems("a: 1\n" * 100_000)
    assert len(found) == 101
    assert any("more than 100 problems" in problem.message for problem in found)


def test_64_levels_are_read_and_an_alias_adds_its_own() -> None:
    assert parse_source("a: " + "[" * 63 + "]" * 63, "s").data
    half = "[" * 32 + "]" * 32
    assert parse_source(f"a: &x {half}\nb: {'[' * 31}*x{']' * 31}", "s").data
    *_, message = only_problem(f"a: &x {half}\nb: {'[' * 32}*x{']' * 32}")
    assert "64 deep" in message


@pytest.mark.usefixtures("loader")
def test_alias_bombs_are_refused_at_once() -> None:
    names = "abcdefghi"
    lines = ["a: &a [" + ", ".join("x" * 10) + "]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in itertools.pairwise(names)]
    start = time.process_time()
    line, _, message = only_problem("\n".join(lines))
    assert time.process_time() - start < 1
    assert line == 6
    assert "more than 1,000,000 values" in message


def test_a_spec_of_ten_thousand_layers_loads_soon() -> None:
    layer = "  - conv: {channels: [64, 32, 16], kernel: [3, 3, 1], reach: 1, norm: batch, id: name}\n"
    start = time.process_time()
    source = parse_source("layers:\n" + layer * 10_000, "s.yaml")
    assert time.process_time() - start < 5  # below one second on an idle machine
    assert len(source.data["layers"]) == 10_000


# --- Python data ----------------------------------------------------------------------------------------------------


class _Norm(str, enum.Enum):  # noqa: UP042 - str() of such an enum is not its text, which is the point
    BATCH = "batch"


class _Reach(enum.IntEnum):
    ONE = 1


def test_subclasses_and_tuples_become_plain_data() -> None:
    source = source_of_mapping({"norm": _Norm.BATCH, "reach": _Reach.ONE, "levels": (0, 1)})
    assert source.data == {"norm": "batch", "reach": 1, "levels": [0, 1]}
    assert [type(value) for value in source.data.values()] == [str, int, list]
    assert type(source.data["norm"]) is str


def test_all_that_is_wrong_with_a_mapping_is_reported() -> None:
    data: dict[Any, Any] = {"a": {1: 2}, "b": [object()], "c": float("nan"), "d": 10**30, "e": "\ud800", "f": b"x"}
    with pytest.raises(SpecError) as caught:
        source_of_mapping(data)
    assert {problem.path for problem in caught.value.errors} == {"a", "b[0]", "c", "d", "e", "f"}
    assert {problem.file for problem in caught.value.errors} == {"<mapping>"}


@pytest.mark.parametrize("depth", [1, 100])
def test_a_mapping_that_contains_itself_or_is_too_deep_is_refused(depth: int) -> None:
    inner: list[Any] = []
    data: dict[str, Any] = {"a": inner}
    for _ in range(depth):
        inner.append([])
        inner = inner[0]
    if depth == 1:
        inner.append(data)
    with pytest.raises(SpecError, match="contains itself" if depth == 1 else "64 deep"):
        source_of_mapping(data)


def test_a_mapping_that_shares_lists_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mgcompile.spec.tree.MAX_NODES", 10_000)
    data: list[Any] = [1]
    for _ in range(40):
        data = [data] * 4
    with pytest.raises(SpecError, match="10,000 values"):
        source_of_mapping({"a": data})


def test_a_mapping_extends_a_file_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text("params: {n: 1, m: 2}")
    source = source_of_mapping({"extends": "base.yaml", "params": {"n": 3}})
    assert source.data == {"params": {"n": 3, "m": 2}}
    assert source.locate(("params", "m")) == Mark("base.yaml", 1, 19)


# --- Files and extends ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(**texts: str) -> None:
    for name, text in texts.items():
        path = Path(name.replace("__", "/") + ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def file_problem(name: str, zoo: Path | None = None) -> str:
    with pytest.raises(SpecError) as caught:
        read_source(name, zoo=zoo)
    (problem,) = caught.value.errors
    return str(problem)


@pytest.mark.usefixtures("folder")
def test_files_that_cannot_be_read() -> None:
    Path("sub").mkdir()
    assert file_problem("none.yaml") == "none.yaml: no such file"
    assert file_problem("sub") == "sub: is a folder, not a file"
    assert "cannot be read" in file_problem("x" * 5000)
    assert "cannot be read" in file_problem("a\0b")
    assert "cannot be read" in file_problem(str(Path(os.devnull) / "x"))


@pytest.mark.usefixtures("folder")
def test_a_file_without_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr("builtins.open", refuse)  # root may read everything, so chmod would not do
    assert file_problem("a.yaml") == "a.yaml: no permission to read it"


@pytest.mark.usefixtures("folder")
def test_the_suffix_chooses_json() -> None:
    Path("a.json").write_text('{"a": "\\ud83d\\ude00"}')
    assert read_source(Path("a.json")).data == {"a": "😀"}
    assert read_source("a.json").name == "a.json"


@pytest.mark.usefixtures("folder")
def test_a_chain_of_files_is_relative_to_each_and_keeps_places() -> None:
    write(
        a="extends: sub/b.yaml\nx: 1\n",
        sub__b="extends: ../c.yaml\ny: {p: 1}\nl: [1]\n",
        c="y: {p: 0, q: 0}\nl: [0, 0]",
    )
    source = read_source("a.yaml")
    assert source.data == {"y": {"p": 1, "q": 0}, "l": [1], "x": 1}
    assert list(source.data) == ["y", "l", "x"]
    assert source.locate(("x",)) == Mark("a.yaml", 2, 4)
    assert source.locate(("y",)) == Mark("sub/b.yaml", 2, 4)
    assert source.locate(("y", "p")) == Mark("sub/b.yaml", 2, 8)
    assert source.locate(("y", "q"), key=True) == Mark("sub/../c.yaml", 1, 11)
    assert source.locate(("l", 0)) == Mark("sub/b.yaml", 3, 5)


@pytest.mark.usefixtures("folder")
def test_faults_of_extends_are_located() -> None:
    write(a="x: 1\nextends: nope.yaml", b="extends: [a]", c="extends: ", d="extends: bad.yaml", bad="a: 1\na: 2")
    assert file_problem("a.yaml") == "a.yaml:2:10: extends: no file `nope.yaml` in the current folder"
    assert file_problem("b.yaml") == "b.yaml:1:10: extends: expected the name of a file, found a list"
    assert "found nothing" in file_problem("c.yaml")
    assert file_problem("d.yaml").startswith("bad.yaml:2:1: ")


@pytest.mark.usefixtures("folder")
def test_circles_are_named() -> None:
    write(a="extends: b.yaml", b="extends: sub/c.yaml", sub__c="extends: ../a.yaml", me="extends: me.yaml")
    assert "sub/c.yaml:1:10: extends: the files extend each other in a circle: a.yaml -> b.yaml" in file_problem(
        "a.yaml"
    )
    assert "circle: me.yaml -> me.yaml" in file_problem("me.yaml")


@pytest.mark.usefixtures("folder")
def test_chains_of_sixteen_files_are_the_longest() -> None:
    for index in range(17):
        write(**{f"f{index}": f"extends: f{index + 1}.yaml\nk{index}: 1"})
    write(f17="k: 1")
    assert len(read_source("f2.yaml").data) == 16
    assert "more than 16 files" in file_problem("f1.yaml")


@pytest.mark.usefixtures("folder")
def test_the_limit_on_values_counts_the_whole_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mgcompile.spec.tree.MAX_NODES", 15)
    write(a="extends: b.yaml\nl: [1, 2, 3, 4, 5, 6]", b="l: [1, 2, 3, 4, 5, 6]")
    assert read_source("b.yaml").data
    assert file_problem("a.yaml").startswith("b.yaml:1:")


def test_a_name_of_the_zoo_is_found_where_no_file_has_it(folder: Path) -> None:
    write(zoo__net="extends: family\nx: 1", zoo__family="y: 2", a="extends: net\nz: 3")
    assert read_source("a.yaml", zoo=folder / "zoo").data == {"y": 2, "x": 1, "z": 3}
    assert source_of_mapping({"extends": "net"}, zoo=folder / "zoo").data == {"y": 2, "x": 1}
    assert "no file `net` in the current folder and no" not in file_problem("a.yaml")
    assert file_problem("a.yaml", zoo=folder).endswith("no file `net` in the current folder and no `net` in the zoo")
    Path("net").write_text("own: 1")
    assert read_source("a.yaml", zoo=folder / "zoo").data == {"y": 2, "x": 1, "z": 3}, "a file without suffix is none"
    Path("a.yaml").write_text("extends: net.yaml\nz: 3")
    Path("net.yaml").write_text("own: 1")
    assert read_source("a.yaml", zoo=folder / "zoo").data == {"own": 1, "z": 3}


# --- The rest -------------------------------------------------------------------------------------------------------


def test_a_source_is_frozen_and_pickles() -> None:
    source = parse_source("a: [1]", "s.yaml")
    with pytest.raises(AttributeError):
        source.name = "other"  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(source))
    assert copy == source
    assert copy.locate(("a", 0)) == Mark("s.yaml", 1, 5)


def test_path_text() -> None:
    assert path_text(()) == ""
    assert path_text(("layers", 5, "conv", "kernel", 0)) == "layers[5].conv.kernel[0]"
    assert path_text(("a b", "c-d", "é")) == '["a b"].c-d.é'


@pytest.mark.parametrize("digits", [30, 5000])
def test_a_key_that_is_a_very_long_number(digits: int) -> None:
    number = -(10**digits)
    with pytest.raises(SpecError, match="a key must be text, found a number"):
        source_of_mapping({number: 1})
