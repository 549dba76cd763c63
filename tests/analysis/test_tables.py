"""Tables as text: ASCII that fits, names whole, Markdown that does not break, plain CSV."""

from __future__ import annotations

from decimal import Decimal

import pytest

from mgcompile.analysis.tables import Sheet, as_csv, as_html, as_json, as_markdown, as_text, human, human_bytes

SHEET = Sheet(
    "A [bold] title", ("name", "count"), (("x|y[0]", 1234567), ("none", None)), ("a note",), frozenset({"name"})
)

TEXT = """\
A [bold] title
name        count
-----------------
x|y[0]  1,234,567
none            -
a note
"""

MARKDOWN = r"""### A [bold] title

| name | count |
| :--- | ---: |
| x\|y[0] | 1,234,567 |
| none | - |

- a note
"""


def test_text() -> None:
    assert as_text([SHEET]) == TEXT


def test_markdown() -> None:
    assert as_markdown([SHEET]) == MARKDOWN


def test_names_fold_and_keep_every_character() -> None:
    name = "pyramid.level2.unit14.conv1"
    text = as_text([Sheet("", ("name", "n"), ((name, 10**9),), left=frozenset({"name"}))], width=24)
    assert max(map(len, text.splitlines())) <= 24
    assert "".join(line.split()[0] for line in text.splitlines()[2:]) == name


def test_ascii_alone_without_a_terminal_and_colours_with_one() -> None:
    sheet = Sheet("é", ("name",), (("ü",),))
    assert as_text([sheet]).isascii()
    assert "\x1b[" in as_text([sheet], terminal=True)
    assert "─" in as_text([sheet], terminal=True)


def test_csv_has_plain_numbers_and_quotes_where_needed() -> None:
    assert as_csv(["a", "b", "c"], [("x,y", 1234567, None), ("z", Decimal("0.10"), 2)]) == (
        'a,b,c\n"x,y",1234567,\nz,0.10,2\n'
    )


def test_json_has_decimals_as_numbers() -> None:
    assert as_json({"a": Decimal("0.5"), "b": (1, 2), "é": None}) == (
        '{\n  "a": 0.5,\n  "b": [\n    1,\n    2\n  ],\n  "é": null\n}\n'
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (32899176, "32.90 M"), (5760277760, "5.76 G"), (10**12, "1.00 T")],
)
def test_human(number: int, text: str) -> None:
    assert human(number) == text


@pytest.mark.parametrize(("number", "text"), [(1023, "1023 B"), (1024, "1.00 KiB"), (3 * 2**29, "1.50 GiB")])
def test_human_bytes(number: int, text: str) -> None:
    assert human_bytes(number) == text


HTML = """\
<table><caption>A [bold] title</caption>
<thead>
<tr><th class="words" scope="col">name</th><th scope="col">count</th></tr>
</thead>
<tbody>
<tr><td class="words">x|y[0]</td><td>1,234,567</td></tr>
<tr><td class="words">none</td><td>-</td></tr>
</tbody>
</table>
<ul class="notes">
<li>a note</li>
</ul>
"""


def test_html() -> None:
    assert as_html([SHEET]) == HTML


def test_html_escapes_what_is_no_markup() -> None:
    text = as_html([Sheet("<b>", ("a&b",), (("<script>\nx",),), notes=("<i>",))])
    assert "<caption>&lt;b&gt;</caption>" in text
    assert "a&amp;b" in text
    assert "<td>&lt;script&gt;<br>x</td>" in text
    assert "<li>&lt;i&gt;</li>" in text
