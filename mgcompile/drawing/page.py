"""The interactive page: one self-contained HTML file that shows the lattice and what is known of each node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mgcompile.graph import Graph

__all__ = ["Measure", "format_page"]


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of nodes to colour cells by. `adds` tells whether that of a group is the sum of its nodes', else it is
    the largest. `unit` is written behind the number; `binary` numbers are bytes (KiB, MiB).
    """

    key: str
    title: str
    unit: str
    values: Mapping[str, float]
    adds: bool = True
    binary: bool = False


def format_page(graph: Graph, *, measures: Sequence[Measure] = (), facts: Mapping[str, str] | None = None) -> str:
    """The page as HTML text, under 1 MB for networks of the zoo. `facts` are shown in the head, in their order: a name
    and a value. It asks for nothing from outside of the file.
    """
    raise NotImplementedError
