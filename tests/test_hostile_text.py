"""Text from outside never becomes markup, a formula or a terminal's command, in any format of any command.

The law: with hostile text in every name, an output has the structure that it has with harmless text, and nothing in it
is unseen but the ends of its lines.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unicodedata import category
from xml.etree import ElementTree

import pygraphviz
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from mgcompile.analysis import (
    audit_graph,
    comparison_report,
    memory_report,
    receptive_field,
    receptive_report,
    report,
    rewriting_report,
    roofline_report,
    tables,
)
from mgcompile.analysis.changes import diff_graphs
from mgcompile.analysis.comparison import compare_graphs
from mgcompile.analysis.memory import memory
from mgcompile.analysis.roofline import roofline
from mgcompile.cli import main
from mgcompile.drawing import draw_graph
from mgcompile.escaping import for_csv, for_html, for_json, for_markdown, for_yaml, visible
from mgcompile.graph import Graph
from mgcompile.graph.ops import BatchNorm, Conv, Input
from mgcompile.passes.pipelines import steps
from mgcompile.reporting import Network, chapters_of, format_report
from mgcompile.reporting.fields import field_plot
from tests.analysis.networks import node

UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
SIGNS = "\x1b[31m\x1b]0;title\x07\x9b1m\r\x08\x7f\u202e\u2066\u200b\ufeff\u2028\x85"
SCRIPT = "</script><script>alert(1)</script>"
HOSTILE = [
    f"a{SIGNS}b\n| three |\n# four",
    "=cmd|' /C calc'!A0\t+1",
    f"{SCRIPT}<img src=x onerror=alert(1)> ]]> <![CDATA[ <!-- \"quoted\" onload='x' &lt; &#0;",
    "[red]bold[/red] :smile: a|b\\|c `code` ![p](http://x) [l]: http://x \\N \\l <b>html</b> {a|b} %s $x^2$",
]
HARMLESS = "harmless"


def assert_seen(text: str) -> None:
    text = re.sub(r"\n\t", "\n", text)  # how DOT is indented
    found = {hex(ord(letter)) for letter in text if letter != "\n" and category(letter) in UNSEEN}
    assert not found, (found, text[:500])


# --- the functions themselves


@settings(max_examples=200, deadline=None)
@given(st.text() | st.sampled_from(HOSTILE))
def test_what_each_format_promises(text: str) -> None:
    for shown in (visible(text), for_markdown(text), for_html(text), for_csv(text)):
        assert_seen(shown)
        assert "\n" not in shown
    assert ElementTree.fromstring(f"<a b='{for_html(text)}'>{for_html(text)}</a>").text == (visible(text) or None)
    assert "<" not in for_markdown(text)
    assert not re.search(r"(?<!\\)(\\\\)*[|`]", for_markdown(text))
    assert for_csv(text)[:1] not in set("=+-@\t\r") or re.fullmatch(r"[+-][\d.einfa]+", text, re.IGNORECASE)
    document = json.dumps({text: [text]}, ensure_ascii=False, indent=1)
    assert json.loads(for_json(document)) == {text: [text]}
    assert_seen(for_json(document))
    assert visible("plain é\u00a0text") == "plain é\u00a0text"
    assert for_yaml("a: é\n") == "a: é\n"


# --- graphs that no front end has checked


def graph(text: str) -> Graph:
    nodes = [
        node("input", Input(3)),
        node(f"{text}.0.conv", Conv(4), "input", layer=f"{text}.0"),
        node(f"{text}.0.norm", BatchNorm(), f"{text}.0.conv", layer=f"{text}.0"),
        node(f"last{text}", Conv(1), f"{text}.0.norm", layer=text),
    ]
    return Graph(text, nodes, {text: f"last{text}", "other": f"{text}.0.norm"}, size=(8, 8))


def outputs(text: str) -> Iterator[tuple[str, str, str]]:
    """(what, format, output) of everything that is written of graphs."""
    net = graph(text)
    audit, field, taken, roof = audit_graph(net), receptive_field(net), memory(net), roofline(net)
    profiles = compare_graphs([(text, net), (f"{text}2", net)])
    diff = diff_graphs(net, graph(f"{text}2"))
    passes = rewriting_report.rewriting(steps(net, "inference"), "inference")
    for by in (None, "layer", "level", "op"):
        yield f"audit {by}", "text", report.as_table([audit], by)
        yield f"audit {by}", "markdown", report.as_markdown([audit], by)
        yield f"audit {by}", "csv", report.as_csv([audit], by)
        yield f"audit {by}", "json", report.as_json([audit], by)
    sheets = [
        *memory_report.memory_sheets(taken),
        *receptive_report.receptive_sheets(field, by="layer"),
        *roofline_report.roofline_sheets(roof, "op"),
        *comparison_report.comparison_sheets(profiles),
    ]
    yield "sheets", "text", tables.as_text(sheets)
    yield "sheets", "markdown", tables.as_markdown(sheets)
    yield "sheets", "html", tables.as_html(sheets)
    for found in (None, diff):
        yield "compare", "text", comparison_report.as_table(profiles, found)
        yield "compare", "markdown", comparison_report.as_markdown(profiles, found)
        yield "compare", "csv", comparison_report.as_csv(profiles, found)
        yield "compare", "json", comparison_report.as_json(profiles, found)
    yield "passes", "csv", rewriting_report.as_csv(passes)
    yield "passes", "markdown", rewriting_report.as_markdown(passes)
    yield "memory", "csv", memory_report.memory_csv([taken])
    yield "field", "csv", receptive_report.receptive_csv([field])
    for format in ("svg", "dot", "html"):
        yield "draw", format, draw_graph(net, format=format, subtitle=text, facts={text: text}).decode()
        yield "draw", format, draw_graph(net, format=format, detail="op", fold=False).decode()
    yield "plot", "svg", field_plot([(text, field)], format="svg").decode()
    yield "plot", "html", field_plot([(text, field)], format="html").decode()
    network = Network(text, net, text, f"name: {text}\n")
    yield "report", "html", format_report(text, chapters_of([network, network]), text)


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


def cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", line))


def of_csv(text: str) -> Any:
    rows = list(csv.reader(io.StringIO(text)))
    for cell in (cell for row in rows for cell in row):
        assert not re.match(r"[=@\t\r]|[+-](?![\d.]|inf|nan)", cell), cell
    return list(map(len, rows))


def of_dot(text: str) -> Any:
    found = pygraphviz.AGraph(string=text)
    assert not re.search(r"=\s*<", text)
    return len(found.nodes()), len(found.edges())


def of_markdown(text: str) -> Any:
    assert not re.search(r"<(?!br>)", text)
    return [(line[:2] if line[:1] in "|#-" else "", cells(line)) for line in text.splitlines()]


STRUCTURE: dict[str, Callable[[str], Any]] = {
    "text": lambda text: None,
    "markdown": of_markdown,
    "csv": of_csv,
    "json": lambda text: list(map(len, json.loads(text))),
    "html": lambda text: sorted(Tags(text).found),
    "svg": lambda text: ElementTree.fromstring(text) is not None,
    "dot": of_dot,
}


@pytest.fixture(scope="module")
def harmless() -> list[Any]:
    return [STRUCTURE[format](text) for _, format, text in outputs(HARMLESS)]


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_outputs_of_graphs(text: str, harmless: list[Any]) -> None:
    for (what, format, output), expected in zip(outputs(text), harmless, strict=True):
        assert_seen(output)
        found = STRUCTURE[format](output)
        # A long name is drawn in other pieces; nothing may come that was not there.
        assert found == expected or (format == "html" and set(found) <= set(expected)), (what, format)


# --- commands


def spec(text: str) -> str:
    data = {
        "version": 1,
        "name": text,
        "description": text,
        "params": {"w": {"default": 4, "min": 1, "help": text}},
        "input": {"channels": 3, "size": 8},
        "layers": [{"conv": {"channels": "${w}"}, "id": "stem"}, {"classify": 3}],
    }
    return yaml.safe_dump(data, allow_unicode=False)


COMMANDS = [
    *(["check"], ["show"], ["show", "--expand"], ["show", "--format", "json"], ["show", "--format", "graph"]),
    *(["show", "--passes", "--format", format] for format in ("table", "json", "csv", "markdown")),
    *(["audit", "--by", "layer", "--format", format] for format in ("table", "csv", "markdown", "json")),
    ["audit", "--memory", "--roofline", "--receptive-field", "--max", "params=1"],
    *(["draw", "--format", format] for format in ("svg", "dot", "html")),
    ["plot", "receptive-field"],
    *(["fit", "--vary", "w", "--params", "1000", "--format", format] for format in ("table", "markdown", "json")),
    *(["compare", "{spec}", "--format", format] for format in ("table", "csv", "markdown", "json")),
    *(["compare", "{spec}", "--diff", "--format", format] for format in ("table", "csv", "markdown")),
    *(["compile", "-o", f"out.{suffix}"] for suffix in ("py", "safetensors")),
    ["report", "-o", "out.html"],
    # What is wrong, so that messages show it.
    *(
        ["audit", "--size", "{text}"],
        ["check", "--set", "w={text}"],
        ["check", "--set", "{text}=1"],
        ["check", "--{text}"],
    ),
    *(
        ["audit", "-o", "none/{text}"],
        ["plot", "{text}"],
        ["tables", "{text}"],
        ["fit", "--vary", "{text}", "--params", "1"],
    ),
    *(
        ["{text}"],
        ["draw", "-o", "{text}"],
        ["report", "-o", "{text}"],
        ["compile", "-o", "{text}"],
        ["audit", "--max", "{text}"],
    ),
    *(
        ["fit", "--vary", "w", "--params", "{text}"],
        ["audit", "--roofline", "--machine", "{text}"],
        ["bench", "--batch", "{text}"],
    ),
]


def run(command: Sequence[str], text: str, path: str) -> str:
    args = [command[0].format(text=text), path, *(arg.format(text=text, spec=path) for arg in command[1:])]
    if command == ["{text}"]:
        args = args[:1]
    result = CliRunner().invoke(main, args, prog_name="mgcompile")
    assert result.exception is None or isinstance(result.exception, SystemExit), (args, result.exception)
    return result.stdout + result.stderr


@pytest.mark.filterwarnings("ignore:Glyph")
def test_outputs_of_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"a{SIGNS}{SCRIPT}"
    path = f"{text.replace('/', '')}.yaml"
    Path(path).write_text(spec(text))
    wrong = f"{text.replace('/', '')}2.yaml"
    Path(wrong).write_text(spec(text).replace("conv:", '"conv' + json.dumps(text)[1:] + ":"))
    for command in COMMANDS:
        assert_seen(run(command, text, path))
    for name in (wrong, f"none{path}"):
        said = run(["check"], text, name)
        assert_seen(said)
        assert len(said.splitlines()) <= 3
    # What is meant for programs says the same as before.
    assert yaml.safe_load(run(["show"], text, path))["name"] == text
    assert json.loads(run(["show", "--format", "json"], text, path))["name"] == text
    assert json.loads(run(["audit", "--format", "json"], text, path))["audits"][0]["name"] == text
    assert_seen(Path("out.py").read_text(encoding="utf-8"))
    assert_seen(Path("out.html").read_text(encoding="utf-8"))
