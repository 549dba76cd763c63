"""What was measured, as text: a table for people, Markdown, CSV and JSON for programs. Nothing here prints."""

from __future__ import annotations

from decimal import Decimal

from mgcompile.analysis import tables
from mgcompile.analysis.tables import Cell, Sheet, size_text
from mgcompile.measuring.bench import Bench, Row

__all__ = ["CONVENTIONS", "as_csv", "as_json", "as_markdown", "as_table"]

CONVENTIONS = {
    "time": "time: median over the rounds of one call for the whole batch; in training forward, sum of squares of the "
    "outputs, backward; spread: from lower to upper quartile, in percent of the median",
    "memory": "peak memory: parameters, buffers, input and the most that PyTorch's allocator holds at once during a "
    "call; weights that oneDNN packs for itself are not seen",
    "nominal": "nominal: 2 x MACs of the network as the spec says it / time; a training step counts as three forwards",
    "executed": "executed: the same with the MACs of the optimised graph, as its audit says",
    "peak": "% of peak: of the fastest of several single convolutions in the same precision, with as many threads",
}
"""What each figure means, in words."""

_COLUMNS = (
    "network",
    "mode",
    "form",
    "precision",
    "batch",
    "height",
    "width",
    "median_ms",
    "lower_quartile_ms",
    "upper_quartile_ms",
    "spread_percent",
    "images_per_second",
    "peak_bytes",
    "nominal_flops",
    "executed_flops",
    "nominal_gflops_per_second",
    "nominal_percent_of_peak",
    "executed_gflops_per_second",
    "executed_percent_of_peak",
)
_HEADS = (
    "network",
    "mode",
    "form",
    "precision",
    "batch",
    "size",
    "time ms",
    "spread %",
    "images /s",
    "peak MiB",
    "nominal GFLOP/s",
    "% of peak",
    "executed GFLOP/s",
    "% of peak",
)
_LEFT = frozenset({"network", "mode", "form", "precision"})


def as_table(bench: Bench, *, width: int = 120, terminal: bool = False) -> str:
    """A line for each row, then the conventions; `width` in characters. Plain ASCII unless for a `terminal`."""
    sheet = _sheet(bench)
    heads = tuple(head.replace(" ", "\n", 1) if head not in _LEFT else head for head in sheet.columns)
    return tables.as_text([Sheet(sheet.title, heads, sheet.rows, sheet.notes, _LEFT)], width=width, terminal=terminal)


def as_markdown(bench: Bench) -> str:
    """The same table in Markdown."""
    return tables.as_markdown([_sheet(bench)])


def as_csv(bench: Bench) -> str:
    """A line for each row: milliseconds, bytes, FLOPs of one call, GFLOP/s, percent."""
    return tables.as_csv(_COLUMNS, map(_figures, bench.rows))


def as_json(bench: Bench) -> str:
    """A document `{"conventions": {...}, "machine": {...}, "runs": n, "warmup": n, "rows": [...]}`.

    A row has the columns of the CSV. The machine has `processor`, `threads`, `torch`, `python`, and in
    `peak_gflops_per_second` its peak by precision.
    """
    machine = {
        "processor": bench.processor,
        "threads": bench.threads,
        "torch": bench.torch,
        "python": bench.python,
        "peak_gflops_per_second": {name: _rounded(peak / 1e9) for name, peak in bench.peaks.items()},
    }
    rows = [dict(zip(_COLUMNS, _figures(row), strict=True)) for row in bench.rows]
    return tables.as_json(
        {"conventions": CONVENTIONS, "machine": machine, "runs": bench.runs, "warmup": bench.warmup, "rows": rows}
    )


def _figures(row: Row) -> tuple[Cell, ...]:
    """A row as `_COLUMNS` say."""
    way, seconds, (lower, upper) = row.candidate, row.time.median, row.time.quartiles
    nominal, executed = _rates(row)
    return (
        row.network,
        way.mode,
        way.form,
        way.precision,
        way.batch,
        *row.size,
        _rounded(seconds * 1e3),
        _rounded(lower * 1e3),
        _rounded(upper * 1e3),
        None if row.time.spread is None else _rounded(row.time.spread * 100),
        _rounded(way.batch / seconds),
        row.peak_bytes,
        row.nominal_flops,
        row.executed_flops,
        _rounded(nominal / 1e9),
        _rounded(nominal / row.peak_flops * 100),
        _rounded(executed / 1e9),
        _rounded(executed / row.peak_flops * 100),
    )


def _rates(row: Row) -> tuple[float, float]:
    """FLOP/s of nominal and of executed work."""
    return row.nominal_flops / row.time.median, row.executed_flops / row.time.median


def _sheet(bench: Bench) -> Sheet:
    peaks = ", ".join(f"{name} {peak / 1e9:,.0f}" for name, peak in bench.peaks.items())
    threads = f"{bench.threads} thread" + "s" * (bench.threads != 1)
    machine = f"{bench.processor}, {threads}, PyTorch {bench.torch}, Python {bench.python}; peak in GFLOP/s: {peaks}"
    rounds = f"{bench.runs} interleaved round" + "s" * (bench.runs != 1)
    return Sheet("", _HEADS, tuple(map(_cells, bench.rows)), (f"{machine}; {rounds}", *CONVENTIONS.values()), _LEFT)


def _cells(row: Row) -> tuple[Cell, ...]:
    """A row as `_HEADS` say."""
    way, seconds = row.candidate, row.time.median
    nominal, executed = _rates(row)
    return (
        row.network,
        way.mode,
        way.form,
        way.precision,
        way.batch,
        size_text(row.size),
        _short(seconds * 1e3),
        None if row.time.spread is None else f"{row.time.spread * 100:.1f}",
        _short(way.batch / seconds),
        _short(row.peak_bytes / 2**20),
        _short(nominal / 1e9),
        f"{nominal / row.peak_flops * 100:.1f}",
        _short(executed / 1e9),
        f"{executed / row.peak_flops * 100:.1f}",
    )


def _short(number: float) -> str:
    """Three digits that count, or all those before the point."""
    digits = 2 if number < 10 else 1 if number < 100 else 0
    return f"{number:,.{digits}f}"


def _rounded(number: float) -> Decimal:
    """Six digits that count: more than any clock is worth."""
    return Decimal(f"{number:.6g}").normalize() + 0
