"""CSV and TSV: values between commas or tabs, and a first row that names the columns.

Python's own reader is used and not pyarrow's, for the reasons given in `json_lines`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from gpt2lib.data.sources.bounds import bounded_lines, check_row
from gpt2lib.data.sources.columns import SAMPLE, TEXT, mark_twins
from gpt2lib.data.sources.files import kind_of, open_text
from gpt2lib.utils.errors import UserError


def kinds(path: Path, encoding: str = "utf-8", errors: str = "strict") -> dict[str, str]:
    """Return what each column holds; see `columns`.

    A CSV has no types; what looks like numbers is told apart to find the text.
    """
    lines = _rows(path, encoding, errors)
    names, sample = next(lines, []), list(islice(lines, SAMPLE))
    columns = zip(names, zip(*sample, strict=True), strict=True) if sample else ()
    found = {n: "numbers" if n != TEXT and _are_numbers(values) else TEXT for n, values in columns}
    return mark_twins(names, found)


def texts(
    path: Path, column: str, encoding: str = "utf-8", errors: str = "strict"
) -> Iterator[str | None]:
    """Iterate over one column. A value in double quotes may hold commas and newlines.

    Raises:
        UserError: with the number of the line that has too few or too many values.
    """
    lines = _rows(path, encoding, errors)
    at = next(lines).index(column)
    for row in lines:
        yield row[at]


def rows(
    path: Path, encoding: str = "utf-8", errors: str = "strict"
) -> Iterator[tuple[str, dict[str, str]]]:
    """Iterate over the rows, each with what to call it in messages."""
    lines = _rows(path, encoding, errors)
    names = next(lines, [])
    for number, row in enumerate(lines, start=1):
        yield f"{path}, row {number}", dict(zip(names, row, strict=True))


def _rows(path: Path, encoding: str, errors: str) -> Iterator[list[str]]:
    """Iterate over the rows; the names come first."""
    csv.field_size_limit(2**31 - 1)  # the module's own limit is shorter than a long document
    comma = "\t" if kind_of(path) == ".tsv" else ","
    names: list[str] = []
    with open_text(path, encoding, errors) as file:
        lines = _Remembered(path, bounded_lines(path, file))
        rows = csv.reader(lines, delimiter=comma, strict=True)
        try:
            for row in rows:
                written, lines.row = lines.row, []
                if not row:  # a blank line is no row
                    continue
                names = names or _checked_names(path, row, comma)
                if len(row) != len(names):
                    raise UserError(
                        f"{path}, line {rows.line_num} ends a row of {len(row)} values, but the "
                        f"first row names {len(names)} columns; put values with commas or newlines "
                        "in quotes"
                    )
                if _swallowed(written, comma, len(names)):
                    raise UserError(
                        f"{path}, lines {rows.line_num - len(written) + 1} to {rows.line_num} are "
                        f"{len(written)} rows, but a quote that opens in the first makes them one; "
                        'write a value that begins with a quote as """…", or give JSON lines'
                    )
                yield row
        except csv.Error as error:
            start = rows.line_num - len(lines.row) + 1
            raise UserError(f"{path}, line {start} is not CSV: {_meaning(error)}") from error


class _Remembered:
    """Lines of a file, and those of them that a row was read from."""

    def __init__(self, path: Path, lines: Iterable[str]) -> None:
        self.path, self.lines = path, enumerate(lines, start=1)
        self.row: list[str] = []
        self.length = 0  # characters in them

    def __iter__(self) -> _Remembered:
        return self

    def __next__(self) -> str:
        number, line = next(self.lines)
        self.length = len(line) + self.length * bool(self.row)
        check_row(self.path, number, self.length)  # a quote that never closes takes a whole file
        self.row.append(line)
        return line


def _swallowed(lines: list[str], comma: str, n_columns: int) -> bool:
    """Return whether each of several lines of one row would be a row by itself.

    Verse in quotes may well have as many commas on each of its lines; only lines that begin with
    numbers, as ids do, are then rows. Tabs it hardly has.
    """
    if len(lines) < 2 or any(line.count(comma) != n_columns - 1 for line in lines):
        return False
    return n_columns > 1 and (
        comma == "\t" or _are_numbers(tuple(line.split(comma)[0] for line in lines))
    )


def _meaning(error: csv.Error) -> str:
    if "new-line character" in str(error):
        return "its lines end in carriage returns alone; write them with newlines (\\n)"
    if "unexpected end" in str(error):
        return f"{error}: a quote that opens in that row never closes"
    return str(error)


def _checked_names(path: Path, names: list[str], comma: str) -> list[str]:
    """Refuse a table whose values stand between something else: it would be read as one column."""
    others = [mark for mark in ";\t,|" if mark != comma and mark in names[0]]
    if len(names) == 1 and others:
        raise UserError(
            f"{path} has a single column, {names[0]!r}, with {others[0]!r} in its name; a .csv has "
            "commas between its values, a .tsv has tabs"
        )
    return names


def _are_numbers(values: tuple[str, ...]) -> bool:
    """Return whether a column holds numbers and nothing else but empty values."""
    filled = [value for value in values if value.strip()]
    try:
        return [float(value) for value in filled] != []
    except ValueError:
        return False
