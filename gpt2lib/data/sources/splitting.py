"""Which documents are held out: the same ones each time, without holding them in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2lib.data.sources.base import Piece, Pieces, Split

Documents = Callable[[], Iterator[Iterable[Piece]]]
"""Iterates over documents, from the start each time; a document that is left out costs little."""
COUNTED = 1 << 17
"""Documents up to which a share is exact; of more, each is held out with that probability."""
LINE = 1000  # characters by which a cut may move back to the end of a line
_WORDS = 1 << 64


def _word(i: Any) -> Any:
    """Return 64 bits for a position that look random and are never the same for two positions.

    Takes and returns a number or an array of uint64.

    Multiplying by an odd constant permutes the 64-bit words; the golden ratio spreads them, and
    the shifts and the second product remove the regular steps it would leave.
    """
    mask = _WORDS - 1
    word = (i + 1) * 0x9E3779B97F4A7C15 & mask
    word = (word ^ (word >> 32)) * 0xD6E8FEB86659FD93 & mask
    return word ^ (word >> 32)


def _limit(n: int | None, fraction: float) -> int:
    """Return the number below which the word of a document that is held out lies.

    Args:
        n: number of documents, exact up to `COUNTED`; None if unknown.
        fraction: share to hold out.
    """
    if fraction <= 0 or n in (0, 1):
        return 0
    share = int(fraction * _WORDS)
    if n is None:
        return share
    words = np.sort(_word(np.arange(min(n, COUNTED), dtype=np.uint64)))
    if n <= COUNTED:
        return int(words[min(max(1, round(n * fraction)), n - 1) - 1]) + 1
    return min(max(share, int(words[0]) + 1), int(words[-1]))  # never none, never all


def held_out(n: int, fraction: float) -> NDArray[np.bool_]:
    """Say which of `n` documents are held out: the same ones each time, spread at random.

    Neighbouring documents often resemble each other (a sorted folder, a dated archive), so neither
    the last ones nor every tenth one would be a fair sample. Each position gets a hash, and the
    documents with the smallest hashes are held out.

    Args:
        n: number of documents.
        fraction: share to hold out; above 0, at least one document is, and at least one is not.
            Up to `COUNTED` documents it is exact.

    Returns:
        True where held out, shape (n,).
    """
    limit = min(_limit(n, fraction), _WORDS - 1)
    words: NDArray[np.uint64] = _word(np.arange(n, dtype=np.uint64))
    return words < np.uint64(limit)


def cut_at(length: int, fraction: float) -> int | None:
    """Return where the held-out part of a single document begins; None if there is none."""
    if fraction <= 0 or length < 2:
        return None
    return min(max(1, round(length * (1 - fraction))), length - 1)


def split_text(text: str, fraction: float) -> tuple[str, str]:
    """Split one document: its last part is held out.

    The cut moves back to the end of a line if one is less than 1,000 characters before it.

    Returns:
        Both parts; together they are the text. The second is empty if `fraction` is 0 or the
        text has only one character.
    """
    cut = cut_at(len(text), fraction)
    if cut is None:
        return text, ""
    cut = (text.rfind("\n", max(0, cut - LINE), cut) + 1) or cut
    return text[:cut], text[cut:]


def split_pieces(pieces: Iterable[Piece], cut: int) -> Iterator[tuple[Split, Piece]]:
    """Split one document as `split_text` does, with no more than two pieces in memory.

    Args:
        pieces: the document.
        cut: from `cut_at`, below the length of the document.
    """
    held, start, passed = "", 0, False  # held: the text from `start` on that waits for the cut
    for text, ends in pieces:
        held += text
        end = start + len(held)
        if passed:
            yield "val", Piece(held, ends)
        elif end < cut:
            if end > cut - LINE:
                continue
            yield "train", Piece(held, False)
        else:
            place = (held.rfind("\n", max(0, cut - LINE - start), cut - start) + 1) or cut - start
            yield "train", Piece(held[:place], True)
            if place < len(held):
                yield "val", Piece(held[place:], ends)
            passed = True
        held, start = "", end


def split_documents(documents: Documents, fraction: float, *, counted: bool = True) -> Pieces:
    """Make the `pieces` of a corpus that has no split of its own.

    The documents are counted when the first part is read, up to `COUNTED` of them: a preparation
    that is found in the cache never reads them.

    Args:
        documents: iterates over the documents, none of them empty.
        fraction: share held out.
        counted: False if counting would cost too much; the share is then a probability only.
    """
    known: list[tuple[int | None, int]] = []

    def measured() -> tuple[int | None, int]:
        if not known:
            known.append(_measure(documents) if counted else (None, 0))
        return known[0]

    def pieces(split: Split) -> Iterator[Piece]:
        n, length = measured() if fraction > 0 else (None, 0)
        cut = cut_at(length, fraction) if n == 1 else None
        if cut is not None:
            for document in documents():
                yield from (piece for part, piece in split_pieces(document, cut) if part == split)
            return
        limit = _limit(n, fraction)
        for i, document in enumerate(documents()):
            if (_word(i) < limit) == (split == "val"):
                yield from document

    return pieces


def _measure(documents: Documents) -> tuple[int, int]:
    """Return the number of documents, at most one above `COUNTED`, and a single one's length."""
    some = documents()
    if next(some, None) is None:
        return 0, 0
    n = 1 + sum(1 for _ in islice(some, COUNTED))
    return n, sum(len(text) for text, _ in next(documents())) if n == 1 else 0
