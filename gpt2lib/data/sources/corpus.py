"""What a corpus is: documents to train on and documents held out, read as they are needed.

A source says how its documents are read. Which of them are held out (`split`), and where long ones
are cut, is decided here, the same way each time and without a document or a list of them in memory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from gpt2lib.data.sources.split import HeldOut, by_bytes, limit
from gpt2lib.tokenizer.base import CUT

Split = Literal["train", "val"]
Documents = Callable[[], Iterator[Iterable[str]]]
"""Iterates over documents, from the start each time; none is empty. A document comes in parts of
any size, and one whose parts are not asked for costs little."""
CHUNK = 1 << 20
"""Characters after which a long document is cut where a tokenizer always cuts."""
LONGEST = 8 << 20
"""Characters after which it is cut anywhere: nothing that long is without white space by right."""
LINE = 1000  # characters by which a split may move back to the end of a line


class Context(str):
    """A part of a document that is read and not learned: a prompt, as a template writes it."""

    __slots__ = ()


class Chunk(NamedTuple):
    """A part of a document, small enough for any memory.

    Attributes:
        text: the part; the next one begins with white space, so that no token spans both (but
            after `LONGEST` characters without any, where it cannot be helped).
        ends: whether the document ends here.
        split: whether it is trained on or held out.
        learned: whether its tokens are targets, or only read.
    """

    text: str
    ends: bool
    split: Split = "train"
    learned: bool = True


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
        val_fraction: share of the bytes of `documents` that is held out otherwise (`split`).
        n_bytes: UTF-8 bytes of all documents, roughly, where that is known beforehand.
        n_files: how many files there are, if it is files.
        copies: of `val_documents`, how many are also trained on, as far as known.
        reads: the fields of the configuration that say how this source is read.
        example: a row as its template writes it, with what is learned in double brackets; empty
            where there is no template.
        counted: False where weighing the documents would cost too much; each is then held out with
            that probability.
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
    n_files: int | None = None
    copies: int = 0
    reads: tuple[str, ...] = ()
    example: str = ""

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
        held = self._held_out
        for i, document in enumerate(self.documents()):
            if held.cut is not None and i == held.cut[0]:
                whole = _split_chunks(cut_in_chunks(document), held.cut[1])
                yield from (chunk for chunk in whole if chunk.split in splits)
                continue
            part: Split = "val" if held.holds(i) else "train"
            if part in splits:
                yield from cut_in_chunks(document, part)

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
    def _held_out(self) -> HeldOut:
        """What is held out of the documents, where the source does not say it itself.

        They are weighed when the first one is wanted: a preparation that is found in the cache
        never does that.
        """
        if self.val_fraction <= 0 or not self.counted:
            return HeldOut(limit(None, self.val_fraction))
        if self.example:  # a row cut in two would be half an answer
            return by_bytes(self.documents(), self.val_fraction, may_cut=False)
        return by_bytes(self.documents(), self.val_fraction)

    @property
    def split_fingerprint(self) -> str:
        """Equal ones, equal documents in each split.

        Where a share of the documents' number would have chosen the same ones, as it once was,
        it is that of the text alone: a run that began then goes on.
        """
        if self.fixed_split or self._held_out.as_counted:
            return self.fingerprint
        return digest("share of bytes", self.fingerprint, repr(self.val_fraction))

    @property
    def about_split(self) -> dict[str, Any]:
        """What else is worth knowing of the split: whether it cuts a document, and the copies."""
        if self.fixed_split:
            return {"cut": False, "copies": self.copies}
        return {"cut": self._held_out.cut is not None, "copies": self._held_out.copies}


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
    text, looked, learned = "", CHUNK, True
    for part in document:
        if text and learned == isinstance(part, Context):  # no token may be half of each
            yield Chunk(text, False, split, learned)
            text, looked = "", CHUNK
        learned = not isinstance(part, Context)
        text += part
        while (cut := _cut(text, looked)) is not None:
            yield Chunk(text[:cut], False, split, learned)
            text, looked = text[cut:], CHUNK
        looked = max(CHUNK, len(text) - 1)  # the last character may yet be followed by a space
    yield Chunk(text, True, split, learned)


def _cut(text: str, start: int) -> int | None:
    """Return where to cut: at the first good position from `start` on, as far as it is known."""
    if len(text) <= start + 1:
        return None
    found = CUT.search(text, start, LONGEST)
    if found is not None:
        return found.end()
    return LONGEST if len(text) > LONGEST else None


def whole_documents(chunks: Iterable[Chunk], apart: bool = False) -> Iterator[Chunk]:
    """Put chunks together to whole documents again; `apart` keeps what is only read by itself."""
    parts: list[str] = []
    learned = True
    for chunk in chunks:
        if apart and parts and learned != chunk.learned:
            yield Chunk("".join(parts), False, chunk.split, learned)
            parts.clear()
        parts.append(chunk.text)
        learned = chunk.learned
        if chunk.ends:
            yield chunk._replace(text="".join(parts))
            parts.clear()


def _split_chunks(chunks: Iterable[Chunk], cut: int) -> Iterator[Chunk]:
    """Split one document at `cut`, or at the end of a line less than `LINE` characters before it.

    No more than two chunks are in memory. Both splits get text; together they are the document.
    """
    waiting, start, passed = "", 0, False  # waiting: the text from `start` on, not yet split
    for text, ends, *_ in chunks:
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
