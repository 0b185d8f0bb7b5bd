"""Tables: which of their columns holds the text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gpt2lib.utils.errors import UserError, nearest

AUTO = "auto"
TEXT = "text"
"""Both the kind of a column that can be read and the name that is looked for first."""


@dataclass(frozen=True)
class Table:
    """Rows that can be read again and again, one column at a time.

    Attributes:
        name: what to call it in messages.
        kinds: returns what each column holds, `TEXT` or another type; empty without any row.
        texts: iterates over one column; missing texts are None.
    """

    name: str
    kinds: Callable[[], Mapping[str, str]]
    texts: Callable[[str], Iterator[str | None]]

    def column(self, wanted: str) -> str | None:
        """Return the column to read, or None if there are no rows at all.

        Raises:
            UserError: as `choose`.
        """
        kinds = self.kinds()
        return choose(kinds, wanted, self.name) if kinds else None


def mark_twins(names: Sequence[str], kinds: Mapping[str, str]) -> dict[str, str]:
    """Return what columns hold, where a name that several have cannot be chosen."""
    counts = Counter(names)
    return {n: k if counts[n] == 1 else f"{counts[n]} columns" for n, k in kinds.items()}


def choose(kinds: Mapping[str, str], wanted: str, where: str) -> str:
    """Return the column that holds the text.

    Args:
        kinds: what each column holds.
        wanted: a column, or `AUTO`: the column "text", or the only one that holds text.
        where: what to call the table.

    Raises:
        UserError: if there is no such column, it holds something else, or several would do.
    """
    listing = ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "none"
    if wanted != AUTO:
        if wanted not in kinds:
            raise UserError(
                f"{where} has no column {wanted!r}; it has {listing}: choose one with "
                f"--data.column{nearest(wanted, kinds)}"
            )
        if kinds[wanted] != TEXT:
            raise UserError(
                f"the column {wanted!r} of {where} holds {kinds[wanted]}, not text; columns: "
                f"{listing}"
            )
        return wanted
    candidates = [name for name, kind in kinds.items() if kind == TEXT]
    if TEXT in candidates:
        return TEXT
    if len(candidates) != 1:
        what = f"{len(candidates)} columns of text" if candidates else "no column of text"
        raise UserError(
            f"{where} has {what} and none called {TEXT!r}; choose one with --data.column: {listing}"
        )
    return candidates[0]
