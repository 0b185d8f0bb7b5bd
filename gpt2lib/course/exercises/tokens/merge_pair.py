"""Notebook 01: Replace a pair by a new token."""

from __future__ import annotations

from gpt2lib.course.exercise import Exercise, Misconception, case
from gpt2lib.course.exercises.tokens.shared import Pair, Word, is_pair, scan


def _right_to_left(word: Word, pair: Pair, token: int) -> Word:
    return scan(word[::-1], lambda b, a: (a, b) == pair, token)[::-1]


def _as_written(word: Word, pair: Pair, token: int) -> Word:
    text = " ".join(map(str, word)).replace(f"{pair[0]} {pair[1]}", str(token))
    return [int(number) for number in text.split()]


def _loses_the_end(word: Word, pair: Pair, token: int) -> Word:
    merged: Word = []
    i = 0
    while i < len(word) - 1:
        here = (word[i], word[i + 1]) == pair
        merged.append(token if here else word[i])
        i += 2 if here else 1
    return merged


EXERCISE = Exercise(
    id="merge-pair",
    notebook="01",
    title="Replace a pair by a new token",
    signature="my_merge(word, pair, token)",
    reference="gpt2lib.tokenizer.merges:merge",
    cases=lambda: [
        case([1, 2, 1, 2, 3], (1, 2), 9),
        case([1, 1, 1], (1, 1), 9),
        case([2, 1, 1, 2], (1, 2), 9),
        case([1], (1, 2), 9),
        case([3, 1, 2], (1, 2), 9),
        case([11, 2, 1, 21, 1, 2], (1, 2), 9),  # in writing, "11 2" and "1 21" hold "1 2"
    ],
    hints=[
        "Go through the word with an index i, and build a new list.",
        "Where word[i] and word[i + 1] are the pair, append the token and move on by two.",
        "At the last token there is no word[i + 1]: ask i + 1 < len(word) first.",
    ],
    misconceptions=[
        Misconception(
            "second-token-stays",
            "the second token of the pair stays in the word: after a merge, move on by two",
            wrong=lambda word, pair, token: scan(word, is_pair(pair), token, step=1),
        ),
        Misconception(
            "only-the-first",
            "only the first occurrence is merged: go on to the end of the word",
            wrong=lambda word, pair, token: scan(word, is_pair(pair), token, most=1),
        ),
        Misconception(
            "either-order",
            "the pair is merged in reverse order too: (2, 1) is not (1, 2)",
            wrong=lambda word, pair, token: scan(word, lambda a, b: {a, b} == set(pair), token),
        ),
        Misconception(
            "right-to-left",
            "of [1, 1, 1] the first two are merged, giving [9, 1]: go from left to right",
            wrong=_right_to_left,
        ),
        Misconception(
            "loses-the-end",
            "a last token that is not merged is lost: the loop must run to the end of the word",
            wrong=_loses_the_end,
        ),
        Misconception(
            "as-written",
            "you replace digits in a text: 11 2 and 1 21 contain the characters 1 2, but not "
            "the tokens 1 and 2. Compare the numbers",
            wrong=_as_written,
        ),
    ],
)
