"""The roofline: bytes that each operation moves, its arithmetic intensity, and how long a machine takes at the least.

Bytes and FLOPs are exact integers from the graph alone. The time of an operation is that of its calls, and of moving
its own tensors, and, of computing and moving inputs and outputs, the longer one: each at the speed that the machine has
for this sort of work (`Op.work`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mgcompile.analysis.cost import Audit, GroupKey, Row, audit_graph, group_name
from mgcompile.analysis.machine import Machine, Rate, value_at
from mgcompile.graph.collecting import collection_paused
from mgcompile.graph.graph import Graph
from mgcompile.graph.ops import Op
from mgcompile.graph.types import Shape, Size

__all__ = ["ROOFLINE_CONVENTIONS", "Bound", "Roofline", "RooflineGroup", "RooflineRow", "roofline"]

Bound = Literal["compute", "memory", "overhead"]
"""What takes the most of an operation's time."""

ROOFLINE_CONVENTIONS: Mapping[str, str] = {
    "bytes": "bytes moved: inputs read once each, an operation's own tensors (weights, running statistics) read, its "
    "output written, of the whole batch; views move nothing, nor do the input itself and grids that give a size alone",
    "intensity": "FLOPs a byte: FLOPs / bytes moved; FLOPs as in the audit, of the whole batch",
    "seconds": "predicted time of a forward pass in evaluation, grids channels last, one operation after the other: "
    "its calls, its own tensors, and the longer of computing and moving, at the speed measured for its sort",
    "bound": "bound: what takes the most of an operation's time: computing, moving bytes, or the calls themselves",
}
"""What each figure means, in words."""


@dataclass(frozen=True, slots=True)
class RooflineRow:
    """One node, for a whole batch. `bytes` are those read (inputs, weights) and written (output), each once; views move
    none. `intensity` is FLOPs a byte, 0 where none are moved. `seconds` is None, and `bound` too, without a machine;
    `bound` also of what takes no time.
    """

    node: str
    layer: str
    op: str
    level: int | None
    flops: int
    bytes: int
    intensity: float
    seconds: float | None
    bound: Bound | None


@dataclass(frozen=True, slots=True)
class RooflineGroup:
    """The sums over the nodes of one layer, level or operation; `bounds` are the seconds of nodes by their bound."""

    name: str
    nodes: int
    flops: int
    bytes: int
    seconds: float | None
    bounds: Mapping[Bound, float]

    @property
    def intensity(self) -> float:
        """FLOPs a byte."""
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def bound(self) -> Bound | None:
        """What bounds the nodes that take most of the time."""
        if not self.bounds:
            return None
        return max(self.bounds, key=lambda bound: self.bounds[bound])


@dataclass(frozen=True, slots=True)
class Roofline:
    """The rows of a graph at one input size (height, width) and batch, and their sums."""

    name: str
    size: Size
    batch: int
    bytes_per_element: int
    machine: Machine | None
    rows: tuple[RooflineRow, ...]

    @property
    def seconds(self) -> float | None:
        """The predicted time of a forward pass."""
        return self.total.seconds

    @property
    def total(self) -> RooflineGroup:
        """All nodes."""
        return _group("all", self.rows)

    def by(self, key: GroupKey, depth: int = 1) -> tuple[RooflineGroup, ...]:
        """The rows summed, in the order of `Audit.by`; operations by time, or by bytes without a machine.

        Raises `ValueError` for another key.
        """
        members: dict[str, list[RooflineRow]] = {}
        for row in self.rows:
            members.setdefault(group_name(row, key, depth), []).append(row)
        groups = [_group(name, rows) for name, rows in members.items()]
        match key:
            case "level":
                last = max((row.level for row in self.rows if row.level is not None), default=0) + 1
                levels = {name: rows[0].level for name, rows in members.items()}
                groups.sort(key=lambda group: last if (level := levels[group.name]) is None else level)
            case "op":
                groups.sort(key=lambda group: (-(group.seconds or 0), -group.bytes, group.name))
        return tuple(groups)


def roofline(
    graph: Graph,
    machine: Machine | None = None,
    size: Size | None = None,
    *,
    batch: int = 1,
    bytes_per_element: int = 4,
) -> Roofline:
    """The roofline of `graph` for a batch of inputs of `size`, the nominal size where None.

    One walk, linear in the number of nodes. Raises `ShapeError` where a grid would vanish at that size, `ValueError`
    for a batch or a number of bytes below one.
    """
    for name, number in (("batch", batch), ("bytes_per_element", bytes_per_element)):
        if number < 1:
            raise ValueError(f"{name}={number}: must be at least 1")
    with collection_paused():
        found = audit_graph(graph, size, bytes_per_element=bytes_per_element)
        own = [node.op.tensors(*graph.input_types(node)) * bytes_per_element for node in graph]
        clock = None if machine is None else _Clock(machine, batch, bytes_per_element, _all_tensors(graph, own))
        rows = _rows(graph, found, own, batch, clock)
    return Roofline(graph.name, found.size, batch, bytes_per_element, machine, rows)


def _all_tensors(graph: Graph, own: Sequence[int]) -> int:
    """The bytes of all tensors that are read, shared ones once."""
    return sum({node.weights: bytes for node, bytes in zip(graph, own, strict=True)}.values())


def _rows(graph: Graph, found: Audit, own: Sequence[int], batch: int, clock: _Clock | None) -> tuple[RooflineRow, ...]:
    rows = []
    for node, row, tensors in zip(graph, found.rows, own, strict=True):
        moved = node.op.moved(row.inputs, row.output) * batch * found.bytes_per_element
        read = 0 if node.op.by_reference or not moved else tensors
        flops = row.flops * batch
        seconds, bound = None, None
        if clock is not None:
            seconds, bound = clock.time(row, node.op, _channels(node.op.weights(*graph.input_types(node))), moved, read)
        bytes = moved + read
        intensity = flops / bytes if bytes else 0.0
        rows.append(RooflineRow(node.name, node.layer, row.op, row.level, flops, bytes, intensity, seconds, bound))
    return tuple(rows)


class _Clock:
    """How long operations take on a machine."""

    def __init__(self, machine: Machine, batch: int, bytes_per_element: int, all_tensors: int) -> None:
        self.machine, self.batch, self.number, self.all_tensors = machine, batch, bytes_per_element, all_tensors
        # Half a cache of bytes come from it, two caches do not.
        self.bandwidth = ((machine.cache / 2, machine.cache_bandwidth), (machine.cache * 2, machine.bandwidth))
        self.none = Rate(machine.overhead)

    def time(self, row: Row, op: Op, channels: int, moved: int, read: int) -> tuple[float, Bound | None]:
        """Seconds, and what takes the most of them, of an operation that moves so many bytes, and reads so many of its
        own tensors.
        """
        if op.by_reference or not moved:
            return 0.0, None
        rate = self.machine.rates.get(op.work, self.none)
        further = [each * self.batch * self.number for each in op.further(row.inputs, row.output)]
        plain = self.machine.rates.get("elementwise", self.none)
        overhead = rate.overhead + plain.overhead * len(further)
        again = sum(self._moving(plain, each) for each in further)
        tensors = read / value_at(rate.tensors or self.bandwidth, self.all_tensors) if read else 0.0
        moving = self._moving(rate, moved)
        computing = 0.0
        if row.macs or rate.flops:
            at = channels if row.macs else row.output[0]
            peak = value_at(rate.flops, at) if rate.flops else self.machine.convolution
            computing = op.effort(row.inputs, row.output) * self.batch / peak
        seconds = overhead + tensors + again + max(computing, moving)
        if computing > max(overhead, tensors + again, moving):
            return seconds, "compute"
        return seconds, "overhead" if overhead > tensors + again + moving else "memory"

    def _moving(self, rate: Rate, bytes: int) -> float:
        return bytes / value_at(rate.bandwidth or self.bandwidth, bytes)


def _channels(weights: Mapping[str, Shape]) -> int:
    """Of what goes in or comes out, of each group, whichever are fewer."""
    return min(weights["weight"][:2]) if "weight" in weights else 1


def _group(name: str, rows: Sequence[RooflineRow]) -> RooflineGroup:
    bounds: dict[Bound, float] = {}
    for row in rows:
        if row.bound is not None and row.seconds is not None:
            bounds[row.bound] = bounds.get(row.bound, 0.0) + row.seconds
    known = [row.seconds for row in rows if row.seconds is not None]
    return RooflineGroup(
        name,
        len(rows),
        sum(row.flops for row in rows),
        sum(row.bytes for row in rows),
        sum(known) if len(known) == len(rows) else None,
        bounds,
    )
