"""From a source of text to a folder of token files, made once and kept.

The folder holds `train.tokens` and `val.tokens` with their headers, the tokenizer, and
`prepared.json`. It is written beside its place and renamed when it is whole, so a folder that
exists is complete. Its name in the cache is a hash of all that determines its content; asking for
the same again opens it.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpt2lib.config import DataConfig
from gpt2lib.corpora import Corpus, cache_dir, load_corpus
from gpt2lib.corpora.base import digest
from gpt2lib.data.encoding import write_part
from gpt2lib.data.files import FORMAT
from gpt2lib.data.prepared import INFO, Prepared, is_prepared, open_prepared
from gpt2lib.data.progress import follow
from gpt2lib.errors import UserError
from gpt2lib.storage import expand
from gpt2lib.tokenizer import CharTokenizer, Tokenizer, load_tokenizer, train_bpe

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
    if corpus is None and is_prepared(config.source):
        return _reopen(config, out, tokenizer)
    corpus = corpus or load_corpus(config)
    tokenizer = tokenizer or _given_tokenizer(config)
    key = _key(config, corpus, tokenizer)
    target = _target(config, corpus, key) if out is None else expand(out)
    found = _found(target, key, given=out is not None)
    if found:
        _log.info("opened the prepared tokens in %s", target)
        return found
    with _new_folder(target) as folder:
        tokenizer = tokenizer or _train_tokenizer(config, corpus, progress)
        tokenizer.save(folder / "tokenizer")
        train = write_part(folder, "train", corpus, tokenizer, progress)
        if train is None:
            raise UserError(f"{corpus.name} holds no text to train on; give some that is not empty")
        if write_part(folder, "val", corpus, tokenizer, progress) is None:
            _log.warning("nothing of %s is held out: there will be no validation", corpus.name)
        info = {
            "format": FORMAT,
            "key": key,
            "name": corpus.name,
            "origin": corpus.origin,
            "licence": corpus.licence,
            "tokenizer": tokenizer.name,
            "vocab_size": tokenizer.vocab_size,
        }
        text = json.dumps(info, indent=2, ensure_ascii=False)
        (folder / INFO).write_text(text + "\n", encoding="utf-8")
    return open_prepared(target)


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
    """Open the target if it is what is wanted; a damaged one in the cache is made anew."""
    if is_prepared(target):
        try:
            prepared = open_prepared(target)
        except UserError as error:
            if given:
                raise
            _log.warning("%s; making it anew", error)
            shutil.rmtree(target)
            return None
        if prepared.info["key"] == key:
            return prepared
        raise UserError(
            f"{target} holds other tokens ({prepared.info['name']}, {prepared.tokenizer.name}, "
            f"{prepared.tokenizer.vocab_size} tokens); give another folder or delete it"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not empty; give another folder or delete it")
    return None


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Give a folder to fill, beside the target; rename it to the target when it is complete."""
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if target.is_dir() and not any(target.iterdir()):
            target.rmdir()
        try:
            temporary.rename(target)
        except OSError:
            if not is_prepared(target):  # else another process was faster, with the same content
                raise
    except OSError as error:
        raise UserError(
            f"cannot write {target} ({error.strerror or error}); give another folder with "
            "--data.cache or $GPT2LIB_CACHE"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _train_tokenizer(config: DataConfig, corpus: Corpus, progress: bool) -> Tokenizer:
    """Learn the tokenizer that the configuration asks for.

    A bpe sees the training documents only, so the held-out loss judges it on new text. A char
    tokenizer cannot write a character it has not seen, so it looks at both parts, as the lecture
    does; what leaks is the alphabet.
    """
    if config.tokenizer == "char":

        def everything() -> Iterator[str]:
            yield from corpus.train()
            yield from corpus.val()

        return CharTokenizer.train(everything())
    with follow(f"learning {config.vocab_size} tokens", None, progress) as bar:
        trained = train_bpe(bar.over(corpus.train()), config.vocab_size)
    if trained.vocab_size < config.vocab_size:
        _log.warning(
            "%s holds enough for %d tokens only, not %d",
            corpus.name,
            trained.vocab_size,
            config.vocab_size,
        )
    return trained
