"""The longest common subsequence of two sequences of numbers: what stayed in order when one became the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["common_places"]

STEPS = 64
"""How many differences are looked at together."""


def common_places(one: Sequence[int], other: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The places, in both, of a common subsequence, ascending: the longest where few numbers differ, else nearly so.

    Myers' search for the fewest differences, which takes time with their square. Every `STEPS` differences it keeps the
    way that came farthest and starts anew there, so it is linear at worst.
    """
    x = y = 0
    while x < len(one) and y < len(other):
        search = _Search(one[x:], other[y:])
        found, (width, height) = search.run()
        yield from ((x + i, y + j) for i, j in found)
        x, y = x + width, y + height


class _Search:
    """A search from the beginning of two sequences, of x numbers of the one and y of the other."""

    def __init__(self, one: Sequence[int], other: Sequence[int]) -> None:
        self.one, self.other = one, other
        self.farthest: list[dict[int, int]] = []
        """The largest x on each diagonal x - y, after no difference, one, two, ..."""

    def run(self) -> tuple[list[tuple[int, int]], tuple[int, int]]:
        """The equal places found, ascending, and how far the search came in both."""
        best, at = (0, 0), 0
        for differences in range(STEPS + 1):
            now: dict[int, int] = {}
            self.farthest.append(now)
            for diagonal in range(-differences, differences + 1, 2):
                if (start := self._start(differences, diagonal)) is None:
                    continue
                x, _ = start
                while self._equal(x, x - diagonal):
                    x += 1
                now[diagonal] = x
                if 2 * x - diagonal > sum(best):
                    best, at = (x, x - diagonal), differences
            if best == (len(self.one), len(self.other)):
                break
        return list(self._way_back(*best, at))[::-1], best

    def _equal(self, x: int, y: int) -> bool:
        return x < len(self.one) and y < len(self.other) and self.one[x] == self.other[y]

    def _start(self, differences: int, diagonal: int) -> tuple[int, bool] | None:
        """Where a diagonal is entered with its last difference, and whether that is a number of the other sequence."""
        if not differences:
            return 0, False
        before = self.farthest[differences - 1]
        down, right = before.get(diagonal + 1), before.get(diagonal - 1)
        ways = []
        if right is not None and right < len(self.one):
            ways.append((right + 1, False))
        if down is not None and down - diagonal <= len(self.other):
            ways.append((down, True))
        return max(ways, default=None)

    def _way_back(self, x: int, y: int, differences: int) -> Iterator[tuple[int, int]]:
        while differences:
            start = self._start(differences, x - y)
            assert start is not None  # the search came this way
            while x > start[0]:
                x, y = x - 1, y - 1
                yield x, y
            x, y = (x, y - 1) if start[1] else (x - 1, y)
            differences -= 1
        while x:
            x, y = x - 1, y - 1
            yield x, y
