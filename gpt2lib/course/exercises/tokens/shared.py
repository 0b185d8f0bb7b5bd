"""What several exercises of notebook 01 use."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Pair = tuple[int, int]
Word = list[int]


def scan(
    word: Sequence[int],
    same: Callable[[int, int], bool],
    token: int,
    *,
    step: int = 2,
    most: int = 10**9,
) -> Word:
    """Merge from left to right, with the slips that learners make as switches."""
    merged: Word = []
    i = 0
    while i < len(word):
        if i + 1 < len(word) and most and same(word[i], word[i + 1]):
            merged.append(token)
            i, most = i + step, most - 1
        else:
            merged.append(word[i])
            i += 1
    return merged


def is_pair(pair: Pair) -> Callable[[int, int], bool]:
    return lambda a, b: (a, b) == pair
