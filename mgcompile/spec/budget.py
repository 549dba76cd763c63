"""What reading one spec may take in all, whatever is in it and wherever it stands."""

from __future__ import annotations

from typing import Final

from mgcompile.errors import InputError

__all__ = ["MOST_LAYERS", "MOST_MISTAKES", "MOST_PARAMS", "MOST_PARTS", "MOST_STEPS", "Budget", "Exhausted"]

MOST_STEPS: Final = 500_000
"""Values that all expressions together may look at or make."""
MOST_EXPRESSIONS: Final = 250_000
"""Characters of all expressions that differ."""
MOST_NAMES: Final = 25_000_000
"""Characters in the names of layers and operations."""
MOST_PARTS: Final = 60_000
"""Operations and layers together, counted while they are made."""
MOST_LAYERS: Final = MOST_PARTS
"""Layers, counted before any is made; items of one list."""
MOST_PARAMS: Final = 500
MOST_MISTAKES: Final = 100
"""Mistakes that are told; of further ones the number."""


class Exhausted(InputError):
    """A spec would take more time or memory than any network needs."""


class Budget:
    """What is left for one spec. A part that takes something says so here, before it does."""

    def __init__(self) -> None:
        self._steps = MOST_STEPS
        self._names = MOST_NAMES
        self._expressions = MOST_EXPRESSIONS
        self._texts: set[str] = set()

    def evaluate(self, steps: int) -> None:
        """Take so many steps of evaluation. Raises `Exhausted`."""
        self._steps -= steps
        if self._steps < 0:
            raise Exhausted(f"all expressions together take more than {MOST_STEPS:,} steps")

    def name(self, text: str) -> None:
        """Take a name. Raises `Exhausted`."""
        self._names -= len(text)
        if self._names < 0:
            raise Exhausted(f"all names of layers together have more than {MOST_NAMES:,} characters: shorten the ids")

    def expression(self, text: str) -> None:
        """Take an expression that is to be read. Raises `Exhausted`."""
        if text not in self._texts:
            self._texts.add(text)
            self._expressions -= len(text)
            if self._expressions < 0:
                raise Exhausted(f"all expressions together have more than {MOST_EXPRESSIONS:,} characters")
