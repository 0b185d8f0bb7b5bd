"""One file among those that a corpus is made of: how it is read, and its documents."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2lib.data.sources import files
from gpt2lib.data.sources.templates import Template, template_for

Encoding = str | Mapping[str, str]
"""The encoding of all files, or of those whose names match a pattern."""
UTF_8 = "utf-8"
_log = logging.getLogger(__name__)


@dataclass
class SourceFile:
    """A file, and what was settled of it before it is read.

    Attributes:
        path: where it is.
        encoding: in which it is read, if its kind has one.
        errors: what becomes of bytes that are no text.
        wanted: the column of a table, or a template for its rows.
        template: whether it is a template.
    """

    path: Path
    encoding: str
    errors: str
    wanted: str
    template: bool

    def __post_init__(self) -> None:
        self.sha256 = files.sha256(self.path)
        self.column: str | Template | None = None
        self._counted = False
        name = files.TABLES.get(files.kind_of(self.path))
        self._reader: Any = name and importlib.import_module(f"gpt2lib.data.sources.{name}")
        if self._reader and (kinds := self._reader.kinds(*self._how)):  # else it has no row
            from gpt2lib.data.sources.columns import choose

            find: Any = template_for if self.template else choose
            self.column = find(kinds, self.wanted, str(self.path))
        if self.errors != "strict" and files.is_encoded(self.path):
            files.say_errors(*self._how)

    @property
    def _how(self) -> tuple[Path, str, str]:
        return self.path, self.encoding, self.errors

    @property
    def is_table(self) -> bool:
        """Whether each of its rows is a document."""
        return self._reader is not None

    @property
    def kind(self) -> str:
        """What is read of it, for a fingerprint."""
        return f"{files.kind_of(self.path)} {self.column}" if self.column else "text"

    def documents(self) -> Iterator[Iterable[str]]:
        """Iterate over its documents, none empty; say once how many rows have none."""
        if not self.is_table:
            yield from files.text_documents(*self._how)
        elif self.column is not None:
            n_rows = n_missing = 0
            for document in self._rows(self.column):
                n_rows, n_missing = n_rows + 1, n_missing + (document is None)
                if document:
                    yield document
            if n_missing and not self._counted:
                self._counted = True
                null = "a field is null or the answer empty"
                what = null if self.template else f"{self.column!r} is null"
                said = "%s: %s in %d of %d rows, which are left out"
                _log.warning(said, self.path, what, n_missing, n_rows)

    def _rows(self, column: str | Template) -> Iterator[Iterable[str] | None]:
        """Iterate over the texts of the rows in parts, None for one that has none."""
        path, *how = self._how
        if isinstance(column, Template):
            return (column.fill(row, where) or None for where, row in self._reader.rows(path, *how))
        return (text and (text,) for text in self._reader.texts(path, column, *how))


def encoding_of(path: Path, encoding: Encoding) -> str:
    """Return the encoding of a file: that of the first pattern it matches, or utf-8."""
    if isinstance(encoding, str):
        return encoding
    return next((e for pattern, e in encoding.items() if path.match(pattern)), UTF_8)


def say_encodings(name: str, some: Iterable[SourceFile], encoding: Encoding) -> None:
    """Log how many files are read in which encoding, and which patterns none matches."""
    if isinstance(encoding, str):
        return
    encoded = [file for file in some if files.is_encoded(file.path)]
    found = [file.encoding for file in encoded]
    counts = ", ".join(f"{found.count(one)} as {one}" for one in dict.fromkeys(found))
    _log.info("%s: read %s", name, counts or "without an encoding")
    for pattern, one in encoding.items():
        if not any(file.path.match(pattern) for file in encoded):
            said = "data.encoding is %s for %r, but nothing reads it: no file of %s is called so"
            _log.warning(said, one, pattern, name)
