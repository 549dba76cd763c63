"""Which values of a graph are alive when, in a forward and a backward pass, and how many bytes they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush

from mgcompile.graph.graph import Graph, Node
from mgcompile.graph.types import Shape, elements

__all__ = [
    "Alive",
    "Keeps",
    "Peak",
    "Plan",
    "depth_first",
    "find_kept",
    "kept_memory",
    "lightest_first",
    "run_backward",
    "run_forward",
]


@dataclass(frozen=True, slots=True)
class Peak:
    """The most bytes alive at once: while which node runs, in which pass, and how many at each level.

    `levels` run from fine to coarse; None, the last, are vectors. They add up to `bytes`. What an operation keeps or
    takes besides its output is at the level of the output.
    """

    bytes: int
    node: str
    backward: bool
    levels: Mapping[int | None, int]


class Alive:
    """The bytes alive now, and when they were the most."""

    def __init__(self) -> None:
        self.bytes = 0
        self.node = ""
        self.backward = False
        self._levels: dict[int | None, int] = {}
        self._peak = Peak(0, "", False, {})

    def take(self, level: int | None, number: int) -> None:
        """Memory is allocated for something at this level."""
        self.bytes += number
        self._levels[level] = self._levels.get(level, 0) + number
        if self.bytes > self._peak.bytes:
            self._peak = Peak(self.bytes, self.node, self.backward, self._levels.copy())

    def give(self, level: int | None, number: int) -> None:
        """It is free again."""
        self.bytes -= number
        self._levels[level] -= number

    def peak(self) -> Peak:
        """The most so far, the first time."""
        found = self._peak
        order = sorted(found.levels, key=lambda level: (level is None, level or 0))
        levels = {level: found.levels[level] for level in order if found.levels[level]}
        return Peak(found.bytes, found.node, found.backward, levels)


class Plan:
    """Where the values of a graph lie and how long they are needed.

    `base` names the node in whose memory a value lies, `taken` are the bytes of that memory, `last` is the place of its
    last reader: beyond all places for what the caller holds, the input and the outputs.
    `read` is that of the value itself.
    """

    def __init__(
        self, graph: Graph, shapes: Mapping[str, Shape], batch: int, bytes_per_element: int, *, training: bool
    ) -> None:
        self.graph = graph
        self.shapes = shapes
        self.batch = batch
        self.number = bytes_per_element
        self.base: dict[str, str] = {}
        self.taken: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.read: dict[str, int] = {}
        for place, node in enumerate(graph):
            for source in node.inputs:
                self.last[self.base[source]] = self.read[source] = place
            stores = node.op.stores(self.inputs(node), shapes[node.name], training=training)
            if stores or not node.inputs:
                self.base[node.name] = node.name
                self.taken[node.name] = stores * batch * bytes_per_element
            else:
                self.base[node.name] = self.base[node.inputs[0]]
            self.last[self.base[node.name]] = place
        for name in (graph.input.name, *graph.outputs.values()):
            self.last[self.base[name]] = len(graph)

    def inputs(self, node: Node) -> list[Shape]:
        return [self.shapes[source] for source in node.inputs]

    def level(self, name: str) -> int | None:
        return self.graph[name].level if len(self.shapes[name]) > 1 else None

    def gradient(self, name: str) -> int:
        """The bytes of the gradient of a value."""
        return elements(self.shapes[name]) * self.batch * self.number

    def partials(self, node: Node) -> list[int]:
        """The bytes of each value that is made on the way."""
        made = node.op.partials(self.inputs(node), self.shapes[node.name])
        return [numbers * self.batch * self.number for numbers in made]


@dataclass(frozen=True, slots=True)
class Keeps:
    """What autograd keeps of one node: whose memory, bytes of its own, and whether partial values are among these.

    It is kept for the backward pass where `until` is None, otherwise up to that place of the forward pass.
    """

    bases: frozenset[str]
    own: int
    partials: bool
    until: int | None


def find_kept(plan: Plan) -> dict[str, Keeps]:
    """What is kept of each node whose output depends on weights."""
    graph, learns = plan.graph, _learning(plan.graph)
    ends = _ends(plan, learns)
    keeps = {}
    for node in graph:
        if node.name not in learns:
            continue
        kept = node.op.kept(plan.inputs(node), plan.shapes[node.name])
        learning = [source in learns for source in node.inputs]
        places = [place for place in kept.inputs if not kept.crossed or sum(learning) > learning[place]]
        bases = {plan.base[node.inputs[place]] for place in places}
        if kept.output:
            bases.add(plan.base[node.name])
        own = (kept.numbers * plan.number + kept.extra) * plan.batch + kept.per_batch * plan.number
        own += sum(plan.partials(node)) * kept.partials
        keeps[node.name] = Keeps(frozenset(bases), own, kept.partials, ends.get(node.name))
    return keeps


def _differentiated(node: Node) -> Iterator[str]:
    """The inputs on whose numbers the output depends."""
    for place, source in enumerate(node.inputs):
        if place != node.op.size_input:
            yield source


def _learning(graph: Graph) -> set[str]:
    """The nodes whose output depends on learned tensors."""
    learns: set[str] = set()
    for node in graph:
        if any(source in learns for source in _differentiated(node)) or node.op.weights(*graph.input_types(node)):
            learns.add(node.name)
    return learns


def _ends(plan: Plan, learns: set[str]) -> dict[str, int]:
    """For each node that no gradient will reach, the place where the last value that was computed from it is freed."""
    needed = set(plan.graph.outputs.values())
    ends: dict[str, int] = {}
    for place, node in reversed(tuple(enumerate(plan.graph))):
        if node.name not in needed:
            # A value of its own lives up to its last reader, be it one that reads its size alone.
            ends[node.name] = max(ends.get(node.name, place), plan.read.get(node.name, place))
        for source in _differentiated(node):
            if node.name in needed and node.name in learns:
                needed.add(source)
            elif node.name in ends:
                ends[source] = max(ends.get(source, 0), ends[node.name])
    return {name: place for name, place in ends.items() if name not in needed}


def kept_memory(keeps: Mapping[str, Keeps]) -> dict[str, str]:
    """The memory that is kept, with the first node that keeps it: the last that needs it on the way back."""
    first: dict[str, str] = {}
    for name, each in keeps.items():
        if each.until is None:
            for base in each.bases:
                first.setdefault(base, name)
    return first


def run_forward(plan: Plan, keeps: Mapping[str, Keeps], alive: Alive) -> None:
    """Take and give back the memory of a forward pass. At its end that is alive which autograd or the caller holds."""
    kept, last = kept_memory(keeps), dict(plan.last)
    leaving: dict[int, list[str]] = {}
    for name, each in keeps.items():
        if each.until is not None:
            leaving.setdefault(each.until, []).append(name)
            last.update((base, max(last[base], each.until)) for base in each.bases)
    dying: dict[int, list[str]] = {}
    for base, place in last.items():
        if base not in kept:
            dying.setdefault(place, []).append(base)
    for place, node in enumerate(plan.graph):
        alive.node = node.name
        _run(plan, node, keeps.get(node.name), alive, dying.get(place, []))
        for name in leaving.get(place, ()):
            alive.give(plan.level(name), keeps[name].own)


def _run(plan: Plan, node: Node, keep: Keeps | None, alive: Alive, dying: list[str]) -> None:
    """Run one node, after which the memory of those that are dying is free."""
    level, remaining = plan.level(node.name), set(dying)
    partials = plan.partials(node)
    kept_partials = keep is not None and keep.partials
    before = 0
    # A sum of several is computed two by two: what has been added is free before the next one is.
    for number, made in enumerate(partials):
        alive.take(level, made)
        alive.give(level, before)
        later = {plan.base[source] for source in node.inputs[number + 2 :]}
        for base in {plan.base[source] for source in node.inputs[: number + 2]} & remaining - later:
            remaining.remove(base)
            alive.give(plan.level(base), plan.taken[base])
        before = 0 if kept_partials else made
    own = 0 if keep is None else keep.own - (sum(partials) if kept_partials else 0)
    scratch = node.op.scratch(plan.inputs(node), plan.shapes[node.name], plan.number) * plan.batch
    alive.take(level, plan.taken.get(node.name, 0) + max(own, scratch))
    alive.give(level, max(0, scratch - own) + before)
    for base in remaining:
        alive.give(plan.level(base), plan.taken[base])


def lightest_first(plan: Plan) -> list[Node]:
    """The nodes in another order: of those that can run, always the one after which the least is alive.

    Of equal ones the first in the graph. O(n log n) for n nodes of few inputs each.
    """
    places = {node.name: place for place, node in enumerate(plan.graph)}
    unread = _readers(plan)
    held = {base for base, place in plan.last.items() if place >= len(plan.graph)}

    def added(name: str, _: int) -> tuple[int, int]:
        read = {plan.base[source] for source in plan.graph[name].inputs} - held
        freed = sum([plan.taken[base] for base in read if len(unread[base]) == 1])
        return plan.taken.get(name, 0) - freed, places[name]

    def lighter(name: str) -> Iterator[str]:
        """The only nodes that still read something which this one has read: what they free is more now."""
        for base in {plan.base[source] for source in plan.graph[name].inputs}:
            unread[base].discard(name)
            if len(unread[base]) == 1:
                yield from unread[base]

    return _ordered(plan.graph, added, lighter)


def depth_first(plan: Plan) -> list[Node]:
    """The nodes in another order: of those that can run, always the one that could not before the last one had."""
    return _ordered(plan.graph, lambda _, number: (-number, 0), lambda _: iter(()))


def _readers(plan: Plan) -> dict[str, set[str]]:
    """The nodes that read from each memory."""
    readers: dict[str, set[str]] = {base: set() for base in plan.taken}
    for node in plan.graph:
        for source in node.inputs:
            readers[plan.base[source]].add(node.name)
    return readers


def _ordered(
    graph: Graph, key: Callable[[str, int], tuple[int, int]], changed: Callable[[str], Iterator[str]]
) -> list[Node]:
    """The nodes in an order in which always that of the least key runs, among those whose inputs are there.

    A key may depend on when a node could run, a number that grows; `changed` are nodes whose key is less after another
    has run.
    """
    users: dict[str, list[str]] = {node.name: [] for node in graph}
    missing = {node.name: len(set(node.inputs)) for node in graph}
    for node in graph:
        for source in set(node.inputs):
            users[source].append(node.name)
    heap: list[tuple[tuple[int, int], str]] = []
    number = 0
    for name in [name for name, inputs in missing.items() if not inputs]:
        heappush(heap, (key(name, number), name))
    done: dict[str, Node] = {}
    while heap:
        _, name = heappop(heap)
        if name in done:  # it had another key before
            continue
        done[name] = graph[name]
        again = [other for other in changed(name) if not missing[other] and other not in done]
        for user in users[name]:
            missing[user] -= 1
            again += [user] * (not missing[user])
        for other in again:
            number += 1
            heappush(heap, (key(other, number), other))
    return list(done.values())


@dataclass(slots=True)
class _Gradient:
    """Memory of gradients: where, how much, and of how many values that still need it."""

    level: int | None
    bytes: int
    users: int = 1


def run_backward(plan: Plan, keeps: Mapping[str, Keeps], alive: Alive) -> None:
    """Take and give back the memory of the backward pass that follows: the gradients of values, not of weights."""
    alive.backward = True
    learns, released = _learning(plan.graph), _released(plan, keeps)
    gradients: dict[str, _Gradient] = {}
    for name in dict.fromkeys(plan.graph.outputs.values()):
        if name in learns:
            alive.node = name
            gradients[name] = _Gradient(plan.level(name), plan.gradient(name))
            alive.take(plan.level(name), plan.gradient(name))
    for node in reversed(tuple(plan.graph)):
        given = gradients.pop(node.name, None)
        if given is None:
            continue
        alive.node = node.name
        for source in _differentiated(node):
            if source not in learns or plan.graph[source].op.by_reference:
                continue
            if node.op.passes_gradient:
                part = given
                part.users += 1
            else:
                part = _Gradient(plan.level(source), plan.gradient(source))
                alive.take(part.level, part.bytes)
            gradients[source] = _added(alive, gradients.get(source), part, plan, source)
        _leave(alive, given)
        for level, number in released.get(node.name, ()):
            alive.give(level, number)


def _added(alive: Alive, one: _Gradient | None, other: _Gradient, plan: Plan, name: str) -> _Gradient:
    """The sum of two gradients of a value: in the memory of the first where nothing else needs that."""
    if one is None:
        return other
    if one.users > 1:
        total = _Gradient(plan.level(name), plan.gradient(name))
        alive.take(total.level, total.bytes)
        _leave(alive, one)
        one = total
    _leave(alive, other)
    return one


def _leave(alive: Alive, gradient: _Gradient) -> None:
    gradient.users -= 1
    if not gradient.users:
        alive.give(gradient.level, gradient.bytes)


def _released(plan: Plan, keeps: Mapping[str, Keeps]) -> dict[str, list[tuple[int | None, int]]]:
    """The memory (level, bytes) that is free after each node on the way back: what the caller holds is not."""
    released = {name: [(plan.level(name), each.own)] for name, each in keeps.items() if each.until is None}
    for base, name in kept_memory(keeps).items():
        if plan.last[base] < len(plan.graph):
            released[name].append((plan.level(base), plan.taken[base]))
    return released
