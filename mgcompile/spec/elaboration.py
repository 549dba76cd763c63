"""From a validated document to its graph, and to its canonical form: one walk over the layers makes both.

Every layer is taken in turn: its expressions are bound, it either builds nodes or expands to other layers, which are
taken in the same way. A mistake is noted and the pyramid after it is unknown; layers that depend on an unknown pyramid
are only looked at for mistakes that do not need it, so that every message is about a mistake of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from mgcompile.errors import Problem, ShapeError
from mgcompile.graph import Graph, Layer
from mgcompile.graph.builder import INPUT, GraphBuilder
from mgcompile.graph.ops import Op
from mgcompile.spec.base import LayerError, LayerSpec, Path, Place, Pyramid, Share, Step
from mgcompile.spec.document import Document, Output, Param
from mgcompile.spec.expressions import ExpressionError, evaluate, names_in
from mgcompile.spec.fields import Expression, LevelChoice
from mgcompile.spec.items import COMMON, CommonOptions, Item, item_of
from mgcompile.spec.problems import validation_problems
from mgcompile.spec.source import Source
from mgcompile.spec.tree import path_text
from mgcompile.spec.writing import written

__all__ = ["Elaboration", "Scope"]

MOST_DEPTH = 60
LOCAL_NAMES = ("incoming", "levels", "distance", "source", "target", "step", "channels")
RESERVED = ("input", "start", "previous")


class _Unknown(Exception):
    """A pyramid that is needed is unknown because of a mistake that has been reported."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a list of layers shares: names of nodes and of weights, what expressions know, where references look."""

    path: str = ""
    weights: str = ""
    parent: Scope | None = None
    user: bool = True
    start: Pyramid | None = None
    names: Mapping[str, Any] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    shared_levels: bool = False
    shared_norm: bool = True
    owned: bool = True
    depth: int = 0

    def under(self, id: str) -> str:
        """The path of a layer in this scope."""
        return f"{self.path}.{id}" if self.path else id

    def weights_under(self, id: str) -> str:
        """The path of a layer's weights in this scope."""
        return f"{self.weights}.{id}" if self.weights else id


class Elaboration:
    """One walk over a document with given params. `problems` is empty where the spec is right."""

    def __init__(self, document: Document, source: Source, params: Mapping[str, Any], name: str) -> None:
        self.document = document
        self.source = source
        self.params = params
        self.problems: set[Problem] = set()
        size = document.input.size
        self.builder = GraphBuilder(name, document.input.channels, size)
        self.pyramids: dict[str, Pyramid | None] = {INPUT: {0: INPUT}}
        self.scopes: dict[str, Scope] = {}
        self.canonical: list[dict[str, Any]] = []
        self.defaults = {
            kind: {name: getattr(options, name) for name in options.model_fields_set}
            for kind, options in document.defaults.options.items()
        }

    def run(self) -> Graph | None:
        """The graph, or None where there are problems."""
        scope = Scope(start={0: INPUT}, names=self.params)
        last = self._walk(self.steps(self.document.layers, ("layers",)), scope, {0: INPUT}, self.canonical)
        outputs = self._outputs(scope, last)
        return None if self.problems else self.builder.graph(outputs)

    # What layers ask for.

    def report(self, where: Path, message: str) -> None:
        """Note a mistake at a place in the spec."""
        mark = self.source.locate(where)
        self.problems.add(Problem(mark.file, mark.line, mark.column, path_text(where), message))

    def steps(self, items: Sequence[Item], where: Path) -> tuple[Step, ...]:
        """The layers of a list that a user wrote."""
        return tuple(self._user_step(item, (*where, index)) for index, item in enumerate(items))

    def _user_step(self, item: Item, where: Path) -> Step:
        common = item.common
        return Step(
            id=common.id or "",
            layer=item.layer,
            from_=common.from_,
            on=common.on,
            repeat=common.repeat,
            share=common.share,
            where=where,
            user=True,
            unknown=bool(item.faults),
        )

    def written(self, items: Sequence[Mapping[str, Any]], where: Path) -> tuple[Step, ...]:
        """Layers in the language that mgcompile itself wrote; their mistakes are blamed on `where`."""
        steps = (self._user_step(item_of(item), where) for item in items)
        return tuple(replace(step, user=False, defaulted=True) for step in steps)

    def absolute(self, reference: str, scope: Scope, option: Path = ()) -> str:
        """A reference as one that means the same everywhere. Raises `LayerError` where it leads nowhere."""
        if reference in RESERVED:
            return reference
        return "." + self._resolve(reference, scope, option)

    def look(self, reference: str, scope: Scope, option: Path = ()) -> Pyramid:
        """The pyramid that a reference leads to. Raises `LayerError` where it leads nowhere."""
        if reference == "start":
            found = scope.start
        else:
            found = self.pyramids[INPUT if reference == "input" else self._resolve(reference, scope, option)]
        if found is None:
            raise _Unknown
        return found

    def _resolve(self, reference: str, scope: Scope, option: Path) -> str:
        path = reference.lstrip(".")
        inner: Scope | None = None if reference.startswith(".") else scope
        first = True
        while inner is not None:
            # The scope at hand is always searched; beyond it only those whose names a user chose.
            if (first or inner.user) and inner.under(path) in self.pyramids:
                return inner.under(path)
            inner, first = inner.parent, False
        if path in self.pyramids:
            return path
        prefixes = [path[:at] for at, character in enumerate(path) if character == "."]
        if any(self.pyramids.get(prefix, {}) is None for prefix in prefixes):
            raise _Unknown
        known = [name for name in self.pyramids if name != INPUT]
        near = get_close_matches(path, known, 1)
        hint = f"did you mean {near[0]}?" if near else "a layer can be named with id, and only earlier ones can be read"
        raise LayerError(f"no earlier layer is called {reference!r}; {hint}", *option)

    def add_node(self, place: Place, op: Op, inputs: Sequence[str], level: int, part: str) -> str:
        """Add a node for a layer; its name."""
        scope, tail = place.scope, f".{part}" if part else ""
        name = f"{place.path}.level{level}{tail}"
        own = place.kind == "norm" and not scope.shared_norm
        weights = name if own else f"{scope.weights}.{'shared' if scope.shared_levels else f'level{level}'}{tail}"
        layer = self.builder.layers.get(place.path)
        if layer is None:
            mark = self.source.locate(place.where)
            origin = f"{mark.file}:{mark.line}" if mark.line else mark.file
            self.builder.layers[place.path] = Layer(place.kind, origin)
        return self.builder.add(name, op, inputs, level, layer=place.path, weights=weights, owned=scope.owned or own)

    def block(self, place: Place, name: str, given: Mapping[str, Any]) -> Step:
        """The group that a use of a block stands for. Raises `LayerError`."""
        blocks = self.document.blocks
        if name not in blocks:
            near = get_close_matches(name, blocks, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(blocks) or 'none'}"
            raise LayerError(f"no block is called {name!r}; {hint}", "use")
        if name in place.scope.blocks:
            chain = " -> ".join([*place.scope.blocks, name])
            raise LayerError(f"block {name!r} uses itself: {chain}", "use")
        block, where = blocks[name], ("blocks", name)
        for unknown in given.keys() - block.params.keys():
            near = get_close_matches(unknown, block.params, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(block.params) or 'none'}"
            raise LayerError(f"block {name!r} has no parameter {unknown!r}; {hint}", unknown)
        names = dict(self.params)
        for key, param in block.params.items():
            names[key] = self._argument(key, param, given, names, (*where, "params", key))
        steps = self.steps(block.layers, (*where, "layers"))
        return place.group(steps, names=names, closed=True, user=True, block=name)

    def _argument(self, key: str, param: Param, given: Mapping[str, Any], names: Mapping[str, Any], where: Path) -> Any:
        if key in given:
            if problem := param.problem(given[key]):
                raise LayerError(problem, key)
            return given[key]
        if param.default is None:
            raise LayerError(f"parameter {key!r} has no default and is not given", key)
        if isinstance(param.default, Expression):
            try:
                return evaluate(param.default, names)
            except ExpressionError as error:
                self.report(where, str(error))
                raise _Unknown from None
        return param.default

    # The walk.

    def _walk(
        self, steps: Sequence[Step], scope: Scope, pyramid: Pyramid | None, out: list[dict[str, Any]]
    ) -> Pyramid | None:
        if scope.depth > MOST_DEPTH:
            self.report(steps[0].where if steps else (), f"layers are nested more than {MOST_DEPTH} deep")
            return None
        counts: dict[str, int] = {}
        taken: set[str] = {step.id for step in steps if step.id and not isinstance(step.id, Expression)}
        seen: set[str] = set()
        for step in steps:
            try:
                id = self._name(step, scope, counts, taken, seen)
                pyramid = self._take(step, id, scope, pyramid, out)
            except LayerError as error:
                self.report((*step.where, *error.option), str(error))
                pyramid = None
        return pyramid

    def _name(self, step: Step, scope: Scope, counts: dict[str, int], taken: set[str], seen: set[str]) -> str:
        """The layer's id: as given, or its kind with a number."""
        kind = step.layer.kind if step.layer else "group"
        id = self._common(step, "id", scope, None) or ""
        if id in RESERVED:
            raise LayerError(f"{id!r} is reserved and cannot be an id", "id")
        if id in seen:
            raise LayerError(f"the id {id!r} is taken by an earlier layer of this list", "id")
        while not id or (not step.id and id in taken):
            counts[kind] = counts.get(kind, 0) + 1
            id = f"{kind}{counts[kind]}"
        seen.add(id)
        return id

    def _take(
        self, step: Step, id: str, scope: Scope, pyramid: Pyramid | None, out: list[dict[str, Any]]
    ) -> Pyramid | None:
        """One layer, with all that every layer can be told; the pyramid after it, None where it is unknown."""
        path, item, result = scope.under(id), {"id": id}, None
        kind = step.layer.kind if step.layer else "group"
        try:
            result = self._placed(step, id, scope, pyramid, item)
        except _Unknown:
            pass
        except LayerError as error:
            common = error.option[:1] and error.option[0] in COMMON
            self.report((*step.where, *error.option) if common else (*step.where, kind, *error.option), str(error))
        except ShapeError as error:
            self.report((*step.where, kind) if step.user else step.where, str(error))
        except ValidationError as error:
            for problem in validation_problems(error, self.source, (*step.where, kind), type(step.layer)):
                self.problems.add(problem)
        if result is None:
            self._look_inside(step, path, scope)
        self.pyramids[path] = result
        out.append(item)
        return result

    def _placed(
        self, step: Step, id: str, scope: Scope, pyramid: Pyramid | None, item: dict[str, Any]
    ) -> Pyramid | None:
        reference = self._common(step, "from_", scope, None)
        if reference and reference != "previous":
            item["from"] = self.absolute(reference, scope, ("from",))
            pyramid = self.look(reference, scope, ("from",))
        if pyramid is None or step.unknown:
            raise _Unknown
        inner = self._inner_scope(step, id, scope, pyramid, item)
        chosen: LevelChoice | None = self._common(step, "on", scope, pyramid)
        acted = pyramid
        if chosen is not None:
            place = Place(self, inner, inner.path, step.where, "", pyramid)
            levels = place.pick(chosen, "on")
            item["on"] = list(levels)
            acted = {level: pyramid[level] for level in levels}
        inner = replace(inner, start=acted)
        repeat = self._common(step, "repeat", scope, acted)
        if repeat is None:
            result = self._act(step, inner, acted, item)
        else:
            result = self._group(self._repeated(step, repeat, inner), inner, acted, item)
        return result if result is None else self._merged(step, pyramid, acted, result)

    def _repeated(self, step: Step, repeat: int, inner: Scope) -> tuple[Step, ...]:
        once = replace(step, from_=None, on=None, repeat=None, share=None, lands=None)
        steps = [replace(once, id=str(index)) for index in range(repeat)]
        if step.share and step.share.repeats and repeat > 1:
            tied = Share(with_=f".{inner.path}.0", norm=step.share.norm)
            steps[1:] = [replace(later, share=tied) for later in steps[1:]]
        return tuple(steps)

    def _inner_scope(self, step: Step, id: str, scope: Scope, pyramid: Pyramid, item: dict[str, Any]) -> Scope:
        names = dict(step.names) if step.closed else {**scope.names, **step.names} if step.names else scope.names
        inner = Scope(
            scope.under(id),
            scope.weights_under(id),
            scope,
            step.user,
            pyramid,
            names,
            (*scope.blocks, step.block) if step.block else scope.blocks,
            scope.shared_levels,
            scope.shared_norm,
            scope.owned,
            scope.depth + 1,
        )
        if step.share is not None:
            inner = self._shared(step, inner, item)
        self.scopes[inner.path] = inner
        return inner

    def _shared(self, step: Step, inner: Scope, item: dict[str, Any]) -> Scope:
        share = step.share.bind(self._evaluator(inner, None)) if step.share else Share()
        levels = inner.shared_levels if share.levels is None else share.levels
        item["share"] = {"levels": levels, "norm": share.norm}
        inner = replace(inner, shared_levels=levels, shared_norm=inner.shared_norm and share.norm)
        if share.with_ is None:
            return inner
        path = self._resolve(share.with_, inner.parent or inner, ("share", "with"))
        owner = self.scopes.get(path)
        if owner is None:
            raise _Unknown
        item["share"] = {"with": f".{path}", "levels": owner.shared_levels, "norm": share.norm}
        return replace(inner, weights=owner.weights, shared_levels=owner.shared_levels, owned=False)

    def _act(self, step: Step, inner: Scope, acted: Pyramid, item: dict[str, Any]) -> Pyramid | None:
        """What a layer does with the levels that it acts on."""
        if step.layer is None:
            return self._group(step.steps, inner, acted, item)
        layer = self._bound(step, inner, acted)
        layer.check()
        place = Place(self, inner, inner.path, step.where, layer.kind, acted)
        expansion = layer.expand(place)
        if expansion is None:
            item[layer.kind] = written(layer.canonical(place))
            return dict(sorted(layer.build(place).items()))
        if len(expansion) == 1 and not expansion[0].id:
            only = expansion[0]
            if only.names or only.block or only.steps:
                names = dict(only.names) if only.closed else {**inner.names, **only.names}
                blocks = (*inner.blocks, only.block) if only.block else inner.blocks
                inner = replace(inner, names=names, user=only.user, blocks=blocks)
            return self._act(replace(only, lands=None), inner, acted, item)
        return self._group(expansion, replace(inner, user=False), acted, item)

    def _group(self, steps: Sequence[Step], inner: Scope, acted: Pyramid, item: dict[str, Any]) -> Pyramid | None:
        out: list[dict[str, Any]] = []
        item["group"] = {"layers": out}
        return self._walk(steps, inner, acted, out)

    def _merged(self, step: Step, pyramid: Pyramid, acted: Pyramid, result: Pyramid) -> Pyramid:
        """The result with the grids that passed through."""
        if step.lands is not None and tuple(result) != (step.lands,):
            raise LayerError(f"this way should end with level {step.lands} alone and ends with {_levels(result)}")
        if len(acted) == len(pyramid):
            return result
        passed = {level: node for level, node in pyramid.items() if level not in acted}
        if both := sorted(passed.keys() & result.keys()):
            raise LayerError(
                f"the layer leads to level {_levels(both)}, where a grid passes through; join them instead", "on"
            )
        return dict(sorted({**passed, **result}.items()))

    # Expressions.

    def _bound(self, step: Step, scope: Scope, pyramid: Pyramid | None) -> LayerSpec:
        """The layer with its defaults and with every expression's value."""
        layer = step.layer
        assert layer is not None
        evaluate_at = self._evaluator(scope, pyramid)
        values: dict[str, Any] = {}
        if step.user or step.defaulted:
            for cls in reversed(type(layer).__mro__):
                values |= {
                    k: v
                    for k, v in self.defaults.get(getattr(cls, "kind", ""), {}).items()
                    if k in type(layer).model_fields
                }
        if values.keys() - layer.model_fields_set:
            given = {name: getattr(layer, name) for name in layer.model_fields_set}
            layer = type(layer).model_validate({**values, **given, **(layer.__pydantic_extra__ or {})})
        return layer.bind(evaluate_at)

    def _evaluator(self, scope: Scope, pyramid: Pyramid | None) -> Callable[[Expression, Path], Any]:
        def value(text: Expression, option: Path) -> Any:
            return self._value(text, scope, pyramid, option)

        return value

    def _value(self, text: Expression, scope: Scope, pyramid: Pyramid | None, option: Path) -> Any:
        names: dict[str, Any] = dict(scope.names)
        if pyramid is not None:
            place = Place(self, scope, scope.path, (), "", pyramid)
            names |= {"incoming": list(place.channels.values()), "levels": list(pyramid)}
        elif names_in(text) & {"incoming", "levels"}:
            raise _Unknown
        try:
            return evaluate(text, names)
        except ExpressionError as error:
            raise LayerError(str(error), *option) from None

    def _common(self, step: Step, name: str, scope: Scope, pyramid: Pyramid | None) -> Any:
        """One of the options that every layer has, with its value."""
        value = getattr(step, name)
        if not isinstance(value, Expression):
            return value
        names = replace(scope, names={**scope.names, **step.names})
        bound = CommonOptions.model_construct({name}, **{name: value}).bind(self._evaluator(names, pyramid))
        return getattr(bound, name)

    # The rest.

    def _look_inside(self, step: Step, path: str, scope: Scope) -> None:
        """Find the mistakes in a layer whose pyramid is unknown that do not need it."""
        layer = step.layer
        if layer is None or step.unknown:
            return
        for name in layer.model_fields_set:
            value, option = getattr(layer, name), name.removesuffix("_")
            where = (*step.where, layer.kind, option)
            if name in ("with_", "like"):
                self._check_references(value if isinstance(value, list) else [value], scope, where)
            elif isinstance(value, Expression):
                self._check_names(value, scope, where)
            elif isinstance(value, list) and value and isinstance(value[0], Item):
                inner = Scope(f"{path}.{option}", parent=scope, names=scope.names, depth=scope.depth + 1)
                self._walk(self.steps(value, where), inner, None, [])

    def _check_references(self, references: Sequence[str], scope: Scope, where: Path) -> None:
        for reference in references:
            try:
                if not isinstance(reference, Expression):
                    self.absolute(reference, scope)
            except LayerError as error:
                self.report(where, str(error))
            except _Unknown:
                continue

    def _check_names(self, text: Expression, scope: Scope, where: Path) -> None:
        known = {*scope.names, *LOCAL_NAMES}
        for unknown in sorted(names_in(text) - known):
            near = get_close_matches(unknown, known, 1)
            self.report(where, f"unknown name {unknown!r} in {text}" + (f"; did you mean {near[0]}?" if near else ""))

    def _outputs(self, scope: Scope, last: Pyramid | None) -> dict[str, str]:
        outputs: dict[str, str] = {}
        named = self.document.outputs or {"": Output()}
        for name, output in named.items():
            where: Path = ("outputs", name) if name else ("layers",)
            try:
                if output.from_ == "previous":
                    pyramid = last
                else:
                    pyramid = self.look(output.from_, scope)
                if pyramid is None:
                    continue
                place = Place(self, scope, "", where, "", pyramid)
                levels = place.pick(output.level, "level") if output.level else place.levels
            except _Unknown:
                continue
            except LayerError as error:
                self.report((*where, *error.option), str(error))
                continue
            for level in levels:
                key = name if len(levels) == 1 else f"{name}.level{level}".lstrip(".")
                outputs[key or "output"] = pyramid[level]
        return outputs


def _levels(levels: Any) -> str:
    return ", ".join(map(str, levels)) or "none"
