"""Documents to ids: one part of a corpus into one row of tokens.

The source is read in pieces and encoded a few at a time, so that neither a long document nor its
ids are ever whole in memory. `tokenizer.encode_batch` spreads a group over all cores, and reading
and writing are short beside it, so a reader in a thread of its own would gain little and cost the
memory of another group; `benchmarks/preparation.py` prints how many cores are busy. (In a process
forked after its parent has encoded, `tokenizers` works on one core, and says so.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt2lib.data.progress import Progress
from gpt2lib.data.shards import Shard
from gpt2lib.data.sources import Corpus, Split
from gpt2lib.data.sources.base import Piece, joined
from gpt2lib.data.token_files import Header
from gpt2lib.data.work import Position, Work
from gpt2lib.data.writer import TokenWriter
from gpt2lib.tokenizer import Tokenizer
from gpt2lib.utils.errors import UserError

GROUP = 1 << 20
"""Characters encoded at once: enough to keep all cores busy, little enough for any memory."""


def write_part(
    work: Work, split: Split, corpus: Corpus, tokenizer: Tokenizer, bar: Progress
) -> Header | None:
    """Encode one part of a corpus into shards, after those that are done already.

    Returns:
        The header, or None (and no file) if the part has no documents.
    """
    bar.name(f"encoding {corpus.name}, {split}")
    if header := work.finished(split):
        bar.skip(header.n_bytes)
        return header
    done = work.done(split, tokenizer.vocab_size)
    at = done[-1].position if done else Position()
    writer = TokenWriter(
        work.folder / f"{split}.json",
        tokenizer.vocab_size,
        work.shard_tokens,
        [entry.shard for entry in done],
    )
    bar.skip(at.n_bytes)
    try:
        for group in _encoded(corpus, split, tokenizer, at.pieces):
            begin = at

            def sealed(
                shard: Shard, n: int, group: Encoded = group, begin: Position = begin
            ) -> None:
                work.add(split, shard, group.position(begin, begin.into + n))

            writer.write(group.ids[begin.into :], sealed)
            at = group.position(begin, len(group.ids))
            bar.add(at.n_bytes - begin.n_bytes)
        if not writer.n_tokens:
            return None
        writer.seal()
        # The first token is never predicted; where it is not end-of-text, its bytes do not count.
        unscored = len(tokenizer.token_bytes(writer.first)) if tokenizer.eot is None else 0
        return writer.finish(
            name=corpus.name if split == "train" else f"the held-out part of {corpus.name}",
            n_documents=at.n_documents,
            n_bytes=at.n_bytes,
            n_scored_bytes=at.n_bytes - unscored,
            tokenizer=tokenizer.fingerprint,
            source=corpus.fingerprint,
        )
    finally:
        writer.close()


class Encoded(NamedTuple):
    """A group of P pieces and its ids.

    Attributes:
        ids: the ids of all pieces, with end-of-text after each document.
        tokens: how many of them the pieces up to and with each have, shape (P,).
        n_documents: documents that end in the pieces up to and with each, (P,).
        n_bytes: UTF-8 bytes of the pieces up to and with each, (P,).
    """

    ids: NDArray[np.int64]
    tokens: NDArray[np.int64]
    n_documents: NDArray[np.int64]
    n_bytes: NDArray[np.int64]

    def position(self, begin: Position, n: int) -> Position:
        """Return where the source stands after `n` of the ids.

        Args:
            begin: the position before the group.
            n: ids written, counted from the start of the group.
        """
        whole = int(np.searchsorted(self.tokens, n, side="right"))  # pieces written whole
        if not whole:
            return begin._replace(into=n)
        last = whole - 1
        return Position(
            pieces=begin.pieces + whole,
            into=n - int(self.tokens[last]),
            n_documents=begin.n_documents + int(self.n_documents[last]),
            n_bytes=begin.n_bytes + int(self.n_bytes[last]),
        )


def _encoded(corpus: Corpus, split: Split, tokenizer: Tokenizer, skipped: int) -> Iterator[Encoded]:
    """Encode the pieces of a part, but for the first `skipped`, a group at a time."""
    pieces = _read(corpus, split)
    if not tokenizer.encodes_pieces:
        # Its tokens may span two pieces, so it gets documents whole.
        pieces = (Piece(text, True) for text in joined(pieces))
    end = [] if tokenizer.eot is None else [tokenizer.eot]
    lead = [] if skipped else end
    for group in _groups(islice(pieces, skipped, None)):
        rows = tokenizer.encode_batch([piece.text for piece in group])
        rows[0] = lead + rows[0]
        lead = []
        for piece, row in zip(group, rows, strict=True):
            if piece.ends:
                row.extend(end)
        sizes = [len(piece.text.encode("utf-8")) for piece in group]
        yield Encoded(
            np.concatenate([np.asarray(row, dtype=np.int64) for row in rows]),
            np.cumsum([len(row) for row in rows]),
            np.cumsum([piece.ends for piece in group]),
            np.cumsum(sizes),
        )


def _read(corpus: Corpus, split: Split) -> Iterator[Piece]:
    """Iterate over the pieces; what the system refuses on the way is the source's fault."""
    try:
        yield from corpus.in_pieces(split)
    except OSError as error:
        raise UserError(f"cannot read {corpus.name}: {error.strerror or error}") from error


def _groups(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Gather pieces until they have `GROUP` characters; a longer one ends its group."""
    group: list[Piece] = []
    size = 0
    for piece in pieces:
        group.append(piece)
        size += len(piece.text)
        if size >= GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group
