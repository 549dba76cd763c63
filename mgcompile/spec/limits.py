"""How many layers a spec comes to, counted before any is made: repeats and blocks multiply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mgcompile.errors import Problem
from mgcompile.spec.base import LayerSpec
from mgcompile.spec.budget import ALLOW_LARGE, Budget
from mgcompile.spec.document import Document
from mgcompile.spec.expressions import Expression, ExpressionError, evaluate
from mgcompile.spec.items import Item
from mgcompile.spec.layers.exchange import Communication
from mgcompile.spec.layers.residual import Grow
from mgcompile.spec.layers.structure import Block
from mgcompile.spec.source import Source

__all__ = ["check_length"]

SEVERAL = 8
"""Ways between the grids of a pyramid, steps of a growth: how many there are is known only later."""


class _Counter:
    """Layers of lists of items, with blocks counted once."""

    def __init__(self, document: Document, names: Mapping[str, Any], budget: Budget) -> None:
        self.document = document
        self.names = names
        self.budget = budget
        self.blocks: dict[str, int] = {}

    def layers(self, items: Sequence[Item]) -> int:
        return sum(self._repeat(item) * self._item(item) for item in items)

    def _item(self, item: Item) -> int:
        layer = item.layer
        if layer is None:
            return 1
        inside = sum(self._value(getattr(layer, name)) * self._times(layer, name) for name in layer.model_fields_set)
        return 1 + inside + (self._block(layer.use) if isinstance(layer, Block) else 0)

    @staticmethod
    def _times(layer: LayerSpec, name: str) -> int:
        """How often a list of layers inside a layer stands for itself, at a guess."""
        ways = isinstance(layer, Communication) and name in ("down", "up", "same", "body")
        return SEVERAL if ways or (isinstance(layer, Grow) and name == "layers") else 1

    def _value(self, value: Any) -> int:
        if isinstance(value, list) and value and isinstance(value[0], Item):
            return self.layers(value)
        return sum(map(self._value, value)) if isinstance(value, list) and value and isinstance(value[0], list) else 0

    def _block(self, name: str) -> int:
        if name not in self.blocks:
            # A block that uses itself is refused later; here it must only not run in circles.
            self.blocks[name] = 0
            block = self.document.blocks.get(name)
            self.blocks[name] = self.layers(block.layers) if block else 0
        return self.blocks[name]

    def _repeat(self, item: Item) -> int:
        repeat = item.common.repeat
        if isinstance(repeat, Expression):
            try:
                repeat = evaluate(repeat, self.names, self.budget)
            except ExpressionError:
                return 1
        return int(repeat) if isinstance(repeat, int | float) else 1


def check_length(document: Document, source: Source, overrides: Mapping[str, Any], budget: Budget) -> Problem | None:
    """A problem where the spec comes to more layers than its budget has."""
    names = {name: overrides.get(name, param.default) for name, param in document.params.items()}
    known = {name: value for name, value in names.items() if not isinstance(value, Expression)}
    count = _Counter(document, known, budget).layers(document.layers)
    if count <= budget.parts:
        return None
    mark = source.locate(("layers",))
    many = f"{count:,}" if count < 10**15 else f"more than {10**15:,}"
    return Problem(
        mark.file,
        mark.line,
        mark.column,
        "layers",
        f"{many} layers after repeats and blocks; at most {budget.parts:,} are allowed{ALLOW_LARGE}",
    )
