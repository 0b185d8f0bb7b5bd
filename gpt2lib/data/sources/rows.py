"""JSON lines and CSV: tables that are text files, read a row at a time."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from gpt2lib.data.sources.columns import TEXT, Table, mark_twins
from gpt2lib.data.sources.decoding import kind_of, lines
from gpt2lib.utils.errors import UserError

SAMPLE = 100  # rows that tell what a column holds
_HALF = re.compile("[\ud800-\udfff]")  # a character beyond U+FFFF is written as two of these
_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
_KINDS = {str: TEXT, bool: "true or false", int: "numbers", float: "numbers", list: "lists"}


def json_table(path: Path, encoding: str) -> Table:
    """Return a file of JSON lines: on each line an object, whose keys are the columns.

    Blank lines do not count, and null is a missing text. Reading raises `UserError` with the
    number of the first line that is no object, or whose text is absent or no string.
    """

    def kinds() -> Mapping[str, str]:
        return sample_kinds(row for _, _, row in islice(_objects(path, encoding), SAMPLE))

    def texts(column: str) -> Iterator[str | None]:
        for number, line, row in _objects(path, encoding):
            if column not in row:
                has = ", ".join(row) or "none"
                raise UserError(f"{path}, line {number}: there is no key {column!r}, only {has}")
            text = row[column]
            if text is not None and not isinstance(text, str):
                kind = _KINDS.get(type(text), "objects")
                raise UserError(f"{path}, line {number}: {column!r} holds {kind}, not text")
            if text and _ESCAPED.search(line) and (half := _HALF.search(text)):
                raise UserError(
                    f"{path}, line {number} holds half a character (\\u{ord(half[0]):04x}), which "
                    "no text can hold; mend or leave out that line"
                )
            yield text

    return Table(str(path), kinds, texts)


def sample_kinds(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return what each key of some rows holds, by its first value that is not null."""
    found: dict[str, str] = {}
    for row in rows:
        for key, value in row.items():
            if found.get(key, "null") == "null":
                found[key] = "null" if value is None else _KINDS.get(type(value), "objects")
    return found


def _objects(path: Path, encoding: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Iterate over the numbers of the lines, the lines and what they hold."""
    for number, line in enumerate(lines(path, encoding), start=1):
        if line.isspace():
            continue
        try:
            row = json.loads(line.rstrip("\r\n"))
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}, line {number} is not JSON: {error.msg} at column {error.colno}; each "
                "line must be one object"
            ) from error
        except (ValueError, RecursionError) as error:  # a number or a nesting beyond all measure
            raise UserError(f"{path}, line {number} cannot be read: {error}") from error
        if not isinstance(row, dict):
            kind = _KINDS.get(type(row), "null")
            raise UserError(
                f"{path}, line {number} holds {kind}, not an object such as "
                '{"text": "…"}; each line must be one object'
            )
        yield number, line, row


def csv_table(path: Path, encoding: str) -> Table:
    """Return a file of values between commas (or tabs), whose first row names the columns.

    A value in double quotes may hold commas, newlines and doubled quotes. Reading raises
    `UserError` with the number of the line that has too few or too many values.
    """

    def kinds() -> Mapping[str, str]:
        rows = (row for _, row in _values(path, encoding))
        names, sample = next(rows, []), list(islice(rows, SAMPLE))
        # A CSV has no types; what looks like numbers is told apart to find the text.
        columns = zip(names, zip(*sample, strict=True), strict=True) if sample else ()
        kinds = {
            n: TEXT if n == TEXT or not _numbers(values) else "numbers" for n, values in columns
        }
        return mark_twins(names, kinds)

    def texts(column: str) -> Iterator[str | None]:
        rows = _values(path, encoding)
        at = next(rows)[1].index(column)
        for _, row in rows:
            yield row[at]

    return Table(str(path), kinds, texts)


def _values(path: Path, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """Iterate over the numbers of the last lines of rows, and the rows; the names come first."""
    csv.field_size_limit(2**31 - 1)  # the module's own limit is shorter than a long document
    comma = "\t" if kind_of(path) == ".tsv" else ","
    rows = csv.reader(lines(path, encoding), delimiter=comma, strict=True)
    names: list[str] | None = None
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise UserError(f"{path}, line {rows.line_num} is not CSV: {error}") from error
        if row is None:
            return
        if not row:  # a blank line
            continue
        if names is None:
            _check_separator(path, row, comma)
            names = row
        if len(row) != len(names):
            raise UserError(
                f"{path}, line {rows.line_num} ends a row of {len(row)} values, but the first row "
                f"names {len(names)} columns; put values with commas or newlines in quotes"
            )
        yield rows.line_num, row


def _check_separator(path: Path, names: list[str], comma: str) -> None:
    """Refuse a table whose values stand between something else: it would be read as one column."""
    others = [mark for mark in ";\t,|" if mark != comma and mark in names[0]]
    if len(names) == 1 and others:
        raise UserError(
            f"{path} has a single column, {names[0]!r}, with {others[0]!r} in its name; a .csv has "
            "commas between its values, a .tsv has tabs"
        )


def _numbers(values: tuple[str, ...]) -> bool:
    """Return whether a column holds numbers and nothing else but empty values."""
    filled = [value for value in values if value.strip()]
    try:
        return [float(value) for value in filled] != []
    except ValueError:
        return False
