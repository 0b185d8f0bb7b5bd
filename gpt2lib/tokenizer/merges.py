"""Byte-pair merges: how they are learnt, and how they are applied.

A *word*, as in the paper, is a pre-token as its row of tokens so far: bytes at first, then ever
fewer and longer ones. The *rank* of a merge is its position in the order of learning.

Reference: Sennrich et al. 2016, arXiv 1508.07909, section 3.2.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

from gpt2lib.tokenizer.pretokenizer import BYTES, to_byte_ids

Pair = tuple[int, int]


def count_pairs(words: Iterable[tuple[Sequence[int], int]]) -> Counter[Pair]:
    """Count neighbouring tokens over (word, how often it occurs)."""
    counts: Counter[Pair] = Counter()
    for word, frequency in words:
        for pair in pairwise(word):
            counts[pair] += frequency
    return counts


def merge(word: Sequence[int], pair: Pair, token: int) -> list[int]:
    """Replace each occurrence of `pair` in the word by `token`, from left to right."""
    merged: list[int] = []
    i = 0
    while i < len(word):
        if word[i] == pair[0] and i + 1 < len(word) and word[i + 1] == pair[1]:
            merged.append(token)
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return merged


def learn_merges(pretokens: Mapping[str, int], n_merges: int, min_frequency: int = 2) -> list[Pair]:
    """Learn which pairs to merge, the most frequent first.

    Of equally frequent pairs the one with the lower first id is taken, then with the lower second
    id. To count all pairs anew for each merge would give the same, far slower.

    Args:
        pretokens: how often each occurs.
        n_merges: how many merges to learn.
        min_frequency: stop when no pair is as frequent as this.

    Returns:
        Pairs of token ids; the merge of rank i makes token 256 + i.
    """
    words = [to_byte_ids(pretoken) for pretoken in pretokens]
    frequency = list(pretokens.values())
    counts = count_pairs(zip(words, frequency, strict=True))
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # pair -> words that (may) hold it
    for index, word in enumerate(words):
        for pair in pairwise(word):
            where[pair].add(index)
    queue = [(-count, pair) for pair, count in counts.items()]
    heapify(queue)  # the most frequent first; of equals, the lowest ids

    merges: list[Pair] = []
    while queue and len(merges) < n_merges:
        count, pair = heappop(queue)
        if -count != counts[pair]:  # an earlier merge took some of its occurrences
            heappush(queue, (-counts[pair], pair))
            continue
        if -count < max(1, min_frequency):
            break
        token = len(BYTES) + len(merges)
        merges.append(pair)
        born: set[Pair] = set()
        for index in where.pop(pair):  # only these words change, and so do the counts from them
            before = words[index]
            after = words[index] = merge(before, pair, token)
            for old in pairwise(before):
                counts[old] -= frequency[index]
            for new in pairwise(after):
                counts[new] += frequency[index]
                if token in new:
                    where[new].add(index)
                    born.add(new)
        for new in born:
            heappush(queue, (-counts[new], new))
    return merges


def apply_merges(tokens: list[int], ranks: Mapping[Pair, int]) -> list[int]:
    """Merge the tokens of one word: always the pair of the lowest rank, the leftmost first.

    Neighbours are kept as links, so that a merge moves nothing, and the candidates in a queue, so
    that a word of n tokens takes about n log n steps.

    Args:
        tokens: the word's bytes as ids; used up.
        ranks: pair -> rank of its merge.
    """
    n, gone = len(tokens), -1
    left, right = list(range(-1, n - 1)), list(range(1, n + 1))
    queue = [(ranks[pair], i) for i, pair in enumerate(pairwise(tokens)) if pair in ranks]
    heapify(queue)
    while queue:
        rank, i = heappop(queue)
        j = right[i]
        if j == n or ranks.get((tokens[i], tokens[j])) != rank:
            continue  # one of the two has been merged away since
        tokens[i], tokens[j] = len(BYTES) + rank, gone
        right[i] = right[j]
        if right[j] < n:
            left[right[j]] = i
        for start in (left[i], i):  # the new token has two new pairs
            end = right[start] if start >= 0 else n
            if end < n and (tokens[start], tokens[end]) in ranks:
                heappush(queue, (ranks[tokens[start], tokens[end]], start))
    return [token for token in tokens if token != gone]
