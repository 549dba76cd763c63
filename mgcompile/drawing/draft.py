"""A network on the way to a lattice: what will be a cell and what it reads, without places."""

from __future__ import annotations

from dataclasses import dataclass, field

from mgcompile.graph import Size
from mgcompile.graph.ops import Kind

__all__ = ["Draft", "Fold", "Piece", "Wire"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A cell before it has a place; the fields are those of `Cell`.

    Pieces of one `team` (a layer, or an exchange with all its parts) share a column where they can.
    """

    level: int
    kind: Kind
    channels: int
    size: Size | None
    label: str
    path: str
    nodes: tuple[str, ...]
    team: str
    minor: bool = False


@dataclass(frozen=True, slots=True)
class Wire:
    """One piece reads another `count` times.

    Where that is an operand of a sum (or product, ...) rather than what is computed on, `sum_in` is the path of the
    group that the sum stands in.
    """

    count: int = 1
    sum_in: str | None = None


@dataclass(frozen=True, slots=True)
class Fold:
    """The `pieces` stand for `repeats` equal parts `path`.0, `path`.1, ..."""

    path: str
    repeats: int
    pieces: tuple[int, ...]


@dataclass(slots=True)
class Draft:
    """Pieces in the order of the graph. `reads[i]` maps the number of each piece that piece i reads to the wire.

    A piece may read a later one: a sum that joins an operand's piece brings what comes after that operand.
    """

    pieces: list[Piece] = field(default_factory=list)
    reads: list[dict[int, Wire]] = field(default_factory=list)
    outputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    folds: list[Fold] = field(default_factory=list)
