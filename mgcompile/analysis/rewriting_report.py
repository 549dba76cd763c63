"""What passes do to a graph: figures after each of them, and the operations that are left; as numbers and as text.

A pass is known by its name and by the graph after it alone. Nothing here prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from mgcompile.analysis import tables
from mgcompile.analysis.cost import CONVENTIONS, audit_graph
from mgcompile.analysis.report import WIDE
from mgcompile.analysis.tables import Cell, Sheet, human, human_bytes, size_text
from mgcompile.graph import Graph, Size

__all__ = ["Left", "Rewriting", "Step", "as_csv", "as_json", "as_markdown", "as_table", "rewriting"]


@dataclass(frozen=True, slots=True)
class Step:
    """A graph after a pass, for one sample; the figures are those of an audit."""

    name: str
    nodes: int
    macs: int
    activation_bytes: int


@dataclass(frozen=True, slots=True)
class Left:
    """The sums over all nodes of one kind of operation that are left at the end."""

    kind: str
    nodes: int
    macs: int
    activation_bytes: int


@dataclass(frozen=True, slots=True)
class Rewriting:
    """A graph on its way through passes, at one input size (height, width). The first step is the graph as built."""

    name: str
    mode: str
    size: Size
    steps: tuple[Step, ...]
    left: tuple[Left, ...]

    @property
    def passes(self) -> tuple[tuple[Step, Step], ...]:
        """What was before each pass, and after it."""
        return tuple(zip(self.steps, self.steps[1:], strict=False))


def rewriting(steps: Iterable[tuple[str, Graph]], mode: str, size: Size | None = None) -> Rewriting:
    """The figures of the graphs after each pass of a mode, at `size` or at the nominal size.

    `steps` are (name, graph), at least one; the first is the graph before all passes. Raises `ShapeError` where a grid
    vanishes at this size.
    """
    found = []
    for name, graph in steps:
        figures = audit_graph(graph, size)
        found.append(Step(name, len(graph), figures.macs, figures.activation_bytes))
    sums: dict[str, list[int]] = {}
    for row in figures.rows:
        total = sums.setdefault(row.kind.value, [0, 0, 0])
        for place, number in enumerate((1, row.macs, row.activation_bytes)):
            total[place] += number
    left = sorted((Left(kind, *total) for kind, total in sums.items()), key=lambda each: (-each.macs, -each.nodes))
    return Rewriting(figures.name, mode, figures.size, tuple(found), tuple(left))


def as_table(found: Rewriting, *, width: int = WIDE, terminal: bool = False) -> str:
    """A line for each pass, then one for each kind of operation that is left; `width` in characters.

    Plain ASCII unless for a `terminal`.
    """
    return tables.as_text(_sheets(found, "  " if width >= WIDE else "\n"), width=width, terminal=terminal)


def as_markdown(found: Rewriting) -> str:
    """The same tables in Markdown."""
    return tables.as_markdown(_sheets(found, "\n"))


def as_csv(found: Rewriting) -> str:
    """One line for each pass, exact integers before and after it."""
    figures = ("nodes", "macs", "activation_bytes")
    columns = ("name", "height", "width", "mode", "pass", *(f"{each}_{when}" for each in figures for when in _WHEN))
    rows: list[list[Cell]] = []
    for before, after in found.passes:
        numbers = [getattr(step, figure) for figure in figures for step in (before, after)]
        rows.append([found.name, *found.size, found.mode, after.name, *numbers])
    return tables.as_csv(columns, rows)


def as_json(found: Rewriting) -> str:
    """A document `{"name", "mode", "size", "passes": [...], "left": [...]}`; exact integers.

    A pass has its name as `pass`, and `before` and `after` it `nodes`, `macs` and `activation_bytes`. What is left has
    these figures by `kind`.
    """
    passes = [
        {"pass": after.name, "before": _figures(before), "after": _figures(after)} for before, after in found.passes
    ]
    left = [asdict(each) for each in found.left]
    return tables.as_json({"name": found.name, "mode": found.mode, "size": found.size, "passes": passes, "left": left})


_WHEN = ("before", "after")


def _figures(step: Step) -> dict[str, int]:
    return {"nodes": step.nodes, "macs": step.macs, "activation_bytes": step.activation_bytes}


def _sheets(found: Rewriting, gap: str) -> Iterable[Sheet]:
    ends = found.steps[0], found.steps[-1]
    rows = [(after.name, *_changes(before, after, gap)) for before, after in found.passes]
    rows += [("all", *_changes(*ends, gap))]
    yield Sheet(
        f"{found.name} for {found.mode}, {size_text(found.size)}",
        ("pass", "nodes", "MACs", "activations"),
        tuple(rows),
        left=frozenset({"pass"}),
    )
    left = [(each.kind, each.nodes, human(each.macs), human_bytes(each.activation_bytes)) for each in found.left]
    yield Sheet("what is left", ("kind", "nodes", "MACs", "activations"), tuple(left), left=frozenset({"kind"}))
    notes = (
        "kinds: a reference holds the tensors that another node computes with; it computes nothing",
        CONVENTIONS["macs"],
        CONVENTIONS["activation_bytes"],
    )
    yield Sheet("", (), (), notes=notes)


def _changes(before: Step, after: Step, gap: str) -> tuple[str, str, str]:
    return (
        _change(before.nodes, after.nodes, gap, "{:,}".format),
        _change(before.macs, after.macs, gap, human),
        _change(before.activation_bytes, after.activation_bytes, gap, human_bytes),
    )


def _change(before: int, after: int, gap: str, text: Callable[[int], str]) -> str:
    """Both and by how much they differ, or the one that both are."""
    if before == after:
        return text(after)
    share = f"{100 * (after - before) / before:+.1f} %" if before else "new"
    return f"{text(before)} -> {text(after)}{gap}{share}"
