"""From the name of a source to its corpus."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from glob import iglob
from pathlib import Path
from typing import Literal

from gpt2lib.config import DataConfig
from gpt2lib.data.sources import files
from gpt2lib.data.sources.corpus import Corpus, Documents, digest
from gpt2lib.data.sources.source_file import Encoding, SourceFile, encoding_of, say_encodings
from gpt2lib.data.sources.split_names import by_name
from gpt2lib.data.sources.templates import shown
from gpt2lib.utils.errors import UserError, nearest, visible
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

        template = config.template
        made = corpus_from_hub(name, column, config.split, config.streaming, fraction, template)
        by = "column" if template is None else "template"
        return replace(made, reads=(by, "split", "streaming"))
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
    encoding: Encoding = "utf-8",
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
        encoding: of text, JSON and CSV; or patterns of names, and the encoding of each.
        val_fraction: share of the bytes held out.
        val_paths: files whose documents are held out instead.
        licence: under which terms the text may be used.
        errors: what becomes of bytes that are no text; see `files.open_text`.
        template: how the rows of tables become texts; see `templates.template_for`.

    Raises:
        UserError: if they hold no text, or the column cannot be found. Reading raises it for what
            is damaged further on.
    """
    train, val = (
        [
            SourceFile(p, encoding_of(p, encoding), errors, template or column, bool(template))
            for p in some
            if p.stat().st_size > 0
        ]
        for some in (paths, val_paths or ())
    )
    every = [*train, *val]
    if not every:
        what = "is empty" if len(paths) == 1 else f"has {len(paths)} files, all empty"
        raise UserError(f"{name} {what} (0 bytes); give a file with text")
    say_encodings(name, every, encoding)
    columns = sorted({file.column for file in every if isinstance(file.column, str)})
    if column == "auto" and columns:
        _log.info("%s: the text is in the column %s", name, " or ".join(map(repr, columns)))

    def read(some: Sequence[SourceFile]) -> Documents:
        return lambda: (document for file in some for document in file.documents())

    if (first := next(read(train)(), None)) is None:
        which = f"the column {columns[0]!r} of {name}" if columns else name
        raise UserError(f"{which} holds no text; give at least one document that is not empty")
    tables = any(file.is_table for file in every)
    example = shown(list(first)) if template is not None and tables else ""
    names = [file.path.name for file in every]
    return Corpus(
        visible(printable(name)),
        _fingerprint(every, None if val_paths is None else len(train), encoding),
        licence,
        visible(printable(", ".join(names[:3]) + (", …" if len(names) > 3 else ""))),
        read(train),
        None if val_paths is None else read(val),
        val_fraction,
        files.text_size([file.path for file in every]),
        n_files=len(every),
        copies=len({file.sha256 for file in train} & {file.sha256 for file in val}),
        reads=("template" if example else "column",) * tables
        + ("encoding", "encoding_errors") * any(files.is_encoded(file.path) for file in every),
        example=example,
    )


def _fingerprint(every: Sequence[SourceFile], n_train: int | None, encoding: Encoding) -> str:
    """Return what tells these files, read in this way and split after `n_train`, from others."""
    errors = "" if every[0].errors == "strict" else f" {every[0].errors}"
    each = encoding if isinstance(encoding, str) else " ".join(file.encoding for file in every)
    border = "" if n_train is None else str(n_train)
    kinds, hashes = ([getattr(file, what) for file in every] for what in ("kind", "sha256"))
    return digest("files", each + errors, border, *kinds, *hashes)


def documents(
    source: str,
    *,
    column: str = "auto",
    encoding: str | dict[str, str] = "utf-8",
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
