"""The interactive page: one self-contained HTML file that shows the lattice and what is known of each node."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

from mgcompile.drawing.lattice import DETAILS
from mgcompile.drawing.page_data import Measure, page_data
from mgcompile.errors import MgcompileError
from mgcompile.escaping import for_html
from mgcompile.graph import Graph
from mgcompile.graph.collecting import collection_paused

__all__ = ["Measure", "format_page"]

ASSETS = Path(__file__).parent / "assets"
D3 = ("dispatch", "timer", "ease", "color", "interpolate", "selection", "drag", "transition", "zoom")
"""The modules of D3 that panning and zooming need, each after those that it needs."""
D3_LICENCES = ("LICENSE", "LICENSE-d3-ease")
SCRIPTS = (
    "model.js",
    "visible.js",
    "columns.js",
    "geometry.js",
    "routing.js",
    "palette.js",
    "pens.js",
    "drawing.js",
    "state.js",
    "panels.js",
    "controls.js",
    "events.js",
)
"""The page's own scripts in the order in which they are joined."""


def format_page(
    graph: Graph,
    *,
    measures: Sequence[Measure] = (),
    facts: Mapping[str, str] | None = None,
    fold: bool = True,
    detail: str = "layer",
) -> str:
    """The page as HTML text, under 1 MB for networks of the zoo. It asks for nothing from outside of the file.

    `facts` are shown in the head, in their order: a name and a value. The page begins with repeats folded where `fold`
    says so, and with the `detail` of a drawing. Raises `MgcompileError` for an unknown detail.
    """
    if detail not in DETAILS:
        raise MgcompileError(f"detail {detail!r} is none of {', '.join(DETAILS)}")
    start = {"mode": "operations" if detail == "op" else "", "every": not fold}
    with collection_paused():
        data = {**page_data(graph, measures, facts or {}), "start": start}
    style, library, script = _style(), _library(), _script()
    parts = {
        "policy": _policy(scripts=(library, script), styles=(style,)),
        "title": for_html(graph.name),
        "style": style,
        "library": library,
        "data": json_for_script(data),
        "script": script,
    }
    # In one pass: what is put in may hold braces itself.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def json_for_script(data: object) -> str:
    """JSON that may stand in a `script` element: no tag and no comment can begin in it.

    >>> json_for_script({"name": "</script>"})
    '{"name":"\\\\u003c/script>"}'
    """
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _policy(*, scripts: Sequence[str], styles: Sequence[str]) -> str:
    """Nothing may be loaded, and nothing runs but the scripts and the style of this file, known by their hashes."""
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(map(_hash, scripts)),
        "style-src": " ".join(map(_hash, styles)),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


@cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _style() -> str:
    return "\n" + _asset("page.css")


@cache
def _library() -> str:
    licences = "\n".join(_asset(f"d3/{name}") for name in D3_LICENCES)
    return "\n".join([f"/*\n{licences}*/", *(_asset(f"d3/d3-{name}.min.js").rstrip() for name in D3), ""])


@cache
def _script() -> str:
    joined = "\n".join(_asset(name) for name in SCRIPTS)
    return f'\n(() => {{\n"use strict";\n{joined}}})();\n'
