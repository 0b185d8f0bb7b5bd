"""What a loss has to beat: blind guessing, counting, and compressors.

Each baseline is a bet on the next token that needs no network. The loss of such a bet is
computed as a model's is, in nats a token, so the two stand on one scale.

Shapes: V vocabulary, N tokens.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable

import torch
from torch import Tensor

from gpt2lib.errors import UserError, nearest

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "zlib": lambda data: zlib.compress(data, 9),
    "bz2": lambda data: bz2.compress(data, 9),
    "lzma": lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
}
"""The compressors of Python's standard library, each at its strongest setting."""


def entropy(counts: Tensor) -> float:
    """Return the mean surprise, in nats, of tokens that come as often as counted.

    It is the least loss that a bet can reach which is the same at every place.

    Args:
        counts: (V,), how often each token came; at least one above 0.

    Reference: Shannon 1948, section 6.
    """
    shares = counts.double() / counts.sum()
    seen = shares[shares > 0]  # a token that never comes surprises nobody: p·ln p tends to 0
    return float(-(seen * seen.log()).sum())


def bigram_counts(ids: Tensor, vocab_size: int) -> Tensor:
    """Count, for every token, which tokens follow it.

    Args:
        ids: (N,), token ids below `vocab_size`.
        vocab_size: V.

    Returns:
        (V, V), int64: row i, column j says how often j follows i.
    """
    pairs = ids[:-1].long() * vocab_size + ids[1:].long()  # (N - 1,), a number for each pair
    return torch.bincount(pairs, minlength=vocab_size**2).view(vocab_size, vocab_size)


def bigram_probabilities(ids: Tensor, vocab_size: int, smoothing: float) -> Tensor:
    """Bet on the next token by how often it followed the present one.

    Args:
        ids: (N,), the tokens to count.
        vocab_size: V.
        smoothing: added to every count, so that a pair never seen is unlikely, not impossible.

    Returns:
        (V, V), float64, rows that sum to 1: row i holds the probabilities after token i.

    Raises:
        UserError: if smoothing is not above 0.

    Reference: Jurafsky and Martin, Speech and Language Processing, chapter on n-gram models
    (add-k smoothing).
    """
    if not smoothing > 0:
        raise UserError(
            f"smoothing must be above 0, not {smoothing}: a pair that was never counted would be "
            f"impossible, and its loss infinite"
        )
    counts = bigram_counts(ids, vocab_size).double() + smoothing  # (V, V)
    return counts / counts.sum(dim=1, keepdim=True)


def table_loss(probabilities: Tensor, ids: Tensor) -> float:
    """Return the loss of a text under a table of bets, in nats a token.

    Args:
        probabilities: (V, V), row i the probabilities after token i.
        ids: (N,), the text; its first token has none before it and is not scored.
    """
    given = probabilities[ids[:-1].long(), ids[1:].long()]  # (N - 1,), what each token had got
    return float(-given.log().mean())


def compressed_bits_per_byte(data: bytes, name: str, before: bytes = b"") -> float:
    """Return how many bits a compressor needs for a byte of a text.

    Args:
        data: the text.
        name: zlib, bz2 or lzma.
        before: text that the compressor has read already, as a model has read its training text;
            what that part costs by itself is taken off.

    Raises:
        UserError: for an empty text or another compressor.
    """
    if not data:
        raise UserError("bits per byte needs at least 1 byte of text, not 0")
    if name not in COMPRESSORS:
        known = ", ".join(COMPRESSORS)
        raise UserError(f"no compressor {name!r}; there are {known}{nearest(name, COMPRESSORS)}")
    compress = COMPRESSORS[name]
    already = len(compress(before)) if before else 0
    return 8 * (len(compress(before + data)) - already) / len(data)
