"""Files as documents: text, JSON lines, CSV, Parquet, Arrow, compressed or not.

A text file is a document, and so is each row of a table. Files are read a piece at a time, so the
memory that is needed does not grow with them.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from gpt2lib.data.sources.base import Corpus, Piece, cut_in_pieces, digest, joined, text_in_pieces
from gpt2lib.data.sources.columns import AUTO, Table
from gpt2lib.data.sources.decoding import COMPRESSION, kind_of, sha256, text_chunks
from gpt2lib.data.sources.rows import csv_table, json_table
from gpt2lib.data.sources.splitting import Documents, split_documents
from gpt2lib.data.sources.tables import arrow_table, parquet_table
from gpt2lib.utils.errors import UserError, nearest
from gpt2lib.utils.files import expand

TABLES: dict[str, Callable[[Path, str], Table]] = {
    ".jsonl": json_table,
    ".ndjson": json_table,
    ".json": json_table,
    ".csv": csv_table,
    ".tsv": csv_table,
    ".parquet": parquet_table,
    ".arrow": arrow_table,
    ".feather": arrow_table,
}
"""Kinds of files whose rows are documents; any other file is one document."""
SUFFIXES = (".txt", ".md", *(suffix for suffix in TABLES if suffix != ".json"))
"""What is read of a folder, also compressed; a file or a glob may have any name."""


def corpus_from_files(
    paths: Sequence[Path],
    *,
    name: str,
    column: str = AUTO,
    encoding: str = "utf-8",
    val_fraction: float = 0.1,
    held: Sequence[Path] | None = None,
    licence: str = "the user's own text",
) -> Corpus:
    """Make a corpus of files. Empty files, rows and texts are left out.

    Args:
        paths: the files, in order.
        name: what to call them in messages.
        column: the column or key of tables that holds the text; see `columns.choose`.
        encoding: of text, JSON and CSV.
        val_fraction: share of the documents held out; of a single one, its last part.
        held: files whose documents are held out instead.
        licence: under which terms the text may be used.

    Raises:
        UserError: if they hold no text, or the column cannot be found. Reading raises it for what
            is damaged further on.
    """
    train, val = _filled(paths), _filled(held or ())
    every = [*train, *val]
    if not every:
        what = "is empty" if len(paths) == 1 else f"has {len(paths)} files, all empty"
        raise UserError(f"{name} {what} (0 bytes); give a file with text")
    hashes = [sha256(path) for path in every]
    columns = {path: _column(path, column, encoding) for path in every}
    documents = _documents(train, columns, encoding)
    if next(documents(), None) is None:
        which = next((f"the column {c!r} of {name}" for c in columns.values() if c), name)
        raise UserError(f"{which} holds no text; give at least one document that is not empty")
    pieces = split_documents(documents, val_fraction)
    if held is not None:
        parts = {"train": documents, "val": _documents(val, columns, encoding)}
        pieces = lambda split: chain.from_iterable(parts[split]())  # noqa: E731
    border = "" if held is None else str(len(train))
    kinds = [f"{kind_of(path)} {c}" if c else "text" for path, c in columns.items()]
    return Corpus(
        name=name,
        fingerprint=digest("files", encoding, border, *kinds, *hashes),
        licence=licence,
        origin=", ".join(path.name for path in every[:3]) + (", …" if len(every) > 3 else ""),
        read=lambda split: joined(pieces(split)),
        n_bytes=_n_bytes(every),
        fixed_split=held is not None,
        pieces=pieces,
    )


def _filled(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.stat().st_size > 0]


def _column(path: Path, column: str, encoding: str) -> str | None:
    """Return the column to read of a table; None for a text file and for a table without rows."""
    table = TABLES.get(kind_of(path))
    return table(path, encoding).column(column) if table else None


def _documents(paths: Sequence[Path], columns: dict[Path, str | None], encoding: str) -> Documents:
    """Iterate over the documents of several files, in order, none empty."""

    def documents() -> Iterator[Iterable[Piece]]:
        for path in paths:
            table, column = TABLES.get(kind_of(path)), columns[path]
            if table is None:
                chunks = text_chunks(path, encoding)
                first = next(chunks, None)  # the rest is read only if the document is wanted
                if first is not None:
                    yield cut_in_pieces(chain((first,), chunks))
            elif column is not None:
                for text in table(path, encoding).texts(column):
                    if text:
                        yield text_in_pieces(text)

    return documents


def _n_bytes(paths: Sequence[Path]) -> int | None:
    """Return the size of the files, if it is about that of their text."""
    plain = all(
        path.suffix.lower() not in COMPRESSION and kind_of(path) not in (".parquet", ".feather")
        for path in paths
    )
    return sum(path.stat().st_size for path in paths) if plain else None


def find_files(source: str) -> list[Path]:
    """Return the files that a path or a glob names, sorted.

    Raises:
        UserError: if there are none, naming the nearest path that exists.
    """
    path = expand(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        # As in a glob, what is hidden is not meant: editors keep copies of the text there.
        every = (p for p in path.rglob("*") if not _is_hidden(p.relative_to(path)))
        found = [p for p in every if kind_of(p) in SUFFIXES and p.is_file()]
        if not found:
            raise UserError(
                f"the folder {source} has no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} files; "
                f"give a glob for other names, such as '{source.rstrip('/')}/**/*.tex'"
            )
        return sorted(found)
    if glob.has_magic(source):
        found = [Path(p) for p in glob.glob(str(path), recursive=True)]  # noqa: PTH207
        found = sorted(p for p in found if p.is_file())
        if not found:
            raise UserError(f"no file matches {source!r}; in a glob, ** goes into all folders")
        return found
    raise UserError(_missing(source, path))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _missing(source: str, path: Path) -> str:
    """Say which part of a path is missing, and what is there instead."""
    parent, name = path.parent, path.name
    while not parent.is_dir():
        parent, name = parent.parent, parent.name
    hint = nearest(name, sorted(p.name for p in parent.iterdir()))
    missing = "" if parent == path.parent else f" ({parent / name} does not exist)"
    return f"there is no file, folder or corpus {source!r}{missing}{hint}"
