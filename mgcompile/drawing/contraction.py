"""From a graph to the pieces of a drawing: what computes a grid is a piece, everything else is a wire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mgcompile.drawing.additions import addition_layer, additions_apart
from mgcompile.drawing.draft import Draft, Piece, Wire
from mgcompile.drawing.exchanges import EXCHANGE_PART
from mgcompile.graph import Graph, Node, Shape, Size
from mgcompile.graph.ops import ChannelsLast, Concat, Crop, FusedConv, Kind

__all__ = ["contract"]

WIRES = 64
"""What brings more pieces together than this is drawn as a junction, so that the number of wires stays linear."""

ALWAYS_CELLS = {Kind.INPUT, Kind.CONV, Kind.LINEAR, Kind.CUSTOM}
SYMBOLS = {"sum": "+", "weighted sum": "+", "mean": "+", "product": "×", "maximum": "max", "concat": "C"}


def contract(graph: Graph, *, every_node: bool = False) -> Draft:
    """The pieces of a graph and their wires; with `every_node` each node that computes is a piece.

    Else what a convolution adds as part of its work is drawn as the sum that it is. References to tensors and layouts
    in memory compute nothing: they are never drawn.
    """
    if every_node:
        return _Contraction(graph, every_node).draft()
    draft = _Contraction(additions_apart(graph), every_node).draft()
    draft.pieces = [_of_graph(piece, graph) for piece in draft.pieces]
    return draft


def _of_graph(piece: Piece, graph: Graph) -> Piece:
    """A piece that names nodes of the graph, where it is more than the convolution out of such a node."""
    nodes = tuple(name for name in piece.nodes if name in graph.nodes)
    if not nodes or nodes == piece.nodes:
        return piece
    return replace(piece, nodes=nodes, label=graph[nodes[0]].op.label)


class _Contraction:
    """One walk over the nodes. `ends[name]` are the pieces whose values a node passes on, with their number."""

    def __init__(self, graph: Graph, every_node: bool) -> None:
        self.graph = graph
        self.every_node = every_node
        self.shapes: Mapping[str, Shape] = graph.shapes()
        self.pieces: list[Piece] = []
        self.reads: list[dict[int, Wire]] = []
        self.ends: dict[str, Mapping[int, int]] = {}
        # The piece whose value a node is, as long as nobody reads an earlier form of it: a sum can join such a piece.
        self.owner: dict[str, int] = {}
        self.members: list[list[str]] = []
        self.depths: list[int] = []
        # Nodes whose value depends on a piece or a fusion of their own layer: an exchange in sequence, or with bodies.
        self.nested: set[str] = set()
        self.readers = Counter(source for node in graph for source in operands(node))
        self.readers.update(graph.outputs.values())

    def draft(self) -> Draft:
        for node in self.graph:
            self._visit(node)
        pieces = [replace(piece, nodes=tuple(nodes)) for piece, nodes in zip(self.pieces, self.members, strict=True)]
        outputs = {name: tuple(self.ends[node]) for name, node in self.graph.outputs.items()}
        return Draft(pieces, self.reads, outputs)

    def _visit(self, node: Node) -> None:
        is_fusion = node.op.kind is Kind.FUSE and len(operands(node)) > 1
        if (self.every_node and _computes(node)) or self._is_cell(node):
            self._add_piece(node)
        elif is_fusion and not isinstance(node.op, Concat):
            self._combine(node)
        elif is_fusion and self._is_junction(node):
            self._add_piece(node)
        else:
            self._pass_on(node)
        if node.name in self.owner or is_fusion or self._is_nested(node):
            self.nested.add(node.name)

    def _is_cell(self, node: Node) -> bool:
        if node.op.kind in ALWAYS_CELLS:
            return True
        if node.op.kind not in (Kind.POOL, Kind.UP):
            return False
        return not self._exchange(node) or bool(node.op.weights(*self.graph.input_types(node)))

    def _layer_kind(self, node: Node) -> str:
        layer = self.graph.layers.get(node.layer)
        return layer.kind if layer else ""

    def _exchange(self, node: Node) -> str:
        """The path of the exchange that a node is a part of, or nothing."""
        if self._layer_kind(node) == "exchange":
            return node.layer
        found = EXCHANGE_PART.match(node.layer)
        return found["exchange"] if found else ""

    def _is_junction(self, node: Node) -> bool:
        """Whether a concatenation is drawn: where several read it, else each would be wired to all operands."""
        return not self._fits(node) or (not self._exchange(node) and self.readers[node.name] > 1)

    def _fits(self, node: Node) -> bool:
        return sum(len(self.ends[source]) for source in operands(node)) <= WIRES

    def _add_piece(self, node: Node) -> None:
        shape = self.shapes[node.name]
        kind = Kind.INPUT if self._layer_kind(node) == "pyramid" else node.op.kind
        label = SYMBOLS.get(node.op.label, node.op.label) if kind is Kind.FUSE else node.op.label
        exchange = self._exchange(node)
        self.owner[node.name] = len(self.pieces)
        self.ends[node.name] = {len(self.pieces): 1}
        team = exchange or node.layer
        minor = bool(exchange)
        self.pieces.append(Piece(node.level, kind, shape[0], _size(shape), label, node.layer, (), team, minor))
        self.members.append([node.name])
        self.reads.append({})
        self.depths.append(0)
        # Only outside an exchange is what a sum adds a shortcut; there, it is a grid like the others.
        adds = kind is Kind.FUSE and not exchange and not isinstance(node.op, Concat)
        if isinstance(node.op, FusedConv) and node.op.addends:
            self._connect(len(self.pieces) - 1, operands(node)[: -node.op.addends], None)
            self._connect(
                len(self.pieces) - 1, node.inputs[-node.op.addends :], _group(addition_layer(self.graph, node))
            )
            return
        self._connect(len(self.pieces) - 1, operands(node), _group(node.layer) if adds else None)

    def _connect(self, piece: int, sources: Iterable[str], sum_in: str | None) -> None:
        wires = self.reads[piece]
        for source in sources:
            for end, count in self.ends[source].items():
                known = wires.get(end, Wire(0, sum_in))
                self.depths[piece] = max(self.depths[piece], self.depths[end] + 1)
                wires[end] = Wire(count + known.count, sum_in if known.sum_in is not None else None)

    def _combine(self, node: Node) -> None:
        """A sum (or product, ...) joins the piece of an operand that nobody else reads; the others become shortcuts."""
        host = self._host(node)
        if host is not None:
            piece = self.owner[host]
            rest = list(operands(node))
            rest.remove(host)
            self._connect(piece, rest, _group(node.layer))
            self._extend(node, piece)
        elif self._exchange(node) and self._fits(node) and not self._is_nested(node):
            self._pass_on(node)
        else:
            self._add_piece(node)

    def _is_nested(self, node: Node) -> bool:
        exchange = self._exchange(node)
        return any(
            source in self.nested and self._exchange(self.graph[source]) == exchange for source in operands(node)
        )

    def _host(self, node: Node) -> str | None:
        for source in operands(node):
            piece = self.owner.get(source)
            if piece is None or self.readers[source] != 1 or self.shapes[source] != self.shapes[node.name]:
                continue  # the last: a gate of one cell scales a whole grid
            # The body of an edge of an exchange is on the way to the sum: the sum is what the exchange computes.
            if self.pieces[piece].kind in (Kind.CONV, Kind.LINEAR, Kind.CUSTOM) and not self.pieces[piece].minor:
                return source if self._is_last(node, source, piece) else None
        return None

    def _is_last(self, node: Node, host: str, piece: int) -> bool:
        """Whether the host is deeper than all that is added at its level: no branch beside it may come before it."""
        others = (end for source in operands(node) if source != host for end in self.ends[source])
        level = self.pieces[piece].level
        return all(self.pieces[end].level != level or self.depths[end] < self.depths[piece] for end in others)

    def _extend(self, node: Node, piece: int) -> None:
        self.owner[node.name] = piece
        self.members[piece].append(node.name)
        self.ends[node.name] = {piece: 1}

    def _pass_on(self, node: Node) -> None:
        sources = operands(node)
        if len(sources) == 1:
            (source,) = sources
            if self.readers[source] == 1 and source in self.owner and node.level == self.graph[source].level:
                self.owner[node.name] = self.owner[source]
                self.members[self.owner[source]].append(node.name)
            self.ends[node.name] = self.ends[source]
            return
        total: Counter[int] = Counter()
        for source in sources:
            total.update(self.ends[source])
        self.ends[node.name] = total


def operands(node: Node) -> Sequence[str]:
    """The inputs whose values a node reads; the size reference of a resampling is none, nor are tensors."""
    if isinstance(node.op, FusedConv):
        parts = len(node.op.steps)
        return node.inputs[:parts] + node.inputs[parts + node.op.like + node.op.norm :]
    if node.op.kind is Kind.UP or isinstance(node.op, Crop):
        return node.inputs[:1]
    return node.inputs


def _computes(node: Node) -> bool:
    return node.op.kind is not Kind.REFERENCE and not isinstance(node.op, ChannelsLast)


def _group(layer: str) -> str:
    return layer.rpartition(".")[0]


def _size(shape: Shape) -> Size | None:
    return (shape[1], shape[2]) if len(shape) == 3 else None
