"""Rows of which only the answers are learned, packed into windows that hold them whole.

A plain text is cut into windows anywhere (`order`). An answer cut from its question would be
learned without it, so here each window begins with a row and holds as many as fit. Only a row that
is longer than a window is cut: its first `block_size` tokens are read, the rest is not trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpt2lib.data.order import shuffled
from gpt2lib.data.token_files import LAST, LEARNED, TokenFile, marks_path, read_header
from gpt2lib.utils.errors import UserError


@dataclass(frozen=True)
class Packed:
    """Windows of whole rows.

    Attributes:
        starts: where each begins, at the token before its first row's first, in order. Windows in
            which nothing is learned are left out.
        ends: the position behind the last token of each.
        n_long: rows longer than a window.
        n_lost: of these, such of which nothing is learned.
        longest: tokens of the longest row.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    n_long: int
    n_lost: int
    longest: int

    def about(self, block_size: int) -> str:
        """Say how many rows are cut off; empty if none is."""
        if not self.n_long:
            return ""
        rows = f"{self.n_long} row{'s are' if self.n_long > 1 else ' is'}"
        lost = f", and of {self.n_lost} no answer is left" if self.n_lost else ""
        return (
            f"{rows} longer than block_size {block_size} (the longest has {self.longest} tokens): "
            f"what is beyond is not read{lost}"
        )


def pack(marks: Any, block_size: int) -> Packed:
    """Pack rows into windows, in order.

    Args:
        marks: `LEARNED` and `LAST` of each token.
        block_size: T; a window reads T + 1 tokens, the first one only as an input.
    """
    marked: NDArray[Any] = np.asarray(marks)
    last = np.flatnonzero(marked & LAST)  # of each row
    first = np.concatenate([[0], last[:-1]])  # the token before each row
    following = np.searchsorted(last, first + block_size, side="right").tolist()
    rows, row = [], 0
    while row < len(last):
        rows.append(row)
        row = max(row + 1, following[row])
    starts = first[rows]
    ends = 1 + np.minimum(last[[*(r - 1 for r in rows[1:]), -1]], starts + block_size)
    learned = np.cumsum(marked & LEARNED)
    kept = learned[ends - 1] > learned[starts]
    long = last - first > block_size
    nothing = learned[np.minimum(first + block_size, last)] == learned[first]
    return Packed(
        starts[kept],
        ends[kept],
        int(long.sum()),
        int((long & nothing).sum()),
        int((last - first).max()),
    )


class RowFile(TokenFile):
    """A row of tokens in which only the answers are learned.

    Attributes:
        marks: `LEARNED` and `LAST` of each token, memory-mapped as the tokens are.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._marks = TokenFile(marks_path(self.path))
        self.marks = self._marks.tokens
        self._packed: dict[int, Packed] = {}

    @property
    def n_targets(self) -> int:
        return self.header.n_targets

    def packed(self, block_size: int) -> Packed:
        """Return the windows.

        Raises:
            UserError: if not one answer, or its beginning, is in any of them.
        """
        if block_size not in self._packed:
            found = self._packed[block_size] = pack(self.marks, block_size)
            if not found.starts.size:
                raise UserError(
                    f"{self.name}: {found.about(block_size)}, so there is nothing to learn; take a "
                    "larger block_size or shorter rows"
                )
        return self._packed[block_size]

    def require(self, block_size: int) -> None:
        self.packed(block_size)

    def windows(self, block_size: int, seed: int, indices: ArrayLike) -> NDArray[np.int64]:
        starts = self.packed(block_size).starts
        return starts[shuffled(len(starts), seed, indices)]

    def eval_windows(self, block_size: int) -> NDArray[np.int64]:
        return self.packed(block_size).starts

    def window_ends(self, starts: NDArray[np.int64], block_size: int) -> NDArray[np.int64]:
        packed = self.packed(block_size)
        return packed.ends[np.searchsorted(packed.starts, starts, side="right") - 1]

    def tokens_in_a_pass(self, block_size: int) -> int:
        return len(self.packed(block_size).starts) * block_size

    def about(self, block_size: int) -> str:
        return self.packed(block_size).about(block_size)

    def verify(self) -> None:
        super().verify()
        self._marks.verify()

    def verify_if_cheap(self) -> None:
        super().verify_if_cheap()
        self._marks.verify_if_cheap()


def open_tokens(path: str | Path) -> TokenFile:
    """Open a row of tokens, with its marks if it has any."""
    return (RowFile if read_header(Path(path)).n_targets else TokenFile)(path)
