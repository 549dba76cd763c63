"""From a validated document to its graph, and to its canonical form: one walk over the layers makes both.

Every layer is taken in turn: its expressions are bound, it either builds nodes or expands to other layers, which are
taken in the same way. A mistake is noted and the pyramid after it is unknown; layers that depend on an unknown pyramid
are only looked at for mistakes that do not need it, so that every message is about a mistake of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from mgcompile.errors import Problem, ShapeError
from mgcompile.graph import Graph, Layer
from mgcompile.graph.builder import INPUT, GraphBuilder
from mgcompile.graph.names import reserved
from mgcompile.graph.ops import Kind, Op
from mgcompile.spec.base import LayerError, Path, Place, Pyramid, Share, Step
from mgcompile.spec.binding import Binding
from mgcompile.spec.budget import ALLOW_LARGE, MOST_MISTAKES, Budget, Exhausted
from mgcompile.spec.document import Document, Output
from mgcompile.spec.expressions import Expression
from mgcompile.spec.fields import LevelChoice
from mgcompile.spec.inspection import inspect
from mgcompile.spec.items import COMMON, Item, item_of, layer_classes
from mgcompile.spec.problems import Mistakes, problem_at, validation_problems
from mgcompile.spec.repeating import inner_names, repeated_names
from mgcompile.spec.scopes import RESERVED, References, Scope, Unknown
from mgcompile.spec.sharing import check_sharing, shared_scope
from mgcompile.spec.source import Source
from mgcompile.spec.wording import listed, nearest, quoted

__all__ = ["Elaboration"]

MOST_DEPTH = 60


class Elaboration:
    """One walk over a document with given params. `problems` is empty where the spec is right."""

    def __init__(
        self, document: Document, source: Source, params: Mapping[str, Any], name: str, budget: Budget
    ) -> None:
        self.document = document
        self.source = source
        self.params = params
        self.budget = budget
        self._problems: dict[tuple[str, str], Problem] = {}
        self._faulty: list[tuple[Item, Path]] = []
        """Layers that were wrong before the walk; known already, but for those in the value of an expression."""
        self.inspected: set[str] = set()  # the blocks whose layers were looked at without a pyramid
        self._steps = 0
        self._where: Path = ("layers",)
        self._open: list[list[int]] = []
        size = document.input.size
        self.builder = GraphBuilder(name, document.input.channels, size)
        self.references = References()
        self.binding = Binding(document, params, self.builder, budget)
        self.canonical: list[dict[str, Any]] = []

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Every mistake found, one a place; none where the spec is right."""
        return tuple(self._problems.values())

    @property
    def faults(self) -> Mistakes:
        """What is wrong with the options of the items that were met."""
        mistakes = Mistakes(self.source)
        for item, where in self._faulty:
            mistakes.faults(item.faults, where)
        return mistakes

    def run(self) -> Graph | None:
        """The graph, or None where there are problems."""
        scope = Scope(start={0: INPUT}, names=self.params)
        try:
            last = self.walk(self.steps(self.document.layers, ("layers",)), scope, {0: INPUT}, self.canonical)
            outputs = self._outputs(scope, last)
        except Exhausted as error:
            self._problems["", ""] = problem_at(self.source, self._where, str(error))
            return None
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
        self.note(problem_at(self.source, where, message))

    def note(self, problem: Problem) -> None:
        """Note a mistake; only the first at a place, which may be come by in several ways. Raises `Exhausted`."""
        key = problem.file, problem.path
        if key not in self._problems and len(self._problems) == MOST_MISTAKES - 1:
            raise Exhausted(f"{MOST_MISTAKES} problems and perhaps more; stopped here")
        self._problems.setdefault(key, problem)

    def note_all(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.note(problem)

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
        self.budget.name(name + weights)
        layer = self.builder.layers.get(place.path)
        if layer is None:
            mark = self.source.locate(place.where, key=True)
            origin = f"{mark.file}:{mark.line}" if mark.line else mark.file
            self.builder.layers[place.path] = Layer(place.kind, origin)
        owned = scope.owned or own
        try:
            return self.builder.add(name, op, inputs, level, layer=place.path, weights=weights, owned=owned)
        except ShapeError as error:
            raise ShapeError(f"{error}{self._operands(op, inputs)}") from None

    def _operands(self, op: Op, inputs: Sequence[str]) -> str:
        """Where the operands of a fusion come from: which of them is wrong, only the user can tell."""
        values = [f"{self.builder.types[node]} from {self.builder.nodes[node].layer}" for node in inputs]
        return f"; the operands are {listed(values)}" if op.kind is Kind.FUSE else ""

    def block(self, place: Place, name: str, given: Mapping[str, Any]) -> Step:
        """The group that a use of a block stands for. Raises `LayerError`."""
        blocks = self.document.blocks
        if name not in blocks:
            near = nearest(name, blocks)
            hint = f"did you mean {near}?" if near else f"known: {listed(blocks)}"
            raise LayerError(f"no block is called {quoted(name)}; {hint}", "use")
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
            self._where = step.where
            if self._projected() > (most := self.budget.parts):
                raise Exhausted(f"more than {most:,} operations and layers after repeats and growth{ALLOW_LARGE}")
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
        if id in RESERVED or (id and step.user and reserved(id, first=not scope.path)):
            self.references.pyramids[scope.under(id)] = None  # what reads it makes no mistake of its own
            whose = "reserved" if id in RESERVED else "a word of Python's or PyTorch's"
            raise LayerError(f"{id!r} is {whose} and cannot be an id; choose another", "id")
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
        self.budget.name(path)
        try:
            result = self._placed(step, id, scope, pyramid, item)
        except Unknown:
            pass
        except LayerError as error:
            self.report(_blamed(step, *error.option), str(error))
        except ShapeError as error:
            self.report(_blamed(step), f"{error}{self._use(scope)}")
        except ValidationError as error:
            self.note_all(validation_problems(error, self.source, _blamed(step), type(step.layer or self.document)))
        if result is None:
            inspect(self, step, path, scope)
        self.references.pyramids[path] = result
        out.append(item)
        return result

    def _use(self, scope: Scope) -> str:
        """Where the block is used in which this scope is: what does not fit in a block may fit elsewhere."""
        mark = self.source.locate(scope.use, key=True)
        used = bool(scope.use and mark.line)
        return f"; in block {scope.blocks[0]!r} as used in {mark.file}:{mark.line}" if used else ""

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
        step = replace(step, share=self.binding.share(step, scope, acted))
        inner = self._inner_scope(step, id, scope, acted, item)
        repeat, before = self.binding.common(step, "repeat", scope, acted), len(self.builder.nodes)
        if repeat is None:
            result = self._act(step, inner, acted, item)
        else:
            result = self._group(self._repeated(step, repeat, inner), inner, acted, item, repeat)
        if step.user and step.share is not None and result is not None:
            check_sharing(step.share, repeat, acted, self.builder, before)
        return result if result is None else self._merged(step, pyramid, acted, result)

    def _repeated(self, step: Step, repeat: int, inner: Scope) -> Iterator[Step]:
        once = replace(step, from_=None, on=None, repeat=None, share=None, lands=None)
        tied = Share(with_=f".{inner.path}.0", norm=step.share.norm) if step.share and step.share.repeats else None
        for index, known in enumerate(repeated_names(inner, repeat)):
            if index and self.references.pyramids.get(f"{inner.path}.{index - 1}") is None:
                return  # what was wrong in one repeat is wrong in the next
            yield replace(once, id=str(index), names={**step.names, **known}, share=tied if index else None)

    def _inner_scope(self, step: Step, id: str, scope: Scope, pyramid: Pyramid, item: dict[str, Any]) -> Scope:
        inner = Scope(
            scope.under(id),
            scope.weights_under(id),
            scope,
            step.user,
            pyramid,
            inner_names(step, scope),
            (*scope.blocks, step.block) if step.block else scope.blocks,
            scope.shared_levels,
            scope.shared_norm,
            scope.owned,
            scope.depth + 1,
            scope.use or (step.where if step.block else ()),
        )
        if step.share is not None:
            inner, item["share"] = shared_scope(step.share, inner, self.references)
        self.references.scopes[inner.path] = inner
        return inner

    def _act(self, step: Step, inner: Scope, acted: Pyramid, item: dict[str, Any]) -> Pyramid | None:
        """What a layer does with the levels that it acts on."""
        if step.layer is None:
            return self._group(step.steps, inner, acted, item)
        layer = self.binding.layer(step, inner, acted).as_read()
        layer.check()
        place = Place(self, inner, inner.path, _blamed(step), layer.kind, acted)
        expansion = layer.expand(place)
        if expansion is None:
            item[layer.kind] = layer.canonical(place)
            return dict(sorted(layer.build(place).items()))
        if len(expansion) == 1 and not expansion[0].id:
            only = expansion[0]
            if only.names or only.block or only.steps:
                if only.block:
                    inner.blocks, inner.use = (*inner.blocks, only.block), inner.use or only.where
                inner.names, inner.user = inner_names(only, inner), only.user
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
        common = option and option[0] in COMMON and option[0] not in step.layer.model_fields_set
        return (*step.where, *option) if common else (*step.where, step.layer.kind, *option)
    if step.user and option and option[0] in COMMON:
        return (*step.where, *option)
    # Made by a layer, which may have been told the option or not.
    maker = layer_classes().get(str(step.where[-1])) if step.where else None
    told = option and maker and str(option[0]) in maker.model_fields
    return (*step.where, *option) if told else step.where


def _levels(levels: Any) -> str:
    return ", ".join(map(str, levels)) or "none"
