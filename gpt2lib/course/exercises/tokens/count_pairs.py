"""Notebook 01: How often do two tokens stand side by side?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, Seen, case
from gpt2lib.course.exercises.tokens.shared import Word


def _count(words: Any, pairs: Callable[[Word], Any], weight: int | None = None) -> dict[Any, int]:
    counts: Counter[Any] = Counter()
    for word, frequency in words:
        for pair in pairs(word):
            counts[pair] += frequency if weight is None else weight
    return dict(counts)


def _crosses(count: Callable[..., Any]) -> str | None:
    if (1, 2) in count([([1], 1), ([2], 1)]):
        return (
            "pair (1, 2) is counted for the words [1] and [2]: the last token of one word and the "
            "first of the next are no neighbours; count inside each word"
        )
    return None


def _said_of(key: str, message: str) -> Callable[[Seen], str]:
    def say(seen: Seen) -> str:
        pair = seen.index[0] if seen.index else "?"
        expected, got = (getattr(seen, side).get(pair, 0) for side in ("expected", "got"))
        return f"{key} {pair} is counted {got} times, it occurs {expected} times: {message}"

    return say


EXERCISE = Exercise(
    id="count-pairs",
    notebook="01",
    title="How often do two tokens stand side by side?",
    signature="my_count_pairs(words)",
    reference="gpt2lib.tokenizer.merges:count_pairs",
    adapt=lambda count_pairs: lambda words: dict(count_pairs(words)),
    cases=lambda: [
        case([([1, 2, 1, 2], 3), ([2, 1], 1)]),
        case([([5, 5, 5], 2)]),
        case([([7], 4), ([7, 8, 9], 1), ([7, 8], 2)]),
    ],
    hints=[
        "A word of n tokens has n - 1 pairs, overlapping: [1, 2, 3] has (1, 2) and (2, 3).",
        "zip(word, word[1:]) gives the pairs of a word.",
        "A word that occurs 3 times adds 3 to each of its pairs.",
    ],
    misconceptions=[
        Misconception("crosses-words", test=_crosses),
        Misconception(
            "ignores-frequency",
            _said_of("pair", "a word that occurs 3 times adds 3, not 1"),
            wrong=lambda words: _count(words, pairwise, weight=1),
        ),
        Misconception(
            "every-other-pair",
            _said_of("pair", "pairs overlap, so move on by one token, not by two"),
            wrong=lambda words: _count(words, lambda w: zip(w[::2], w[1::2], strict=False)),
        ),
        Misconception(
            "order-forgotten",
            "(1, 2) and (2, 1) are two different pairs: keep the order of the tokens",
            wrong=lambda words: _count(words, lambda w: (tuple(sorted(p)) for p in pairwise(w))),
        ),
        Misconception(
            "misses-the-last-pair",
            "the last pair of each word is missing: a word of n tokens has n - 1 pairs",
            wrong=lambda words: _count(words, lambda w: pairwise(w[:-1])),
        ),
        Misconception(
            "once-a-word",
            _said_of("pair", "each position in a word counts, not just whether it occurs there"),
            wrong=lambda words: _count(words, lambda w: set(pairwise(w))),
        ),
    ],
)
