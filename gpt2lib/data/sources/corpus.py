"""What a corpus is: documents to train on and documents held out, read as they are needed.

A source says how its documents are read. Which of them are held out, and where long ones are cut,
is decided here, the same way each time and without a document or a list of them in memory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt2lib.tokenizer.base import CUT

Split = Literal["train", "val"]
Documents = Callable[[], Iterator[Iterable[str]]]
"""Iterates over documents, from the start each time; none is empty. A document comes in parts of
any size, and one whose parts are not asked for costs little."""
CHUNK = 1 << 20
"""Characters after which a long document is cut where a tokenizer always cuts."""
LONGEST = 8 << 20
"""Characters after which it is cut anywhere: nothing that long is without white space by right."""
COUNTED = 1 << 17
"""Documents up to which a share is exact; of more, each is held out with that probability."""
LINE = 1000  # characters by which a split may move back to the end of a line
_WORDS = 1 << 64


class Chunk(NamedTuple):
    """A part of a document, small enough for any memory.

    Attributes:
        text: the part; the next one begins with white space, so that no token spans both (but
            after `LONGEST` characters without any, where it cannot be helped).
        ends: whether the document ends here.
        split: whether it is trained on or held out.
    """

    text: str
    ends: bool
    split: Split = "train"


@dataclass(frozen=True)
class Corpus:
    """Documents, in two splits.

    Attributes:
        name: what to call it in messages, such as "plays" or "notes.txt".
        fingerprint: equal fingerprints, equal documents (of both splits together).
        licence: under which terms the text may be used, as far as known.
        origin: where the text comes from.
        documents: reads the documents.
        val_documents: reads those that the source itself holds out; `documents` are then all to
            be trained on.
        val_fraction: share of `documents` that is held out otherwise; of a single one, its end.
        n_bytes: UTF-8 bytes of all documents, roughly, where that is known beforehand.
        reads: the fields of the configuration that say how this source is read.
        counted: False where counting the documents would cost too much; the share is then only a
            probability.
    """

    name: str
    fingerprint: str
    licence: str
    origin: str
    documents: Documents
    val_documents: Documents | None = None
    val_fraction: float = 0.0
    n_bytes: int | None = None
    counted: bool = True
    reads: tuple[str, ...] = ()

    @property
    def fixed_split(self) -> bool:
        """Whether the source itself says what is held out; `val_fraction` does not matter then."""
        return self.val_documents is not None

    def chunks(self, *splits: Split) -> Iterator[Chunk]:
        """Read the documents of some splits once, in the order of the source, cut in chunks."""
        if self.val_documents is not None:
            given: dict[Split, Documents] = {"train": self.documents, "val": self.val_documents}
            for split, documents in given.items():
                for document in documents() if split in splits else ():
                    yield from cut_in_chunks(document, split)
            return
        limit, end = self._held_out
        if end is not None:  # of a single document
            for document in self.documents():
                for chunk in _split_chunks(cut_in_chunks(document), end):
                    if chunk.split in splits:
                        yield chunk
            return
        for i, document in enumerate(self.documents()):
            split = "val" if _word(i) < limit else "train"
            if split in splits:
                yield from cut_in_chunks(document, split)

    def read(self, split: Split) -> Iterator[str]:
        """Iterate over the documents of a split."""
        return (document.text for document in whole_documents(self.chunks(split)))

    def train(self) -> Iterator[str]:
        """Iterate over the documents to train on."""
        return self.read("train")

    def val(self) -> Iterator[str]:
        """Iterate over the documents held out; there may be none."""
        return self.read("val")

    @cached_property
    def _held_out(self) -> tuple[int, int | None]:
        """Below which hash a document is held out; or from which character on, if there is one.

        The documents are counted, up to `COUNTED` of them, when the first one is wanted: a
        preparation that is found in the cache never does.
        """
        if self.val_fraction <= 0 or not self.counted:
            return _limit(None, self.val_fraction), None
        n = sum(1 for _ in islice(self.documents(), COUNTED + 1))
        length = sum(len(text) for text in next(self.documents())) if n == 1 else 0
        if length > 1:
            return 0, min(max(1, round(length * (1 - self.val_fraction))), length - 1)
        return _limit(n, self.val_fraction), None


def digest(*parts: str | bytes) -> str:
    """Return one sha256 for several parts, whose borders matter."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line without its last full stop."""
    said = next(iter(str(error).splitlines()), "") or type(error).__name__
    return re.sub(r"^\[Errno \d+\] |\.$", "", said)


def cut_in_chunks(document: Iterable[str], split: Split = "train") -> Iterator[Chunk]:
    """Cut one document, given in parts of any size, into chunks of about `CHUNK` characters.

    The cuts depend on the text alone, not on the parts, and lie where the tokenizer always cuts,
    so the chunks' ids, joined, are the ids of the whole. At least one chunk comes.
    """
    text, looked = "", CHUNK
    for part in document:
        text += part
        while (cut := _cut(text, looked)) is not None:
            yield Chunk(text[:cut], False, split)
            text, looked = text[cut:], CHUNK
        looked = max(CHUNK, len(text) - 1)  # the last character may yet be followed by a space
    yield Chunk(text, True, split)


def _cut(text: str, start: int) -> int | None:
    """Return where to cut: at the first good position from `start` on, as far as it is known."""
    if len(text) <= start + 1:
        return None
    found = CUT.search(text, start, LONGEST)
    if found is not None:
        return found.end()
    return LONGEST if len(text) > LONGEST else None


def whole_documents(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Put chunks together to whole documents again."""
    parts: list[str] = []
    for chunk in chunks:
        parts.append(chunk.text)
        if chunk.ends:
            yield chunk if len(parts) == 1 else Chunk("".join(parts), True, chunk.split)
            parts.clear()


def _word(i: Any) -> Any:
    """Hash a position, or an array of them as uint64, to 64 bits, never two to the same.

    Multiplying by an odd constant permutes the 64-bit words; the golden ratio spreads them, and
    the shifts and the second product remove the regular steps it would leave.
    """
    mask = _WORDS - 1
    word = (i + 1) * 0x9E3779B97F4A7C15 & mask
    word = (word ^ (word >> 32)) * 0xD6E8FEB86659FD93 & mask
    return word ^ (word >> 32)


def _limit(n: int | None, fraction: float) -> int:
    """Return below which hash one of `n` documents (None: it is not known how many) is held out."""
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


def _split_chunks(chunks: Iterable[Chunk], cut: int) -> Iterator[Chunk]:
    """Split one document at `cut`, or at the end of a line less than `LINE` characters before it.

    No more than two chunks are in memory. Both splits get text; together they are the document.
    """
    waiting, start, passed = "", 0, False  # waiting: the text from `start` on, not yet split
    for text, ends, _ in chunks:
        waiting += text
        end = start + len(waiting)
        if passed:
            yield Chunk(waiting, ends, "val")
        elif end < cut:
            if end > cut - LINE:
                continue
            yield Chunk(waiting, False, "train")
        else:
            at = (waiting.rfind("\n", max(0, cut - LINE - start), cut - start) + 1) or cut - start
            yield Chunk(waiting[:at], True, "train")
            if at < len(waiting):
                yield Chunk(waiting[at:], ends, "val")
            passed = True
        waiting, start = "", end
