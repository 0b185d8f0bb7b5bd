"""A row of token ids in several files, read as one.

A file of 100 GB cannot be written again from the start because the power failed near its end, so
a part of a source is written in shards of equal size. Each has a hash of its own: a damaged one
is named, and a killed preparation goes on after the last whole one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2lib.utils.errors import UserError

SHARD = 1 << 26
"""Tokens in a shard: 128 MiB with two bytes each. Only the last one has fewer."""


@dataclass(frozen=True)
class Shard:
    """One file of a row.

    Attributes:
        n_tokens: ids in it.
        sha256: hash of the file.
    """

    n_tokens: int
    sha256: str


def shard_path(header: Path, number: int) -> Path:
    """Return where a shard lies: `train-00003.tokens` for `train.json` and 3."""
    return header.with_name(f"{header.stem}-{number:05d}.tokens")


def check_size(path: Path, shard: Shard, itemsize: int) -> None:
    """Refuse a shard that is missing or has another size than it should.

    Raises:
        UserError: naming the file.
    """
    expected = shard.n_tokens * itemsize
    if not path.is_file():
        raise _damaged(path, "it is missing")
    size = path.stat().st_size
    if size != expected:
        raise _damaged(path, f"its header promises {expected} bytes, it has {size}")


def check_hash(path: Path, shard: Shard) -> None:
    """Refuse a shard in which a byte has changed.

    Raises:
        UserError: naming the file.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _damaged(path, f"it cannot be read ({error.strerror or error})") from error
    if found != shard.sha256:
        raise _damaged(path, f"its sha256 is {found[:12]}…, its header says {shard.sha256[:12]}…")


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is damaged: {reason}; delete its folder and prepare again")


class JoinedTokens:
    """Several rows of ids, indexed as one row.

    Reads like a numpy array of one dimension where tokens are read: by a position, a slice, or an
    array of positions of any shape. What comes back from a slice or an array is a numpy array.

    Args:
        parts: the rows, in order, memory-mapped; of one type, none empty.
    """

    ndim = 1

    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        self.parts = list(parts)
        self.dtype = self.parts[0].dtype
        self._ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __repr__(self) -> str:
        return f"JoinedTokens({len(self):,} tokens in {len(self.parts)} shards)"

    @property
    def shape(self) -> tuple[int]:
        """The number of tokens."""
        return (len(self),)

    def __getitem__(self, where: Any) -> Any:
        """Return the ids at a position, a slice or an array of positions (negative from the end).

        Raises:
            IndexError: for a position outside, or an index that is none of these.
        """
        if isinstance(where, slice):
            start, stop, step = where.indices(len(self))
            return self._slice(start, stop) if step == 1 else self[np.arange(start, stop, step)]
        at = np.asarray(where)
        if at.dtype.kind not in "iu" and at.size:
            raise IndexError(f"tokens are indexed by whole numbers, not {at.dtype}")
        at = at.astype(np.int64)
        at = np.where(at < 0, at + len(self), at)
        if at.size and not 0 <= at.min() <= at.max() < len(self):
            raise IndexError(f"a position is outside the {len(self)} tokens")
        number = np.searchsorted(self._ends, at, side="right")  # the shard of each position
        ids = np.empty(at.shape, dtype=self.dtype)
        for i in np.unique(number):
            inside = number == i
            ids[inside] = self.parts[i][at[inside] - self._start(i)]
        return ids if ids.ndim else ids[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return all ids, in memory."""
        return np.asarray(self[:], dtype=dtype)

    def tolist(self) -> list[int]:
        """Return all ids as a list."""
        return self[:].tolist()  # type: ignore[no-any-return]

    def _slice(self, start: int, stop: int) -> NDArray[Any]:
        rows = [
            part[max(start - first, 0) : stop - first]
            for part, first in zip(
                self.parts, self._ends - [len(p) for p in self.parts], strict=True
            )
            if start < first + len(part) and stop > first
        ]
        if len(rows) == 1:
            return rows[0]
        return np.concatenate(rows) if rows else np.empty(0, dtype=self.dtype)

    def _start(self, number: int) -> int:
        return int(self._ends[number]) - len(self.parts[number])
