"""Where text comes from: a corpus by name, files of every kind, a Hugging Face dataset, strings.

Everything becomes a `Corpus`, which yields documents, one string at a time, in two parts: those to
train on and those held out. A new kind of source is one function that returns a `Corpus`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from gpt2lib.config import DataConfig
from gpt2lib.data.sources.base import Corpus, Piece, Split
from gpt2lib.data.sources.columns import AUTO
from gpt2lib.data.sources.decoding import read_text
from gpt2lib.data.sources.files import corpus_from_files, find_files
from gpt2lib.data.sources.hf import corpus_from_dataset, corpus_from_hub
from gpt2lib.data.sources.iterables import corpus_from_iterable, corpus_from_texts
from gpt2lib.data.sources.named import ABOUT, cache_dir, plays_corpus, tiny_corpus
from gpt2lib.data.sources.saved import is_saved_dataset, saved_files
from gpt2lib.data.sources.splitting import held_out, split_text
from gpt2lib.utils.errors import UserError, nearest
from gpt2lib.utils.files import expand

__all__ = [
    "ABOUT",
    "NAMED",
    "Corpus",
    "Piece",
    "Split",
    "cache_dir",
    "corpus_from_dataset",
    "corpus_from_files",
    "corpus_from_hub",
    "corpus_from_iterable",
    "corpus_from_texts",
    "documents",
    "held_out",
    "load_corpus",
    "read_text",
    "split_text",
]

NAMED: dict[str, Callable[[], Corpus]] = {"plays": plays_corpus, "tinyshakespeare": tiny_corpus}
"""The corpora that `DataConfig.source` can call by name."""


def load_corpus(config: DataConfig) -> Corpus:
    """Return the corpus that a configuration names.

    Args:
        config: `source` is looked up as a name, then as `hf:…`, a file, a folder, a glob.

    Raises:
        UserError: if there is no such source or it holds no text.
    """
    source = config.source
    if source in NAMED:
        return NAMED[source]()
    name = source.removeprefix("hf:")
    path = expand(name)
    if is_saved_dataset(path):
        return _saved(path, config)
    if source.startswith("hf:"):
        return corpus_from_hub(
            name,
            config.column,
            split=config.split,
            streaming=config.streaming,
            val_fraction=config.val_fraction,
        )
    for field in ("split", "streaming"):
        if getattr(config, field):
            raise UserError(
                f"data.{field} is for datasets of the hub or saved ones, not for {source}; write "
                "hf:OWNER/NAME, or leave it out"
            )
    if Path(source).name == source and not path.exists() and (hint := nearest(source, NAMED)):
        raise UserError(f"there is no file, folder or corpus {source!r}{hint}")
    return corpus_from_files(
        find_files(source),
        name=path.name or source,
        column=config.column,
        encoding=config.encoding,
        val_fraction=config.val_fraction,
    )


def _saved(folder: Path, config: DataConfig) -> Corpus:
    """Return the corpus of a folder that `datasets.save_to_disk` made."""
    train, val, licence = saved_files(folder, config.split)
    return corpus_from_files(
        train,
        name=folder.name,
        column=config.column,
        val_fraction=config.val_fraction,
        held=val,
        licence=licence,
    )


def documents(
    source: str,
    *,
    column: str = AUTO,
    encoding: str = "utf-8",
    split: Literal["train", "val", "all"] = "all",
) -> Iterator[str]:
    """Iterate over the documents of a source; `all` yields those to train on, then the others.

    Raises:
        UserError: as `load_corpus`.
    """
    corpus = load_corpus(DataConfig(source=source, column=column, encoding=encoding))
    for part in ("train", "val"):
        if split in (part, "all"):
            yield from corpus.read(part)
