"""JSON lines: on each line an object, whose keys are the columns.

Python's own reader is used and not pyarrow's or `datasets`': these count rows within a block, so a
message could not name the line; they refuse a file in which any key changes its type, or a row
that is longer than a block; and they read UTF-8 only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from gpt2lib.data.sources.columns import SAMPLE, TEXT
from gpt2lib.data.sources.files import open_text
from gpt2lib.utils.errors import UserError

_HALF = re.compile("[\ud800-\udfff]")  # a character beyond U+FFFF is written as two of these
_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
_KINDS = {str: TEXT, bool: "true or false", int: "numbers", float: "numbers", list: "lists"}


def kinds(path: Path, encoding: str) -> dict[str, str]:
    """Return what each column holds; see `columns`."""
    return sample_kinds(row for _, _, row in islice(_objects(path, encoding), SAMPLE))


def texts(path: Path, encoding: str, column: str) -> Iterator[str | None]:
    """Iterate over one column. Blank lines do not count, and null is a missing text.

    Raises:
        UserError: with the number of the first line that is no object, or whose text is absent or
            no string.
    """
    for where, line, row in _objects(path, encoding):
        if column not in row:
            raise UserError(f"{where}: there is no key {column!r}, only {', '.join(row) or 'none'}")
        text = row[column]
        if text is not None and not isinstance(text, str):
            kind = _KINDS.get(type(text), "objects")
            raise UserError(f"{where}: {column!r} holds {kind}, not text")
        if text and _ESCAPED.search(line) and (half := _HALF.search(text)):
            raise UserError(
                f"{where} holds half a character (\\u{ord(half[0]):04x}), which no text can hold; "
                "mend or leave out that line"
            )
        yield text


def sample_kinds(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return what each key of some rows holds, by its first value that is not null."""
    found: dict[str, str] = {}
    for row in rows:
        for key, value in row.items():
            if found.get(key, "null") == "null":
                found[key] = "null" if value is None else _KINDS.get(type(value), "objects")
    return found


def _objects(path: Path, encoding: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Iterate over what to call each line in a message, the lines and what they hold."""
    with open_text(path, encoding) as lines:
        for number, line in enumerate(lines, start=1):
            if line.isspace():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line.rstrip("\r\n"))
            except json.JSONDecodeError as error:
                said = f"{where} is not JSON: {error.msg} at column {error.colno}"
                raise UserError(f"{said}; each line must be one object") from error
            except (ValueError, RecursionError) as error:  # a number or a nesting beyond measure
                raise UserError(f"{where} cannot be read: {error}") from error
            if not isinstance(row, dict):
                raise UserError(
                    f"{where} holds {_KINDS.get(type(row), 'null')}, not an object such as "
                    '{"text": "…"}; each line must be one object'
                )
            yield where, line, row
