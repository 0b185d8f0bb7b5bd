"""Answers to the exercises of notebook 01."""

import itertools
from collections import Counter

from wrong_answers import fails, right, wrong

# count-pairs


@wrong("count-pairs", "crosses-words", says="(1, 2) is counted for the words [1] and [2]")
def one_long_row(words):
    row = []
    for word, frequency in words:
        row += word * frequency
    counts = {}
    for i in range(len(row) - 1):
        counts[row[i], row[i + 1]] = counts.get((row[i], row[i + 1]), 0) + 1
    return counts


@wrong("count-pairs", "ignores-frequency", says="(1, 2) is counted 2 times, it occurs 6 times")
def each_word_once(words):
    counts = {}
    for word, _ in words:
        for a, b in itertools.pairwise(word):
            counts[a, b] = counts.get((a, b), 0) + 1
    return counts


@wrong("count-pairs", "every-other-pair", says="by one token")
def without_overlap(words):
    counts = Counter()
    for word, frequency in words:
        for i in range(0, len(word) - 1, 2):
            counts[word[i], word[i + 1]] += frequency
    return counts


@wrong("count-pairs", "order-forgotten")
def smaller_id_first(words):
    counts = Counter()
    for word, frequency in words:
        for a, b in itertools.pairwise(word):
            counts[min(a, b), max(a, b)] += frequency
    return counts


@wrong("count-pairs", "misses-the-last-pair", says="n - 1 pairs")
def off_by_one(words):
    counts = Counter()
    for word, frequency in words:
        for i in range(len(word) - 2):
            counts[word[i], word[i + 1]] += frequency
    return counts


@wrong("count-pairs", "once-a-word", says="(1, 2) is counted 3 times, it occurs 6 times")
def a_set_of_pairs(words):
    counts = Counter()
    for word, frequency in words:
        for pair in {(word[i], word[i + 1]) for i in range(len(word) - 1)}:
            counts[pair] += frequency
    return counts


@wrong("count-pairs", None, says="expected 6")
def squares_the_frequency(words):
    counts = Counter()
    for word, frequency in words:
        for pair in itertools.pairwise(word):
            counts[pair] += frequency**2
    return counts


@fails("count-pairs", says="IndexError")
def beyond_the_end(words):
    counts = Counter()
    for word, frequency in words:
        for i in range(len(word)):
            counts[word[i], word[i + 1]] += frequency
    return counts


@right("count-pairs")
def with_a_plain_dictionary(words):
    counts = {}
    for word, frequency in words:
        for i in range(len(word) - 1):
            pair = (word[i], word[i + 1])
            counts[pair] = counts.get(pair, 0) + frequency
    return counts


# merge-pair


@wrong("merge-pair", "second-token-stays", says="move on by two")
def a_for_loop(word, pair, token):
    merged = []
    for i in range(len(word)):
        if tuple(word[i : i + 2]) == pair:
            merged.append(token)
        else:
            merged.append(word[i])
    return merged


@wrong("merge-pair", "only-the-first")
def returns_at_once(word, pair, token):
    for i in range(len(word) - 1):
        if (word[i], word[i + 1]) == pair:
            return [*word[:i], token, *word[i + 2 :]]
    return list(word)


@wrong("merge-pair", "either-order", says="(2, 1) is not (1, 2)")
def as_sets(word, pair, token):
    merged = []
    i = 0
    while i < len(word):
        if sorted(word[i : i + 2]) == sorted(pair):
            merged.append(token)
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return merged


@wrong("merge-pair", "right-to-left", says="from left to right")
def from_the_end(word, pair, token):
    word = list(word)
    i = len(word) - 2
    while i >= 0:
        if (word[i], word[i + 1]) == pair:
            word[i : i + 2] = [token]
            i -= 1
        i -= 1
    return word


@wrong("merge-pair", "loses-the-end", says="is lost")
def stops_before_the_last(word, pair, token):
    merged = []
    i = 0
    while i + 1 < len(word):
        if (word[i], word[i + 1]) == pair:
            merged.append(token)
            i += 1
        else:
            merged.append(word[i])
        i += 1
    return merged


@wrong("merge-pair", "changes-its-input", says="work on a copy")
def in_place(word, pair, token):
    i = 0
    while i + 1 < len(word):
        if (word[i], word[i + 1]) == pair:
            word[i : i + 2] = [token]
        i += 1
    return word


@fails("merge-pair", says="IndexError")
def looks_past_the_end(word, pair, token):
    merged = []
    i = 0
    while i < len(word):
        if word[i] == pair[0] and word[i + 1] == pair[1]:
            merged.append(token)
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return merged


@right("merge-pair")
def compares_with_the_last_one(word, pair, token):
    merged = []
    for t in word:
        if merged and merged[-1] == pair[0] and t == pair[1]:
            merged[-1] = token
        else:
            merged.append(t)
    return merged


# encode-word


def replace(tokens, pair, token):
    return compares_with_the_last_one(tokens, pair, token)


@wrong("encode-word", "leftmost-first", says="learnt first")
def from_the_left(tokens, merges):
    tokens = list(tokens)
    i = 0
    while i < len(tokens) - 1:
        pair = (tokens[i], tokens[i + 1])
        if pair in merges:
            tokens[i : i + 2] = [256 + merges.index(pair)]
            i = 0
        else:
            i += 1
    return tokens


@wrong("encode-word", "longest-match", says="order of learning")
def longest_token(tokens, merges):
    table = {(i,): i for i in range(256)}
    spelled = {i: (i,) for i in range(256)}
    for rank, (a, b) in enumerate(merges):
        spelled[256 + rank] = spelled[a] + spelled[b]
        table[spelled[256 + rank]] = 256 + rank
    out = []
    start = 0
    while start < len(tokens):
        end = len(tokens)
        while tuple(tokens[start:end]) not in table:
            end -= 1
        out.append(table[tuple(tokens[start:end])])
        start = end
    return out


@wrong("encode-word", "last-learnt-first", says="from the last to the first")
def largest_rank(tokens, merges):
    for rank in range(len(merges) - 1, -1, -1):
        tokens = replace(tokens, merges[rank], 256 + rank)
    return tokens


@wrong("encode-word", "one-merge-only", says="after the first merge you stop")
def breaks_too_early(tokens, merges):
    for rank, pair in enumerate(merges):
        if pair in itertools.pairwise(tokens):
            return replace(tokens, pair, 256 + rank)
    return tokens


@wrong("encode-word", "rank-as-id", says="256 + i")
def forgets_the_bytes(tokens, merges):
    for rank, pair in enumerate(merges):
        tokens = replace(tokens, pair, rank)
    return tokens


@wrong("encode-word", "one-occurrence", says="every position")
def first_position_only(tokens, merges):
    tokens = list(tokens)
    for rank, pair in enumerate(merges):
        for i in range(len(tokens) - 1):
            if (tokens[i], tokens[i + 1]) == pair:
                tokens[i : i + 2] = [256 + rank]
                break
    return tokens


@wrong("encode-word", None, says="expected")
def never_merges(tokens, merges):
    return list(tokens)


@right("encode-word")
def lowest_rank_until_none_is_left(tokens, merges):
    tokens = list(tokens)
    while True:
        known = [p for p in itertools.pairwise(tokens) if p in merges]
        if not known:
            return tokens
        pair = min(known, key=merges.index)
        tokens = replace(tokens, pair, 256 + merges.index(pair))


# tokens-to-text


@wrong("tokens-to-text", "token-by-token", says="join the bytes first")
def one_at_a_time(ids, token_bytes):
    text = ""
    for i in ids:
        text += token_bytes[i].decode(errors="replace")
    return text


@wrong("tokens-to-text", "bytes-dropped", says="vanish")
def ignores_errors(ids, token_bytes):
    data = b""
    for i in ids:
        data += token_bytes[i]
    return data.decode(errors="ignore")


@wrong("tokens-to-text", "byte-as-character", says="two bytes in UTF-8")
def chr_of_each_byte(ids, token_bytes):
    return "".join(chr(byte) for i in ids for byte in token_bytes[i])


@wrong("tokens-to-text", "spaces-between")
def joined_by_spaces(ids, token_bytes):
    return b" ".join([token_bytes[i] for i in ids]).decode(errors="replace")


@wrong("tokens-to-text", "still-bytes", says="not text")
def forgets_to_decode(ids, token_bytes):
    return b"".join([token_bytes[i] for i in ids])


@fails("tokens-to-text", says="UnicodeDecodeError")
def strict(ids, token_bytes):
    return b"".join([token_bytes[i] for i in ids]).decode("utf-8")


@right("tokens-to-text")
def with_a_bytearray(ids, token_bytes):
    data = bytearray()
    for i in ids:
        data.extend(token_bytes[i])
    return data.decode("utf-8", "replace")


@wrong("merge-pair", "as-written", says="Compare the numbers")
def replaces_characters(word, pair, token):
    text = ",".join(str(t) for t in word)
    text = text.replace(",".join(str(t) for t in pair), str(token))
    return [int(t) for t in text.split(",")]


@wrong("encode-word", None, says="expected")
def pairs_of_the_beginning(tokens, merges):
    known = list(itertools.pairwise(tokens))  # never looked up again
    for rank, pair in enumerate(merges):
        if pair in known:
            tokens = replace(tokens, pair, 256 + rank)
    return tokens
