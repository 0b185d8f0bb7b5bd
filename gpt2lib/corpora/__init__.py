"""Where text comes from: a corpus by name, text files, or a Hugging Face dataset.

Everything becomes a `Corpus`, which yields documents, one string at a time, in two parts: those to
train on and those held out. A new kind of source is one function that returns a `Corpus`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from gpt2lib.config import DataConfig
from gpt2lib.corpora.base import Corpus, Split, corpus_from_texts, held_out, split_text
from gpt2lib.corpora.files import corpus_from_files, find_files, read_text
from gpt2lib.corpora.hf import corpus_from_dataset, is_saved_dataset, load_hub, load_saved
from gpt2lib.corpora.named import ABOUT, cache_dir, plays_corpus, tiny_corpus
from gpt2lib.errors import UserError, nearest
from gpt2lib.storage import expand

__all__ = [
    "ABOUT",
    "NAMED",
    "Corpus",
    "Split",
    "cache_dir",
    "corpus_from_dataset",
    "corpus_from_files",
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
    if source.startswith("hf:"):
        name = source.removeprefix("hf:")
        return corpus_from_dataset(
            load_hub(name), config.column, val_fraction=config.val_fraction, name=name
        )
    path = expand(source)
    if is_saved_dataset(path):
        return corpus_from_dataset(
            load_saved(path), config.column, val_fraction=config.val_fraction, name=path.name
        )
    if Path(source).name == source and not path.exists() and (hint := nearest(source, NAMED)):
        raise UserError(f"there is no file, folder or corpus {source!r}{hint}")
    return corpus_from_files(
        find_files(source),
        name=path.name or source,
        encoding=config.encoding,
        val_fraction=config.val_fraction,
    )


def documents(
    source: str,
    *,
    column: str = "text",
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
