"""What reading one spec may take in all, whatever is in it and wherever it stands."""

from __future__ import annotations

from typing import Final

from mgcompile.errors import InputError

__all__ = [
    "ALLOW_LARGE",
    "MOST_LAYERS",
    "MOST_MISTAKES",
    "MOST_PARAMS",
    "MOST_PARTS",
    "MOST_STEPS",
    "Budget",
    "Exhausted",
]

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
LARGE: Final = 20
"""Times the budget has a spec that is allowed to be large."""
MOST_PARAMS: Final = 500
MOST_MISTAKES: Final = 100
"""Mistakes that are told; of further ones the number."""


ALLOW_LARGE: Final = "; --allow-large (in Python `allow_large=True`) lifts that"


class Exhausted(InputError):
    """A spec would take more time or memory than any network needs."""


class Budget:
    """What is left for one spec. A part that takes something says so here, before it does.

    One that is allowed to be `large`, by a user who knows it, has `LARGE` times as much.
    """

    def __init__(self, *, large: bool = False) -> None:
        times = LARGE if large else 1
        self.parts = MOST_PARTS * times
        """Operations and layers that the spec may come to."""
        self._steps = MOST_STEPS * times
        self._names = MOST_NAMES * times
        self._expressions = MOST_EXPRESSIONS * times
        self._texts: set[str] = set()

    def evaluate(self, steps: int) -> None:
        """Take so many steps of evaluation. Raises `Exhausted`."""
        self._steps -= steps
        if self._steps < 0:
            raise Exhausted("all expressions together take too many steps")

    def name(self, text: str) -> None:
        """Take a name. Raises `Exhausted`."""
        self._names -= len(text)
        if self._names < 0:
            raise Exhausted("all names of layers together are too long: shorten the ids")

    def expression(self, text: str) -> None:
        """Take an expression that is to be read. Raises `Exhausted`."""
        if text not in self._texts:
            self._texts.add(text)
            self._expressions -= len(text)
            if self._expressions < 0:
                raise Exhausted("all expressions together are too long")
