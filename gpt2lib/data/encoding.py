"""Documents to ids: one part of a corpus into one token file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from gpt2lib.corpora import Corpus, Split
from gpt2lib.data.files import Header
from gpt2lib.data.progress import follow
from gpt2lib.data.writer import TokenWriter
from gpt2lib.tokenizer import Tokenizer

GROUP = 1 << 20
"""Characters encoded at once: enough to keep all cores busy, little enough for any memory."""


def write_part(
    folder: Path, split: Split, corpus: Corpus, tokenizer: Tokenizer, progress: bool
) -> Header | None:
    """Encode one part of a corpus into `train.tokens` or `val.tokens`.

    Documents are read and encoded a few at a time; only one group is in memory.

    Returns:
        The header, or None (and no file) if the part has no documents.
    """
    path = folder / f"{split}.tokens"
    writer = TokenWriter(path, tokenizer.vocab_size)
    end = [] if tokenizer.eot is None else [tokenizer.eot]
    n_documents = n_bytes = 0
    whole = corpus.n_bytes if split == "train" else None
    try:
        with follow(f"encoding {corpus.name}, {split}", whole, progress) as bar:
            for group in _groups(corpus.read(split)):
                for text, ids in zip(group, tokenizer.encode_batch(group), strict=True):
                    writer.write(ids if n_documents else [*end, *ids])
                    writer.write(end)
                    size = len(text.encode("utf-8"))
                    n_documents, n_bytes = n_documents + 1, n_bytes + size
                    bar.add(size)
    finally:
        writer.close()
    if not n_documents or writer.first is None:
        path.unlink()
        return None
    # The first token is never predicted; where it is not end-of-text, its bytes do not count.
    unscored = 0 if end else len(tokenizer.token_bytes(writer.first))
    return writer.finish(
        name=corpus.name if split == "train" else f"the held-out part of {corpus.name}",
        n_documents=n_documents,
        n_bytes=n_bytes,
        n_scored_bytes=n_bytes - unscored,
        tokenizer=tokenizer.fingerprint,
        source=corpus.fingerprint,
    )


def _groups(documents: Iterable[str]) -> Iterator[list[str]]:
    """Gather documents until they have `GROUP` characters; a longer one is a group by itself."""
    group: list[str] = []
    size = 0
    for text in documents:
        group.append(text)
        size += len(text)
        if size >= GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group
