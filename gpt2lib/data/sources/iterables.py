"""Documents that are strings in memory, or come from any Python iterable."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO

from gpt2lib.data.sources.corpus import Corpus, digest
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import cache_dir

_LENGTH = 8  # bytes before each document, in the hash and in a spool


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
    return corpus_from_iterable(kept, val_fraction=val_fraction, name=name, licence=licence)


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
    make = texts if callable(texts) else _again(texts, name)
    sha, n_bytes = hashlib.sha256(), 0
    if fingerprint is None:
        for text in _checked(make(), name):
            record = _record(text)
            sha.update(record)
            n_bytes += len(record) - _LENGTH
        if not n_bytes:
            raise UserError(f"{name} holds no text; give at least one document that is not empty")

    def documents() -> Iterator[tuple[str]]:
        again = hashlib.sha256()
        for text in _checked(make(), name):
            if fingerprint is None:
                again.update(_record(text))
            yield (text,)
        if fingerprint is None and again.digest() != sha.digest():
            raise UserError(
                f"{name} gave other documents when read again; the function must return the same "
                "ones at each call, for instance by a fixed seed"
            )

    return Corpus(
        name,
        digest("texts", fingerprint or sha.hexdigest()),
        licence,
        "memory",
        documents,
        val_fraction=val_fraction,
        n_bytes=n_bytes or None,
    )


def _again(texts: Iterable[str], name: str) -> Callable[[], Iterable[str]]:
    """Return a function that reads an iterable as often as it is called."""
    return _spool(_checked(texts, name), name) if isinstance(texts, Iterator) else lambda: texts


def _checked(texts: Iterable[str], name: str) -> Iterator[str]:
    """Leave out what is empty, refuse what is no string."""
    if isinstance(texts, str):
        raise UserError("the texts are one string; give a list of documents, such as [text]")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"document {i} of {name} is not a string but {type(text).__name__}")
        if text:
            yield text


def _record(text: str) -> bytes:
    """Return the bytes of a document with their number before them: their borders matter."""
    data = text.encode("utf-8", "surrogatepass")
    return len(data).to_bytes(_LENGTH) + data


def _spool(texts: Iterator[str], name: str) -> Callable[[], Iterator[str]]:
    """Write documents to a file without a name, which goes when nobody needs it."""
    folder = cache_dir()

    @contextmanager
    def clear_errors() -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write the documents of {name} to {folder} ({error.strerror or error}); "
                "set $GPT2LIB_CACHE to another folder"
            ) from error

    with clear_errors():
        folder.mkdir(parents=True, exist_ok=True)
        file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    for text in texts:  # what the generator itself raises is not the disk's fault
        with clear_errors():
            file.write(_record(text))
    with clear_errors():
        file.flush()

    def read() -> Iterator[str]:
        at = 0
        while True:
            file.seek(at)  # another reader may be at another position
            size = int.from_bytes(file.read(_LENGTH))
            if not size:
                return
            yield file.read(size).decode("utf-8", "surrogatepass")
            at += _LENGTH + size

    return read
