"""What a file may cost that unpacks to more than anybody would write."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TypeVar

from gpt2lib.utils.errors import UserError

T = TypeVar("T")

LARGEST = 1 << 28
"""Characters of one row: it is in memory as a whole, four bytes for some of them."""
UNPACKED, TIMES = 1 << 30, 200
"""Bytes, and times the size of the file, beyond which what is unpacked is no text: prose is packed
to a third of its size, logs to a 50th, and one letter over and over to a 1,000th or less."""


def check_unpacked(path: Path, n_bytes: int) -> None:
    """Refuse a packed file that has become too much.

    Args:
        path: the file.
        n_bytes: of it that were unpacked so far.

    Raises:
        UserError: with both numbers.
    """
    if n_bytes > UNPACKED and n_bytes > TIMES * (size := path.stat().st_size):
        raise UserError(
            f"{path} has {size:,} bytes and unpacks to more than {n_bytes:,}, over {TIMES} times "
            "as many, as no text does; unpack it yourself if it is one"
        )


class Unpacking(io.RawIOBase):
    """A packed file, read from its start, that may not become too much."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.file, self.path, self.n_read = file, path, 0

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.n_read += len(data)
        check_unpacked(self.path, self.n_read)
        return data


def bounded_lines(path: Path, file: IO[str]) -> Iterator[str]:
    """Iterate over the lines of a text; one without an end would fill the memory.

    Raises:
        UserError: for a line that is too long.
    """
    for number, line in enumerate(iter(lambda: file.readline(LARGEST + 1), ""), start=1):
        check_row(path, number, len(line))
        yield line


def check_row(path: Path, number: int, length: int) -> None:
    """Refuse a row that is too long, by the number of its line."""
    if length > LARGEST:
        raise UserError(
            f"{path}, line {number} is longer than {LARGEST:,} characters; a row is held in memory "
            "as a whole: give such a text as a file of its own"
        )


def bounded(path: Path, values: Iterable[T], size: Callable[[T], int]) -> Iterator[T]:
    """Iterate over values of a packed table, which may not become too much."""
    n_bytes = 0
    for value in values:
        n_bytes += size(value)
        check_unpacked(path, n_bytes)
        yield value
