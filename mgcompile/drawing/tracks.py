"""Spans side by side: each on the first track where it meets no other."""

from __future__ import annotations

from bisect import bisect_left

__all__ = ["Tracks"]


class Tracks:
    """Tracks on which spans (first, last) lie without overlap; they may touch. At most `most` of them."""

    def __init__(self, most: int | None = None) -> None:
        self._tracks: list[list[tuple[int, int]]] = []
        self._most = most

    def take(self, first: int, last: int, least: int = 0) -> int:
        """The number of the track that the span now lies on, from `least` on; the last where all are taken."""
        number = least
        while True:
            while number >= len(self._tracks):
                self._tracks.append([])
            track = self._tracks[number]
            place = bisect_left(track, (first, last))
            if all(other[1] <= first or last <= other[0] for other in track[max(0, place - 1) : place + 1]):
                track.insert(place, (first, last))
                return number
            if self._most is not None and number + 1 >= self._most:
                return number
            number += 1
