"""Budgets: limits on the figures of a network, such as `params=9M` or `memory=2GiB`, and whether they are kept."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from fractions import Fraction
from typing import Literal, get_args

from mgcompile.analysis.cost import audit_graph
from mgcompile.analysis.memory import Optimizer, memory
from mgcompile.analysis.tables import Sheet
from mgcompile.graph.graph import Graph
from mgcompile.graph.types import Size

__all__ = [
    "FIGURES",
    "FIGURE_WORDS",
    "Budget",
    "Figure",
    "Kept",
    "budget_record",
    "budget_sheet",
    "check_budgets",
    "figure_of",
    "figures_of",
    "parse_budget",
]

Figure = Literal["params", "macs", "flops", "activations", "memory", "training-memory"]
"""`activations` and the memories in bytes: `memory` is `Memory.inference_total`, `training-memory` `training_total`."""

FIGURES: tuple[Figure, ...] = get_args(Figure)

FIGURE_WORDS: Mapping[Figure, str] = {
    "params": "parameters",
    "macs": "MACs",
    "flops": "FLOPs",
    "activations": "bytes of activations",
    "memory": "bytes of memory in inference",
    "training-memory": "bytes of memory in training",
}
"""What a number of each figure counts, in words."""

_COUNTED = ("params", "macs", "flops")
_MEMORIES = ("memory", "training-memory")
_COUNTS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BYTES = {
    "B": 1,
    **{"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12},
    **{"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40},
}
_NUMBER = re.compile(r"(\d{1,30}(?:\.\d{1,30})?) ?([A-Za-z]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Budget:
    """A figure may be at most `limit`."""

    figure: Figure
    limit: int

    def __str__(self) -> str:
        """The budget as `parse_budget` reads it, in the largest unit that needs no point.

        >>> str(Budget("params", 9_000_000)), str(Budget("memory", 3 * 2**29))
        ('params=9M', 'memory=1536MiB')
        """
        units = _units(self.figure)
        exact = [unit for unit, step in units.items() if self.limit % step == 0]
        unit = max(exact, key=lambda unit: units[unit])
        return f"{self.figure}={self.limit // units[unit]}{unit}"


@dataclass(frozen=True, slots=True)
class Kept:
    """A budget beside what a network takes."""

    network: str
    budget: Budget
    found: int

    @property
    def ok(self) -> bool:
        return self.found <= self.budget.limit

    @property
    def message(self) -> str:
        """What is found, in a sentence."""
        verb = "are within" if self.ok else "are over"
        words = FIGURE_WORDS[self.budget.figure]
        return f"{self.network}: {self.found:,} {words} {verb} the budget of {self.budget.limit:,} ({self.budget})"


def parse_budget(text: str) -> Budget:
    """`params=9M`, `macs=200M`, `memory=2GiB`. Raises `ValueError` that says what was expected.

    Counts have decimal units (k, M, G, T) or none, bytes always have one (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB). A
    limit with a point is rounded down to a whole number.

    >>> parse_budget("memory=2.5GiB")
    Budget(figure='memory', limit=2684354560)
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        raise ValueError(f"{text!r} is no budget; expected FIGURE=LIMIT such as params=9M or memory=2GiB")
    figure = next((figure for figure in FIGURES if figure == name), None)
    if figure is None:
        near = get_close_matches(name.lower(), FIGURES, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FIGURES)}"
        raise ValueError(f"{text!r}: no figure is called {name!r}; {hint}")
    example = "2.5GiB" if "" not in _units(figure) else "9M"
    number = _NUMBER.fullmatch(value)
    if number is None:
        raise ValueError(f"{text!r}: {value!r} is no limit; expected a number with a unit, such as {example}")
    limit = int(Fraction(number[1]) * _step(text, figure, number[2]))
    if limit < 1:
        raise ValueError(f"{text!r}: a limit of less than one; expected a number with a unit, such as {example}")
    return Budget(figure, limit)


def figure_of(graph: Graph, figure: Figure, size: Size | None = None, *, batch: int = 1) -> int:
    """One figure of a graph, for a batch where it is a memory.

    Raises `ShapeError` where a grid would vanish at that size, `ValueError` for a batch below one.
    """
    return figures_of(graph, (figure,), size, batch=batch)[figure]


def figures_of(
    graph: Graph,
    figures: Collection[Figure],
    size: Size | None = None,
    *,
    batch: int = 1,
    bytes_per_element: int = 4,
    optimizer: Optimizer = "sgd-momentum",
) -> dict[Figure, int]:
    """Several figures of a graph, in at most two walks; as `figure_of`.

    `batch` and `optimizer` are of the memories alone: MACs, FLOPs and activations are those of one sample.
    """
    found: dict[Figure, int] = {}
    if not set(figures) <= set(_MEMORIES):
        audit = audit_graph(graph, size, bytes_per_element=bytes_per_element)
        found["params"], found["macs"], found["flops"] = audit.params, audit.macs, audit.flops
        found["activations"] = audit.activation_bytes
    if set(figures) & set(_MEMORIES):
        taken = memory(graph, size, batch=batch, bytes_per_element=bytes_per_element, optimizer=optimizer)
        found["memory"], found["training-memory"] = taken.inference_total, taken.training_total
    return {figure: found[figure] for figure in figures}


def check_budgets(
    graph: Graph,
    budgets: Sequence[Budget],
    size: Size | None = None,
    *,
    batch: int = 1,
    bytes_per_element: int = 4,
    optimizer: Optimizer = "sgd-momentum",
) -> tuple[Kept, ...]:
    """Each budget beside what the graph takes. Raises as `figure_of` does."""
    wanted = [budget.figure for budget in budgets]
    found = figures_of(graph, wanted, size, batch=batch, bytes_per_element=bytes_per_element, optimizer=optimizer)
    return tuple(Kept(graph.name, budget, found[budget.figure]) for budget in budgets)


def budget_sheet(kept: Sequence[Kept]) -> Sheet:
    """The budgets, a line each: the limit, what is found, the part of the limit that it is."""
    rows = tuple(
        (
            each.network,
            figure if (figure := each.budget.figure) in _COUNTED else f"{figure} (bytes)",
            each.budget.limit,
            each.found,
            f"{percent(each.found, each.budget.limit)} %",
            "yes" if each.ok else "OVER",
        )
        for each in kept
    )
    columns = ("network", "budget", "limit", "found", "used", "kept")
    return Sheet("budgets", columns, rows, left=frozenset({"network", "budget"}))


def budget_record(kept: Sequence[Kept]) -> list[dict[str, object]]:
    """The same for JSON, in exact integers: `network`, `figure`, `limit`, `found`, `ok`."""
    return [
        {
            "network": each.network,
            "figure": each.budget.figure,
            "limit": each.budget.limit,
            "found": each.found,
            "ok": each.ok,
        }
        for each in kept
    ]


def percent(found: int, limit: int) -> Decimal:
    """What part of a limit is found, to a tenth of a percent: down where it is kept, up where it is not.

    >>> percent(999_999, 1_000_000), percent(1_000_001, 1_000_000)
    (Decimal('99.9'), Decimal('100.1'))
    """
    thousandths = found * 1000 // limit if found <= limit else -(-found * 1000 // limit)
    return Decimal(thousandths).scaleb(-1)


def _units(figure: Figure) -> dict[str, int]:
    return _COUNTS if figure in _COUNTED else _BYTES


def _step(text: str, figure: Figure, unit: str) -> int:
    units = _units(figure)
    if unit in units:
        return units[unit]
    near = [known for known in units if known.lower() in (unit.lower(), f"{unit}b".lower(), f"{unit}ib".lower())]
    hint = (
        f"did you mean {' or '.join(near)}?" if near and unit else f"expected one of {', '.join(filter(None, units))}"
    )
    what = f"{unit!r} is no unit of {figure}" if unit else f"{figure} is in bytes, and the limit has no unit"
    raise ValueError(f"{text!r}: {what}; {hint}")
