"""What a corpus is: documents to train on and documents held out, read as they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt2lib.errors import UserError

Split = Literal["train", "val"]
Read = Callable[[Split], Iterator[str]]


class Piece(NamedTuple):
    """A part of a document, small enough for any memory.

    Attributes:
        text: the part; the next one begins with white space, so that no token spans both.
        ends: whether the document ends here.
    """

    text: str
    ends: bool


Pieces = Callable[[Split], Iterator[Piece]]


@dataclass(frozen=True)
class Corpus:
    """Documents, in two parts.

    Attributes:
        name: what to call it in messages, such as "plays" or "notes.txt".
        fingerprint: equal fingerprints, equal documents (of both parts together).
        licence: under which terms the text may be used, as far as known.
        origin: where the text comes from.
        read: iterates over the documents of a part, from the start each time it is called.
        n_bytes: UTF-8 bytes of all documents, roughly, where that is known beforehand.
        fixed_split: whether the corpus itself says what is held out; `val_fraction` does not
            matter then.
        pieces: the same as `read`, long documents cut in pieces; None where none is long.
    """

    name: str
    fingerprint: str
    licence: str
    origin: str
    read: Read
    n_bytes: int | None = None
    fixed_split: bool = False
    pieces: Pieces | None = None

    def in_pieces(self, split: Split) -> Iterator[Piece]:
        """Iterate over the documents of a part, long ones cut in pieces."""
        if self.pieces is not None:
            return self.pieces(split)
        return (Piece(text, True) for text in self.read(split))

    def train(self) -> Iterator[str]:
        """Iterate over the documents to train on."""
        return self.read("train")

    def val(self) -> Iterator[str]:
        """Iterate over the documents held out; there may be none."""
        return self.read("val")


def digest(*parts: str | bytes) -> str:
    """Return one sha256 for several parts, whose borders matter."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()


def held_out(n: int, fraction: float) -> NDArray[np.bool_]:
    """Say which of `n` documents are held out: the same ones each time, spread at random.

    Neighbouring documents often resemble each other (a sorted folder, a dated archive), so neither
    the last ones nor every tenth one would be a fair sample. Each position gets a hash, and the
    documents with the smallest hashes are held out.

    Args:
        n: number of documents.
        fraction: share to hold out; above 0, at least one document is, and at least one is not.

    Returns:
        True where held out, shape (n,).
    """
    out = np.zeros(n, dtype=np.bool_)
    count = min(max(1, round(n * fraction)), n - 1) if fraction > 0 else 0
    if count > 0:
        # Multiplying by an odd constant permutes the 64-bit words; the golden ratio spreads them,
        # and the shifts and the second product remove the regular steps it would leave.
        word = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        word = (word ^ (word >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
        word = word ^ (word >> np.uint64(32))
        out[np.argpartition(word, count - 1)[:count]] = True
    return out


def split_text(text: str, fraction: float) -> tuple[str, str]:
    """Split one document: its last part is held out.

    The cut moves back to the end of a line if one is less than 1,000 characters before it.

    Returns:
        Both parts; together they are the text. The second is empty if `fraction` is 0 or the
        text has only one character.
    """
    if fraction <= 0 or len(text) < 2:
        return text, ""
    cut = min(max(1, round(len(text) * (1 - fraction))), len(text) - 1)
    line = text.rfind("\n", max(0, cut - 1000), cut) + 1
    cut = line or cut
    return text[:cut], text[cut:]


def split_reader(
    count: Callable[[], int],
    get: Callable[[NDArray[np.int64]], Iterable[str]],
    fraction: float,
) -> Read:
    """Make the `read` of a corpus that has no split of its own.

    Args:
        count: returns the number of documents.
        get: returns the documents at the given positions, which are ascending.
        fraction: share held out.
    """

    def read(split: Split) -> Iterator[str]:
        n = count()
        if n == 1:
            for text in get(np.zeros(1, dtype=np.int64)):
                part = split_text(text, fraction)[split == "val"]
                if part:
                    yield part
            return
        chosen = held_out(n, fraction) == (split == "val")
        yield from get(np.flatnonzero(chosen))

    return read


def corpus_from_texts(
    texts: Iterable[str],
    *,
    val_fraction: float = 0.1,
    name: str = "the texts",
    licence: str = "unknown",
) -> Corpus:
    """Make a corpus of any iterable of strings; each string is a document.

    The strings are kept in memory. Empty ones are left out.

    Raises:
        UserError: if there is nothing in it, or something that is not a string.
    """
    if isinstance(texts, str):
        raise UserError("the texts are one string; give a list of documents, such as [text]")
    kept: list[str] = []
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"document {i} of {name} is not a string but {type(text).__name__}")
        if text:
            kept.append(text)
    if not kept:
        raise UserError(f"{name} holds no text; give at least one document that is not empty")
    return Corpus(
        name=name,
        fingerprint=digest("texts", *kept),
        licence=licence,
        origin="memory",
        read=split_reader(lambda: len(kept), lambda at: (kept[i] for i in at), val_fraction),
        n_bytes=sum(len(text.encode("utf-8", "surrogatepass")) for text in kept),
    )
