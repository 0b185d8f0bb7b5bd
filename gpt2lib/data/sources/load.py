"""From the name of a source to its corpus."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from glob import iglob
from pathlib import Path
from typing import Any, Literal

from gpt2lib.config import DataConfig
from gpt2lib.data.sources import files
from gpt2lib.data.sources.corpus import Corpus, Documents, digest
from gpt2lib.data.sources.split_names import by_name
from gpt2lib.data.sources.templates import Template, shown, template_for
from gpt2lib.utils.errors import UserError, nearest
from gpt2lib.utils.files import expand, printable

_log = logging.getLogger(__name__)

NAMED = ("plays", "tinyshakespeare")
"""The corpora that `DataConfig.source` can call by name; see `named`."""


def load_corpus(config: DataConfig) -> Corpus:
    """Return the corpus that a configuration names.

    Args:
        config: `source` is looked up as a name, then as `hf:…`, a file, a folder, a glob.

    Raises:
        UserError: if there is no such source or it holds no text.
    """
    source, column, fraction = config.source, config.column, config.val_fraction
    if source in NAMED:
        from gpt2lib.data.sources.named import CORPORA

        return CORPORA[source]()
    name = source.removeprefix("hf:")
    path = expand(name)
    if path.is_dir():
        from gpt2lib.data.sources.saved import is_saved_dataset, saved_files

        if is_saved_dataset(path):
            train, val, licence = saved_files(path, config.split)
            made = corpus_from_files(
                train, path.name, column, "utf-8", fraction, val, licence, template=config.template
            )
            return replace(made, reads=("split", *made.reads))
    if source.startswith("hf:"):
        from gpt2lib.data.sources.hf import corpus_from_hub

        made = corpus_from_hub(name, column, config.split, config.streaming, fraction)
        return replace(made, reads=("column", "split", "streaming"))
    for field in ("split", "streaming"):
        if getattr(config, field):
            raise UserError(
                f"data.{field} is for datasets of the hub or saved ones, not for {source}; write "
                "hf:OWNER/NAME, or leave it out"
            )
    if Path(source).name == source and not path.exists() and (hint := nearest(source, NAMED)):
        raise UserError(f"there is no file, folder or corpus {source!r}{hint}")
    name = path.name or source
    paths, held = by_name(files.find_files(source), name)
    encoding, errors = config.encoding, config.encoding_errors
    return corpus_from_files(
        paths, name, column, encoding, fraction, held, errors=errors, template=config.template
    )


def found_from(folder: Path, source: str) -> str:
    """Return a source that was named from another folder than this one, as it is called here.

    Args:
        folder: of a run, which mostly lies below the folder that the run was started in.
        source: a relative path, for which the folders above are searched if it is not here; any
            other source is returned as it is.
    """
    if source in NAMED or source.startswith("hf:") or Path(source).is_absolute():
        return source
    for above in (Path(), *folder.resolve().parents):
        if (above / source).exists() or any(iglob(str(above / source), recursive=True)):  # noqa: PTH207
            return str(above / source)
    return source


def corpus_from_files(
    paths: Sequence[Path],
    name: str,
    column: str = "auto",
    encoding: str = "utf-8",
    val_fraction: float = 0.1,
    val_paths: Sequence[Path] | None = None,
    licence: str = "the user's own text",
    errors: str = "strict",
    template: str | None = None,
) -> Corpus:
    """Make a corpus of files. A text file is a document, and so is each row of a table.

    Empty files, rows and texts are left out.

    Args:
        paths: the files, in order.
        name: what to call them in messages.
        column: the column or key of tables that holds the text; see `columns.choose`.
        encoding: of text, JSON and CSV.
        val_fraction: share of the bytes held out.
        val_paths: files whose documents are held out instead.
        licence: under which terms the text may be used.
        errors: what becomes of bytes that are no text; see `files.open_text`.
        template: how the rows of tables become texts; see `templates.template_for`.

    Raises:
        UserError: if they hold no text, or the column cannot be found. Reading raises it for what
            is damaged further on.
    """
    train, val = ([p for p in some if p.stat().st_size > 0] for some in (paths, val_paths or ()))
    every = [*train, *val]
    if not every:
        what = "is empty" if len(paths) == 1 else f"has {len(paths)} files, all empty"
        raise UserError(f"{name} {what} (0 bytes); give a file with text")
    hashes = [files.sha256(path) for path in every]
    how = (encoding, errors)
    read_as = encoding if errors == "strict" else f"{encoding} {errors}"
    wanted = column if template is None else template
    columns = {
        path: _column(path, wanted, *how, template is not None) for path in every if _reader(path)
    }
    names = {c for c in columns.values() if isinstance(c, str)}
    if column == "auto" and (chosen := sorted(names)):
        _log.info("%s: the text is in the column %s", name, " or ".join(map(repr, chosen)))
    for path in every if errors != "strict" else ():
        if files.is_encoded(path):
            files.say_errors(path, *how)
    counted: set[Path] = set()

    def read(some: Sequence[Path]) -> Documents:
        return lambda: (d for p in some for d in _documents(p, columns.get(p), *how, counted))

    if (first := next(read(train)(), None)) is None:
        which = next((f"the column {c!r} of {name}" for c in names), name)
        raise UserError(f"{which} holds no text; give at least one document that is not empty")
    border = "" if val_paths is None else str(len(train))
    kinds = [f"{files.kind_of(p)} {columns[p]}" if columns.get(p) else "text" for p in every]
    example = shown(list(first)) if template is not None and columns else ""
    origin = ", ".join(path.name for path in every[:3]) + (", …" if len(every) > 3 else "")
    return Corpus(
        printable(name),
        digest("files", read_as, border, *kinds, *hashes),
        licence,
        printable(origin),
        read(train),
        None if val_paths is None else read(val),
        val_fraction,
        files.text_size(every),
        n_files=len(every),
        copies=len({*hashes[: len(train)]} & {*hashes[len(train) :]}),
        reads=("template" if example else "column",) * bool(columns)
        + ("encoding", "encoding_errors") * any(map(files.is_encoded, every)),
        example=example,
    )


def _reader(path: Path) -> Any:
    """Return the module that reads a table (see `columns`); None for a text file."""
    name = files.TABLES.get(files.kind_of(path))
    return name and importlib.import_module(f"gpt2lib.data.sources.{name}")


def _column(
    path: Path, wanted: str, encoding: str, errors: str, is_template: bool
) -> str | Template | None:
    """Return the column or the template to read of a table, or None if there are no rows at all."""
    from gpt2lib.data.sources.columns import choose

    kinds = _reader(path).kinds(path, encoding, errors)
    find: Any = template_for if is_template else choose
    return find(kinds, wanted, str(path)) if kinds else None


def _documents(
    path: Path, column: str | Template | None, encoding: str, errors: str, counted: set[Path]
) -> Iterator[Iterable[str]]:
    """Iterate over the documents of one file, none empty; say once how many rows have none."""
    reader = _reader(path)
    if reader is None:
        yield from files.text_documents(path, encoding, errors)
    elif column is not None:
        n_rows = n_missing = 0
        found: Iterator[Any]
        if isinstance(column, Template):
            what = "a field is null or the answer empty"
            rows = reader.rows(path, encoding, errors)
            found = (column.fill(row, where) or None for where, row in rows)
        else:
            what = f"{column!r} is null"
            texts = reader.texts(path, column, encoding, errors)
            found = (text and (text,) for text in texts)
        for document in found:
            n_rows, n_missing = n_rows + 1, n_missing + (document is None)
            if document:
                yield document
        if n_missing and path not in counted:
            counted.add(path)
            said = "%s: %s in %d of %d rows, which are left out"
            _log.warning(said, path, what, n_missing, n_rows)


def documents(
    source: str,
    *,
    column: str = "auto",
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
