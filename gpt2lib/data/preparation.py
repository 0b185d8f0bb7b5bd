"""From a source of text to a folder of token files, made once and kept.

The folder holds the shards of `train` and `val` with their headers, the tokenizer, and
`prepared.json`. It is made in a hidden folder beside its place, where a killed preparation is taken
up again (`work.py`), and renamed when it is whole, so a folder that exists is complete. Its name
in the cache is a hash of all that determines its content; asking for the same again opens it.
"""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

from gpt2lib.config import DataConfig
from gpt2lib.data import shards
from gpt2lib.data.encoding import write_part
from gpt2lib.data.learning import learn
from gpt2lib.data.prepared import INFO, Prepared, is_prepared, open_prepared
from gpt2lib.data.progress import follow
from gpt2lib.data.sources import Corpus, Split, cache_dir, load_corpus
from gpt2lib.data.sources.base import digest
from gpt2lib.data.token_files import FORMAT
from gpt2lib.data.work import Work, working
from gpt2lib.data.writer import write_json
from gpt2lib.tokenizer import Tokenizer, load_tokenizer
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import expand

_log = logging.getLogger(__name__)


def prepare(
    config: DataConfig,
    out: Path | str | None = None,
    progress: bool = True,
    *,
    corpus: Corpus | None = None,
    tokenizer: Tokenizer | None = None,
) -> Prepared:
    """Turn a source of text into token files, or open them if they were made before.

    Args:
        config: the source and how to tokenize it. A source that is a prepared folder is opened.
            The tokenizer `auto` is the folder's, or else a bpe.
        out: the folder to make; by default one in the cache.
        progress: whether to show progress bars.
        corpus: takes the place of `config.source`, for documents that are in memory.
        tokenizer: takes the place of `config.tokenizer`, for fine-tuning.

    Raises:
        UserError: if the source or the tokenizer cannot be used, or `out` is taken.
    """
    if corpus is None and config.mixture is not None:
        from gpt2lib.data.mixture import prepare_mixture  # which prepares its sources with this

        return prepare_mixture(config, out, progress, tokenizer)
    if corpus is None and is_prepared(config.source):
        return _reopen(config, out, tokenizer)
    corpus = corpus or load_corpus(config)
    tokenizer = tokenizer or _given_tokenizer(config)
    key = _key(config, corpus, tokenizer)
    target = _target(config, corpus, key) if out is None else expand(out)
    given = out is not None
    found = _found(target, key, given=given)
    if found:
        _log.info("opened the prepared tokens in %s", target)
        return found
    with working(target, key, shards.SHARD) as work:
        if found := _found(target, key, given=given):  # made by the process that we waited for
            work.drop()
            return found
        if target.exists():
            shutil.rmtree(target)  # an empty folder, or a damaged one in the cache
        if not work.is_complete:
            _make(work, config, corpus, tokenizer, key, progress)
        work.publish(target)
    return open_prepared(target)


def _make(
    work: Work,
    config: DataConfig,
    corpus: Corpus,
    tokenizer: Tokenizer | None,
    key: str,
    progress: bool,
) -> None:
    """Write whatever of the folder is not there yet."""
    if work.has_shards:
        _log.warning("going on with what a stopped preparation left in %s", work.folder)
    tokenizer = _tokenizer(work, config, corpus, tokenizer, progress)
    parts: list[Split] = []
    with follow(f"encoding {corpus.name}", corpus.n_bytes, progress) as bar:
        for split in ("train", "val"):
            if write_part(work, split, corpus, tokenizer, bar) is not None:
                parts.append(split)
            elif split == "train":
                raise UserError(
                    f"{corpus.name} holds no text to train on; give some that is not empty"
                )
    if "val" not in parts:
        _log.warning("nothing of %s is held out: there will be no validation", corpus.name)
    info = {
        "format": FORMAT,
        "key": key,
        "name": corpus.name,
        "origin": corpus.origin,
        "licence": corpus.licence,
        "tokenizer": tokenizer.name,
        "vocab_size": tokenizer.vocab_size,
        "learned_from": work.learned_from,
        "parts": parts,
    }
    write_json(work.folder / INFO, info)


def _tokenizer(
    work: Work, config: DataConfig, corpus: Corpus, given: Tokenizer | None, progress: bool
) -> Tokenizer:
    """Return the tokenizer that was given, was learned before a stop, or is learned now."""
    if kept := work.tokenizer():
        return given or kept
    learned_from = None
    if given is None:
        with follow("learning the tokenizer", corpus.n_bytes, progress) as bar:
            given, learned_from = learn(config, corpus, bar)
    work.keep_tokenizer(given, learned_from)
    return given


def _reopen(config: DataConfig, out: Path | str | None, tokenizer: Tokenizer | None) -> Prepared:
    """Open a source that is prepared already; refuse a wish that it cannot fulfil."""
    if out is not None:
        raise UserError(f"{config.source} is prepared already; use it as it is, or copy the folder")
    prepared = open_prepared(config.source)
    tokenizer = tokenizer or _given_tokenizer(config)
    if tokenizer is not None:
        prepared.train.check_tokenizer(tokenizer.fingerprint)
    elif config.tokenizer not in ("auto", prepared.tokenizer.name):
        raise UserError(
            f"{config.source} was prepared with a {prepared.tokenizer.name} tokenizer, not "
            f"{config.tokenizer}; set data.tokenizer to auto, or prepare the text again"
        )
    return prepared


def _given_tokenizer(config: DataConfig) -> Tokenizer | None:
    """Load the tokenizer of the configuration, or return None if it is to be learned."""
    learned = config.tokenizer in ("auto", "bpe", "char")
    return None if learned else load_tokenizer(config.tokenizer)


def _key(config: DataConfig, corpus: Corpus, tokenizer: Tokenizer | None) -> str:
    """Return the hash of all that determines the content of the folder."""
    split = "fixed" if corpus.fixed_split else repr(config.val_fraction)
    made = "char" if config.tokenizer == "char" else f"bpe {config.vocab_size}"
    spec = tokenizer.fingerprint if tokenizer else made
    return digest(str(FORMAT), corpus.fingerprint, split, spec)


def _target(config: DataConfig, corpus: Corpus, key: str) -> Path:
    base = expand(config.cache) if config.cache else cache_dir() / "prepared"
    readable = re.sub(r"[^\w.-]+", "-", corpus.name).strip("-.")[:40]
    return base / f"{readable or 'text'}-{key[:16]}"


def _found(target: Path, key: str, *, given: bool) -> Prepared | None:
    """Open the target if it is what is wanted; None says that it is to be made.

    Raises:
        UserError: if it is taken, or damaged; a damaged one in the cache is made anew.
    """
    if is_prepared(target):
        try:
            prepared = open_prepared(target)
        except UserError as error:
            if given:
                raise
            _log.warning("%s; making it anew", error)
            return None
        if prepared.info.get("key") == key:
            return prepared
        raise UserError(
            f"{target} holds other tokens ({prepared.info['name']}, {prepared.tokenizer.name}, "
            f"{prepared.tokenizer.vocab_size} tokens); give another folder or delete it"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not empty; give another folder or delete it")
    return None
