"""Solutions of notebook 01."""

from itertools import pairwise


def my_decode(ids, token_bytes):
    """Return the text, a str. ids: a list of ints. token_bytes: a list of bytes objects."""
    return b"".join(token_bytes[i] for i in ids).decode("utf-8", errors="replace")


def my_count_pairs(words):
    """Return a dict from pair (a tuple of two ids) to int. words: a list of (list of ids, int)."""
    counts: dict[tuple[int, int], int] = {}
    for word, frequency in words:
        for pair in pairwise(word):
            counts[pair] = counts.get(pair, 0) + frequency
    return counts


def my_merge(word, pair, token):
    """Return a new list of ids. word: a list of ids. pair: a tuple of two ids. token: an id."""
    merged, i = [], 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            merged.append(token)
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return merged


def my_encode_word(tokens, merges):
    """Return a list of ids. tokens: a list of ids. merges: a list of pairs, as they were learnt."""
    for i, pair in enumerate(merges):
        tokens = my_merge(tokens, pair, 256 + i)
    return tokens
