"""Reconciliations as text: a table for people, Markdown, JSON. Nothing here prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from mgcompile.analysis import tables
from mgcompile.analysis.tables import Cell, Sheet, size_text
from mgcompile.analysis.verification import Reason, Reconciliation

__all__ = ["as_json", "as_markdown", "as_table"]

_FIGURES = ("MACs", "PyTorch flops", "fvcore MACs")

_NOTES = (
    "PyTorch counts 2 flops for a multiply-accumulate, fvcore counts 1; both count a shared module at each call",
    "agrees: no convolution, matrix product, tensor or output shape differs; elementwise work, below, may",
)


def as_table(
    results: Sequence[Reconciliation], *, details: bool = False, width: int = 120, terminal: bool = False
) -> str:
    """A line for each network and, below, what differs and why; with `details` also every node that has MACs."""
    return tables.as_text(_sheets(results, details), width=width, terminal=terminal)


def as_markdown(results: Sequence[Reconciliation], *, details: bool = False) -> str:
    """The same tables in Markdown."""
    return tables.as_markdown(_sheets(results, details))


def as_json(results: Sequence[Reconciliation]) -> str:
    """A document `{"reconciliations": [...]}` with every node that has MACs and every difference."""
    return tables.as_json({"reconciliations": [_record(result) for result in results]})


def _sheets(results: Sequence[Reconciliation], details: bool) -> Iterable[Sheet]:
    yield Sheet(
        "",
        ("network", "input", *_FIGURES, "params", "PyTorch params", "verdict"),
        tuple(_summary(result) for result in results),
        notes=_NOTES,
        left=frozenset({"network", "verdict"}),
    )
    for result in results:
        if details:
            yield _lines(result)
        if result.differences or result.notes:
            yield _differences(result)


def _lines(result: Reconciliation) -> Sheet:
    return Sheet(
        f"{result.name}: every node with MACs",
        ("node", "op", *_FIGURES, "verdict"),
        tuple(
            (line.node, line.op, line.macs, line.torch_flops, line.fvcore_macs, _verdict(line.agrees))
            for line in result.lines
        ),
        left=frozenset({"node", "op", "verdict"}),
    )


def _verdict(agrees: bool) -> str:
    return "agrees" if agrees else Reason.DIFFERENT.value


def _summary(result: Reconciliation) -> tuple[Cell, ...]:
    counts = result.macs, result.torch_flops, result.fvcore_macs
    return result.name, size_text(result.size), *counts, result.params, result.torch_params, _verdict(result.ok)


def _differences(result: Reconciliation) -> Sheet:
    columns = ("kind", "tool", "what", "nodes", "ours", "theirs", "unit")
    explanations = dict.fromkeys(
        f"{difference.reason} ({difference.tool}): {difference.explanation}" for difference in result.differences
    )
    return Sheet(
        f"{result.name}: what differs",
        columns,
        tuple(
            (item.reason.value, item.tool, item.what, item.nodes, item.ours, item.theirs, item.unit)
            for item in result.differences
        ),
        notes=(*explanations, *result.notes),
        left=frozenset(columns) - {"nodes", "ours", "theirs"},
    )


def _record(result: Reconciliation) -> dict[str, object]:
    return {
        "name": result.name,
        "size": result.size,
        "ok": result.ok,
        "macs": result.macs,
        "torch_flops": result.torch_flops,
        "fvcore_macs": result.fvcore_macs,
        "fvcore_total": result.fvcore_total,
        "params": result.params,
        "torch_params": result.torch_params,
        "lines": [asdict(line) | {"agrees": line.agrees} for line in result.lines],
        "differences": [asdict(difference) for difference in result.differences],
        "notes": list(result.notes),
    }
