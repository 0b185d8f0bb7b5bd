"""From documents to ids: the tokenizer is learned, then every document is encoded, once.

The source is read in chunks and encoded a few at a time, so that neither a long document nor its
ids are ever whole in memory. `tokenizer.encode_batch` spreads a group over all cores, and reading
and writing are short beside it, so a reader in a thread of its own would gain little and cost the
memory of another group; `benchmarks/preparation.py` prints how many cores are busy. (In a process
forked after its parent has encoded, `tokenizers` works on one core, and says so.)
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2lib.config import DataConfig
from gpt2lib.data.sources.corpus import Chunk, Corpus, Split, whole_documents
from gpt2lib.data.token_files import FORMAT, INFO, LAST, LEARNED
from gpt2lib.data.writer import Partial, TokenWriter, write_json
from gpt2lib.tokenizer import CharTokenizer, Tokenizer, load_tokenizer, train_bpe
from gpt2lib.tokenizer.base import EOT, chunks
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.progress import progress_bar

GROUP = 1 << 20
"""Characters encoded at once: enough to keep all cores busy, little enough for any memory."""
LEARN_FROM = 1 << 26
"""UTF-8 bytes that a bpe is learned from at most; a text of fewer is taken whole."""
SPLITS: tuple[Split, ...] = ("train", "val")
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio, odd
_OVERHEAD = 64  # bytes that Python takes for a short string

BYTES = {"unit_scale": True, "leave": False}
"""How bytes are shown by a bar."""

_log = logging.getLogger(__name__)


def complete(
    partial: Partial, config: DataConfig, corpus: Corpus, given: Tokenizer | None, progress: bool
) -> None:
    """Write whatever of a prepared folder is not there yet.

    Args:
        partial: the folder.
        config: which tokenizer to learn, if none is given.
        corpus: the documents.
        given: the tokenizer; one that was learned for this folder before a stop is not again.
        progress: whether to show progress bars.

    Raises:
        UserError: if there is no text to train on, or the tokenizer cannot write it.
    """
    if partial.state["n_chunks"]:
        _log.warning("going on with what a stopped preparation left in %s", partial.folder)
    kept = partial.folder / "tokenizer"
    tokenizer = load_tokenizer(kept) if kept.is_dir() and given is None else given
    if not kept.is_dir():
        learned_from = None
        if tokenizer is None:
            tokenizer, learned_from = learn_tokenizer(config, [corpus], progress)
        partial.keep_tokenizer(tokenizer, learned_from)
    assert tokenizer is not None
    parts = _encode(partial, corpus, tokenizer, progress, config.special_tokens)
    if "val" not in parts:
        _log.warning("nothing of %s is held out: there will be no validation", corpus.name)
    n_documents = partial.state["rows"]["train"]["n_documents"]
    if tokenizer.eot is None and tokenizer.name != "char" and n_documents > 1:
        _log.warning(
            "the tokenizer has no end-of-text token, so nothing stands between the %d documents",
            n_documents,
        )
    info = {
        "format": FORMAT,
        "key": partial.state["key"],
        "name": corpus.name,
        "origin": corpus.origin,
        "licence": corpus.licence,
        "tokenizer": tokenizer.name,
        "vocab_size": tokenizer.vocab_size,
        "learned_from": partial.state["learned_from"],
        "parts": parts,
        "text": corpus.fingerprint,
        "files": corpus.n_files,
        **({"example": corpus.example} if corpus.example else {}),
        **corpus.about_split,
    }
    write_json(partial.folder / INFO, info)


def learn_tokenizer(
    config: DataConfig, corpora: Sequence[Corpus], progress: bool
) -> tuple[Tokenizer, dict[str, int]]:
    """Learn the tokenizer that the configuration asks for.

    A bpe sees the training documents only, so the held-out loss judges it on new text. It counts
    pre-tokens and pairs in memory, and the rare ones of a text never end; but the merges hardly
    change once there are some ten megabytes, so of a longer text it sees a sample. A char
    tokenizer cannot write a character it has not seen, so it looks at both splits, as the lecture
    does; what leaks is the alphabet.

    Returns:
        The tokenizer, and the bytes it was learned from beside the bytes there are.
    """
    n_read, name = 0, ", ".join(corpus.name for corpus in corpora)
    sizes = [corpus.n_bytes for corpus in corpora]
    n_bytes = None if None in sizes else sum(size or 0 for size in sizes)
    is_char = config.tokenizer == "char"
    what = "collecting characters" if is_char else f"learning {config.vocab_size} tokens"
    with progress_bar(n_bytes, "B", progress, desc=what, **BYTES) as bar:

        def texts(*splits: Split) -> Iterator[str]:
            nonlocal n_read
            for corpus in corpora:
                for chunk in _read(corpus, *splits):
                    size = len(chunk.text.encode("utf-8", "surrogatepass"))
                    n_read += size
                    yield from chunks(chunk.text)
                    bar.update(size)

        if is_char:
            return CharTokenizer.train(texts(*SPLITS)), {"n_bytes": n_read, "of": n_read}
        sample = spread(texts("train"), LEARN_FROM)
    n_bytes = sum(map(len, sample))
    if n_bytes < n_read:
        _log.info(
            "the tokenizer is learned from %d MB spread over the %d MB of %s",
            *(round(n / 1e6) for n in (n_bytes, n_read)),
            name,
        )
    trained = train_bpe(
        (text.decode("utf-8", "surrogatepass") for text in sample), config.vocab_size
    )
    if trained.vocab_size < config.vocab_size:
        said = "%s holds enough for %d tokens only, not %d"
        _log.warning(said, name, trained.vocab_size, config.vocab_size)
    return trained, {"n_bytes": n_bytes, "of": n_read}


def spread(texts: Iterable[str], limit: int) -> list[bytes]:
    """Keep texts of at most `limit` bytes together, as UTF-8, spread evenly over the row.

    How long the row is shows only at its end. So all texts are kept until they are too many; then
    every second one is let go, and from there on only every second one is kept, and so on. Which
    ones: multiples of the golden ratio, without their whole part, fill the interval from 0 to 1
    evenly and never repeat. Text `i` is kept while multiple `i + 1` is below a threshold, which
    is halved each time. A fixed step of 2, 4, 8 … could fall in step with the texts.

    At least one text is kept, however long.

    Reference: Knuth, The Art of Computer Programming, volume 3, section 6.4 (Fibonacci hashing).
    """
    kept: list[tuple[int, bytes]] = []
    threshold, size = 1 << 64, 0
    for i, text in enumerate(texts, start=1):
        position = i * _GOLDEN % (1 << 64)
        if position >= threshold:
            continue
        kept.append((position, text.encode("utf-8", "surrogatepass")))
        size += len(kept[-1][1]) + _OVERHEAD
        while size > limit and len(kept) > 1:
            threshold >>= 1
            kept = [pair for pair in kept if pair[0] < threshold] or kept[:1]
            size = sum(len(data) + _OVERHEAD for _, data in kept)
    return [data for _, data in kept]


def _encode(
    partial: Partial, corpus: Corpus, tokenizer: Tokenizer, progress: bool, special: bool
) -> list[Split]:
    """Encode both splits, in one pass over the source; return those that have documents.

    `special`: whether what is written as a special token is one.
    """
    writers = _writers(partial, tokenizer.vocab_size)
    n_chunks: int = partial.state["n_chunks"]
    source, found = _read(corpus, *SPLITS), Counter[str]()
    if not tokenizer.encodes_chunks:  # its tokens may span two chunks, so it gets documents whole
        source = whole_documents(source, apart=True)
    what = f"encoding {corpus.name}"
    with progress_bar(corpus.n_bytes, "B", progress, desc=what, **BYTES) as bar:
        if not bar.disable:  # what was done before is there, but the speed leaves it out
            bar.initial = bar.n = sum(writer.counts["n_bytes"] for writer in writers.values())
        try:
            for group in _groups(islice(source, n_chunks, None)):
                n_shards = sum(len(writer.shards) for writer in writers.values())
                encoded = tokenizer.encode_batch([chunk.text for chunk in group], special)
                bar.update(_write(group, encoded, tokenizer, writers, bool(corpus.example)))
                for written in tokenizer.special or (EOT,):
                    found[written] += sum(chunk.text.count(written) for chunk in group)
                n_chunks += len(group)
                if sum(len(writer.shards) for writer in writers.values()) > n_shards:
                    partial.note(n_chunks=n_chunks, rows=_states(writers))
            if not writers["train"].n_tokens:
                raise UserError(
                    f"{corpus.name} holds no text to train on; give some that is not empty"
                )
            partial.note(n_chunks=n_chunks, rows=_states(writers))
            for split, writer in writers.items():
                if writer.n_tokens:
                    held_out = "" if split == "train" else "the held-out part of "
                    writer.finish(
                        name=held_out + corpus.name,
                        tokenizer=tokenizer.fingerprint,
                        source=corpus.split_fingerprint,
                    )
        finally:
            for writer in writers.values():
                writer.close()
    if not special:
        _say_special(corpus.name, found, tokenizer)
    return [split for split, writer in writers.items() if writer.n_tokens]


def _say_special(name: str, found: Counter[str], tokenizer: Tokenizer) -> None:
    """Log what is written as special tokens are, but is text."""
    if counts := ", ".join(f"{written} {n:,} times" for written, n in found.items() if n):
        way_out = "data.special_tokens true makes them tokens, and the end of text a border"
        if tokenizer.eot is None:
            way_out = f"a {tokenizer.name} tokenizer has no such token"
        _log.warning("%s has %s, as text like any other; %s", name, counts, way_out)


def _writers(partial: Partial, vocab_size: int) -> dict[Split, TokenWriter]:
    """Return the writers of both splits, to be gone on with; if one is damaged, new ones."""
    try:
        return {split: partial.writer(split, vocab_size) for split in SPLITS}
    except UserError as error:
        file = str(error).partition(" is damaged")[0]
        _log.warning("%s was damaged since it was written; beginning anew", file)
        partial.state |= {"n_chunks": 0, "rows": {}}
        return {split: partial.writer(split, vocab_size) for split in SPLITS}


def _states(writers: dict[Split, TokenWriter]) -> dict[Split, Any]:
    return {split: writer.save_state() for split, writer in writers.items()}


def _write(
    group: list[Chunk],
    encoded: list[list[int]],
    tokenizer: Tokenizer,
    writers: dict[Split, TokenWriter],
    marked: bool,
) -> int:
    """Write the ids of some chunks, each into the row of its split; return the bytes of the text.

    `marked`: whether to write down which of the tokens are learned, and where a row ends.
    """
    end = [] if tokenizer.eot is None else [tokenizer.eot]
    total = 0
    for split, writer in writers.items():
        mine = [(c, ids) for c, ids in zip(group, encoded, strict=True) if c.split == split]
        if not mine:
            continue
        rows = [ids + end if chunk.ends else ids for chunk, ids in mine]
        begins = not writer.n_tokens
        ids = np.concatenate(
            [np.asarray(row, dtype=np.int64) for row in ([end, *rows] if begins else rows)]
        )
        writer.write(ids, _marks(mine, rows, len(ids)) if marked else None)
        size = sum(len(chunk.text.encode("utf-8")) for chunk, _ in mine)
        # The first token is never predicted; where it is not end-of-text, its bytes do not count.
        unscored = len(tokenizer.token_bytes(int(ids[0]))) if begins and ids.size and not end else 0
        writer.counts["n_documents"] += sum(chunk.ends for chunk, _ in mine)
        writer.counts["n_bytes"] += size
        read = sum(len(chunk.text.encode("utf-8")) for chunk, _ in mine if not chunk.learned)
        writer.counts["n_scored_bytes"] += size - read - unscored
        total += size
    return total


def _marks(
    chunks: list[tuple[Chunk, list[int]]], rows: list[list[int]], n: int
) -> NDArray[np.int64]:
    """Return the marks of the tokens of some chunks, `n` in all; those before the first have none.

    The end-of-text token of a row is learned if its last chunk is.
    """
    marks = [
        np.full(len(row), LEARNED * c.learned) for (c, _), row in zip(chunks, rows, strict=True)
    ]
    for (chunk, _), part in zip(chunks, marks, strict=True):
        part[-1:] |= LAST * chunk.ends
    joined = np.concatenate(marks)
    return np.concatenate([np.zeros(n - len(joined), dtype=np.int64), joined])


def _read(corpus: Corpus, *splits: Split) -> Iterator[Chunk]:
    """Iterate over chunks; what the system refuses on the way is the source's fault."""
    try:
        yield from corpus.chunks(*splits)
    except OSError as error:
        raise UserError(f"cannot read {corpus.name}: {error.strerror or error}") from error


def _groups(chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    """Gather chunks until they have `GROUP` characters; a longer one ends its group."""
    group: list[Chunk] = []
    size = 0
    for chunk in chunks:
        group.append(chunk)
        size += len(chunk.text)
        if size >= GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group
