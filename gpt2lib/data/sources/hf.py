"""Datasets of the Hugging Face library: objects in memory, or by name from the hub."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

from gpt2lib.data.sources.base import Corpus, Piece, digest, first_line, joined, text_in_pieces
from gpt2lib.data.sources.columns import AUTO, TEXT, choose
from gpt2lib.data.sources.iterables import corpus_from_iterable
from gpt2lib.data.sources.rows import SAMPLE, sample_kinds
from gpt2lib.data.sources.saved import choose_splits
from gpt2lib.data.sources.splitting import Documents, split_documents
from gpt2lib.utils.errors import UserError

ORIGIN = "a Hugging Face dataset"
_ROWS = 256
_STRINGS = ("string", "large_string", "string_view")


def corpus_from_hub(
    name: str,
    column: str = AUTO,
    *,
    split: str | None = None,
    streaming: bool = False,
    val_fraction: float = 0.1,
) -> Corpus:
    """Make a corpus of the dataset `OWNER/NAME`, `OWNER/NAME:CONFIG`, or of a folder's data files.

    Args:
        name: what `datasets.load_dataset` is given, and a configuration after a colon.
        column: see `columns.choose`.
        split: the split to train on.
        streaming: whether to read it as it comes. Its rows are not counted then: each is held out
            with the probability `val_fraction`, unless the dataset has a split for that.
        val_fraction: share held out.

    Raises:
        UserError: if it cannot be loaded, for instance without a network.
    """
    dataset, revision = load_hub(name, streaming=streaming)
    return corpus_from_dataset(
        dataset,
        column,
        split=split,
        val_fraction=val_fraction,
        name=name,
        fingerprint=digest("hub", name, revision) if streaming else None,
    )


def load_hub(name: str, *, streaming: bool = False) -> tuple[Any, str]:
    """Return the splits of a dataset, and what says which version of it they are."""
    import datasets

    path, config = name, ""
    if not Path(name).exists():
        path, _, config = name.partition(":")
    try:
        with _without_torch():
            builder = datasets.load_dataset_builder(path, config or None)
            if streaming:
                return builder.as_streaming_dataset(), _revision(builder)
            builder.download_and_prepare()
            return builder.as_dataset(), _revision(builder)
    except Exception as error:  # the kinds differ between versions, and each is one line to a user
        raise UserError(
            f"cannot load the dataset {name!r} ({first_line(error)}); without a network, save it "
            "elsewhere with save_to_disk and give that folder as data.source"
        ) from error


def _revision(builder: Any) -> str:
    """Return what changes with the data: the commit of a hub dataset, the dates of local files."""
    files = builder.config.data_files or {}
    origins = {str(k): [list(v), getattr(v, "origin_metadata", "")] for k, v in files.items()}
    return f"{builder.hash} {builder.config.name} {builder.config.version} {origins}"


@contextmanager
def _without_torch() -> Iterator[None]:
    """Keep `datasets` from importing torch, which streaming does only to share an epoch's number.

    It costs 200 MB in each process that prepares data.
    """
    import datasets

    before = datasets.config.TORCH_AVAILABLE
    datasets.config.TORCH_AVAILABLE = before and "torch" in sys.modules
    try:
        yield
    finally:
        datasets.config.TORCH_AVAILABLE = before


def corpus_from_dataset(
    dataset: Any,
    column: str = AUTO,
    *,
    split: str | None = None,
    val_fraction: float = 0.1,
    name: str = "the dataset",
    fingerprint: str | None = None,
) -> Corpus:
    """Make a corpus of a `datasets.Dataset`, an `IterableDataset` or a dictionary of them.

    Each row is a document; rows whose text is empty or missing are left out. A dictionary's own
    validation (or test) split is held out; otherwise a share of the rows is.

    Args:
        dataset: the dataset.
        column: see `columns.choose`.
        split: the split to train on; by default the only one, or train.
        val_fraction: share held out, where the dataset has no split for it.
        name: what to call it in messages.
        fingerprint: what tells these rows from others; without it, those of an `IterableDataset`
            are read once to find out.

    Raises:
        UserError: if the column is missing or not text, or there is no train split.
    """
    train, val = dataset, None
    if isinstance(dataset, Mapping):
        which, other = choose_splits(list(dataset), split, name)
        train, val = dataset[which], None if other is None else dataset[other]
    parts = [part for part in (train, val) if part is not None]
    columns = [_column(part, column, name) for part in parts]
    rows = [_documents(part, c) for part, c in zip(parts, columns, strict=True)]
    licence = (train.info.license if train.info else None) or "see the dataset's card"
    counted = hasattr(train, "num_rows")
    if fingerprint is None and not counted:
        if val is None:
            return corpus_from_iterable(
                lambda: (text for text in _texts(train, columns[0]) if text),
                val_fraction=val_fraction, name=name, licence=licence,
            )  # fmt: skip
        raise UserError(
            f"{name} holds streams in several splits; give one of them, such as dataset['train']"
        )
    pieces = split_documents(rows[0], val_fraction, counted=counted)
    if val is not None:
        by_name = dict(zip(("train", "val"), rows, strict=True))
        pieces = lambda part: chain.from_iterable(by_name[part]())  # noqa: E731
    prints = [fingerprint or part._fingerprint for part in parts]
    return Corpus(
        name=name,
        fingerprint=digest("datasets", str(split), *columns, *prints),
        licence=licence,
        origin=ORIGIN,
        read=lambda part: joined(pieces(part)),
        fixed_split=val is not None,
        pieces=pieces,
    )


def _documents(dataset: Any, column: str) -> Documents:
    def documents() -> Iterator[Iterable[Piece]]:
        return (text_in_pieces(text) for text in _texts(dataset, column) if text)

    return documents


def _texts(dataset: Any, column: str) -> Iterator[str | None]:
    """Iterate over one column, without decoding the others or holding more than a few rows."""
    with _without_torch():
        plain = dataset if dataset.features is None else dataset.select_columns([column])
    if hasattr(dataset, "num_rows"):
        for rows in plain.with_format(None).iter(batch_size=_ROWS):
            yield from rows[column]
        return
    try:
        for i, row in enumerate(plain):
            text = row.get(column)
            if text is not None and not isinstance(text, str):
                raise UserError(f"row {i}: {column!r} holds {type(text).__name__}, not text")
            yield text
    except (OSError, ConnectionError) as error:
        raise UserError(
            f"the stream broke off ({first_line(error)}); run the same command again, or set "
            "data.streaming to false to store the dataset first"
        ) from error


def _column(dataset: Any, column: str, name: str) -> str:
    if dataset.features is None:  # a stream that does not say what it holds
        kinds = sample_kinds(islice(dataset, SAMPLE))
    else:
        kinds = {
            key: TEXT if (kind := getattr(value, "dtype", "a structure")) in _STRINGS else str(kind)
            for key, value in dataset.features.items()
        }
    return choose(kinds, column, name)
