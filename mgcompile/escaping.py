"""Text from outside as each format wants it: nothing in a name is taken for markup, a formula or a terminal's command.

Names come from specs, from the metadata of checkpoints, from folders of classes and from the command line. Whoever
writes a format takes its function from here. This module imports nothing else of the project.
"""

from __future__ import annotations

import re
from html import escape as escape_html
from unicodedata import category

__all__ = ["brief", "for_csv", "for_html", "for_json", "for_markdown", "for_yaml", "visible"]

UNSEEN = frozenset({"Cc", "Cf", "Cn", "Cs", "Zl", "Zp"})
"""The categories of what is not seen: controls, directions and zero widths, no characters at all, halves of surrogate
pairs, ends of lines and of paragraphs. XML 1.0 has no place for a part of them, escaped or not.
"""

FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE | re.ASCII)

MARKDOWN = re.compile(r"[\\`|]|<|&(?=[#\w])|\](?=[(\[:])")


def visible(text: str, *, lines: bool = False) -> str:
    r"""The text with what is not seen written as Python does; ends of lines stay where `lines` may be several.

    >>> print(visible("\x1b[31mred\u202e"))
    \x1b[31mred\u202e
    """
    if text.isprintable():
        return text
    return "".join([letter if not _is_unseen(letter, lines) else _python(letter) for letter in text])


def brief(text: str, most: int = 100) -> str:
    """Text that others chose, for a message: what is unseen is written, and `most` characters of it are enough."""
    return visible(text if len(text) <= most else f"{text[:most]}...")


def _is_unseen(letter: str, lines: bool) -> bool:
    return category(letter) in UNSEEN and not (lines and letter == "\n")


def _python(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def for_markdown(text: str) -> str:
    """Text within a line of Markdown: no HTML, no code, no end of a cell, no link or picture.

    >>> for_markdown("<img src=x> a|b `c` ![d](e)")
    '&lt;img src=x> a\\\\|b \\\\`c\\\\` ![d\\\\](e)'
    """
    return MARKDOWN.sub(_markdown, visible(text))


def _markdown(match: re.Match[str]) -> str:
    return {"<": "&lt;", "&": "&amp;"}.get(match[0], f"\\{match[0]}")


def for_html(text: str, *, lines: bool = False) -> str:
    """Text in HTML, XML or SVG, between tags or in an attribute's quotes."""
    return escape_html(visible(text, lines=lines))


def for_csv(text: str) -> str:
    """The text of a cell: a spreadsheet takes nothing for a formula, and numbers stay what they are.

    >>> for_csv("=1+1"), for_csv("-1.5")
    ("'=1+1", '-1.5')
    """
    shown = visible(text)
    return f"'{shown}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else shown


def for_json(document: str) -> str:
    """A whole JSON document, in which nothing but the ends of its lines is unseen. It says the same."""
    return document if document.isascii() else "".join([_json(letter) for letter in document])


def _json(letter: str) -> str:
    if not _is_unseen(letter, lines=True):
        return letter
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def for_yaml(document: str) -> str:
    """A whole YAML document, of which everything unseen but the ends of its lines stands in double quotes."""
    return "".join([_python(letter) if _is_unseen(letter, lines=True) else letter for letter in document])
