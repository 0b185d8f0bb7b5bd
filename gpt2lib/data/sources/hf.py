"""Datasets of the Hugging Face library: objects in memory, or by name from the hub."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from gpt2lib.data.sources.columns import AUTO, SAMPLE, TEXT, choose
from gpt2lib.data.sources.corpus import Corpus, digest, first_line
from gpt2lib.data.sources.iterables import corpus_from_iterable
from gpt2lib.data.sources.json_lines import sample_kinds
from gpt2lib.data.sources.split_names import choose_splits
from gpt2lib.data.sources.templates import Template, shown, template_for
from gpt2lib.utils.errors import UserError

_log = logging.getLogger(__name__)

NO_NETWORK = {"ConnectError", "ConnectTimeout", "ReadTimeout", "LocalEntryNotFoundError"}
"""Errors of the hub's client that mean that nobody answered."""
_ROWS = 256  # decoded at once
_STRINGS = ("string", "large_string", "string_view")


def corpus_from_hub(
    name: str,
    column: str = AUTO,
    split: str | None = None,
    streaming: bool = False,
    val_fraction: float = 0.1,
    template: str | None = None,
) -> Corpus:
    """Make a corpus of the dataset `OWNER/NAME`, `OWNER/NAME:CONFIG`, or of a folder's data files.

    Args:
        name: what `datasets.load_dataset` is given, and a configuration after a colon.
        column: see `columns.choose`.
        split: the split to train on.
        streaming: whether to read it as it comes. Its rows are not counted then: each is held out
            with the probability `val_fraction`, unless the dataset has a split for that.
        val_fraction: share held out.
        template: how rows become texts, in place of the column; see `templates.template_for`.

    Raises:
        UserError: if it cannot be loaded, for instance without a network.
    """
    import datasets

    path, _, config = (name, "", "") if Path(name).exists() else name.partition(":")
    try:
        with _without_torch():
            builder = datasets.load_dataset_builder(path, config or None)
            if not streaming:
                builder.download_and_prepare()
            loaded = builder.as_streaming_dataset() if streaming else builder.as_dataset()
    except Exception as error:  # the kinds differ between versions, and each is one line to a user
        raise UserError(f"cannot load the dataset {name!r}: {_why(error)}") from error
    fingerprint = digest("hub", name, _revision(builder)) if streaming else None
    return corpus_from_dataset(
        loaded,
        column,
        split=split,
        val_fraction=val_fraction,
        name=name,
        fingerprint=fingerprint,
        template=template,
    )


def _why(error: BaseException) -> str:
    """Say what the library hid behind its last error, and what to do where it is the network."""
    chain = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    causes = [error, *(e.__cause__ for e in chain if e.__cause__)]
    said = list(dict.fromkeys(first_line(e) for e in (causes[0], causes[-1])))
    names = {type(e).__name__ for e in chain}
    if "OfflineModeIsEnabled" in str(error) or "OfflineModeIsEnabled" in names:
        said = ["the hub is switched off by HF_HUB_OFFLINE; unset it"]
    elif not names & NO_NETWORK and not any(isinstance(e, ConnectionError) for e in chain):
        return ": ".join(said)
    return (
        f"{': '.join(said)}; without a network, save it elsewhere with save_to_disk and give that "
        "folder as data.source"
    )


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
    template: str | None = None,
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
        template: how rows become texts, in place of the column; see `templates.template_for`.

    Raises:
        UserError: if the column is missing or not text, or there is no train split.
    """
    parts = [dataset]
    if isinstance(dataset, Mapping):
        parts = [dataset[key] for key in choose_splits(list(dataset), split, name) if key]
    train = parts[0]
    columns = [_column(part, column, template, name) for part in parts]
    if template is None and column == AUTO:
        _log.info("%s: the text is in the column %r", name, columns[0])
    documents = [partial(_documents, *pair) for pair in zip(parts, columns, strict=True)]
    licence = (train.info.license if train.info else None) or "see the dataset's card"
    counted = hasattr(train, "num_rows")
    if fingerprint is None and not counted:
        if template is not None:
            raise UserError(f"{name} is a stream: with a template it needs a fingerprint")
        if len(parts) == 1:
            texts = lambda: (text for (text,) in documents[0]())  # noqa: E731
            return corpus_from_iterable(
                texts, val_fraction=val_fraction, name=name, licence=licence
            )
        raise UserError(
            f"{name} holds streams in several splits; give one of them, such as dataset['train']"
        )
    example = "" if template is None else shown(list(next(documents[0](), [])))
    if template is not None and not example:
        raise UserError(f"{name} has no row with an answer, so there is nothing to learn")
    prints = [fingerprint or part._fingerprint for part in parts]
    return Corpus(
        name,
        digest("datasets", str(split), *map(str, columns), *prints),
        licence,
        "a Hugging Face dataset",
        documents[0],
        documents[1] if len(documents) > 1 else None,
        val_fraction,
        counted=counted,
        example=example,
    )


def _documents(dataset: Any, wanted: str | Template) -> Iterator[Sequence[str]]:
    """Iterate over one column, without decoding the others, or fill in a template."""
    plain, read = dataset, wanted.fill if isinstance(wanted, Template) else partial(_text, wanted)
    if isinstance(wanted, str) and dataset.features is not None:
        with _without_torch():
            plain = dataset.select_columns([wanted])
    try:
        for i, row in enumerate(_rows(plain)):
            if document := read(row, f"row {i}"):
                yield document
    except (OSError, ConnectionError) as error:
        raise UserError(
            f"the stream broke off ({first_line(error)}); run the same command again, or set "
            "data.streaming to false to store the dataset first"
        ) from error


def _rows(dataset: Any) -> Iterator[Mapping[str, Any]]:
    """Iterate over rows; of a stored dataset a few at a time are in memory."""
    if not hasattr(dataset, "num_rows"):
        yield from dataset
        return
    for rows in dataset.with_format(None).iter(batch_size=_ROWS):
        for values in zip(*rows.values(), strict=True):
            yield dict(zip(rows, values, strict=True))


def _text(column: str, row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    text = row.get(column)
    if text is not None and not isinstance(text, str):
        raise UserError(f"{where}: {column!r} holds {type(text).__name__}, not text")
    return (text,) if text else ()


def _column(dataset: Any, column: str, template: str | None, name: str) -> str | Template:
    if dataset.features is None:  # a stream that does not say what it holds
        kinds = sample_kinds(islice(dataset, SAMPLE))
    else:
        kinds = {
            key: TEXT if (kind := getattr(value, "dtype", "a structure")) in _STRINGS else str(kind)
            for key, value in dataset.features.items()
        }
    if template is not None:
        return template_for(kinds, template, name)
    return choose(kinds, column, name)
