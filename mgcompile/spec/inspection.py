"""Mistakes in layers whose pyramid is unknown: all that can be told without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mgcompile.spec.base import LayerError, LayerSpec, Options, Path, Place, Step
from mgcompile.spec.expressions import Expression, ExpressionError, evaluate, names_in
from mgcompile.spec.items import Item
from mgcompile.spec.layers.structure import Block
from mgcompile.spec.problems import validation_problems
from mgcompile.spec.scopes import Scope, Unknown

if TYPE_CHECKING:
    from mgcompile.spec.elaboration import Elaboration

__all__ = ["inspect"]


def inspect(elaboration: Elaboration, step: Step, path: str, scope: Scope) -> None:
    """Report the mistakes in a layer that stands at `path` in a scope, and in the layers inside it."""
    if step.layer is None or step.unknown or not step.user:
        return
    inspection = _Inspection(elaboration, path, scope)
    for name in ("id", "from_", "on", "repeat"):
        inspection.common(step, name)
    if step.share is not None:
        inspection.options(step.share, (*step.where, "share"))
        inspection.share(step)
    where = (*step.where, step.layer.kind)
    inspection.options(step.layer, where)
    inspection.whole(step, step.layer, where)


class _Inspection:
    """One layer's."""

    def __init__(self, elaboration: Elaboration, path: str, scope: Scope) -> None:
        self.elaboration = elaboration
        self.path = path
        self.scope = scope

    def options(self, options: Options, where: Path) -> None:
        """Each option on its own."""
        extra = options.__pydantic_extra__ or {}
        for name, value in options.given.items():
            option = (*where, name.removesuffix("_"))
            if name in ("with_", "like") and name not in extra:
                self._references(value, option)
            else:
                self.value(value, option)

    def common(self, step: Step, name: str) -> None:
        """One of the options that every layer has."""
        self.value(getattr(step, name), (*step.where, name.removesuffix("_")))
        try:
            self.elaboration.binding.common(step, name, self.scope, None)
        except LayerError as error:
            self.elaboration.report((*step.where, *error.option), str(error))
        except Unknown:
            return

    def share(self, step: Step) -> None:
        """What is shared, its expressions bound."""
        try:
            self.elaboration.binding.share(step, self.scope, None)
        except LayerError as error:
            self.elaboration.report((*step.where, *error.option), str(error))
        except Unknown:
            return

    def value(self, value: Any, where: Path) -> None:
        """An option's value: an expression, layers, or what holds some."""
        if isinstance(value, Expression):
            self._expression(value, where)
        elif isinstance(value, Options):
            self.options(value, where)
        elif isinstance(value, list) and value and isinstance(value[0], Item):
            self._walk(self.elaboration.steps(value, where), f"{self.path}.{where[-1]}")
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                self.value(inner, (*where, index))

    def whole(self, step: Step, layer: LayerSpec, where: Path) -> None:
        """What the options say together."""
        binding = self.elaboration.binding
        try:
            bound = binding.layer(step, self.scope, None)
            bound.check()
            if isinstance(bound, Block):
                self._block(bound, where)
        except Unknown:
            return
        except LayerError as error:
            self.elaboration.report((*where, *error.option), str(error))
        except ValidationError as error:
            self.elaboration.note_all(validation_problems(error, self.elaboration.source, where, type(layer)))

    def _block(self, block: Block, where: Path) -> None:
        place = Place(self.elaboration, self.scope, self.path, where, block.kind, {})
        for group in block.expand(place) or ():
            if group.block in self.elaboration.inspected:
                continue  # blocks within blocks would be looked at again and again
            self.elaboration.inspected.add(group.block)
            blocks = (*self.scope.blocks, group.block)
            self._walk(group.steps, self.path, names=group.names, blocks=blocks)

    def _walk(self, steps: tuple[Step, ...], path: str, **changes: Any) -> None:
        options: dict[str, Any] = {"names": self.scope.names, "blocks": self.scope.blocks} | changes
        inner = Scope(path, parent=self.scope, depth=self.scope.depth + 1, **options)
        self.elaboration.walk(steps, inner, None, [])

    def _expression(self, text: Expression, where: Path) -> None:
        for message in self._faults(text):
            self.elaboration.report(where, message)

    def _faults(self, text: Expression) -> Iterator[str]:
        try:
            yield from self.elaboration.binding.unknown_names(text, self.scope)
        except ExpressionError as error:
            # An option of a block or of a registered operation: nobody has read it before.
            yield str(error)
            return
        if names_in(text) <= self.scope.names.keys():
            try:
                evaluate(text, self.scope.names, self.elaboration.budget)
            except ExpressionError as error:
                yield str(error)

    def _references(self, value: Any, where: Path) -> None:
        several = isinstance(value, list)
        for index, reference in enumerate(value if several else [value]):
            option = (*where, index) if several else where
            if reference is None:
                continue
            if isinstance(reference, Expression):
                self._expression(reference, option)
                continue
            try:
                self.elaboration.references.absolute(reference, self.scope)
            except LayerError as error:
                self.elaboration.report(option, str(error))
            except Unknown:
                continue
