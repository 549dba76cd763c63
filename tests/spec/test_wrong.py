"""Wrong specs: each has its messages, exact to the letter, within a second and a gigabyte.

The files lie in `wrong/`, each with `<name>.expected` beside it; a first line `# --set name=value` sets a param. After
a change of messages, `pytest tests/spec/test_wrong.py --update-golden` writes what is found: read the difference.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mgcompile import SpecError, load
from mgcompile.spec import parse_param

FOLDER = Path(__file__).parent / "wrong"
FILES = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".yaml", ".json"))
SECONDS = 1.0
BYTES = 2**30

# Reads specs, and says what processor time each took beyond the import, and what it may take: SECONDS. Where a busy
# processor needs longer than that to read 30,000 lines with PyYAML (0.8 s on an idle one), that is the limit.
PROBE = """
import json, resource, sys, time
import yaml
from mgcompile import SpecError, load
from mgcompile.spec import parse_param
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
load({"input": {"size": 8}, "layers": [{"conv": {"channels": 1}}]})
most = float(sys.argv[2])
for path in sys.argv[3:]:
    with open(path, "rb") as file:
        first = file.readline(1000).decode(errors="replace")
    sets = [first.removeprefix("# --set ").strip()] if first.startswith("# --set ") else []
    start = time.process_time()
    try:
        load(path, params=dict(map(parse_param, sets)))
        message = "accepted"
    except SpecError as error:
        message = str(error)
    seconds, limit = time.process_time() - start, most
    if seconds >= limit:
        start = time.process_time()
        yaml.load("  - cnov: {}\\n" * 30_000, Loader=yaml.CSafeLoader)
        limit = max(limit, time.process_time() - start)
    print(json.dumps({"soon": seconds < limit, "seconds": seconds, "limit": limit, "message": message}))
"""


def probe(folder: Path, *paths: str) -> list[dict[str, Any]]:
    """What a process of its own, with bounded memory, says of files."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(BYTES), str(SECONDS), *paths],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def quickest(path: str, folder: Path) -> dict[str, Any]:
    """The first of three tries that is within the limit; a busy machine may slow one down."""
    for _ in range(2):
        if (found := probe(folder, path)[0])["soon"]:
            return found
    return probe(folder, path)[0]


def messages(name: str) -> str:
    """The messages for a file of the corpus."""
    first = (FOLDER / name).read_bytes().split(b"\n", 1)[0].decode()
    sets = [first.removeprefix("# --set ").strip()] if first.startswith("# --set ") else []
    with pytest.raises(SpecError) as caught:
        load(name, params=dict(map(parse_param, sets)))
    return "".join(f"{problem}\n" for problem in caught.value.errors)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    # Operations that other tests register have no part in the messages.
    monkeypatch.setattr("mgcompile.graph.ops.registry._registered", {})


def test_the_corpus_is_large() -> None:
    assert len(FILES) >= 150
    assert {path.stem for path in FOLDER.glob("*.expected")} == {f"{name}" for name in FILES}


@pytest.mark.parametrize("name", FILES)
def test_messages(name: str, request: pytest.FixtureRequest) -> None:
    golden = FOLDER / f"{name}.expected"
    found = messages(name)
    if request.config.getoption("--update-golden"):
        golden.write_text(found)
    assert found == golden.read_text()


def test_each_is_refused_within_a_second_and_a_gibibyte() -> None:
    names = [name for name in FILES if os.access(FOLDER / name, os.R_OK)]
    for name, found in zip(names, probe(FOLDER, *names), strict=True):
        assert found["message"] != "accepted"
        if not found["soon"]:
            assert (again := quickest(name, FOLDER))["soon"], (name, again)


def large_files() -> dict[str, bytes]:
    """Wrong files that are better made than kept, with what they are wrong about."""
    head = b"input: {size: 32}\nlayers:\n"
    random.seed(0)
    return {
        "nesting.yaml": head + b"  - " + b"[" * 10_000 + b"]" * 10_000,
        "nesting.json": b'{"layers": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        "blocks-of-text.yaml": b"\n".join(b"  " * n + b"a:" for n in range(1500)),
        "aliases.yaml": b"a: &a [1,1,1,1,1,1,1,1,1]\n"
        + b"".join(b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 9)) for n in range(98, 110)),
        "too-large.yaml": head + b"  - conv: {channels: 4}\n" * 400_000,
        "many-layers.yaml": head + b"  - unit\n" * 120_000,
        "number.yaml": b"input: {size: " + b"9" * 100_000 + b"}\nlayers: []\n",
        "key.yaml": b"k" * 2_000_000 + b": 1\n",
        "binary.yaml": random.randbytes(100_000),
        "zeros.yaml": b"\0" * 1000,
        "utf-16.yaml": "input: {size: 32}\nlayers: [pool]\n".encode("utf-16"),
        "latin-1.yaml": "name: K\xe4se\ninput: {size: 32}\nlayers: [pool]\n".encode("latin-1"),
        "half.json": b'{"input": {"size": 32}, "layers": [{"conv": {"chann',
        "expression.yaml": head + b"  - conv: {channels: '${" + b"(" * 400 + b"1" + b")" * 400 + b"}'}\n",
        "mistakes.yaml": head + b"  - cnov: {}\n" * 20_000,
        "steps.yaml": b'input: {size: 32}\nparams: {p: "${repeat(repeat(1, 9000), 10)}"}\n'
        b'layers: [{repeat: 5000, conv: {channels: "${len(p)}"}}]\n',
        "steps-of-params.yaml": b'input: {size: 32}\nlayers: [pool]\nparams:\n  p0: "${repeat(1, 9000)}"\n'
        + b"".join(b'  p%d: "${p%d + 1}"\n' % (n, n - 1) for n in range(1, 400)),
        "expressions.yaml": head
        + b"".join(b'  - conv: {channels: "${%d%s}"}\n' % (n, b" + 1" * 40) for n in range(5000)),
        "keys.yaml": b"input: {size: 32}\nlayers: [pool]\n" + b"".join(b"k%d: 1\n" % n for n in range(100_000)),
        "options.json": b'{"input": {"size": 32}, "layers": [{"conv": {%s}}]}'
        % b",".join(b'"k%d": 1' % n for n in range(100_000)),
        "layers.yaml": b"input: {size: 32}\nlayers: [" + b",".join(b"l%d" % n for n in range(90_000)) + b"]\n",
        "names.yaml": head + b"  - conv: {channels: '${wdth}'}\n" * 5000,
        "key.json": b'{"input": {"size": 32}, "layers": ["pool"], "%s": 1}' % (b"k" * 4_000_000),
        "text.json": b'{"input": {"size": 32}, "params": {"p": "%s"}, "layers": [{"repeat": 8000, '
        b'"conv": {"channels": "${p + 1}"}}]}' % (b"x" * 4_000_000),
        "text-of-texts.json": b'{"input": {"size": 32}, "params": {"p": "%s"}, "name": "%s", "layers": ["pool"]}'
        % (b"x" * 4_000_000, b"${p}" * 200),
        "hidden.json": b'{"input": {"size": 32}, "layers": [{"classify": {"classes": 2, "hidden": [1%s]}}]}'
        % (b",1" * 200_000),
        "references.yaml": head + b"  - join: nope\n    repeat: 15000\n",
        "long-names.yaml": head
        + b"".join(b"%s- id: %s\n%s  group:\n" % (b"    " * n, b"x" * 100, b"    " * n) for n in range(20))
        + b"    " * 20
        + b"- {repeat: 1000, unit: {channels: 4}}\n",
        "levels.yaml": head + b"  - up: {steps: 8}\n    repeat: 3000\n",
        "channels.yaml": head
        + b"  - {id: x, act: relu}\n  - {join: x, repeat: 8}\n"
        + b"".join(b"  - {id: y%d, act: relu}\n  - {join: y%d, repeat: 2}\n" % (n, n) for n in range(40)),
        "weights.yaml": head + b"  - conv: {channels: 1000000, kernel: 255}\n" * 2,
        "params.yaml": head + b"  - pool\nparams:\n" + b"".join(b"  p%d: 1\n" % n for n in range(20_000)),
    }


def test_large_and_broken_files(tmp_path: Path) -> None:
    files = large_files()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name, found in zip(files, probe(tmp_path, *files), strict=True):
        assert found["message"] != "accepted"
        assert found["message"].startswith(name)
        assert len(found["message"]) < 40_000
        if not found["soon"]:
            assert (again := quickest(name, tmp_path))["soon"], (name, again)


def test_the_first_mistakes_are_told_and_the_others_counted() -> None:
    data = {"input": {"size": 8}, **{f"k{n}": 1 for n in range(150)}, "layers": [{"cnov": 1}] * 30 + [{"pool": 1}] * 5}
    with pytest.raises(SpecError) as caught:
        load(data)
    assert (len(caught.value.errors), caught.value.more) == (100, 150 + 30 + 5 - 100)
    assert str(caught.value).endswith("\nand 85 more")
    with pytest.raises(SpecError) as caught:
        load({"input": {"size": 8}, "layers": [{"from": f"x{n}", "act": "relu"} for n in range(200)]})
    assert (len(caught.value.errors), caught.value.more) == (100, 0)
    assert "layers[99]: 100 problems and perhaps more; stopped here" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=r"^missing\.yaml: no such file"):
        load("missing.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(SpecError, match=r"^folder\.yaml: is a folder"):
        load("folder.yaml")
    with pytest.raises(SpecError, match="did you mean cifar100/vgg-6"):
        load("cifar100/vgg-7")
    secret = tmp_path / "secret.yaml"
    secret.write_text("input: {size: 32}\nlayers: [pool]\n")
    secret.chmod(0)
    if not os.access(secret, os.R_OK):
        with pytest.raises(SpecError, match=r"^secret\.yaml: no permission"):
            load("secret.yaml")


def test_a_spec_is_large_where_that_is_allowed() -> None:
    data = {"input": {"size": 8}, "layers": [{"act": "relu", "repeat": 70_000}]}
    with pytest.raises(SpecError, match=r"layers: .*at most 60,000 are allowed; --allow-large"):
        load(data)
    spec = load(data, allow_large=True)
    assert len(spec.graph) == 70_001
    assert load(spec, params={}) is spec
