"""Budgets: limits on the figures of a network, such as `params=9M` or `memory=2GiB`, and whether they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mgcompile.graph.graph import Graph
from mgcompile.graph.types import Size

__all__ = ["FIGURES", "Budget", "Figure", "Kept", "check_budgets", "figure_of", "parse_budget"]

Figure = Literal["params", "macs", "flops", "activations", "memory", "training-memory"]
"""`activations` and the memories in bytes: `memory` is `Memory.inference_total`, `training-memory` `training_total`."""

FIGURES: tuple[Figure, ...] = get_args(Figure)


@dataclass(frozen=True, slots=True)
class Budget:
    """A figure may be at most `limit`."""

    figure: Figure
    limit: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A budget beside what a network takes."""

    network: str
    budget: Budget
    found: int

    @property
    def ok(self) -> bool:
        return self.found <= self.budget.limit


def parse_budget(text: str) -> Budget:
    """`params=9M`, `macs=200M`, `memory=2GiB`. Raises `ValueError` that says what was expected."""
    raise NotImplementedError


def figure_of(graph: Graph, figure: Figure, size: Size | None = None, *, batch: int = 1) -> int:
    """One figure of a graph, for a batch where it is a memory."""
    raise NotImplementedError


def check_budgets(
    graph: Graph, budgets: Sequence[Budget], size: Size | None = None, *, batch: int = 1
) -> tuple[Kept, ...]:
    """Each budget beside what the graph takes."""
    raise NotImplementedError
