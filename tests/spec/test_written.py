"""Whatever a text looks like, it is still a text when the spec that holds it has been written and read again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mgcompile import SpecError, load
from mgcompile.graph.names import reserved
from mgcompile.spec import parse_spec

LIKE_NUMBERS = st.text("0189abfox._+-eE~:nulltrue ", max_size=9)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9-]{0,9}", fullmatch=True) | st.from_regex(
    r"[0-9]{1,3}e[0-9]{1,2}|0[xo][0-7]{1,3}", fullmatch=True
)


def net(**rest: Any) -> dict[str, Any]:
    return {"input": {"size": 8}, "layers": ["pool"], **rest}


@settings(max_examples=200, deadline=None)
@example("1e3").via("a number in YAML 1.2, a text in YAML 1.1")
@example("0o17").via("a number in YAML 1.2, a text in YAML 1.1")
@example("<<").via("a merge key in YAML 1.1")
@given(st.text(max_size=12) | LIKE_NUMBERS)
def test_texts(text: str) -> None:
    spec = load(net(name=text.replace("$", ""), description=text, params={"p": {"default": "a", "help": text}}))
    for written in (spec, spec.expand()):
        reread = parse_spec(written.to_yaml(), "written")
        assert (reread.name, reread.document.description) == (spec.name, text)
    assert parse_spec(spec.to_yaml(), "written").data == spec.data


@settings(max_examples=100, deadline=None)
@example("12e4")
@given(IDS)
def test_names(name: str) -> None:
    layers = [{"act": "relu", "id": name}, "pool", {"act": "relu", "from": name}]
    assume(not reserved(name, first=True))
    spec = load(net(layers=layers, outputs={name: "previous"}))
    for written in (spec, spec.expand()):
        assert parse_spec(written.to_yaml(), "written").graph == spec.graph


@pytest.mark.parametrize("text", [r"${'\ud800'}", r"${'a\udfff'}"])
def test_an_escape_is_no_way_to_half_a_character(text: str) -> None:
    with pytest.raises(SpecError, match=r"name: .*half of a surrogate pair"):
        load(net(name=text))
