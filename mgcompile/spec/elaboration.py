"""From a validated document to its graph, and to its canonical form: one walk over the layers makes both.

Every layer is taken in turn: its expressions are bound, it either builds nodes or expands to other layers, which are
taken in the same way. A mistake is noted and the pyramid after it is unknown; layers that depend on an unknown pyramid
are only looked at for mistakes that do not need it, so that every message is about a mistake of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from mgcompile.errors import Problem, ShapeError
from mgcompile.graph import Graph, Layer
from mgcompile.graph.builder import INPUT, GraphBuilder
from mgcompile.graph.ops import Op
from mgcompile.spec.base import LayerError, Path, Place, Pyramid, Share, Step
from mgcompile.spec.binding import Binding
from mgcompile.spec.document import Document, Output
from mgcompile.spec.fields import Expression, LevelChoice
from mgcompile.spec.inspection import inspect
from mgcompile.spec.items import COMMON, Item, item_of, layer_classes
from mgcompile.spec.problems import fault_problems, validation_problems
from mgcompile.spec.scopes import RESERVED, References, Scope, Unknown
from mgcompile.spec.source import Source
from mgcompile.spec.tree import path_text

__all__ = ["Elaboration"]

MOST_DEPTH = 60
MOST_PARTS = 1_000_000
"""Operations and layers that a spec may come to."""


class _TooLong(Exception):
    """The layers come to more than `MOST_PARTS`; `where` is the one with which they do."""

    def __init__(self, where: Path) -> None:
        super().__init__(f"more than {MOST_PARTS:,} operations and layers after repeats, blocks and growth")
        self.where = where


class Elaboration:
    """One walk over a document with given params. `problems` is empty where the spec is right."""

    def __init__(self, document: Document, source: Source, params: Mapping[str, Any], name: str) -> None:
        self.document = document
        self.source = source
        self.params = params
        self._problems: dict[tuple[str, str], Problem] = {}
        self._faulty: list[tuple[Item, Path]] = []
        """Layers that were wrong before the walk; known already, but for those in the value of an expression."""
        self._steps = 0
        self._open: list[list[int]] = []
        size = document.input.size
        self.builder = GraphBuilder(name, document.input.channels, size)
        self.references = References()
        self.binding = Binding(document, params, self.builder)
        self.canonical: list[dict[str, Any]] = []

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Every mistake found, one a place; none where the spec is right."""
        return tuple(self._problems.values())

    @property
    def faults(self) -> list[Problem]:
        """What is wrong with the options of the items that were met."""
        return [each for item, where in self._faulty for each in fault_problems(item.faults, self.source, where)]

    def run(self) -> Graph | None:
        """The graph, or None where there are problems."""
        scope = Scope(start={0: INPUT}, names=self.params)
        try:
            last = self.walk(self.steps(self.document.layers, ("layers",)), scope, {0: INPUT}, self.canonical)
        except _TooLong as error:
            self.report(error.where, str(error))
            return None
        outputs = self._outputs(scope, last)
        if self._problems or self._faulty:
            return None
        graph = self.builder.graph(outputs)
        self._check_size(graph)
        return None if self._problems else graph

    @property
    def _length(self) -> int:
        """How much has been made so far."""
        return self._steps + len(self.builder.nodes)

    def _check_size(self, graph: Graph) -> None:
        """Note a nominal size at which a grid vanishes."""
        least, size = graph.smallest_size, graph.size
        if size[0] < least[0] or size[1] < least[1]:
            message = f"{size[0]}x{size[1]} is too small: a grid vanishes below {least[0]}x{least[1]}"
            self.report(("input", "size"), message)

    # What layers ask for.

    def report(self, where: Path, message: str) -> None:
        """Note a mistake at a place in the spec."""
        mark = self.source.locate(where)
        self.note(Problem(mark.file, mark.line, mark.column, path_text(where), message))

    def note(self, problem: Problem) -> None:
        """Note a mistake; only the first at a place, which may be come by in several ways."""
        self._problems.setdefault((problem.file, problem.path), problem)

    def steps(self, items: Sequence[Item], where: Path) -> tuple[Step, ...]:
        """The layers of a list that a user wrote."""
        return tuple(self._user_step(item, (*where, index)) for index, item in enumerate(items))

    def _user_step(self, item: Item, where: Path) -> Step:
        common = item.common
        if item.faults:
            self._faulty.append((item, where))
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

    def add_node(self, place: Place, op: Op, inputs: Sequence[str], level: int, part: str) -> str:
        """Add a node for a layer; its name."""
        scope, tail = place.scope, f".{part}" if part else ""
        name = f"{place.path}.level{level}{tail}"
        own = place.kind == "norm" and not scope.shared_norm
        weights = name if own else f"{scope.weights}.{'shared' if scope.shared_levels else f'level{level}'}{tail}"
        layer = self.builder.layers.get(place.path)
        if layer is None:
            mark = self.source.locate(place.where, key=True)
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
        names = self.binding.arguments(name, blocks[name], given)
        steps = self.steps(blocks[name].layers, ("blocks", name, "layers"))
        return place.group(steps, names=names, closed=True, user=True, block=name)

    # The walk.

    def walk(
        self, steps: Iterable[Step], scope: Scope, pyramid: Pyramid | None, out: list[dict[str, Any]], alike: int = 0
    ) -> Pyramid | None:
        """The pyramid after some layers, None where it is unknown. `alike`: how many come to as much as the first."""
        counts: dict[str, int] = {}
        # Those that are alike all have names, and may be too many to look at beforehand.
        taken = set() if alike else {step.id for step in steps if step.id and not isinstance(step.id, Expression)}
        seen: set[str] = set()
        self._open.append([alike or 1, self._length])
        for index, step in enumerate(steps):
            if scope.depth > MOST_DEPTH:
                self.report(step.where, f"layers are nested more than {MOST_DEPTH} deep")
                pyramid = None
                break
            self._steps += 1
            if self._projected() > MOST_PARTS:
                raise _TooLong(step.where)
            if index == 1:
                # The first of those that are alike has told how much they come to; from here on they are counted.
                self._open[-1][0] = 1
            try:
                id = self._name(step, scope, counts, taken, seen)
                pyramid = self._take(step, id, scope, pyramid, out)
            except LayerError as error:
                self.report((*step.where, *error.option), str(error))
                pyramid = None
        self._open.pop()
        return pyramid

    def _projected(self) -> int:
        """How much there will be at least once the lists that are open are done, where all in a list are alike."""
        total, factor, since = 0, 1, 0
        for times, start in self._open:
            total += (start - since) * factor
            factor, since = factor * times, start
        return total + (self._length - since) * factor

    def _name(self, step: Step, scope: Scope, counts: dict[str, int], taken: set[str], seen: set[str]) -> str:
        """The layer's id: as given, or its kind with a number."""
        kind = step.layer.kind if step.layer else "group"
        id = self.binding.common(step, "id", scope, None) or ""
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
        try:
            result = self._placed(step, id, scope, pyramid, item)
        except Unknown:
            pass
        except LayerError as error:
            common = step.user and error.option[:1] and error.option[0] in COMMON
            self.report((*step.where, *error.option) if common else _blamed(step, *error.option), str(error))
        except ShapeError as error:
            self.report(_blamed(step), str(error))
        except ValidationError as error:
            for problem in validation_problems(error, self.source, _blamed(step), type(step.layer or self.document)):
                self.note(problem)
        if result is None:
            inspect(self, step, path, scope)
        self.references.pyramids[path] = result
        out.append(item)
        return result

    def _placed(
        self, step: Step, id: str, scope: Scope, pyramid: Pyramid | None, item: dict[str, Any]
    ) -> Pyramid | None:
        reference = self.binding.common(step, "from_", scope, None)
        if reference and reference != "previous":
            item["from"] = self.references.absolute(reference, scope, ("from",))
            pyramid = self.references.look(reference, scope, ("from",))
        if pyramid is None or step.unknown:
            raise Unknown
        chosen: LevelChoice | None = self.binding.common(step, "on", scope, pyramid)
        acted = pyramid
        if chosen is not None:
            levels = Place(self, scope, "", step.where, "", pyramid).pick(chosen, "on")
            item["on"] = list(levels)
            acted = {level: pyramid[level] for level in levels}
        step = self.with_share(step, scope, acted)
        inner = self._inner_scope(step, id, scope, acted, item)
        repeat = self.binding.common(step, "repeat", scope, acted)
        if repeat is None:
            result = self._act(step, inner, acted, item)
        else:
            result = self._group(self._repeated(step, repeat, inner), inner, acted, item, repeat)
        return result if result is None else self._merged(step, pyramid, acted, result)

    def _repeated(self, step: Step, repeat: int, inner: Scope) -> Iterator[Step]:
        once = replace(step, from_=None, on=None, repeat=None, share=None, lands=None)
        tied = Share(with_=f".{inner.path}.0", norm=step.share.norm) if step.share and step.share.repeats else None
        for index in range(repeat):
            names = {**step.names, "index": index}
            yield replace(once, id=str(index), names=names, share=tied if index else None)

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
            inner = self._shared(step.share, inner, item)
        self.references.scopes[inner.path] = inner
        return inner

    def with_share(self, step: Step, scope: Scope, pyramid: Pyramid | None) -> Step:
        """The step with the value of every expression in what it shares."""
        if step.share is None:
            return step
        evaluate_at = self.binding.evaluator(scope, pyramid)
        try:
            return replace(step, share=step.share.bind(lambda text, option: evaluate_at(text, ("share", *option))))
        except ValidationError as error:
            first = error.errors()[0]
            raise LayerError(first["msg"], "share", str(first["loc"][0]).removesuffix("_")) from None

    def _shared(self, share: Share, inner: Scope, item: dict[str, Any]) -> Scope:
        levels = inner.shared_levels if share.levels is None else share.levels
        item["share"] = {"levels": levels, "norm": share.norm}
        inner = replace(inner, shared_levels=levels, shared_norm=inner.shared_norm and share.norm)
        if share.with_ is None:
            return inner
        path = self.references.resolve(share.with_, inner.parent or inner, ("share", "with"))
        if path == INPUT:
            raise LayerError("the input has no weights to share", "share", "with")
        owner = self.references.scopes.get(path)
        if owner is None:
            raise Unknown
        item["share"] = {"with": f".{path}", "levels": owner.shared_levels, "norm": share.norm}
        return replace(inner, weights=owner.weights, shared_levels=owner.shared_levels, owned=False)

    def _act(self, step: Step, inner: Scope, acted: Pyramid, item: dict[str, Any]) -> Pyramid | None:
        """What a layer does with the levels that it acts on."""
        if step.layer is None:
            return self._group(step.steps, inner, acted, item)
        layer = self.binding.layer(step, inner, acted)
        layer.check()
        place = Place(self, inner, inner.path, _blamed(step), layer.kind, acted)
        expansion = layer.expand(place)
        if expansion is None:
            item[layer.kind] = layer.canonical(place)
            return dict(sorted(layer.build(place).items()))
        if len(expansion) == 1 and not expansion[0].id:
            only = expansion[0]
            if only.names or only.block or only.steps:
                names = dict(only.names) if only.closed else {**inner.names, **only.names}
                blocks = (*inner.blocks, only.block) if only.block else inner.blocks
                inner.names, inner.user, inner.blocks = names, only.user, blocks
            return self._act(only, inner, acted, item)
        inner.user = False
        # The ways of an exchange and the steps of a growth hold the same layers again and again.
        alike = len(expansion) > 2 and all(step.steps for step in expansion[:-1])
        return self._group(expansion, inner, acted, item, len(expansion) if alike else 0)

    def _group(
        self, steps: Iterable[Step], inner: Scope, acted: Pyramid, item: dict[str, Any], alike: int = 0
    ) -> Pyramid | None:
        out: list[dict[str, Any]] = []
        item["group"] = {"layers": out}
        return self.walk(steps, inner, acted, out, alike)

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

    def _outputs(self, scope: Scope, last: Pyramid | None) -> dict[str, str]:
        outputs: dict[str, str] = {}
        named = self.document.outputs or {"": Output()}
        for name, output in named.items():
            where: Path = ("outputs", name) if name else ("layers",)
            try:
                pyramid = last if output.from_ == "previous" else self.references.look(output.from_, scope)
                if pyramid is None:
                    continue
                place = Place(self, scope, "", where, "", pyramid)
                levels = place.pick(output.level, "level") if output.level else place.levels
            except Unknown:
                continue
            except LayerError as error:
                self.report((*where, *error.option), str(error))
                continue
            for level in levels:
                key = name if len(levels) == 1 else f"{name}.level{level}".lstrip(".")
                outputs[key or "output"] = pyramid[level]
        return outputs


def _blamed(step: Step, *option: str | int) -> Path:
    """Where in the spec a mistake in an option of a step is to be found."""
    if step.user and step.layer:
        return (*step.where, step.layer.kind, *option)
    # Made by a layer, which may have been told the option or not.
    maker = layer_classes().get(str(step.where[-1])) if step.where else None
    told = option and maker and str(option[0]) in maker.model_fields
    return (*step.where, *option) if told else step.where


def _levels(levels: Any) -> str:
    return ", ".join(map(str, levels)) or "none"
