"""Drawings as bytes in a format, and as files."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import CalledProcessError

import graphviz

from mgcompile.drawing.dot import format_dot
from mgcompile.drawing.lattice import Lattice, build_lattice
from mgcompile.drawing.page import Measure, format_page
from mgcompile.drawing.svg import format_svg
from mgcompile.errors import MgcompileError
from mgcompile.graph import Graph
from mgcompile.graph.collecting import collection_paused
from mgcompile.outputs import write_file

__all__ = ["SUFFIXES", "draw_graph", "format_of", "render_lattice"]

SUFFIXES: Mapping[str, str] = {
    ".svg": "svg",
    ".png": "png",
    ".pdf": "pdf",
    ".dot": "dot",
    ".gv": "dot",
    ".html": "html",
}
"""The format of a file by its suffix."""

DOTS_PER_INCH = 200
MOST_PIXELS = 30_000
"""Cairo draws no picture that is wider or higher than 32,767 pixels."""


def draw_graph(
    graph: Graph,
    path: str | os.PathLike[str] | None = None,
    *,
    format: str | None = None,
    fold: bool = True,
    detail: str = "layer",
    subtitle: str = "",
    measures: Sequence[Measure] = (),
    facts: Mapping[str, str] | None = None,
) -> bytes:
    """Draw a graph; with `path` also write the file.

    The format is svg, png, pdf, dot or html: that of the path's suffix, else svg. An html page takes `measures` and
    `facts` (see `format_page`), the other formats a `subtitle`. Raises `MgcompileError` for an unknown format or
    suffix, where no Graphviz is found for png and pdf, and where the file cannot be written.
    """
    chosen = format or (format_of(path) if path is not None else "svg")
    if chosen not in SUFFIXES.values():
        raise _unknown_format(chosen, SUFFIXES.values())
    if chosen == "html":
        data = format_page(graph, measures=measures, facts=facts, fold=fold, detail=detail).encode()
    else:
        with collection_paused():
            data = render_lattice(build_lattice(graph, fold=fold, detail=detail), chosen, subtitle=subtitle)
    if path is not None:
        write_file(path, data)
    return data


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that a file name asks for. Raises `MgcompileError` for an unknown suffix."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        found = f"the suffix {suffix!r}" if suffix else "no suffix"
        raise MgcompileError(f"{os.fspath(path)}: {found} names no drawing; known are {', '.join(SUFFIXES)}")
    return SUFFIXES[suffix]


def render_lattice(lattice: Lattice, format: str, *, subtitle: str = "") -> bytes:
    """The drawing in a format: svg and dot need nothing, png and pdf need Graphviz. Raises `MgcompileError`.

    A page (html) is made of a graph, not of a lattice, which has nothing left to open.
    """
    match format:
        case "svg":
            return format_svg(lattice, subtitle=subtitle).encode()
        case "dot":
            return str(format_dot(lattice, subtitle=subtitle).source).encode()
        case "png" | "pdf":
            return _run_graphviz(format_dot(lattice, subtitle=subtitle), format)
    raise _unknown_format(format, set(SUFFIXES.values()) - {"html"})


def _unknown_format(format: str, known: Iterable[str]) -> MgcompileError:
    return MgcompileError(f"{format!r} is no format of a drawing; known are {', '.join(sorted(set(known)))}")


def _run_graphviz(graph: graphviz.Digraph, format: str) -> bytes:
    """By the program where it is installed, otherwise by the library that pygraphviz brings."""
    if format == "png":
        graph.graph_attr["dpi"] = str(_resolution(graph))
    try:
        data: bytes = graph.pipe(format, engine="dot", quiet=True)
        return data
    except graphviz.ExecutableNotFound:
        return _run_library(graph.source, format)
    except CalledProcessError as error:
        message = (error.stderr or b"").decode(errors="replace").strip()
        raise MgcompileError(f"Graphviz fails to draw {format}: {message}") from error


def _resolution(graph: graphviz.Digraph) -> int:
    _, _, width, height = map(float, graph.graph_attr["bb"].split(","))
    return max(1, min(DOTS_PER_INCH, int(MOST_PIXELS * 72 / max(width, height))))


def _run_library(source: str, format: str) -> bytes:
    try:
        import pygraphviz
    except ImportError:
        raise MgcompileError(
            f"{format} drawings need Graphviz: install it, or pygraphviz, which brings its library; svg needs neither"
        ) from None
    with _captured_stderr() as said:
        try:
            data: bytes = pygraphviz.AGraph(string=source).draw(format=format, prog="nop2")
            return data
        except (OSError, ValueError, RuntimeError) as error:
            failure = str(error)
    raise MgcompileError(f"Graphviz fails to draw {format}: {failure} {' '.join(said)}".strip())


@contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """What C libraries print to standard error, as a list that is filled at the end."""
    lines: list[str] = []
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()
