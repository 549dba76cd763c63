"""Random numbers that are looked up: the counter-based generator Philox 4x32-10 (Salmon et al., SC 2011).

A number is a function of a seed and of what it is for. Nothing is left behind, so that order and batch do not matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["random_words", "uniform"]

Words = NDArray[np.uint64]


def random_words(counter: Sequence[Words | int], key: tuple[int, int]) -> tuple[Words, Words, Words, Words]:
    """Four words of 32 bits, as uint64, for each counter of four such words; arrays are broadcast."""
    low = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    a, b, c, d = np.broadcast_arrays(*(np.asarray(word, np.uint64) for word in counter))
    first, second = key
    for _ in range(10):
        left, right = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, b, c, d = (
            (right >> shift) ^ b ^ np.uint64(first),
            right & low,
            (left >> shift) ^ d ^ np.uint64(second),
            left & low,
        )
        first, second = (first + 0x9E3779B9) & 0xFFFFFFFF, (second + 0xBB67AE85) & 0xFFFFFFFF
    return a, b, c, d


def uniform(
    count: int,
    seed: int,
    indices: NDArray[np.int64],
    *,
    purpose: int,
    turn: NDArray[np.int64] | int = 0,
    trial: int = 0,
) -> NDArray[np.float64]:
    """(n, count) numbers in [0, 1) of 53 bits, a row an index; `turn` is one, or one an index.

    `seed` has 64 bits, `purpose` and `turn` 16 each, `trial` 24; `count` is at most 512.
    """
    blocks = np.arange((count + 1) // 2, dtype=np.uint64)
    index = indices.astype(np.uint64)[:, None]
    use = np.asarray((purpose << 16) + turn, np.uint64).reshape(-1, 1)
    counter = (index & np.uint64(0xFFFFFFFF), index >> np.uint64(32), use, blocks + (trial << 8))
    words = random_words(counter, (seed & 0xFFFFFFFF, seed >> 32))
    pairs = [
        ((high >> np.uint64(5)) * np.uint64(1 << 26) + (low >> np.uint64(6))) * 2.0**-53
        for high, low in (words[:2], words[2:])
    ]
    return np.stack(pairs, axis=2).reshape(len(indices), -1)[:, :count]
