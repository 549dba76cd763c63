"""Values for expressions: in layers, in the options that every layer has, in the arguments of blocks."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import replace
from typing import Any, cast

from pydantic import ValidationError

from mgcompile.graph.builder import GraphBuilder
from mgcompile.spec.base import LayerError, LayerSpec, Path, Pyramid, Share, Step, refuse_unread, widths_of
from mgcompile.spec.budget import Budget
from mgcompile.spec.document import BlockSpec, Document, Param
from mgcompile.spec.expressions import Expression, ExpressionError, evaluate, names_in
from mgcompile.spec.items import CommonOptions
from mgcompile.spec.scopes import Scope, Unknown
from mgcompile.spec.wording import listed, nearest, quoted

__all__ = ["Binding"]

LOCAL_NAMES = ("index", "incoming", "levels", "distance", "source", "target", "step", "channels")
"""Names that only some places know."""


class Binding:
    """The params and defaults of a document, and what expressions and omitted options become with them."""

    def __init__(
        self, document: Document, params: Mapping[str, Any], builder: GraphBuilder, budget: Budget | None = None
    ) -> None:
        self.params = params
        self.builder = builder
        self.budget = budget or Budget()
        self.defaults = {
            kind: {name: getattr(options, name) for name in options.model_fields_set}
            for kind, options in document.defaults.options.items()
        }

    def layer(self, step: Step, scope: Scope, pyramid: Pyramid | None) -> LayerSpec:
        """The layer with its defaults and with every expression's value."""
        layer = step.layer
        assert layer is not None
        if not (step.user or step.defaulted):
            return layer
        written, evaluate_at = layer, self.evaluator(scope, pyramid)
        values: dict[str, Any] = {}
        if self.defaults:
            for kind in type(layer).kinds():
                options = self.defaults.get(kind, {})
                values |= {name: value for name, value in options.items() if name in type(layer).model_fields}
        if values.keys() - layer.model_fields_set:
            layer = type(layer).model_validate({**values, **layer.given})
        bound = layer.bind(evaluate_at)
        refuse_unread(written, layer, bound)
        return bound

    def evaluator(self, scope: Scope, pyramid: Pyramid | None) -> Callable[[Expression, Path], Any]:
        """What gives an expression at the path of an option its value. It raises `LayerError`."""

        def value(text: Expression, option: Path) -> Any:
            return self._value(text, scope, pyramid, option)

        return value

    def _value(self, text: Expression, scope: Scope, pyramid: Pyramid | None, option: Path) -> Any:
        names = scope.names
        if pyramid is not None:
            local = {"incoming": list(widths_of(pyramid, self.builder).values()), "levels": list(pyramid)}
            names = ChainMap(local, cast(MutableMapping[str, Any], names))  # a copy of many params would take long
        try:
            if pyramid is None and any(name not in names and is_local(name) for name in names_in(text)):
                raise Unknown
            return evaluate(text, names, self.budget)
        except ExpressionError as error:
            raise LayerError(str(error), *option) from None

    def common(self, step: Step, name: str, scope: Scope, pyramid: Pyramid | None) -> Any:
        """One of the options that every layer has, with its value."""
        value = getattr(step, name)
        if not isinstance(value, Expression):
            return value
        names = replace(scope, names={**scope.names, **step.names})
        option = name.removesuffix("_")
        try:
            bound = CommonOptions.model_construct({name}, **{name: value}).bind(self.evaluator(names, pyramid))
        except Unknown:
            if option in ("id", "from"):
                raise LayerError(f"`{value}`: `{option}` cannot depend on what the layer receives", option) from None
            raise
        except ValidationError as error:
            raise LayerError(error.errors()[0]["msg"], option) from None
        return getattr(bound, name)

    def share(self, step: Step, scope: Scope, pyramid: Pyramid | None) -> Share | None:
        """What the layer shares, with the value of every expression. Raises `LayerError`."""
        if step.share is None:
            return None
        evaluate_at = self.evaluator(scope, pyramid)
        try:
            bound = step.share.bind(lambda text, option: evaluate_at(text, ("share", *option)))
        except ValidationError as error:
            first = error.errors()[0]
            raise LayerError(first["msg"], "share", str(first["loc"][0]).removesuffix("_")) from None
        refuse_unread(step.share, step.share, bound, ("share",))
        return bound

    def arguments(self, name: str, block: BlockSpec, given: Mapping[str, Any]) -> dict[str, Any]:
        """What expressions in a block know where it is used with the arguments given. Raises `LayerError`."""
        for unknown in (name for name in given if name not in block.params):
            near = nearest(unknown, block.params)
            hint = f"did you mean {near}?" if near else f"it has {listed(block.params)}"
            raise LayerError(f"block {name!r} has no parameter {quoted(unknown)}; {hint}", unknown)
        names = dict(self.params)
        for key, param in block.params.items():
            names[key] = self._argument(key, param, given, names)
        return names

    def unknown_names(self, text: Expression, scope: Scope) -> list[str]:
        """A message for each name in an expression that nothing could know here."""
        known = {*scope.names, *LOCAL_NAMES}
        unknown = sorted(name for name in names_in(text) - known if not is_local(name))
        near = {name: nearest(name, known) for name in unknown}
        return [
            f"`{text}`: there is no name `{name}`" + (f"; did you mean `{near[name]}`?" if near[name] else "")
            for name in unknown
        ]

    def _argument(self, key: str, param: Param, given: Mapping[str, Any], names: Mapping[str, Any]) -> Any:
        try:
            param = param.bind(lambda text, path: evaluate(text, names, self.budget))
        except ExpressionError as error:
            raise LayerError(f"parameter {key!r}: {error}", key) from None
        except ValidationError as error:
            raise LayerError(f"parameter {key!r}: {error.errors()[0]['msg']}", key) from None
        value = given.get(key, param.default)
        if value is None:
            raise LayerError(f"parameter {key!r} has no default and is not given", key)
        if problem := param.problem(value):
            raise LayerError(problem, key)
        return param.taken(value)


def is_local(name: str) -> bool:
    """Whether only some places know a name."""
    return name in LOCAL_NAMES or name.endswith(".index")
