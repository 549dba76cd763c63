"""Inputs that nobody should hand over: right ones, changed at random, and texts that do something if they are run."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

__all__ = ["MARK", "MUTATIONS", "Mutation", "prepare"]

ROOT = Path(__file__).parents[2]
MARK = "MGCOMPILE_RAN"
"""What runs a hostile text sets this attribute of `builtins`."""
RUN = f"setattr(__import__('builtins'), '{MARK}', 1)"

Mutation = Callable[[random.Random], tuple[str, bytes]]
"""A generator of random numbers -> the suffix of a file and what is in it."""

HOSTILE: Sequence[Any] = (
    RUN,
    f'"{RUN}"',
    f"x'); {RUN}; ('",
    f'x"); {RUN}; ("',
    f"a\n    {RUN}\n#",
    f"self.{RUN}",
    "${'$${\\\",None) or " + RUN.replace("'", "\\\\'") + " or getattr(self,\\\"'}",
    "${'${1}'}",
    "${'${" + RUN.replace("'", '"') + "}'}",
    "${repeat(repeat(1, 9000), 10)}",
    "${" + "9**" * 60 + "9}",
    "${'a' * 10**9}",
    "${range(10**12)}",
    "${__class__}",
    "${().__class__.__bases__[0]}",
    "${lambda: 0}",
    "{0.__class__}",
    "%s%n",
    "!!python/object/apply:os.system [id]",
    "__init__",
    "__class__",
    "forward",
    "self",
    "import",
    "None",
    "train",
    "in",
    "../../etc/passwd",
    "/dev/zero",
    "\x1b]0;title\x07\x1b[31m",
    "</script><script>alert(1)</script>",
    "]]>",
    "=cmd|' /C calc'!A0",
    "\u202eevil\u2066",
    "x" * 5_000,
    "a.b..c",
    ".",
    "..",
    "",
    " ",
    "\x00",
    "\ud800",
    "é",
    "\uff41",
)
JUNK: Sequence[Any] = (
    *(None, True, False, 0, -1, 1, 2.5, 10**6, 10**18, -(10**30), 1e308, 5e-324),
    *([], {}, [[]], [None] * 50, {"a": {"b": {}}}, ["pool"], [[1, 2], [3, 4]], {"by": "relu"}, {"": 0}),
    *("auto", "all", "max", "1", "1e3", "no", "~", "previous", "start", "input", "${n}", "${index}", "${"),
)
TOKENS: Sequence[bytes] = (
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b": ",
        b"- ",
        b"\n",
        b"  ",
        b"\t",
        b"&a ",
        b"*a",
        b"<<: *a\n",
        b"!!python/name:os.system ",
    ),
    *(
        b"!x ",
        b"|\n",
        b">\n",
        b"#",
        b"'",
        b'"',
        b"${",
        b"}",
        b"---\n",
        b"...\n",
        b"%YAML 1.1\n",
        b"? ",
        b"\xff",
        b"\x00",
    ),
    *(
        b"\xef\xbb\xbf",
        b"\r",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"0x10",
        b"1_000",
        b".inf",
        b".nan",
        b"9" * 400,
        b"extends: ",
    ),
    *(b"repeat: 99999\n", b"params:\n", b"layers:\n", b"- conv: 64\n", b"use: a\n", b"\\u0000", b"\\ud800"),
)


@cache
def _spec_texts() -> tuple[bytes, ...]:
    right = [path.read_bytes() for path in sorted((ROOT / "specs").glob("*/*.yaml"))]
    wrong = sorted((ROOT / "tests" / "spec" / "wrong").glob("*.yaml"))
    return (*right, *(path.read_bytes() for path in wrong if path.stat().st_size < 20_000))


@cache
def _specs() -> tuple[dict[str, Any], ...]:
    """Right ones as data, all options written where they are, and a small one that uses much of the language."""
    found = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "specs").glob("*/*.yaml"))]
    return (*found, *[SMALL] * len(found))


SMALL: dict[str, Any] = {
    "version": 1,
    "name": "small",
    "description": "text",
    "input": {"channels": 3, "size": 32},
    "params": {"width": 8, "n": {"default": 2, "help": "repeats", "max": 9}},
    "defaults": {"conv": {"bias": False}},
    "blocks": {
        "pair": {
            "params": {"c": 8},
            "layers": [{"conv": {"channels": "${c}"}}, {"act": {"by": "leaky_relu", "slope": 0.1}}],
        }
    },
    "layers": [
        {"pyramid": {"levels": 3, "by": "avg"}},
        {"id": "wide", "conv": {"channels": ["${width}", "${width}", 4]}},
        {"id": "body", "repeat": "${n}", "unit": {"channels": [8, 8, 4]}},
        {"id": "skip", "residual": {"body": [{"conv": {"channels": 8}}, "norm"], "shortcut": "project"}},
        {"block": {"use": "pair", "c": 4}, "on": "finest"},
        {
            "exchange": {
                "fuse": "sum",
                "down": [{"conv": {"stride": 2, "channels": "${target}", "reach": 0}}],
                "up": "conv",
            }
        },
        {"id": "joined", "join": {"with": ["skip"], "fuse": "concat"}},
        {"gate": ["global_pool", {"conv": {"kernel": 1, "reach": 0, "norm": "none", "act": "sigmoid"}}]},
        {"id": "maps", "predict": {"classes": 2, "level": "finest", "to": 0}},
        {"id": "classes", "from": "joined", "classify": {"classes": 5, "level": "coarsest", "hidden": [8]}},
    ],
    "outputs": {"maps": {"from": "maps"}, "classes": {"from": "classes"}},
}
RECIPE: dict[str, Any] = {
    "task": "mnist-seg",
    "steps": 10,
    "batch": 8,
    "accumulate": 2,
    "lr": 0.1,
    "schedule": "step",
    "drops": [0.3, 0.6],
    "seed": 1,
    "precision": "fp32",
    "optimizer": "sgd",
    "momentum": 0.9,
    "nesterov": True,
    "evaluate_every": 5,
    "keep": 1,
}


# --- of data


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all that is in some data, but the whole."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path] if path else []
    for key, inner in pairs:
        found += _places(inner, (*path, key))
    return found


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def _mutated(data: Any, others: Sequence[Any], draw: random.Random) -> Any:
    """A copy with a few things in it changed, at random places."""
    data = copy.deepcopy(data)
    for _ in range(draw.choice([1, 1, 2, 4])):
        if not (places := _places(data)):
            break
        path = draw.choice(places)
        holder, key = _at(data, path[:-1]), path[-1]
        match draw.randrange(14):
            case number if number > 6:
                holder[key] = _alike(holder[key], key, others, draw)
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[draw.choice([str(key)[:-1], f"{key}s", draw.choice(HOSTILE), str(key).upper()])] = holder.pop(
                    key
                )
            case 2:
                other = draw.choice(others)
                if found := _places(other):
                    holder[key] = copy.deepcopy(_at(other, draw.choice(found)))
            case 3 if isinstance(holder, list):
                holder[key:key] = [copy.deepcopy(holder[key])] * draw.choice([1, 2, 50])
            case 4:
                holder[key] = [holder[key]] if draw.random() < 0.5 else {str(draw.choice(HOSTILE)): holder[key]}
            case 5:
                holder[key] = copy.deepcopy(draw.choice(JUNK))
            case _:
                holder[key] = draw.choice(HOSTILE)
    return data


def _alike(value: Any, key: Any, others: Sequence[Any], draw: random.Random) -> Any:
    """What may well be right in the place of a value: a number near it, or what stands under the same key elsewhere."""
    if isinstance(value, int) and not isinstance(value, bool) and draw.random() < 0.7:
        return draw.choice([value + 1, value - 1, 2 * value, 0, 1, 2, 3])
    other = draw.choice(others)
    found = [path for path in _places(other) if path[-1] == key]
    return copy.deepcopy(_at(other, draw.choice(found))) if found else value


def _written(data: Any, draw: random.Random) -> tuple[str, bytes]:
    if draw.random() < 0.5:
        return ".json", json.dumps(data, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    try:
        return ".yaml", yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")
    except yaml.YAMLError:
        return ".json", json.dumps(data).encode()


def _mutated_bytes(text: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
    found = bytearray(text)
    for _ in range(draw.randint(1, 6)):
        at = draw.randint(0, len(found))
        to = min(len(found), at + draw.choice([1, 1, 4, 30, 200]))
        match draw.randrange(6):
            case 0:
                del found[at:to]
            case 1:
                found[at:at] = draw.choice(TOKENS)
            case 2:
                found[at:at] = found[at:to] * draw.choice([1, 2, 100])
            case 3:
                other = draw.choice(others)
                start = draw.randint(0, len(other))
                found[at:to] = other[start : start + draw.choice([5, 40, 400])]
            case 4:
                found[at:to] = str(draw.choice(HOSTILE)).encode("utf-8", "surrogatepass")
            case _ if at < len(found):
                found[at] = draw.randrange(256)
    return bytes(found)


def _mutated_words(text: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
    """Words of one text in another, which often is still YAML."""
    words, given = text.split(b" "), draw.choice(others).split(b" ")
    for _ in range(draw.randint(1, 6)):
        words[draw.randrange(len(words))] = draw.choice(given)
    return b" ".join(words)


# --- kinds of input


def spec(draw: random.Random) -> tuple[str, bytes]:
    """A spec, changed as data or as text."""
    if draw.random() < 0.6:
        return _written(_mutated(draw.choice(_specs()), _specs(), draw), draw)
    mutated = draw.choice([_mutated_bytes, _mutated_words])
    return ".yaml", mutated(draw.choice(_spec_texts()), _spec_texts(), draw)


def recipe(draw: random.Random) -> tuple[str, bytes]:
    """A recipe, changed as data or as text."""
    if draw.random() < 0.6:
        return _written(_mutated(RECIPE, [RECIPE, SMALL], draw), draw)
    text = yaml.safe_dump(RECIPE).encode()
    return ".yaml", _mutated_bytes(text, [text, *_spec_texts()[:5]], draw)


CHECKPOINT_SPEC: dict[str, Any] = {
    "name": "kept",
    "input": {"channels": 1, "size": 8},
    "layers": [{"conv": {"channels": 4, "norm": "batch"}}, {"classify": 2}],
}


@cache
def _checkpoint() -> tuple[Mapping[str, Any], bytes]:
    """The header and the tensors of a right one."""
    import tempfile

    import mgcompile

    with tempfile.TemporaryDirectory() as folder:
        mgcompile.save(mgcompile.compile(CHECKPOINT_SPEC, seed=0), f"{folder}/x.safetensors")
        whole = Path(f"{folder}/x.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    return json.loads(whole[8 : 8 + length]), whole[8 + length :]


def checkpoint(draw: random.Random) -> tuple[str, bytes]:
    """A checkpoint whose header, spec, tensors or bytes are changed."""
    header, tensors = _checkpoint()
    header = copy.deepcopy(dict(header))
    about = header["__metadata__"]
    key = next(key for key in about if key != "format")
    match draw.randrange(5):
        case 0:  # the spec in it
            about[key] = spec(draw)[1].decode("utf-8", "replace")
        case 1:  # its own spec, changed a little: sizes that the tensors do not have
            about[key] = _written(_mutated(yaml.safe_load(about[key]), [SMALL], draw), draw)[1].decode(
                "utf-8", "replace"
            )
        case 2:  # names, types, shapes, places
            header = _mutated(header, [header, SMALL], draw)
        case 3:
            name = draw.choice([name for name in header if name != "__metadata__"])
            header[name]["dtype"] = draw.choice(["BOOL", "I8", "C64", "F8_E4M3", "F16", "BF16", "F64", "U64", "X", ""])
        case _:
            pass
    text = json.dumps(header).encode()
    whole = struct.pack("<Q", draw.choice([len(text)] * 20 + [0, 2**63, 2**40, len(text) + 9])) + text + tensors
    if draw.random() < 0.3:
        whole = _mutated_bytes(whole, [whole, text], draw)
    return ".safetensors", whole[: draw.choice([len(whole)] * 5 + [draw.randint(0, len(whole))])]


MUTATIONS: Mapping[str, Mutation] = {"spec": spec, "recipe": recipe, "checkpoint": checkpoint}


def prepare() -> None:
    """Read what is mutated, so that a process that is forked need not."""
    _spec_texts()
    _specs()
    _checkpoint()
