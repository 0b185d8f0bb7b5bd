"""What a corpus is: documents to train on and documents held out, read as they are needed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gpt2lib.tokenizer.chunks import CUT

Split = Literal["train", "val"]
Read = Callable[[Split], Iterator[str]]
PIECE = 1 << 20
"""Characters after which a long document is cut at the next good place."""
LONGEST = 8 << 20
"""Characters after which it is cut anywhere: nothing that long is without white space by right."""


class Piece(NamedTuple):
    """A part of a document, small enough for any memory.

    Attributes:
        text: the part; the next one begins with white space, so that no token spans both (but
            after `LONGEST` characters without any, where it cannot be helped).
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


def cut_in_pieces(chunks: Iterable[str]) -> Iterator[Piece]:
    """Cut one document, given in chunks of any size, into pieces of about `PIECE` characters.

    The cuts depend on the text alone, not on the chunks, and lie where the tokenizer always cuts,
    so the pieces' ids, joined, are the ids of the whole. At least one piece comes.
    """
    text, looked = "", PIECE
    for chunk in chunks:
        text += chunk
        while (cut := _place(text, looked)) is not None:
            yield Piece(text[:cut], False)
            text, looked = text[cut:], PIECE
        looked = max(PIECE, len(text) - 1)  # the last character may yet be followed by a space
    yield Piece(text, True)


def text_in_pieces(text: str) -> Iterable[Piece]:
    """Cut a document that is in memory, as `cut_in_pieces` does."""
    return (Piece(text, True),) if len(text) <= PIECE else cut_in_pieces((text,))


def _place(text: str, start: int) -> int | None:
    """Return where to cut: behind the first good place from `start` on, as far as it is known."""
    if len(text) <= start + 1:
        return None
    found = CUT.search(text, start, LONGEST)
    if found is not None:
        return found.end()
    return LONGEST if len(text) > LONGEST else None


def joined(pieces: Iterable[Piece]) -> Iterator[str]:
    """Put pieces together to whole documents again."""
    parts: list[str] = []
    for text, ends in pieces:
        parts.append(text)
        if ends:
            yield parts[0] if len(parts) == 1 else "".join(parts)
            parts.clear()


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line without its last full stop."""
    said = next(iter(str(error).splitlines()), "") or type(error).__name__
    return re.sub(r"^\[Errno \d+\] |\.$", "", said)
