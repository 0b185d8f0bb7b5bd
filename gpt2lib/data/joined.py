"""Several rows of ids, indexed as one: the shards of a token file, or the files of a mixture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class JoinedTokens:
    """Several rows of ids, indexed as one row.

    Reads like a numpy array of one dimension where tokens are read: by a position, a slice, or an
    array of positions of any shape. What comes back from a slice or an array is a numpy array.

    Args:
        parts: the rows, in order, memory-mapped; of one type, none empty.
    """

    ndim = 1

    def __init__(self, parts: Sequence[NDArray[Any] | JoinedTokens]) -> None:
        self.parts = list(parts)
        self.dtype: np.dtype[Any] = self.parts[0].dtype
        lengths = [len(part) for part in self.parts]
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - lengths

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
            if step != 1:
                return self[np.arange(start, stop, step)]
            bounds = np.clip([start - self._starts, stop - self._starts], 0, None).T
            return np.concatenate([p[a:b] for p, (a, b) in zip(self.parts, bounds, strict=True)])
        at = np.asarray(where)
        if at.dtype.kind not in "iu" and at.size:
            raise IndexError(f"tokens are indexed by whole numbers, not {at.dtype}")
        at = at.astype(np.int64)
        at = np.where(at < 0, at + len(self), at)
        if at.size and not 0 <= at.min() <= at.max() < len(self):
            raise IndexError(f"a position is outside the {len(self)} tokens")
        number = np.searchsorted(self._ends, at, side="right")  # the part of each position
        ids = np.empty(at.shape, dtype=self.dtype)
        for i in np.unique(number):
            inside = number == i
            ids[inside] = self.parts[i][at[inside] - self._starts[i]]
        return ids if ids.ndim else ids[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return all ids, in memory."""
        return np.asarray(self[:], dtype=dtype)

    def tolist(self) -> list[int]:
        """Return all ids as a list."""
        return self[:].tolist()  # type: ignore[no-any-return]
