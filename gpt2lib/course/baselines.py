"""What a loss has to beat: blind guessing, counting, and compressors.

Each baseline is a bet on the next token that needs no network. The loss of such a bet is
computed as a model's is, in nats a token, so the two stand on one scale.

Shapes: V vocabulary, N tokens.
"""

from __future__ import annotations

import bz2
import lzma
import math
import zlib
from collections.abc import Callable

import torch
from torch import Tensor

from gpt2lib.utils.errors import UserError, nearest

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "zlib": lambda data: zlib.compress(data, 9),
    "bz2": lambda data: bz2.compress(data, 9),
    "lzma": lambda data: lzma.compress(data, preset=9),
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
        UserError: if smoothing is not above 0 and finite.

    Reference: Jurafsky and Martin, Speech and Language Processing, chapter on n-gram models
    (add-k smoothing).
    """
    _check_smoothing(smoothing)
    counts = bigram_counts(ids, vocab_size).double() + smoothing  # (V, V)
    return counts / counts.sum(dim=1, keepdim=True)


def _check_smoothing(smoothing: float) -> None:
    if not 0 < smoothing < math.inf:
        raise UserError(
            f"smoothing must be above 0 and finite, not {smoothing}: without it what was never "
            f"counted would be impossible, and its loss infinite"
        )


def table_loss(probabilities: Tensor, ids: Tensor) -> float:
    """Return the loss of a text under a table of bets, in nats a token.

    Args:
        probabilities: (V, V), row i the probabilities after token i.
        ids: (N,), the text; its first token has none before it and is not scored.
    """
    given = probabilities[ids[:-1].long(), ids[1:].long()]  # (N - 1,), what each token had got
    return float(-given.log().mean())


def ngram_loss(
    train: Tensor, held_out: Tensor, n: int, vocab_size: int, smoothing: float
) -> tuple[float, float]:
    """Return the loss of betting on what followed the same n - 1 tokens before.

    Only what was seen is stored, so n may be large where a table of V**n cells could not be.

    Args:
        train: (N,), the tokens to count.
        held_out: (M,), the text to score; its first n - 1 tokens are not scored.
        n: tokens in a group: 1 looks at no context, 2 is the bigram.
        vocab_size: V.
        smoothing: added to the count of every token after every context.

    Returns:
        The loss in nats a token, and the share of scored places whose context was never seen.

    Raises:
        UserError: if smoothing is not above 0, or n is below 1 or too large to number the groups.
    """
    _check_smoothing(smoothing)
    if n < 1 or vocab_size**n >= 2**63:
        raise UserError(
            f"n must be at least 1, and vocab_size**n below 2**63; n is {n}, vocab_size "
            f"{vocab_size}"
        )
    groups = _numbered(train, n, vocab_size)  # (N - n + 1,)
    wanted = _numbered(held_out, n, vocab_size)  # (M - n + 1,)
    seen = _look_up(groups, wanted).double()
    before = _look_up(groups // vocab_size, wanted // vocab_size).double()
    given = (seen + smoothing) / (before + smoothing * vocab_size)
    return float(-given.log().mean()), float((before == 0).double().mean())


def _numbered(ids: Tensor, n: int, vocab_size: int) -> Tensor:
    """Give every group of n neighbouring tokens a number: its digits to base V are the tokens."""
    place = vocab_size ** torch.arange(n - 1, -1, -1)  # (n,)
    return (ids.long().unfold(0, n, 1) * place).sum(dim=1)  # (N - n + 1,)


def _look_up(numbers: Tensor, wanted: Tensor) -> Tensor:
    """Return how often each wanted number is among the numbers."""
    known, counts = torch.unique(numbers, return_counts=True)  # sorted
    at = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
    return torch.where(known[at] == wanted, counts[at], 0)


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
