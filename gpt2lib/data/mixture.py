"""Several sources in one run, each with its share of the samples.

Every source is prepared by itself with one common tokenizer, so that other weights encode nothing
again. `Joined` reads their files one behind the other, and `Mixture` says which window of which
source a sample is: a function of the sample's number, as with a single source (`order.py`). A
window never reaches from one source into the next.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpt2lib.config import DataConfig
from gpt2lib.data.learning import learn
from gpt2lib.data.order import interleave, whole_shares
from gpt2lib.data.preparation import prepare
from gpt2lib.data.prepared import Prepared, is_prepared
from gpt2lib.data.progress import follow
from gpt2lib.data.shards import JoinedTokens
from gpt2lib.data.sources import Corpus, cache_dir, load_corpus
from gpt2lib.data.sources.base import Piece, Split, digest
from gpt2lib.data.token_files import FORMAT, TokenFile
from gpt2lib.data.work import alone
from gpt2lib.tokenizer import Tokenizer, load_tokenizer
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import atomic_folder, expand

_log = logging.getLogger(__name__)


class Joined(TokenFile):
    """Token files of one tokenizer, read one behind the other.

    Attributes:
        parts: the files, in order.
        header: the sums of theirs; `source` is one fingerprint for all.
        tokens: all ids, as one row.

    Args:
        name: what to call them together in messages.
        parts: the files; at least one.
        facts: what else determines how they are read, for the fingerprint.
    """

    parts: tuple[TokenFile, ...] = ()

    def __init__(self, name: str, parts: Sequence[TokenFile], facts: Sequence[str] = ()) -> None:
        self.parts, self.facts = tuple(parts), tuple(facts)
        self.path = self.parts[0].path
        headers = [part.header for part in self.parts]
        self.header = replace(
            headers[0],
            name=name,
            n_tokens=sum(h.n_tokens for h in headers),
            n_documents=sum(h.n_documents for h in headers),
            n_bytes=sum(h.n_bytes for h in headers),
            n_scored_bytes=sum(h.n_scored_bytes for h in headers),
            source=digest("joined", *(h.source for h in headers), *self.facts),
            shards=tuple(shard for h in headers for shard in h.shards),
        )
        for part in self.parts:
            part.check_tokenizer(self.header.tokenizer)
        rows: list[NDArray[Any]] = []
        for part in self.parts:
            rows += part.tokens.parts if isinstance(part.tokens, JoinedTokens) else [part.tokens]
        self.tokens = JoinedTokens(rows)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} tokens of {self.name})"

    def require(self, block_size: int) -> None:
        """Refuse a file too short for one window.

        Raises:
            UserError: naming the file and both numbers.
        """
        for part in self.parts:
            part.require(block_size)

    def windows(self, block_size: int, seed: int, indices: ArrayLike) -> NDArray[np.int64]:
        """Refuse to draw samples: the files have no weights."""
        raise TypeError("joined files have no order of samples; a Mixture has")

    def check_tokenizer(self, fingerprint: str) -> None:
        """Refuse a tokenizer other than the one that made the ids."""
        for part in self.parts:
            part.check_tokenizer(fingerprint)

    def verify(self) -> None:
        """Compare the hashes of all files with their headers'."""
        for part in self.parts:
            part.verify()

    def verify_if_cheap(self) -> None:
        """Compare the hashes of each file where `TokenFile.verify_if_cheap` does."""
        for part in self.parts:
            part.verify_if_cheap()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the files, which pickle as their paths."""
        return type(self), (self.name, self.parts, self.facts)


class Mixture(Joined):
    """Token files, each with its share of the samples.

    The samples of a source come in the very order that it has alone, and its epochs are its own:
    of a small source with a large weight more epochs are seen.

    Args:
        parts: the training files, by the name of their source.
        weights: the weight of each; only their ratios matter.
    """

    def __init__(self, parts: Mapping[str, TokenFile], weights: Mapping[str, float]) -> None:
        names = sorted(parts)
        self.weights = {name: weights[name] for name in names}
        self.shares = whole_shares(list(self.weights.values()))
        total = sum(self.weights.values())
        said = ", ".join(f"{w / total:.3g} {name}" for name, w in self.weights.items())
        super().__init__(
            f"the mixture of {said}", [parts[name] for name in names], [*map(str, self.shares)]
        )

    def windows(self, block_size: int, seed: int, indices: ArrayLike) -> NDArray[np.int64]:
        """Return where the windows of the given samples start.

        Which source a sample is drawn from follows from its number (`order.interleave`), and which
        window of the source from the seed and how many samples of that source came before
        (`order.sample_windows`).

        Args:
            block_size: T.
            seed: fixes the order of each source.
            indices: global sample numbers, from 0; any shape.

        Returns:
            Starts in the joined tokens, the shape of `indices`.

        Raises:
            UserError: if a source is too short for one window.
        """
        source, number = interleave(self.shares, indices)
        starts = np.empty(source.shape, dtype=np.int64)
        first = 0  # of this file, in the joined tokens
        for k, part in enumerate(self.parts):
            drawn = source == k
            starts[drawn] = first + part.windows(block_size, seed, number[drawn])
            first += len(part)
        return starts

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the files, which pickle as their paths."""
        return type(self), (dict(zip(self.weights, self.parts, strict=True)), self.weights)


def sources_of(config: DataConfig) -> dict[str, DataConfig]:
    """Return a configuration for each source by itself, sorted by name."""
    names = sorted(config.mixture or [config.source])
    return {name: config.replace(source=name, mixture=None) for name in names}


def prepare_mixture(
    config: DataConfig,
    out: Path | str | None = None,
    progress: bool = True,
    tokenizer: Tokenizer | None = None,
) -> Prepared:
    """Prepare every source of a mixture, each in a folder of its own in the cache.

    The tokenizer is the given one, or the configured one, or that of a source that is a prepared
    folder, or else learned from the training text of all sources, whatever their weights.

    Returns:
        `train` is a `Mixture`; `val` has the held-out parts of all sources that have one, whole,
        one behind the other; `folder` is that of the first source, by name.

    Raises:
        UserError: if a source cannot be used, or `out` is given.
    """
    assert config.mixture is not None
    if out is not None:
        raise UserError(
            f"a mixture is not prepared into one folder such as {out}: training with data.mixture "
            "prepares each source by itself, in the cache"
        )
    wanted = sources_of(config)
    made = {name: prepare(one) for name, one in wanted.items() if is_prepared(one.source)}
    corpora = {name: load_corpus(one) for name, one in wanted.items() if name not in made}
    learned = tokenizer is None and config.tokenizer in ("auto", "bpe", "char")
    if learned and made:
        tokenizer = next(iter(made.values())).tokenizer
    elif learned:
        tokenizer = _learned(config, corpora, progress)
    for name, corpus in corpora.items():
        made[name] = prepare(wanted[name], None, progress, corpus=corpus, tokenizer=tokenizer)
    parts = {name: made[name] for name in wanted}  # sorted again
    first = next(iter(parts.values()))
    for part in parts.values():
        part.train.check_tokenizer((tokenizer or first.tokenizer).fingerprint)
    train = Mixture({name: part.train for name, part in parts.items()}, config.mixture)
    held_out = [part.val for part in parts.values() if part.val is not None]
    val = Joined(f"the held-out parts of {', '.join(parts)}", held_out) if held_out else None
    info = {
        **{key: first.info[key] for key in ("format", "tokenizer", "vocab_size")},
        "name": train.name,
        "licence": "; ".join(dict.fromkeys(str(part.info["licence"]) for part in parts.values())),
        "sources": {name: part.info for name, part in parts.items()},
    }
    return Prepared(first.folder, tokenizer or first.tokenizer, train, val, info)


def _learned(config: DataConfig, corpora: Mapping[str, Corpus], progress: bool) -> Tokenizer:
    """Learn the tokenizer from all sources, or open what was learned from them before."""
    union = _union(list(corpora.values()))
    made = "char" if config.tokenizer == "char" else f"bpe {config.vocab_size}"
    splits = ["fixed" if c.fixed_split else repr(config.val_fraction) for c in corpora.values()]
    key = digest("tokenizer", str(FORMAT), made, union.fingerprint, *splits)
    base = expand(config.cache) if config.cache else cache_dir() / "prepared"
    folder = base / f"tokenizer-{key[:16]}"
    base.mkdir(parents=True, exist_ok=True)
    with alone(folder.with_name(f".{folder.name}.lock"), folder):
        if folder.exists():
            try:
                return load_tokenizer(folder)
            except UserError as error:
                _log.warning("%s; making it anew", error)
        with follow("learning the tokenizer", union.n_bytes, progress) as bar:
            tokenizer, _ = learn(config, union, bar)
        with atomic_folder(folder) as temporary:
            tokenizer.save(temporary)
        return tokenizer


def _union(corpora: Sequence[Corpus]) -> Corpus:
    """Return one corpus that has the documents of all."""

    def read(split: Split) -> Iterator[str]:
        return chain.from_iterable(corpus.read(split) for corpus in corpora)

    def pieces(split: Split) -> Iterator[Piece]:
        return chain.from_iterable(corpus.in_pieces(split) for corpus in corpora)

    sizes = [corpus.n_bytes for corpus in corpora]
    return Corpus(
        name=", ".join(corpus.name for corpus in corpora),
        fingerprint=digest(*(corpus.fingerprint for corpus in corpora)),
        licence="; ".join(dict.fromkeys(corpus.licence for corpus in corpora)),
        origin="; ".join(corpus.origin for corpus in corpora),
        read=read,
        n_bytes=None if None in sizes else sum(size or 0 for size in sizes),
        pieces=pieces,
    )
