"""Repeats drawn once: equal consecutive parts `unit.0`, `unit.1`, ... of a draft become one part with a number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mgcompile.drawing.draft import Draft, Fold, Piece, Wire

__all__ = ["fold_repeats"]

Interface = frozenset[tuple[object, ...]]


def fold_repeats(draft: Draft) -> Draft:
    """Fold every run of equal repeats, the innermost first.

    Repeats are equal when they have equal pieces (layer below the index, level, work, channels, size) that read each
    other alike, and when each reads from the one before what the next reads from it. What the first of them reads may
    differ in channels and number, not in the levels it comes from. Only the last may be read from elsewhere.
    """
    state = _State(draft)
    families = _families(draft.pieces)
    for depth, parent in sorted(families, key=lambda key: (-key[0], key[1])):
        children = families[depth, parent]
        indices = sorted(children)
        start = 0
        while start < len(indices):
            stop = start + 1
            parts = [_Part.of(state, children[index], depth) for index in indices[start : start + 1]]
            while stop < len(indices) and indices[stop] == indices[stop - 1] + 1:
                parts.append(_Part.of(state, children[indices[stop]], depth))
                if not _continues(state, parts):
                    parts.pop()
                    break
                stop += 1
            if len(parts) > 1:
                state.merge(parent, parts)
            start = stop
    return state.draft()


def _families(pieces: Sequence[Piece]) -> dict[tuple[int, str], dict[int, list[int]]]:
    """The pieces under each numbered child, by the depth and path of the parent."""
    families: dict[tuple[int, str], dict[int, list[int]]] = {}
    for number, piece in enumerate(pieces):
        names = piece.path.split(".")
        for depth, name in enumerate(names):
            if depth and name.isdecimal():
                children = families.setdefault((depth, ".".join(names[:depth])), {})
                children.setdefault(int(name), []).append(number)
    return families


class _State:
    """A draft in which pieces die when another comes to stand for them."""

    def __init__(self, draft: Draft) -> None:
        self.pieces = draft.pieces
        self.reads = [dict(reads) for reads in draft.reads]
        self.readers: list[set[int]] = [set() for _ in draft.pieces]
        for number, reads in enumerate(self.reads):
            for source in reads:
                self.readers[source].add(number)
        self.alive = [True] * len(draft.pieces)
        self.outputs = draft.outputs
        self.is_output = {piece for pieces in draft.outputs.values() for piece in pieces}
        self.stands_for: dict[int, int] = {}
        self.folds: list[Fold] = []
        # How often a piece stands for itself through the folds so far: equal parts have equal inner folds.
        self.times: dict[int, tuple[int, ...]] = {}

    def merge(self, path: str, parts: Sequence[_Part]) -> None:
        """Let the first of equal parts stand for all: what reads the last then reads the first."""
        first, last = parts[0], parts[-1]
        for part in parts[1:]:
            for piece, keeper in zip(part.pieces, first.pieces, strict=True):
                self.alive[piece] = False
                self.stands_for[piece] = keeper
                for source in self.reads[piece]:
                    self.readers[source].discard(piece)
        for piece, keeper in zip(last.pieces, first.pieces, strict=True):
            for reader in sorted(self.readers[piece]):
                reads = self.reads[reader]
                self.reads[reader] = {keeper if source == piece else source: reads[source] for source in reads}
                self.readers[keeper].add(reader)
        for keeper in first.pieces:
            self.times[keeper] = (*self.times.get(keeper, ()), len(parts))
        self.folds.append(Fold(path, len(parts), first.pieces))

    def draft(self) -> Draft:
        """The living, renumbered."""
        living = [number for number, alive in enumerate(self.alive) if alive]
        new = {number: place for place, number in enumerate(living)}
        reads: list[dict[int, Wire]] = [
            {new[source]: wire for source, wire in self.reads[number].items()} for number in living
        ]
        outputs = {
            name: tuple(dict.fromkeys(new[self._keeper(piece)] for piece in pieces))
            for name, pieces in self.outputs.items()
        }
        folds = [
            Fold(fold.path, fold.repeats, tuple(new[piece] for piece in fold.pieces))
            for fold in self.folds
            if self.alive[fold.pieces[0]]
        ]
        return Draft([self.pieces[number] for number in living], reads, outputs, folds)

    def _keeper(self, piece: int) -> int:
        while piece in self.stands_for:
            piece = self.stands_for[piece]
        return piece


@dataclass(frozen=True, slots=True)
class _Part:
    """One repeat: its living pieces in order, what they are, and how they read each other."""

    pieces: tuple[int, ...]
    content: tuple[tuple[object, ...], ...]

    @classmethod
    def of(cls, state: _State, numbers: Sequence[int], depth: int) -> _Part:
        pieces = tuple(number for number in numbers if state.alive[number])
        place = {number: index for index, number in enumerate(pieces)}
        content = tuple(_content(state, number, place, depth) for number in pieces)
        return cls(pieces, content)


def _content(state: _State, number: int, place: dict[int, int], depth: int) -> tuple[object, ...]:
    piece = state.pieces[number]
    inner = tuple(
        (place[source], wire.count, wire.sum_in is None)
        for source, wire in sorted(state.reads[number].items())
        if source in place
    )
    below = ".".join(piece.path.split(".")[depth + 1 :])
    times = state.times.get(number, ())
    return below, piece.level, piece.kind, piece.label, piece.channels, piece.size, times, inner


def _continues(state: _State, parts: Sequence[_Part]) -> bool:
    """Whether the last part is a further repeat of those before it."""
    before, part = parts[-2:]
    if part.content != before.content or not _only_read_by(state, before, part):
        return False
    if len(parts) > 2:
        return _interface(state, part, before) == _interface(state, before, parts[-3])
    return _levels_read(state, part) == _levels_read(state, before)


def _only_read_by(state: _State, part: _Part, following: _Part) -> bool:
    readers = {*part.pieces, *following.pieces}
    return all(state.readers[piece] <= readers and piece not in state.is_output for piece in part.pieces)


def _interface(state: _State, part: _Part, before: _Part) -> Interface:
    """What a part reads from the one before it (by place) and from elsewhere (by number)."""
    place = {number: index for index, number in enumerate(before.pieces)}
    return frozenset(
        (index, "before", place[source]) if source in place else (index, "elsewhere", source)
        for index, source in _outer_reads(state, part)
    )


def _levels_read(state: _State, part: _Part) -> Interface:
    return frozenset((index, state.pieces[source].level) for index, source in _outer_reads(state, part))


def _outer_reads(state: _State, part: _Part) -> Iterator[tuple[int, int]]:
    inside = set(part.pieces)
    for index, number in enumerate(part.pieces):
        for source in state.reads[number]:
            if source not in inside:
                yield index, source
