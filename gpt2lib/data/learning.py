"""Learning a tokenizer from a source that may be larger than the memory.

A bpe counts words and pairs in memory, and the rare words of a text never end: the counts grow
with the text. The merges hardly change once there are some ten megabytes, so of a longer text a
sample is learned from. It is spread evenly and depends on the text alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gpt2lib.config import DataConfig
from gpt2lib.data.progress import Progress
from gpt2lib.data.sources import Corpus, Split
from gpt2lib.tokenizer import CharTokenizer, Tokenizer, train_bpe
from gpt2lib.tokenizer.chunks import pieces

LEARN_FROM = 1 << 26
"""UTF-8 bytes that a bpe is learned from at most; a text of fewer is taken whole."""
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio, odd
_OVERHEAD = 64  # bytes that Python takes for a short string

_log = logging.getLogger(__name__)


class Sample(NamedTuple):
    """Texts spread over a longer row of texts.

    Attributes:
        texts: UTF-8, in their order.
        n_bytes: of these texts.
        n_bytes_read: of all texts.
    """

    texts: list[bytes]
    n_bytes: int
    n_bytes_read: int


def learn(config: DataConfig, corpus: Corpus, bar: Progress) -> tuple[Tokenizer, dict[str, int]]:
    """Learn the tokenizer that the configuration asks for.

    A bpe sees the training documents only, so the held-out loss judges it on new text. A char
    tokenizer cannot write a character it has not seen, so it looks at both parts, as the lecture
    does; what leaks is the alphabet.

    Returns:
        The tokenizer, and the bytes it was learned from beside the bytes there are.
    """
    if config.tokenizer == "char":
        bar.name("collecting characters")
        counted = bar.over(_texts(corpus, "train", "val"))
        char = CharTokenizer.train(counted)
        return char, {"n_bytes": bar.n_bytes, "of": bar.n_bytes}
    bar.name(f"learning {config.vocab_size} tokens")
    sample = spread(bar.over(_texts(corpus, "train")), LEARN_FROM)
    if sample.n_bytes < sample.n_bytes_read:
        _log.info(
            "the tokenizer is learned from %d MB spread over the %d MB of %s",
            *(round(n / 1e6) for n in (sample.n_bytes, sample.n_bytes_read)),
            corpus.name,
        )
    trained = train_bpe((text.decode("utf-8") for text in sample.texts), config.vocab_size)
    if trained.vocab_size < config.vocab_size:
        _log.warning(
            "%s holds enough for %d tokens only, not %d",
            corpus.name,
            trained.vocab_size,
            config.vocab_size,
        )
    return trained, {"n_bytes": sample.n_bytes, "of": sample.n_bytes_read}


def _texts(corpus: Corpus, *splits: Split) -> Iterator[str]:
    """Iterate over the pieces of documents, cut further where they are long."""
    for split in splits:
        for piece in corpus.in_pieces(split):
            yield from pieces(piece.text)


def spread(texts: Iterable[str], limit: int) -> Sample:
    """Keep texts of at most `limit` bytes together, spread evenly over the row.

    How long the row is shows only at its end. So all texts are kept until they are too many; then
    every second one is let go, and from there on only every second one is kept, and so on. Which
    ones: multiples of the golden ratio, without their whole part, fill the interval from 0 to 1
    evenly and never repeat. Text `i` is kept while multiple `i + 1` is below a threshold, which
    is halved each time. A fixed step of 2, 4, 8 … could fall in step with the texts.

    At least one text is kept, however long.

    Reference: Knuth, The Art of Computer Programming, volume 3, section 6.4 (Fibonacci hashing).
    """
    kept: list[tuple[int, bytes]] = []
    threshold, size, total = 1 << 64, 0, 0
    for i, text in enumerate(texts, start=1):
        place = i * _GOLDEN % (1 << 64)
        data = text.encode("utf-8", "surrogatepass")
        total += len(data)
        if place >= threshold:
            continue
        kept.append((place, data))
        size += len(data) + _OVERHEAD
        while size > limit and len(kept) > 1:
            threshold >>= 1
            kept = [pair for pair in kept if pair[0] < threshold] or kept[:1]
            size = sum(len(data) + _OVERHEAD for _, data in kept)
    return Sample([data for _, data in kept], sum(len(data) for _, data in kept), total)
