"""Exercises of notebook 01."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, Seen, case

Pair = tuple[int, int]
Word = list[int]


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


def _scan(
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


def _is(pair: Pair) -> Callable[[int, int], bool]:
    return lambda a, b: (a, b) == pair


def _right_to_left(word: Word, pair: Pair, token: int) -> Word:
    return _scan(word[::-1], lambda b, a: (a, b) == pair, token)[::-1]


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


def _in_order(tokens: Word, merges: list[Pair], most: int = 10**9) -> Word:
    for rank, pair in enumerate(merges):
        tokens = _scan(tokens, _is(pair), 256 + rank, most=most)
    return tokens


def _last_first(tokens: Word, merges: list[Pair]) -> Word:
    for rank, pair in reversed(list(enumerate(merges))):
        tokens = _scan(tokens, _is(pair), 256 + rank)
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
    return _scan(tokens, _is(best), 256 + min(ranks))


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


TURTLE = "🐢".encode()
MERGES = [(2, 3), (1, 2), (256, 4), (1, 256), (4, 4), (3, 1)]  # of 1 to 4, read a to d

EXERCISES = [
    Exercise(
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
                wrong=lambda words: _count(
                    words, lambda w: (tuple(sorted(p)) for p in pairwise(w))
                ),
            ),
            Misconception(
                "misses-the-last-pair",
                "the last pair of each word is missing: a word of n tokens has n - 1 pairs",
                wrong=lambda words: _count(words, lambda w: pairwise(w[:-1])),
            ),
            Misconception(
                "once-a-word",
                _said_of(
                    "pair", "each position in a word counts, not just whether it occurs there"
                ),
                wrong=lambda words: _count(words, lambda w: set(pairwise(w))),
            ),
        ],
    ),
    Exercise(
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
                wrong=lambda word, pair, token: _scan(word, _is(pair), token, step=1),
            ),
            Misconception(
                "only-the-first",
                "only the first occurrence is merged: go on to the end of the word",
                wrong=lambda word, pair, token: _scan(word, _is(pair), token, most=1),
            ),
            Misconception(
                "either-order",
                "the pair is merged in reverse order too: (2, 1) is not (1, 2)",
                wrong=lambda word, pair, token: _scan(
                    word, lambda a, b: {a, b} == set(pair), token
                ),
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
    ),
    Exercise(
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
    ),
    Exercise(
        id="tokens-to-text",
        notebook="01",
        title="From tokens back to text",
        signature="my_decode(ids, token_bytes)",
        reference="gpt2lib.tokenizer.base:Tokenizer.decode",
        adapt=lambda decode: (
            lambda ids, token_bytes: decode(
                SimpleNamespace(_bytes=token_bytes, vocab_size=len(token_bytes)), ids
            )
        ),
        cases=lambda: [
            case(ids, [b"a", TURTLE[:2], TURTLE[2:], "é".encode(), b"\xff", b" "])
            for ids in ([0, 5, 3], [1, 2], [1], [0, 4, 0], [])
        ],
        hints=[
            "A character may be spread over several tokens: join first, decode afterwards.",
            'b"".join(...) joins bytes.',
            'bytes.decode("utf-8", errors="replace") writes U+FFFD for bytes of no character.',
        ],
        misconceptions=[
            Misconception(
                "token-by-token",
                "each token is decoded alone, so a character spread over two tokens is lost: join "
                "the bytes first",
                wrong=lambda ids, token_bytes: "".join(
                    token_bytes[i].decode("utf-8", errors="replace") for i in ids
                ),
            ),
            Misconception(
                "bytes-dropped",
                "bytes that are no character vanish; errors='replace' keeps a sign of them",
                wrong=lambda ids, token_bytes: b"".join(token_bytes[i] for i in ids).decode(
                    "utf-8", errors="ignore"
                ),
            ),
            Misconception(
                "byte-as-character",
                "each byte becomes a character of its own (Latin-1): é is two bytes in UTF-8",
                wrong=lambda ids, token_bytes: b"".join(token_bytes[i] for i in ids).decode(
                    "latin-1"
                ),
            ),
            Misconception(
                "spaces-between",
                "you put spaces between the tokens; they carry their own spaces",
                wrong=lambda ids, token_bytes: b" ".join(token_bytes[i] for i in ids).decode(
                    "utf-8", errors="replace"
                ),
            ),
            Misconception(
                "still-bytes",
                "this is bytes, not text: decode them as UTF-8",
                wrong=lambda ids, token_bytes: b"".join(token_bytes[i] for i in ids),
            ),
        ],
    ),
]
