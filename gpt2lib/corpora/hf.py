"""Hugging Face datasets as documents: in memory, saved in a folder, or from the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2lib.corpora.base import Corpus, Read, Split, digest, split_reader
from gpt2lib.errors import UserError, nearest

VAL_NAMES = ("validation", "valid", "val", "dev", "test")
"""What a held-out split may be called; the first that is there is taken."""
_ROWS = 1000


def is_saved_dataset(folder: Path) -> bool:
    """Return whether `datasets.save_to_disk` made the folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def load_saved(folder: Path) -> Any:
    """Return the Dataset or DatasetDict saved in a folder.

    Raises:
        UserError: if it cannot be read.
    """
    import datasets

    try:
        return datasets.load_from_disk(str(folder))
    except Exception as error:  # pyarrow and datasets raise a dozen kinds for a damaged folder
        raise UserError(f"cannot read the dataset in {folder}: {_first_line(error)}") from error


def load_hub(name: str) -> Any:
    """Return the dataset `OWNER/NAME`, `OWNER/NAME:CONFIG`, or one in a local folder.

    Raises:
        UserError: if it cannot be loaded, for instance without a network.
    """
    import datasets

    config = None
    if not Path(name).exists():
        name, _, config = name.partition(":")
    if is_saved_dataset(Path(name)):
        return load_saved(Path(name))
    try:
        return datasets.load_dataset(name, config or None)
    except Exception as error:  # the kinds differ between versions, and each is one line to a user
        raise UserError(
            f"cannot load the dataset {name!r} ({_first_line(error)}); without a network, save it "
            "elsewhere with save_to_disk and give that folder as data.source"
        ) from error


def corpus_from_dataset(
    dataset: Any, column: str = "text", *, val_fraction: float = 0.1, name: str = "the dataset"
) -> Corpus:
    """Make a corpus of a `datasets.Dataset` or `DatasetDict`; each row is a document.

    Rows whose text is empty or missing are left out. A DatasetDict's own validation (or test)
    split is held out; otherwise a share of the rows is.

    Raises:
        UserError: if the column is missing or not text, or there is no train split.
    """
    licence, origin = "see the dataset's card", "a Hugging Face dataset"
    if isinstance(dataset, Mapping):
        train = dataset.get("train") if len(dataset) != 1 else next(iter(dataset.values()))
        if train is None:
            raise UserError(
                f"{name} has no split 'train', only {', '.join(dataset) or 'none at all'}"
            )
        val = next((dataset[k] for k in VAL_NAMES if k in dataset), None)
    else:
        train, val = dataset, None
    for part in (train,) if val is None or val is train else (train, val):
        _check_column(part, column, name)
    if val is None or val is train:
        return Corpus(
            name=name,
            fingerprint=digest("dataset", column, train._fingerprint),
            licence=train.info.license or licence,
            origin=origin,
            read=_unsplit_reader(train, column, val_fraction),
        )
    return Corpus(
        name=name,
        fingerprint=digest("datasets", column, train._fingerprint, val._fingerprint),
        licence=train.info.license or licence,
        origin=origin,
        read=_split_reader(train, val, column),
        fixed_split=True,
    )


def _split_reader(train: Any, val: Any, column: str) -> Read:
    def read(split: Split) -> Iterator[str]:
        return _rows(train if split == "train" else val, column)

    return read


def _unsplit_reader(dataset: Any, column: str, fraction: float) -> Read:
    """Split by row, counting only the rows that hold text."""
    filled: list[NDArray[np.int64]] = []

    def positions() -> NDArray[np.int64]:
        if not filled:  # found when first needed: a cached preparation never reads the rows
            texts = _column(dataset, column)
            filled.append(np.array([i for i, text in enumerate(texts) if text], dtype=np.int64))
        return filled[0]

    def get(at: NDArray[np.int64]) -> Iterator[str]:
        return _rows(dataset.select(positions()[at]), column)

    return split_reader(lambda: len(positions()), get, fraction)


def _rows(dataset: Any, column: str) -> Iterator[str]:
    return (text for text in _column(dataset, column) if text)


def _column(dataset: Any, column: str) -> Iterator[str | None]:
    """Iterate over one column, without decoding the others or holding more than a few rows."""
    plain = dataset.select_columns([column]).with_format(None)
    for rows in plain.iter(batch_size=_ROWS):
        yield from rows[column]


def _check_column(dataset: Any, column: str, name: str) -> None:
    if not hasattr(dataset, "num_rows"):
        raise UserError(
            f"{name} is a {type(dataset).__name__}, which cannot be counted; give a "
            "datasets.Dataset, or a list of its texts"
        )
    columns = dataset.column_names
    if column not in columns:
        raise UserError(
            f"{name} has no column {column!r}; it has {', '.join(columns) or 'none'}: choose one "
            f"with --data.column{nearest(column, columns)}"
        )
    kind = getattr(dataset.features[column], "dtype", "a structure")
    if kind not in ("string", "large_string"):
        raise UserError(
            f"the column {column!r} of {name} holds {kind}, not text; columns: {', '.join(columns)}"
        )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
