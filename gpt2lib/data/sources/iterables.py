"""Documents that are strings in memory, or come from any Python iterable."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO

from gpt2lib.data.sources.base import Corpus, Piece, Read, digest, joined, text_in_pieces
from gpt2lib.data.sources.named import cache_dir
from gpt2lib.data.sources.splitting import split_documents
from gpt2lib.utils.errors import UserError

_LENGTH = 8  # bytes before each document in a spool


def corpus_from_texts(
    texts: Iterable[str],
    *,
    val_fraction: float = 0.1,
    name: str = "the texts",
    licence: str = "unknown",
) -> Corpus:
    """Make a corpus of any iterable of strings; each string is a document.

    The strings are kept in memory; `corpus_from_iterable` does not. Empty ones are left out.

    Raises:
        UserError: if there is nothing in it, or something that is not a string.
    """
    kept = list(_checked(texts, name))
    return corpus_from_iterable(
        lambda: iter(kept), val_fraction=val_fraction, name=name, licence=licence
    )


def corpus_from_iterable(
    texts: Callable[[], Iterable[str]] | Iterable[str],
    *,
    val_fraction: float = 0.1,
    name: str = "the texts",
    licence: str = "unknown",
    fingerprint: str | None = None,
) -> Corpus:
    """Make a corpus of strings that need not fit into memory; each string is a document.

    Args:
        texts: a function that returns a fresh iterable of the same strings at each call (they are
            read at once for the fingerprint, and again when needed), an iterable such as a list
            that can be read again, or a generator, which is written to a file in the cache first.
        val_fraction: share held out.
        name: what to call it in messages.
        licence: under which terms the text may be used.
        fingerprint: spares the first pass, where it is known what the strings are.

    Raises:
        UserError: if there is nothing in it, or something that is not a string; while reading, if
            the strings are not those of the first pass.
    """
    if not callable(texts):
        if isinstance(texts, str):
            raise UserError("the texts are one string; give a list of documents, such as [text]")
        texts = _Spool(texts, name) if isinstance(texts, Iterator) else _again(texts)
    make = texts

    def checked() -> Iterator[str]:
        return _checked(make(), name)

    known = None if fingerprint else _hash(checked())
    if known == _hash(()):
        raise UserError(f"{name} holds no text; give at least one document that is not empty")

    def documents() -> Iterator[Iterable[Piece]]:
        seen = checked() if known is None else _same(checked(), known[0], name)
        return (text_in_pieces(text) for text in seen)

    pieces = split_documents(documents, val_fraction)
    read: Read = lambda split: joined(pieces(split))  # noqa: E731
    return Corpus(
        name=name,
        fingerprint=digest("texts", fingerprint or known[0]),  # type: ignore[index]
        licence=licence,
        origin="memory",
        read=read,
        n_bytes=known[1] if known else None,
        pieces=pieces,
    )


def _again(texts: Iterable[str]) -> Callable[[], Iterable[str]]:
    return lambda: texts


def _checked(texts: Iterable[str], name: str) -> Iterator[str]:
    """Leave out what is empty, refuse what is no string."""
    if isinstance(texts, str):
        raise UserError("the texts are one string; give a list of documents, such as [text]")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"document {i} of {name} is not a string but {type(text).__name__}")
        if text:
            yield text


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


class _Hasher:
    """The sha256 of documents, whose borders matter."""

    def __init__(self) -> None:
        self.sha = hashlib.sha256()
        self.n_bytes = 0

    def add(self, text: str) -> None:
        data = _bytes(text)
        self.sha.update(len(data).to_bytes(_LENGTH) + data)
        self.n_bytes += len(data)


def _hash(texts: Iterable[str]) -> tuple[str, int]:
    """Return the sha256 of documents and the number of their bytes."""
    hasher = _Hasher()
    for text in texts:
        hasher.add(text)
    return hasher.sha.hexdigest(), hasher.n_bytes


def _same(texts: Iterable[str], expected: str, name: str) -> Iterator[str]:
    """Pass documents on; complain at the end if they were not the expected ones."""
    hasher = _Hasher()
    for text in texts:
        hasher.add(text)
        yield text
    if hasher.sha.hexdigest() != expected:
        raise UserError(
            f"{name} gave other documents when read again; the function must return the same ones "
            "at each call, for instance by a fixed seed"
        )


class _Spool:
    """The documents of a generator, in a file without a name, which goes when nobody needs it."""

    def __init__(self, texts: Iterable[str], name: str) -> None:
        self.folder, self.name = cache_dir(), name
        with self._clear_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.file: IO[bytes] = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115
        for text in _checked(texts, name):
            data = _bytes(text)
            with self._clear_errors():
                self.file.write(len(data).to_bytes(_LENGTH) + data)
        with self._clear_errors():
            self.file.flush()

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write the documents of {self.name} to {self.folder} "
                f"({error.strerror or error}); set $GPT2LIB_CACHE to a folder with room"
            ) from error

    def __call__(self) -> Iterator[str]:
        at = 0
        while True:
            self.file.seek(at)  # another reader may be at another place
            size = int.from_bytes(self.file.read(_LENGTH))
            if not size:
                return
            yield self.file.read(size).decode("utf-8", "surrogatepass")
            at += _LENGTH + size
