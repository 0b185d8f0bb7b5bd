"""Documents that a text itself keeps apart, by a special token written between them.

GPT-2's files for fine-tuning are such texts: one file, with `<|endoftext|>` after each document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, takewhile

from gpt2lib.data.sources.corpus import Corpus, Documents, digest


def split_at_borders(corpus: Corpus, border: str) -> Corpus:
    """Return a corpus with a document for each stretch of text between two borders.

    Args:
        corpus: its documents may hold borders. Where some are held out, they stay so.
        border: what is written between documents. It is no part of them, nor is the line's end
            right behind it.
    """

    def cut(documents: Documents) -> Documents:
        return lambda: (part for document in documents() for part in _documents(document, border))

    held_out = corpus.val_documents
    return replace(
        corpus,
        fingerprint=digest("borders", border, corpus.fingerprint),
        documents=cut(corpus.documents),
        val_documents=None if held_out is None else cut(held_out),
    )


def _documents(document: Iterable[str], border: str) -> Iterator[Iterator[str]]:
    """Cut one document; each part is read up to its end before the next one comes."""
    parts = _parts(document, border)
    for first in parts:
        if first:
            inner = chain((first,), takewhile(lambda part: part is not None, parts))
            yield (part for part in inner if part)
            for _ in inner:  # what was not asked for
                pass


def _parts(document: Iterable[str], border: str) -> Iterator[str | None]:
    """Iterate over the text of a document, and None for each border."""
    line, text = re.compile(re.escape(border) + "(\r?\n)?"), ""
    for part in chain(document, (None,)):
        text += part or ""
        # A border that begins before `end` is known whole, and so is the end of its line.
        end = len(text) if part is None else max(0, len(text) - len(border) - 2)
        at = 0
        for found in takewhile(lambda found: found.start() < end, line.finditer(text)):  # noqa: B023
            yield text[at : found.start()]
            yield None
            at = found.end()
        end = max(at, end)
        yield text[at:end]
        text = text[end:]
