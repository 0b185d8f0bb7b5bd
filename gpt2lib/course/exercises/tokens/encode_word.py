"""Notebook 01: Encode a word with learnt merges."""

from __future__ import annotations

from itertools import pairwise

from gpt2lib.course.exercise import Exercise, Misconception, case
from gpt2lib.course.exercises.tokens.shared import Pair, Word, is_pair, scan


def _in_order(tokens: Word, merges: list[Pair], most: int = 10**9) -> Word:
    for rank, pair in enumerate(merges):
        tokens = scan(tokens, is_pair(pair), 256 + rank, most=most)
    return tokens


def _last_first(tokens: Word, merges: list[Pair]) -> Word:
    for rank, pair in reversed(list(enumerate(merges))):
        tokens = scan(tokens, is_pair(pair), 256 + rank)
    return tokens


def _leftmost_first(tokens: Word, merges: list[Pair]) -> Word:
    while found := [i for i, pair in enumerate(pairwise(tokens)) if pair in merges]:
        i = found[0]
        rank = merges.index((tokens[i], tokens[i + 1]))
        tokens = [*tokens[:i], 256 + rank, *tokens[i + 2 :]]
    return tokens


def _one_merge(tokens: Word, merges: list[Pair]) -> Word:
    ranks = [merges.index(pair) for pair in pairwise(tokens) if pair in merges]
    if not ranks:
        return tokens
    best = merges[min(ranks)]
    return scan(tokens, is_pair(best), 256 + min(ranks))


def _longest_match(tokens: Word, merges: list[Pair]) -> Word:
    spelled: dict[int, Word] = {token: [token] for token in range(256)}
    for rank, (a, b) in enumerate(merges):
        spelled[256 + rank] = spelled[a] + spelled[b]
    out: Word = []
    i = 0
    while i < len(tokens):
        fits = [t for t, s in spelled.items() if tokens[i : i + len(s)] == s]
        best = max(fits, key=lambda t: len(spelled[t]))
        out.append(best)
        i += len(spelled[best])
    return out


MERGES = [(2, 3), (1, 2), (256, 4), (1, 256), (4, 4), (3, 1)]  # of 1 to 4, read a to d


EXERCISE = Exercise(
    id="encode-word",
    notebook="01",
    title="Encode a word with learnt merges",
    signature="my_encode_word(tokens, merges)",
    reference="gpt2lib.tokenizer.merges:apply_merges",
    adapt=lambda apply_merges: (
        lambda tokens, merges: apply_merges(
            list(tokens), {pair: rank for rank, pair in enumerate(merges)}
        )
    ),
    cases=lambda: [
        case([1, 2, 3, 4], MERGES),
        case([2, 3, 1], MERGES),
        case([4, 4, 3, 4, 4], MERGES),
        case([3], MERGES),
        case([1, 2, 3, 4, 4, 1, 2], MERGES),
        case([2, 3, 4, 4, 2, 3], MERGES),  # two merges that have nothing to do with each other
        case([4, 4, 4, 3, 1, 2, 3, 4], MERGES),
        case([3, 1, 3, 1, 2, 1, 2], MERGES),
    ],
    hints=[
        "Training merged (2, 3) before it knew (1, 2). Encoding must take the same order.",
        "Go through the merges in order; the one at index i makes token 256 + i.",
        "for i, pair in enumerate(merges): tokens = merge(tokens, pair, 256 + i)",
    ],
    misconceptions=[
        Misconception(
            "leftmost-first",
            "you merge what comes first in the text; take the pair that was learnt first, "
            "wherever it stands",
            wrong=_leftmost_first,
        ),
        Misconception(
            "longest-match",
            "you take the longest token that fits; byte-pair encoding replays the merges in "
            "the order of learning, whatever lengths come out",
            wrong=_longest_match,
        ),
        Misconception(
            "last-learnt-first",
            "you go through the merges from the last to the first; later merges are built "
            "from earlier ones",
            wrong=_last_first,
        ),
        Misconception(
            "one-merge-only",
            "after the first merge you stop; the new token may merge with its neighbours",
            wrong=_one_merge,
        ),
        Misconception(
            "rank-as-id",
            "the merge at index i makes token 256 + i: the ids below are the bytes",
            test=lambda my_encode: my_encode([7, 8, 9], [(8, 9)]) == [7, 0],
        ),
        Misconception(
            "one-occurrence",
            "each merge is applied at one position only; apply it at every position",
            wrong=lambda tokens, merges: _in_order(tokens, merges, most=1),
        ),
    ],
)
