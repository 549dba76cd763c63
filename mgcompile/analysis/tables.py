"""Tables as text: for a terminal, as Markdown, as HTML, as CSV. Every report of this room is made of these."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mgcompile.escaping import for_csv, for_html, for_json, for_markdown, visible

__all__ = [
    "Cell",
    "Sheet",
    "as_csv",
    "as_html",
    "as_json",
    "as_markdown",
    "as_text",
    "human",
    "human_bytes",
    "size_text",
]

_BLANK = "    \n"
_PLAIN = box.Box(_BLANK * 2 + " -- \n" + _BLANK * 2 + " -- \n" + _BLANK * 2, ascii=True)
# `box.SIMPLE` in ASCII: no line between columns, so that four long numbers fit into 80 characters.

Cell = str | int | Decimal | None
"""What a place in a table holds; None is printed as nothing in CSV, as a dash for people."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table: its title, the names of its columns, its rows, remarks below it.

    `left` columns hold words, that is names; in the others a figure may have several lines.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    left: frozenset[str] = frozenset()


def as_text(sheets: Iterable[Sheet], *, width: int = 120, terminal: bool = False) -> str:
    """The sheets one below the other, `width` characters wide at most: plain ASCII, or, for a `terminal`, with colours
    and lines.
    """
    file = io.StringIO()
    colours: Literal["standard"] | None = "standard" if terminal else None
    console = Console(file=file, width=width, force_terminal=terminal, color_system=colours, emoji=False)
    for number, sheet in enumerate(sheets):
        if number:
            console.print()
        if sheet.rows:
            console.print(_table(sheet, terminal))
        for note in sheet.notes:
            console.print(visible(note), markup=False, highlight=False, style="dim" if terminal else None)
    text = "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"
    return text if terminal else text.encode("ascii", "replace").decode("ascii")


def as_markdown(sheets: Iterable[Sheet]) -> str:
    """The sheets as GitHub tables with their titles as headings; the notes as lists."""
    parts = []
    for sheet in sheets:
        lines = [f"### {for_markdown(sheet.title)}", ""] if sheet.title else []
        if sheet.rows:
            lines.append(_markdown_row(map(for_markdown, sheet.columns)))
            lines.append(_markdown_row([":---" if name in sheet.left else "---:" for name in sheet.columns]))
            lines += [
                _markdown_row("<br>".join(map(for_markdown, cell)) for cell in _lines(sheet, row)) for row in sheet.rows
            ]
            lines += [""] * bool(sheet.notes)
        lines += [f"- {for_markdown(note)}" for note in sheet.notes]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def as_html(sheets: Iterable[Sheet]) -> str:
    """The sheets as HTML tables with their titles as captions; columns of words have the class `words`."""
    parts = []
    for sheet in sheets:
        if sheet.rows:
            caption = f"<caption>{for_html(sheet.title)}</caption>" if sheet.title else ""
            classes = [' class="words"' if name in sheet.left else "" for name in sheet.columns]
            head = _html_row("th", [[name] for name in sheet.columns], [f'{each} scope="col"' for each in classes])
            body = "\n".join(_html_row("td", _lines(sheet, row), classes) for row in sheet.rows)
            parts.append(f"<table>{caption}\n<thead>\n{head}\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n")
        if sheet.notes:
            notes = "".join(f"<li>{for_html(note)}</li>\n" for note in sheet.notes)
            parts.append(f'<ul class="notes">\n{notes}</ul>\n')
    return "".join(parts)


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Comma-separated values with a header and plain numbers, lines ended by a newline alone. No text is a formula."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(for_csv, columns))
    writer.writerows(["" if cell is None else for_csv(str(cell)) for cell in row] for row in rows)
    return file.getvalue()


def as_json(document: Mapping[str, object]) -> str:
    """The document, indented; decimals as numbers."""
    return for_json(json.dumps(document, indent=2, default=float, ensure_ascii=False)) + "\n"


def human(number: int) -> str:
    """A count with two digits behind the point and a decimal unit.

    >>> human(32899176)
    '32.90 M'
    """
    for unit, step in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if abs(number) >= step:
            return f"{number / step:.2f} {unit}"
    return str(number)


def human_bytes(number: int) -> str:
    """Bytes with two digits behind the point and a binary unit.

    >>> human_bytes(3 * 2**20)
    '3.00 MiB'
    """
    for unit, power in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if abs(number) >= 1 << power:
            return f"{number / (1 << power):.2f} {unit}"
    return f"{number} B"


def size_text(shape: Sequence[int]) -> str:
    """A size or shape as people write it: 3x224x224."""
    return "x".join(map(str, shape))


def _table(sheet: Sheet, terminal: bool) -> Table:
    table = Table(
        title=Text(visible(sheet.title), style="bold") if sheet.title else None,
        title_justify="left",
        box=box.SIMPLE if terminal else _PLAIN,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in sheet.columns:
        # Folding keeps every character of a name; an ellipsis would not, nor is it ASCII.
        table.add_column(Text(visible(name)), justify="left" if name in sheet.left else "right", overflow="fold")
    for row in sheet.rows:
        table.add_row(*[Text("\n".join(map(visible, cell))) for cell in _lines(sheet, row)])
    return table


def _lines(sheet: Sheet, row: Sequence[Cell]) -> list[list[str]]:
    """The lines of each cell, without any format's markup."""
    return [
        [text] if column in sheet.left else text.split("\n")
        for column, text in zip(sheet.columns, map(_shown, row), strict=True)
    ]


def _shown(cell: Cell) -> str:
    if cell is None:
        return "-"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _html_row(tag: str, cells: Iterable[Sequence[str]], attributes: Sequence[str]) -> str:
    made = (
        f"<{tag}{attribute}>{'<br>'.join(map(for_html, cell))}</{tag}>"
        for cell, attribute in zip(cells, attributes, strict=True)
    )
    return f"<tr>{''.join(made)}</tr>"
