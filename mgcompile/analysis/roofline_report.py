"""The roofline as tables for people and as a record for programs. Nothing here prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal

from mgcompile.analysis.cost import GroupKey
from mgcompile.analysis.machine import Curve, Machine
from mgcompile.analysis.roofline import ROOFLINE_CONVENTIONS, Roofline, RooflineGroup
from mgcompile.analysis.tables import Cell, Sheet, as_csv, human, human_bytes, size_text

__all__ = ["machine_csv", "machine_sheets", "roofline_record", "roofline_sheets"]


def roofline_sheets(found: Roofline, by: GroupKey | None = None, *, depth: int = 1) -> list[Sheet]:
    """The totals, with times where there is a machine; the groups where `by` is given; what each figure means.

    `depth` is that of `Roofline.by`.
    """
    numbers = f"{found.bytes_per_element} byte{'s' * (found.bytes_per_element != 1)} a number"
    title = f"{found.name}, {size_text(found.size)}, batch {found.batch}, {numbers}"
    total = found.total
    sheets = [_sheet(title, "roofline", [total], found, _remarks(found, total))]
    if by:
        sheets.append(_sheet(f"{found.name}: roofline by {by}", by, found.by(by, depth), found))
    meant = [words for name, words in ROOFLINE_CONVENTIONS.items() if found.machine or name in ("bytes", "intensity")]
    return [*sheets, Sheet("", (), (), notes=tuple(meant))]


def roofline_record(found: Roofline, by: GroupKey | None = None, *, depth: int = 1) -> dict[str, object]:
    """The same for JSON: exact integers, bytes and seconds; the groups where `by` is given, and every operation."""
    total = found.total
    return {
        "name": found.name,
        "size": list(found.size),
        "batch": found.batch,
        "bytes_per_element": found.bytes_per_element,
        "machine": None if found.machine is None else _machine_record(found.machine),
        **_group_record(total),
        "groups": [{"name": group.name, **_group_record(group)} for group in (found.by(by, depth) if by else ())],
        "operations": [asdict(row) for row in found.rows],
    }


def machine_sheets(machine: Machine) -> list[Sheet]:
    """The peaks of a machine, the speed of each sort of operation, and what each figure means; units in the table."""
    peaks = (
        ("fastest convolution", _significant(machine.convolution / 1e9), "GFLOP/s"),
        ("memory", _significant(machine.bandwidth / 1e9), "GB/s"),
        ("caches", _significant(machine.cache_bandwidth / 1e9), "GB/s"),
        ("size of the caches", human_bytes(machine.cache), ""),
        ("an operation, however small", _significant(machine.overhead * 1e6), "us"),
        (
            "ridge: computing and moving take as long",
            _significant(machine.convolution / machine.bandwidth),
            "FLOPs a byte",
        ),
    )
    title = f"{machine.name}, {machine.threads} thread{'s' * (machine.threads != 1)}, {machine.precision}"
    sheets = [Sheet(title, ("peak", "measured", "unit"), peaks, left=frozenset({"peak", "unit"}))]
    if machine.rates:
        heads = ("operation", "call us", "GFLOP/s", "inputs and outputs GB/s", "own tensors GB/s")
        rows = tuple(
            (
                sort,
                _significant(rate.overhead * 1e6),
                *(_range(curve) for curve in (rate.flops, rate.bandwidth, rate.tensors)),
            )
            for sort, rate in machine.rates.items()
        )
        notes = (
            "GFLOP/s: from few channels to many; GB/s: from few bytes to many, the first from caches",
            "packed: as the model that is optimised for inference runs it; nominal FLOPs",
        )
        sheets.append(Sheet("by sort of operation", heads, rows, notes=notes, left=frozenset({"operation"})))
    return sheets


def machine_csv(machine: Machine) -> str:
    """A line for each figure: what it is of, which one, at which number of channels or bytes, its value and unit."""
    units = {"convolution": "FLOP/s", "bandwidth": "B/s", "cache_bandwidth": "B/s", "cache": "B", "overhead": "s"}
    rows: list[tuple[str | float | None, ...]] = [
        ("machine", name, None, getattr(machine, name), unit) for name, unit in units.items()
    ]
    for sort, rate in machine.rates.items():
        rows.append((sort, "overhead", None, rate.overhead, "s"))
        for name, unit in (("flops", "FLOP/s"), ("bandwidth", "B/s"), ("tensors", "B/s")):
            rows += [(sort, name, at, value, unit) for at, value in getattr(rate, name)]
    cells = [[None if cell is None else str(cell) for cell in row] for row in rows]
    return as_csv(("operation", "figure", "at", "value", "unit"), cells)


def _sheet(
    title: str, first: str, groups: Sequence[RooflineGroup], found: Roofline, notes: Sequence[str] = ()
) -> Sheet:
    columns: tuple[str, ...] = (first, "nodes", "FLOPs", "bytes", "FLOPs a byte")
    rows: list[tuple[Cell, ...]] = [
        (group.name, group.nodes, human(group.flops), human_bytes(group.bytes), _significant(group.intensity))
        for group in groups
    ]
    if found.machine:
        columns += ("ms", "% of time", "GFLOP/s", "bound")
        whole = found.seconds or 0.0
        rows = [(*row, *_times(group, whole)) for row, group in zip(rows, groups, strict=True)]
    return Sheet(title, columns, tuple(rows), notes=tuple(notes), left=frozenset({first, "bound"}))


def _times(group: RooflineGroup, whole: float) -> tuple[Cell, ...]:
    seconds = group.seconds or 0.0
    part = Decimal(f"{100 * seconds / whole:.1f}") if whole else None
    rate = _significant(group.flops / seconds / 1e9) if seconds and group.flops else None
    return _significant(seconds * 1e3), part, rate, group.bound


def _remarks(found: Roofline, total: RooflineGroup) -> list[str]:
    machine = found.machine
    if machine is None or not total.seconds:
        return []
    order = sorted(total.bounds.items(), key=lambda each: -each[1])
    parts = ", ".join(f"{bound} {100 * seconds / total.seconds:.0f} %" for bound, seconds in order)
    peak = 100 * total.flops / total.seconds / machine.convolution
    return [
        f"predicted for {machine.name}, {machine.threads} thread{'s' * (machine.threads != 1)}, {machine.precision}: "
        f"{_significant(1e3 * total.seconds)} ms, {_significant(found.batch / total.seconds)} images a second",
        f"time by what bounds it: {parts}; {peak:.0f} % of the fastest convolution",
    ]


def _group_record(group: RooflineGroup) -> dict[str, object]:
    own = {"nodes": group.nodes, "flops": group.flops, "bytes": group.bytes, "intensity": group.intensity}
    return {**own, "seconds": group.seconds, "bounds": dict(group.bounds)}


def _machine_record(machine: Machine) -> Mapping[str, object]:
    return {name: value for name, value in asdict(machine).items() if name != "rates"}


def _significant(number: float) -> Decimal:
    """Three digits, without an exponent."""
    return Decimal(format(Decimal(f"{number:.3g}"), "f"))


def _range(curve: Curve) -> str | None:
    """The values of a curve at its ends."""
    ends = [str(_significant(value / 1e9)) for _, value in (curve[:1] + curve[-1:] if len(curve) > 1 else curve)]
    return " - ".join(ends) or None
