"""Receptive fields as tables for people, as flat lines and as a record for programs. Nothing here prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from fractions import Fraction

from mgcompile.analysis import tables
from mgcompile.analysis.receptive import (
    FIELD_CONVENTIONS,
    CurvePoint,
    FieldGroup,
    FieldKey,
    OutputField,
    ReceptiveField,
    Unclipped,
)
from mgcompile.analysis.tables import Cell, Sheet, size_text

__all__ = ["receptive_csv", "receptive_record", "receptive_sheets"]

CURVE_ROWS = 24
"""So many depths of a curve are shown at most; a record has all."""

_UNBOUNDED = "unbounded"
_FIGURES = ("field", "of image", "unclipped")

Pair = tuple[Fraction | None, Fraction | None]


def receptive_sheets(found: ReceptiveField, by: FieldKey | None = None, *, depth: int = 1) -> list[Sheet]:
    """The fields of the outputs and where the image is first covered, the field against depth, the groups where `by` is
    given (`depth` is that of `ReceptiveField.by`), and what each figure means.
    """
    sheets = [_outputs(found), _curve(found)]
    if by:
        rows = tuple(_group_cells(found, group) for group in found.by(by, depth))
        columns = (by, "nodes", "depth", *_FIGURES, "covered at")
        sheets.append(Sheet(f"{found.name}: receptive field by {by}", columns, rows, left=frozenset({by})))
    return [*sheets, Sheet("", (), (), notes=tuple(FIELD_CONVENTIONS.values()))]


def receptive_csv(results: Sequence[ReceptiveField], by: FieldKey | None = None, *, depth: int = 1) -> str:
    """A line for each output, or for each group where `by` is given; no number where a field is unbounded."""
    place = ("name", "height", "width")
    figures = ("depth", "field_height", "field_width", "unclipped_height", "unclipped_width", "covered_at")
    if by:
        groups = [(found, group) for found in results for group in found.by(by, depth)]
        rows: list[tuple[Cell, ...]] = [
            (found.name, *found.size, group.name, group.nodes, *_numbers(group)) for found, group in groups
        ]
        return tables.as_csv((*place, by, "nodes", *figures), rows)
    more = ("covered_by", "stride_height", "stride_width", "centre_height", "centre_width")
    rows = [
        (found.name, *found.size, output.name, output.node, *_numbers(output), output.covered_by, *_geometry(output))
        for found in results
        for output in found.outputs
    ]
    return tables.as_csv((*place, "output", "node", *figures, *more), rows)


def receptive_record(found: ReceptiveField, by: FieldKey | None = None, *, depth: int = 1) -> dict[str, object]:
    """The same for JSON, with every node and every depth: pairs are lists of height and width, null is unbounded."""
    return {
        "name": found.name,
        "size": found.size,
        "depth": found.depth,
        "covered_at": found.covered_at,
        "covered_by": found.covered_by,
        "outputs": [asdict(output) | _exact(output.stride, output.centre) for output in found.outputs],
        "curve": [asdict(point) for point in found.curve],
        "groups": [asdict(group) for group in found.by(by, depth)] if by else [],
        "nodes": [asdict(row) | _exact(row.stride, row.centre) for row in found.rows],
    }


def _outputs(found: ReceptiveField) -> Sheet:
    rows = tuple(
        (
            output.name,
            *_cells(found, output),
            "-" if output.stride is None else _pair_text(output.stride, "x"),
            _pair_text(output.centre, ", "),
            output.depth,
            output.covered_at,
        )
        for output in found.outputs
    )
    if found.covered_at is None:
        first = "the cell in the middle of no grid depends on the whole image"
    else:
        first = f"the image is first covered at depth {found.covered_at} of {found.depth}, by {found.covered_by}"
    columns = ("output", *_FIGURES, "stride", "centre", "depth", "covered at")
    title = f"{found.name}, {size_text(found.size)}: receptive field"
    return Sheet(title, columns, rows, notes=(first,), left=frozenset({"output"}))


def _curve(found: ReceptiveField) -> Sheet:
    """The depths at which the field grows, or some of them where they are many."""
    before: list[CurvePoint | None] = [None, *found.curve]
    grows = [
        point
        for point, last in zip(found.curve, before, strict=False)
        if last is None or (point.size, point.unclipped) != (last.size, last.unclipped)
    ]
    shown = _spread(grows, CURVE_ROWS)
    notes = [f"depths at which the field grows, up to {found.depth}"]
    if len(shown) < len(grows):
        notes = [f"{len(shown)} of the {len(grows)} depths at which the field grows; JSON has all"]
    rows = tuple((point.depth, *_cells(found, point)) for point in shown)
    return Sheet(f"{found.name}: receptive field by depth", ("depth", *_FIGURES), rows, notes=tuple(notes))


def _spread(points: Sequence[CurvePoint], most: int) -> list[CurvePoint]:
    """So many of them at most, evenly spread, the first and the last among them."""
    last = len(points) - 1
    if last < most:
        return list(points)
    return [points[place * last // (most - 1)] for place in range(most)]


def _group_cells(found: ReceptiveField, group: FieldGroup) -> tuple[Cell, ...]:
    return group.name, group.nodes, group.depth, *_cells(found, group), group.covered_at


def _cells(found: ReceptiveField, field: OutputField | CurvePoint | FieldGroup) -> tuple[str, str, str]:
    part = Decimal(100 * field.size[0] * field.size[1]) / (found.size[0] * found.size[1])
    return size_text(field.size), _percent(part), _unclipped_text(field.unclipped)


def _percent(part: Decimal) -> str:
    """Never 100 % of what is less, nor 0 % of what is more."""
    if part >= 10:
        return f"{int(part)} %"
    return f"{part:.1f} %" if part >= Decimal("0.1") else "< 0.1 %"


def _unclipped_text(pair: Unclipped) -> str:
    if pair == (None, None):
        return _UNBOUNDED
    return "x".join(_UNBOUNDED if side is None else str(side) for side in pair)


def _pair_text(pair: Pair, between: str) -> str:
    if pair == (None, None):
        return "-"
    return between.join("-" if number is None else f"{float(number):g}" for number in pair)


def _numbers(field: OutputField | FieldGroup) -> tuple[Cell, ...]:
    return field.depth, *field.size, *field.unclipped, field.covered_at


def _geometry(output: OutputField) -> tuple[Cell, ...]:
    pairs = (*(output.stride or (None, None)), *output.centre)
    return tuple(None if number is None else Decimal(number.numerator) / number.denominator for number in pairs)


def _exact(stride: Pair | None, centre: Pair) -> dict[str, object]:
    """Powers of two and halves, which JSON holds as they are."""
    return {"stride": None if stride is None else list(map(_number, stride)), "centre": list(map(_number, centre))}


def _number(value: Fraction | None) -> int | float | None:
    if value is None:
        return None
    return value.numerator if value.denominator == 1 else float(value)
