"""JSON lines: on each line an object, whose keys are the columns; also one array of objects.

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
from typing import IO, Any

from gpt2lib.data.sources.bounds import LARGEST, bounded_lines
from gpt2lib.data.sources.columns import SAMPLE, TEXT
from gpt2lib.data.sources.files import PART, open_text
from gpt2lib.utils.errors import UserError

_HALF = re.compile("[\ud800-\udfff]")  # a character beyond U+FFFF is written as two of these
_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
LONG_SAMPLE = 1 << 14  # rows among which the column "text" is looked for
_KINDS = {str: TEXT, bool: "true or false", int: "numbers", float: "numbers", list: "lists"}


def kinds(path: Path, encoding: str = "utf-8", errors: str = "strict") -> dict[str, str]:
    """Return what each column holds; see `columns`."""
    sample = (row for _, _, row in _objects(path, encoding, errors))
    found = sample_kinds(islice(sample, SAMPLE))
    if found.get(TEXT) == TEXT:
        return found
    for key, kind in sample_kinds(islice(sample, LONG_SAMPLE)).items():
        if found.get(key, "null") == "null":
            found[key] = kind
    return found


def texts(
    path: Path, column: str, encoding: str = "utf-8", errors: str = "strict"
) -> Iterator[str | None]:
    """Iterate over one column. Blank lines do not count, and null is a missing text.

    Raises:
        UserError: with the number of the first line that is no object, or whose text is absent or
            no string.
    """
    for where, line, row in _objects(path, encoding, errors):
        if column not in row:
            raise UserError(f"{where}: there is no key {column!r}, only {', '.join(row) or 'none'}")
        text = row[column]
        if text is not None and not isinstance(text, str):
            kind = _KINDS.get(type(text), "objects")
            raise UserError(f"{where}: {column!r} holds {kind}, not text")
        _refuse_halves(where, line, text)
        yield text


def rows(
    path: Path, encoding: str = "utf-8", errors: str = "strict"
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Iterate over the rows, each with what to call it in messages.

    Raises:
        UserError: with the number of the first line that is no object, or holds no text.
    """
    for where, line, row in _objects(path, encoding, errors):
        _refuse_halves(where, line, row)
        yield where, row


def _refuse_halves(where: str, line: str, value: Any) -> None:
    """Refuse what a line holds if half a character is in it, which only an escape can write."""
    if _ESCAPED.search(line) and (half := _HALF.search(json.dumps(value, ensure_ascii=False))):
        raise UserError(
            f"{where} holds half a character (\\u{ord(half[0]):04x}), which no text can hold; "
            "mend or leave out that line"
        )


def sample_kinds(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return what each key of some rows holds, by its first value that is not null."""
    found: dict[str, str] = {}
    for row in rows:
        for key, value in row.items():
            if found.get(key, "null") == "null":
                found[key] = "null" if value is None else _KINDS.get(type(value), "objects")
    return found


def _objects(path: Path, encoding: str, errors: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Iterate over what to call each row in a message, the rows as written and what they hold."""
    with open_text(path, encoding, errors) as lines:
        first = next((line for line in bounded_lines(path, lines) if not line.isspace()), "")
        whole = first.strip() in ("{", "[", "[{") or first.lstrip().startswith("[{")
    with open_text(path, encoding, errors) as lines:
        yield from _entries(path, lines) if whole else _lines(path, lines)


def _lines(path: Path, lines: IO[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for number, line in enumerate(bounded_lines(path, lines), start=1):
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
        yield where, line, _checked(row, where, "each line")


def _entries(path: Path, file: IO[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Iterate over objects that stand over several lines, in an array or one after another.

    No more than an entry and what was read with it is in memory.
    """
    decode = json.JSONDecoder().raw_decode
    text, number, at_end = "", 1, False
    while True:
        text = text.lstrip(" \t\r\n,[]" if number > 1 else " \t\r\n[")
        where = f"{path}, entry {number}"
        try:
            row, end = decode(text)
        except json.JSONDecodeError as error:
            if at_end and not text:
                return
            if at_end or len(text) > LARGEST:
                raise UserError(f"{where} is not JSON: {error.msg}") from error
            more = file.read(max(PART, len(text)))
            text, at_end = text + more, not more
            continue
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} cannot be read: {error}") from error
        yield where, text[:end], _checked(row, where, "each entry")
        text, number = text[end:], number + 1


def _checked(row: Any, where: str, each: str) -> dict[str, Any]:
    if isinstance(row, dict):
        return row
    raise UserError(
        f"{where} holds {_KINDS.get(type(row), 'null')}, not an object such as "
        f'{{"text": "…"}}; {each} must be one object'
    )
