"""Mutated specs: bytes, tokens, parts of one spec in another, hostile texts. Each is right, or refused with a place."""

from __future__ import annotations

import json
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mgcompile import SpecError
from mgcompile.graph import verify
from mgcompile.spec import parse_spec, zoo_folder

TEXTS = [path.read_text() for path in sorted(zoo_folder().glob("*/*.yaml")) if not path.name.startswith("_")]
TEXTS += [
    path.read_text() for path in sorted((Path(__file__).parent / "wrong").glob("*.yaml")) if path.stat().st_size < 4000
]
DATA = [yaml.safe_load(text) for text in TEXTS[:40]]
HOSTILE: list[Any] = [
    *(None, True, -1, 0, 0.5, 1e300, 10**20, "", "none", [], {}, [[]], {"a": {}}, "\0", "\x1b[2J", "\ud800", "é" * 50),
    *("${", "${}", "${'${1}'}", "$${x}", "${[1]*9}", "${repeat(1, 9999)}", "${9**9**9}", "${index}", "${a.index}"),
    *(
        '",None) or f("',
        "__import__",
        "in",
        "half",
        "graph",
        "previous",
        "start",
        "input",
        ".",
        "..",
        "a.b",
        "-1",
        "x" * 2000,
    ),
    *({"from": "start"}, {"repeat": 99999, "pool": {}}, {"share": "levels", "conv": {}}, ["pool", {"up": 8}]),
]
SECONDS = 2.0
"""Of processor time for one refusal; the machine may be busy."""


def bytes_mutated(chance: random.Random) -> str | bytes:
    """A spec's text with some bytes changed, dropped or doubled."""
    content = bytearray(chance.choice(TEXTS).encode())
    for _ in range(chance.randint(1, 8)):
        content = content or bytearray(b"a")
        at = chance.randrange(len(content))
        match chance.randrange(4):
            case 0:
                content[at] = chance.randrange(256)
            case 1:
                del content[at : at + chance.randint(1, 20)]
            case 2:
                content[at:at] = content[at : at + chance.randint(1, 60)]
            case _:
                content[at:at] = chance.choice(
                    [b"&a ", b"*a", b"!!x ", b"${", b"}", b"[", b": ", b"- ", b"\t", b"\n", b"'", b"#"]
                )
    return bytes(content)


def tokens_mutated(chance: random.Random) -> str | bytes:
    """A spec's text with words exchanged for words of another."""
    words = chance.choice(TEXTS).split(" ")
    others = chance.choice(TEXTS).split(" ")
    for _ in range(chance.randint(1, 6)):
        words[chance.randrange(len(words))] = chance.choice(others)
    return " ".join(words)


def nodes_mutated(chance: random.Random) -> str | bytes:
    """A spec with parts of another in it, or with hostile values and keys."""
    data = json.loads(json.dumps(chance.choice(DATA)))
    for _ in range(chance.randint(1, 4)):
        holder, key = chance.choice(places(data))
        match chance.randrange(4):
            case 0:
                holder[key] = json.loads(json.dumps(chance.choice(HOSTILE)))
            case 1:
                other, where = chance.choice(places(chance.choice(DATA)))
                holder[key] = json.loads(json.dumps(other[where]))
            case 2 if isinstance(holder, dict):
                holder[str(chance.choice(HOSTILE))] = holder.pop(key)
            case _:
                del holder[key]
        if not places(data):
            break
    return json.dumps(data)


def places(data: Any) -> list[tuple[Any, Any]]:
    """Each holder in some data with each of its keys."""
    keys = list(data) if isinstance(data, dict) else list(range(len(data))) if isinstance(data, list) else []
    return [(data, key) for key in keys] + [place for key in keys for place in places(data[key])]


def check(text: str | bytes) -> bool:
    """Whether a text is a right spec; a wrong one is refused soon, each mistake on a line with its place."""
    start, refused = time.process_time(), None
    try:
        spec = parse_spec(text, "fuzz.yaml")
    except SpecError as error:
        refused = error
    if refused is None:
        verify(spec.graph)
        return True
    assert time.process_time() - start < SECONDS, text
    assert refused.errors
    for line in str(refused).splitlines():
        assert line.startswith(("fuzz.yaml:", "/", "and ")), line
        assert line.isprintable()
        assert len(line) < 9000
    return False


MUTATIONS: list[Callable[[random.Random], str | bytes]] = [bytes_mutated, tokens_mutated, nodes_mutated]


def campaign(number: int, seed: int) -> int:
    """How many of so many mutated specs are right."""
    chance = random.Random(seed)
    return sum(check(chance.choice(MUTATIONS)(chance)) for _ in range(number))


@pytest.mark.usefixtures("_memory")
def test_mutated_specs() -> None:
    assert campaign(300, 0) < 300


@pytest.mark.slow
@pytest.mark.usefixtures("_memory")
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_mutated_specs(seed: int) -> None:
    assert campaign(4000, seed) < 4000


@pytest.fixture
def _memory(monkeypatch: pytest.MonkeyPatch) -> Any:
    """At most a gibibyte more than there is."""
    monkeypatch.setattr("mgcompile.graph.ops.registry._registered", {})
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
