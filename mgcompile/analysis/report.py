"""Audits as text: a table for people, Markdown, CSV and JSON for programs. Nothing here prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from mgcompile.analysis import tables
from mgcompile.analysis.cost import CONVENTIONS, Audit, Group, GroupKey, Row
from mgcompile.analysis.tables import Cell, Sheet, human, human_bytes, size_text

__all__ = ["as_csv", "as_json", "as_markdown", "as_table", "audit_sheets"]

WIDE = 120
"""From this width on an exact number stands beside its short form, below it under it."""

_FIGURES = ("params", "MACs", "FLOPs", "activations")


def as_table(
    audits: Sequence[Audit], by: GroupKey | None = None, *, depth: int = 1, width: int = WIDE, terminal: bool = False
) -> str:
    """One line for each audit and, where `by` is given, a table of its groups; then the conventions.

    `width` in characters. Plain ASCII unless for a `terminal`. `depth` is that of `Audit.by`.
    """
    return tables.as_text(
        audit_sheets(audits, by, depth, gap="  " if width >= WIDE else "\n"), width=width, terminal=terminal
    )


def as_markdown(audits: Sequence[Audit], by: GroupKey | None = None, *, depth: int = 1) -> str:
    """The same tables in Markdown."""
    return tables.as_markdown(audit_sheets(audits, by, depth, gap="\n"))


def as_csv(audits: Sequence[Audit], by: GroupKey | None = None, *, depth: int = 1) -> str:
    """One line for each audit, or for each of its groups where `by` is given; exact integers, sizes in cells.

    A line for a node says also its layer, its operation, its level (none for a vector) and the shape of its output.
    """
    columns = ("name", "height", "width", "nodes", "params", "macs", "flops", "activation_bytes")
    if by is None:
        extra = ("buffers", "smallest_height", "smallest_width")
        rows = [
            (*_place(audit), *_sums(audit, len(audit.rows)), audit.buffers, *audit.smallest_size) for audit in audits
        ]
        return tables.as_csv((*columns, *extra), rows)
    if by == "node":
        about = ("layer", "op", "level", "output")
        nodes = [
            (*_place(audit), row.node, row.layer, row.op, row.level, size_text(row.output), *_sums(row, 1)[1:])
            for audit in audits
            for row in audit.rows
        ]
        return tables.as_csv((*columns[:3], by, *about, *columns[4:]), nodes)
    groups = [
        (*_place(audit), group.name, *_sums(group, group.nodes)) for audit in audits for group in audit.by(by, depth)
    ]
    return tables.as_csv((*columns[:3], by, *columns[3:]), groups)


def as_json(audits: Sequence[Audit], by: GroupKey | None = None, *, depth: int = 1) -> str:
    """A document `{"conventions": {figure: words}, "audits": [...]}`; exact integers, sizes and shapes as lists.

    An audit has `name`, `size`, `smallest_size`, `nodes`, `params`, `buffers`, `macs`, `flops`, `activation_bytes`,
    `bytes_per_element`, `outputs` (shapes by name), `groups` (empty unless `by` is given) and `uncounted`. With `by`
    node there is `operations` in place of the groups: of each node its `node` (the name), `layer`, `op`, `kind`,
    `level` (null for a vector), `inputs` and `output` (shapes), `params`, whether they are `shared`, `macs`, `flops`,
    `activation_bytes`.
    """
    return tables.as_json({"conventions": dict(CONVENTIONS), "audits": [_record(audit, by, depth) for audit in audits]})


def _record(audit: Audit, by: GroupKey | None, depth: int) -> dict[str, object]:
    return {
        "name": audit.name,
        "size": audit.size,
        "smallest_size": audit.smallest_size,
        "nodes": len(audit.rows),
        "params": audit.params,
        "buffers": audit.buffers,
        "macs": audit.macs,
        "flops": audit.flops,
        "activation_bytes": audit.activation_bytes,
        "bytes_per_element": audit.bytes_per_element,
        "outputs": dict(audit.outputs),
        "groups": [asdict(group) for group in audit.by(by, depth)] if by and by != "node" else [],
        **({"operations": [asdict(row) for row in audit.rows]} if by == "node" else {}),
        "uncounted": [asdict(work) for work in audit.uncounted],
    }


def audit_sheets(
    audits: Sequence[Audit], by: GroupKey | None = None, depth: int = 1, gap: str = "\n"
) -> Iterable[Sheet]:
    """A table of the audits, one of the groups of each where `by` is given, and the conventions. The `gap` stands
    between the short and the exact form of a number.
    """
    yield Sheet(
        "",
        ("network", "input", *_FIGURES),
        tuple((audit.name, size_text(audit.size), *_cells(audit, gap)) for audit in audits),
        left=frozenset({"network"}),
    )
    for audit in audits if by else ():
        yield _group_sheet(audit, by or "layer", depth, gap)
    yield Sheet("", (), (), notes=(*_remarks(audits), *CONVENTIONS.values()))


def _group_sheet(audit: Audit, by: GroupKey, depth: int, gap: str) -> Sheet:
    if by == "node":
        about = ("layer", "op", "output")
        nodes = tuple((row.node, row.layer, row.op, size_text(row.output), *_cells(row, gap)) for row in audit.rows)
        return Sheet(f"{audit.name} by {by}", (by, *about, *_FIGURES), nodes, left=frozenset({by, *about[:2]}))
    rows = tuple((group.name, group.nodes, *_cells(group, gap)) for group in audit.by(by, depth))
    return Sheet(f"{audit.name} by {by}", (by, "nodes", *_FIGURES), rows, left=frozenset({by}))


def _remarks(audits: Iterable[Audit]) -> Iterable[str]:
    for audit in audits:
        outputs = ", ".join(f"{name} {size_text(shape)}" for name, shape in audit.outputs.items())
        yield f"{audit.name}: outputs {outputs}; smallest input {size_text(audit.smallest_size)}"
        for work in audit.uncounted:
            yield f"{audit.name}: not counted: {work.why}: {work.op}, {work.nodes} node{'s' * (work.nodes != 1)}"


def _cells(sums: Audit | Group | Row, gap: str) -> tuple[str, str, str, str]:
    counts = [f"{human(n)}{gap}{n:,}" if n >= 1000 else str(n) for n in (sums.params, sums.macs, sums.flops)]
    return counts[0], counts[1], counts[2], human_bytes(sums.activation_bytes)


def _place(audit: Audit) -> tuple[Cell, ...]:
    return audit.name, *audit.size


def _sums(sums: Audit | Group | Row, nodes: int) -> tuple[Cell, ...]:
    return nodes, sums.params, sums.macs, sums.flops, sums.activation_bytes
