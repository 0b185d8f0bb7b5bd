"""From a source of text to a folder of token files, made once and kept.

The folder holds the shards of `train` and `val` with their headers, the tokenizer, and
`prepared.json`. It is made in a hidden folder beside its target (`writer.py`) and renamed when it
is whole, so a folder that exists is complete. Its name in the cache is a hash of all that
determines its content; asking for the same again opens it.

The text is read three times: for its fingerprint (bytes only), to count the documents, so that an
exact share of them is held out, and to encode them; and once more before that, the training
documents only, where a tokenizer is learned from it.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpt2lib.config import DataConfig
from gpt2lib.data.encode import complete
from gpt2lib.data.mixture import Joined, Mixture, common_tokenizer
from gpt2lib.data.packing import open_tokens
from gpt2lib.data.sources import Corpus, load_corpus
from gpt2lib.data.sources.borders import split_at_borders
from gpt2lib.data.sources.corpus import digest
from gpt2lib.data.token_files import FORMAT, INFO, TokenFile
from gpt2lib.data.writer import partial_folder
from gpt2lib.tokenizer import Tokenizer, load_tokenizer
from gpt2lib.tokenizer.base import EOT
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import cache_dir, expand

UNREAD_AT_TIMES = {
    "source": "data.mixture names the sources",
    "vocab_size": "it is the size of a bpe that is learned here, and none is",
    "val_fraction": "the text says itself what is held out",
    "column": "it is for tables read without a template, and there is none",
    "template": "it is for rows with fields, and there are none",
    "split": "it is for datasets of the hub or saved ones",
    "streaming": "it is for datasets of the hub",
    **dict.fromkeys(
        ("encoding", "encoding_errors"),
        "the text is not kept as characters of some encoding, or has a known one",
    ),
    "special_tokens": "the text is prepared already, or its tokenizer has none",
    "cache": "the text is prepared already",
}
"""Fields that some texts do not need, and why they are then not read."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A folder of token files, opened.

    Attributes:
        folder: where it is; of a mixture, that of its first source.
        tokenizer: the one that made the ids.
        train: the tokens to train on.
        val: the tokens held out, or None if nothing is.
        info: name, origin and licence of the text, and what the folder was made with.
    """

    folder: Path
    tokenizer: Tokenizer
    train: TokenFile
    val: TokenFile | None
    info: dict[str, Any]

    def summary(self) -> str:
        """Say in one line how much there is to train on, how much is held out, and what of it."""
        train, val = self.train.header, self.val and self.val.header
        n_files, n = self.info.get("files"), train.n_documents
        said = f"{n_files:,} file{'s' * (n_files > 1)}: " if n_files else ""
        said += f"{train.n_tokens:,} tokens of {n:,} document{'s' * (n != 1)} to train on, "
        return (
            said
            + (f"{val.n_tokens:,} of {val.n_documents:,} held out" if val else "none held out")
            + self.about_split()
            + self.about_targets()
        )

    def about_split(self) -> str:
        """Say what is not as one may think of what is held out; empty if all is."""
        cut = " (with the end of a long one)" if self.info.get("cut") else ""
        copies = self.info.get("copies")
        return cut + (f"; {copies} of those are trained on too, as copies" if copies else "")

    def about_targets(self) -> str:
        """Say how much of the text is learned; empty if all is."""
        n, total = self.train.n_targets, self.train.header.n_tokens
        if self.train.marks is None:
            return ""
        return f"; of these {n:,} ({n / total:.0%}), the answers, are learned"


def is_prepared(folder: Path | str) -> bool:
    """Return whether `prepare` made the folder."""
    return (expand(folder) / INFO).is_file()


def open_prepared(folder: Path | str) -> Prepared:
    """Open a folder that `prepare` made.

    So that no altered byte is trained on, the hashes of its shards are compared here, where that
    costs no more than a moment (`TokenFile.verify_if_cheap`).

    Raises:
        UserError: if it is damaged, or its tokenizer is not the one that made the ids.
    """
    folder = expand(folder)
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
        version = info["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is not a folder that `gpt2lib prepare` made") from error
    if version != FORMAT:
        raise UserError(
            f"{folder} has format {version}, this version reads {FORMAT}; prepare again"
        )
    if "train" not in info.get("parts", ()):
        raise UserError(f"{folder / INFO} is damaged; delete the folder and prepare again")
    tokenizer = load_tokenizer(folder / "tokenizer")
    parts = {part: open_tokens(folder / f"{part}.json") for part in info["parts"]}
    for part in parts.values():
        part.check_tokenizer(tokenizer.fingerprint)
        part.verify_if_cheap()
    return Prepared(folder, tokenizer, parts["train"], parts.get("val"), info)


def prepare(
    config: DataConfig,
    out: Path | str | None = None,
    progress: bool = True,
    *,
    corpus: Corpus | None = None,
    tokenizer: Tokenizer | None = None,
    whole: bool = False,
    earlier: str | None = None,
) -> Prepared:
    """Turn a source of text into token files, or open them if they were made before.

    Args:
        config: the source and how to tokenize it. A source that is a prepared folder is opened.
            The tokenizer `auto` is the folder's, or else a bpe.
        out: the folder to make; by default one in the cache.
        progress: whether to show progress bars.
        corpus: takes the place of `config.source`, for documents that are in memory.
        tokenizer: takes the place of `config.tokenizer`, for fine-tuning.
        whole: whether nothing is held out but what the source itself holds out.
        earlier: the fingerprint that the text had for a run that goes on. If documents were still
            counted then, what was prepared of them is opened, where it is in the cache.

    Raises:
        UserError: if the source or the tokenizer cannot be used, or `out` is taken.
    """
    if corpus is None and config.mixture is not None:
        return _prepare_mixture(config, config.mixture, out, progress, tokenizer)
    if corpus is None and is_prepared(config.source):
        _say_unread(config, [], learns=False)
        return _open_source(config, out, tokenizer)
    if corpus is None:
        corpus = load_corpus(config)
        _say_unread(config, [corpus], learns=tokenizer is None)
    if whole and not corpus.fixed_split:
        corpus, config = replace(corpus, val_fraction=0.0), config.replace(val_fraction=0.0)
    return _prepare_corpus(config, corpus, out, progress, tokenizer, earlier)


def _say_unread(config: DataConfig, corpora: Sequence[Corpus], *, learns: bool) -> None:
    """Log which fields were set, but are not read for this text.

    Args:
        config: what was set.
        corpora: the sources that are read; a folder that is prepared is none.
        learns: whether no tokenizer is given.
    """
    read = {field for corpus in corpora for field in corpus.reads}
    read |= {"cache"} if corpora else set()
    read |= {"val_fraction"} if not all(corpus.fixed_split for corpus in corpora) else set()
    read |= {"vocab_size"} if learns and config.tokenizer in ("auto", "bpe") else set()
    read |= {"special_tokens"} if corpora and config.tokenizer != "char" else set()
    read |= {"source"} if config.mixture is None else set()
    default = DataConfig()
    for name in UNREAD_AT_TIMES:
        if name not in read and getattr(config, name) != getattr(default, name):
            _log.warning(
                "data.%s is %s, but nothing reads it: %s",
                *(name, getattr(config, name), UNREAD_AT_TIMES[name]),
            )


def sources_of(config: DataConfig) -> dict[str, DataConfig]:
    """Return a configuration for each source by itself, sorted by name."""
    names = sorted(config.mixture or [config.source])
    return {name: config.replace(source=name, mixture=None) for name in names}


def _prepare_mixture(
    config: DataConfig,
    weights: dict[str, float],
    out: Path | str | None,
    progress: bool,
    tokenizer: Tokenizer | None,
) -> Prepared:
    """Prepare every source of a mixture, each in a folder of its own in the cache.

    The tokenizer is the given one, or the configured one, or that of a source that is a prepared
    folder, or else learned from the training text of all sources, whatever their weights.

    Returns:
        `train` is a `Mixture`; `val` has the held-out parts of all sources that have one, whole,
        one behind the other.
    """
    if out is not None:
        raise UserError(
            f"a mixture is not prepared into one folder such as {out}: training with data.mixture "
            "prepares each source by itself, in the cache"
        )
    wanted = sources_of(config)
    ready = {name: one for name, one in wanted.items() if is_prepared(one.source)}
    parts = {name: _open_source(one, None, None) for name, one in ready.items()}
    corpora = {name: load_corpus(one) for name, one in wanted.items() if name not in parts}
    found = next((part.tokenizer for part in parts.values()), None)
    _say_unread(config, list(corpora.values()), learns=tokenizer is None and found is None)
    if tokenizer is None and _is_learned(config):
        tokenizer = found or common_tokenizer(
            config,
            [_with_borders(config, corpus, None) for corpus in corpora.values()],
            _cache(config),
            progress,
        )
    for name, corpus in corpora.items():
        parts[name] = _prepare_corpus(wanted[name], corpus, None, progress, tokenizer)
    parts = {name: parts[name] for name in wanted}  # sorted again
    first = next(iter(parts.values()))
    for part in parts.values():
        part.train.check_tokenizer((tokenizer or first.tokenizer).fingerprint)
    train = Mixture({name: part.train for name, part in parts.items()}, weights)
    held_out = [part.val for part in parts.values() if part.val is not None]
    val = Joined(f"the held-out parts of {', '.join(parts)}", held_out) if held_out else None
    info = {
        **{key: first.info[key] for key in ("format", "tokenizer", "vocab_size")},
        "name": train.name,
        "licence": "; ".join(dict.fromkeys(str(part.info["licence"]) for part in parts.values())),
        "sources": {name: part.info for name, part in parts.items()},
    }
    return Prepared(first.folder, tokenizer or first.tokenizer, train, val, info)


def _prepare_corpus(
    config: DataConfig,
    corpus: Corpus,
    out: Path | str | None,
    progress: bool,
    tokenizer: Tokenizer | None,
    earlier: str | None = None,
) -> Prepared:
    """Prepare one source, or open what is there."""
    if tokenizer is None and not _is_learned(config):
        tokenizer = load_tokenizer(config.tokenizer)
    corpus = _with_borders(config, corpus, tokenizer)
    if earlier == corpus.fingerprint:
        key = _key(config, corpus, tokenizer, share="")
        if counted := _found(_target(config, corpus, key), key, given=False):
            return counted
    key = _key(config, corpus, tokenizer)
    given = out is not None
    target = expand(out) if out is not None else _target(config, corpus, key)
    found = _found(target, key, given=given)
    if found:
        _log.info("opened the prepared tokens in %s", target)
        return found
    with partial_folder(target, key) as partial:
        if found := _found(target, key, given=given):  # made by the process that we waited for
            partial.drop()
            return found
        if target.exists():
            shutil.rmtree(target)  # an empty folder, or a damaged one in the cache
        if not partial.is_complete:
            complete(partial, config, corpus, tokenizer, progress)
        partial.publish(target)
    return open_prepared(target)


def _open_source(
    config: DataConfig, out: Path | str | None, tokenizer: Tokenizer | None
) -> Prepared:
    """Open a source that is prepared already; refuse a wish that it cannot fulfil."""
    if out is not None:
        raise UserError(f"{config.source} is prepared already; use it as it is, or copy the folder")
    prepared = open_prepared(config.source)
    if tokenizer is None and not _is_learned(config):
        tokenizer = load_tokenizer(config.tokenizer)
    if tokenizer is not None:
        prepared.train.check_tokenizer(tokenizer.fingerprint)
    elif config.tokenizer not in ("auto", prepared.tokenizer.name):
        raise UserError(
            f"{config.source} was prepared with a {prepared.tokenizer.name} tokenizer, not "
            f"{config.tokenizer}; set data.tokenizer to auto, or prepare the text again"
        )
    return prepared


def _with_borders(config: DataConfig, corpus: Corpus, tokenizer: Tokenizer | None) -> Corpus:
    """Return the documents as the text itself keeps them apart, if its special tokens count.

    Without a tokenizer one is learned, which writes its end-of-text token as GPT-2's does.
    """
    if not config.special_tokens or corpus.example or config.tokenizer == "char":
        return corpus
    eot, special = (0, {EOT: 0}) if tokenizer is None else (tokenizer.eot, tokenizer.special)
    borders = [written for written, token in special.items() if token == eot]
    return split_at_borders(corpus, borders[0]) if borders else corpus


def _is_learned(config: DataConfig) -> bool:
    """Whether the configuration names no tokenizer that exists, but one to be learned."""
    return config.tokenizer in ("auto", "bpe", "char")


def _key(
    config: DataConfig, corpus: Corpus, tokenizer: Tokenizer | None, share: str = "bytes "
) -> str:
    """Return the hash of all that determines the content of the folder.

    `share` says of what `val_fraction` is a share; once it was the documents' number, and "".
    """
    split = "fixed" if corpus.fixed_split else f"{share}{config.val_fraction!r}"
    made = "char" if config.tokenizer == "char" else f"bpe {config.vocab_size}"
    spec = tokenizer.fingerprint if tokenizer else made
    return digest(str(FORMAT), corpus.fingerprint, split, spec)


def _cache(config: DataConfig) -> Path:
    return expand(config.cache) if config.cache else cache_dir() / "prepared"


def _target(config: DataConfig, corpus: Corpus, key: str) -> Path:
    readable = re.sub(r"[^\w.-]+", "-", corpus.name).strip("-.")[:40]
    return _cache(config) / f"{readable or 'text'}-{key[:16]}"


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
