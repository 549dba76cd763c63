"""A report as one HTML page: text, tables and pictures, without scripts, that asks for nothing outside of the file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mgcompile.analysis.tables import Sheet, as_html
from mgcompile.escaping import for_html

__all__ = ["Chapter", "Section", "format_report"]


@dataclass(frozen=True, slots=True)
class Section:
    """Something that is said of a network: pictures (SVG), tables and a text, in this order.

    A section that is `folded` shows its title alone until it is opened; it is printed whole. `code` is shown as it is.
    """

    title: str
    pictures: tuple[str, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    code: str = ""
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Chapter:
    """A network, or several of them together: its title, a line about it, its sections."""

    title: str
    about: str
    sections: tuple[Section, ...]


def format_report(title: str, chapters: Sequence[Chapter], footer: str = "") -> str:
    """The page. Chapters and sections get anchors, and the chapters a list of links where there are several."""
    anchors = list(_anchors([chapter.title for chapter in chapters]))
    links = "".join(
        f'<li><a href="#{anchor}">{for_html(chapter.title)}</a></li>\n'
        for anchor, chapter in zip(anchors, chapters, strict=True)
    )
    contents = f"<nav>\n<ol>\n{links}</ol>\n</nav>\n" if len(chapters) > 1 else ""
    body = "".join(_chapter(chapter, anchor) for anchor, chapter in zip(anchors, chapters, strict=True))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{for_html(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{for_html(title)}</h1>\n{contents}{body}"
        f"<footer>{for_html(footer)}</footer>\n</body>\n</html>\n"
    )


POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

STYLE = """\
:root { color-scheme: light dark; --ink: #1c1e21; --muted: #63686f; --line: #d5d8dc; --paper: #ffffff;
  --band: #f5f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e7e9; --muted: #a0a5ad; --line: #3d4148; --paper: #17191c; --band: #1f2226; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.5rem 4rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.35rem; margin: 3rem 0 0.2rem; padding-top: 0.8rem; border-top: 2px solid var(--ink); }
h3, summary { font-size: 1.02rem; font-weight: 600; margin: 1.6rem 0 0.5rem; }
summary { cursor: pointer; }
summary:focus-visible, a:focus-visible { outline: 2px solid currentcolor; outline-offset: 2px; }
p.about { margin: 0 0 1rem; color: var(--muted); max-width: 60rem; }
a { color: inherit; }
nav ol { margin: 0; padding-left: 1.4rem; columns: 16rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.5rem 0 1rem; font-variant-numeric: tabular-nums; font-size: 0.88rem; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.3rem; white-space: nowrap; }
th, td { padding: 0.18rem 0 0.18rem 1.4rem; text-align: right; vertical-align: top; white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0.3rem; }
th:last-child, td:last-child { padding-right: 0.3rem; }
th { font-weight: 600; border-bottom: 1px solid var(--ink); }
td { border-bottom: 1px solid var(--line); }
.words { text-align: left; }
tbody tr:hover { background: var(--band); }
ul.notes { margin: 0.3rem 0 1.2rem; padding-left: 1.1rem; color: var(--muted); font-size: 0.82rem; max-width: 60rem; }
figure { margin: 0.5rem 0 1rem; padding: 0.6rem; overflow-x: auto; background: #ffffff; border: 1px solid var(--line); }
figure svg { display: block; max-width: 100%; height: auto; }
figure.wide svg { max-width: none; }
pre { overflow-x: auto; padding: 0.8rem; background: var(--band); border: 1px solid var(--line); font-size: 0.82rem; }
footer { margin-top: 3rem; color: var(--muted); font-size: 0.82rem; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  h2 { break-before: page; }
  table, figure { break-inside: avoid; }
  figure.wide svg { max-width: 100%; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
"""

WIDE = 1100
"""A picture of more points is scrolled, not made smaller than can be read."""


def _chapter(chapter: Chapter, anchor: str) -> str:
    about = f'<p class="about">{for_html(chapter.about)}</p>\n' if chapter.about else ""
    sections = "".join(map(_section, chapter.sections))
    return f'<section id="{anchor}">\n<h2>{for_html(chapter.title)}</h2>\n{about}{sections}</section>\n'


def _section(section: Section) -> str:
    content = "".join(map(_figure, section.pictures))
    content += f'<div class="scroll">\n{as_html(section.sheets)}</div>\n' if section.sheets else ""
    content += f"<pre>{for_html(section.code, lines=True)}</pre>\n" if section.code else ""
    if section.folded:
        return f"<details>\n<summary>{for_html(section.title)}</summary>\n{content}</details>\n"
    return f"<h3>{for_html(section.title)}</h3>\n{content}"


def _figure(svg: str) -> str:
    picture = svg[svg.index("<svg") :]  # without the declaration of XML
    width = re.search(r'<svg[^>]*\swidth="([\d.]+)', picture)
    wide = ' class="wide"' if width and float(width[1]) > WIDE else ""
    return f"<figure{wide}>\n{picture}</figure>\n"


def _anchors(titles: Iterable[str]) -> Iterator[str]:
    """A name for each, unlike all before it."""
    taken: set[str] = set()
    for title in titles:
        plain = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "network"
        name, number = plain, 1
        while name in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name)
        yield name
