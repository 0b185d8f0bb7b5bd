"""Tables: which of their columns holds the text.

Each kind of table is a module with two functions: `kinds(path, encoding, errors)` says what each
column holds, `TEXT` or another type, and is empty where there is no row; `texts(path, column,
encoding, errors)` iterates over one column, in which missing texts are None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from gpt2lib.utils.errors import UserError, nearest

AUTO = "auto"
TEXT = "text"
"""Both the kind of a column that can be read and the name that is looked for first."""
LIKELY = (TEXT, "content", "body", "messages", "conversations", "conversation")
"""Names of the column that is meant, the likelier first."""
CHATS = LIKELY[3:]
ASIDE = (
    "id",
    "url",
    "title",
    "name",
    "source",
    "path",
    "file",
    "filename",
    "date",
    "label",
    "lang",
)
"""Names of columns, or what they end in, that hold something about a text."""
SAMPLE = 100  # rows that tell what a column without a type holds


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
                f"{listing}{_chat(wanted)}"
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
    (found,) = candidates
    rank = LIKELY.index(found) if found in LIKELY else len(LIKELY)
    doubts = [name for name in LIKELY[:rank] if name in kinds]
    if found.lower().endswith(ASIDE):  # beside something nested, where the text may be
        doubts += [name for name, kind in kinds.items() if _is_nested(kind)]
    if doubts:
        raise UserError(
            f"the only column of text in {where} is {found!r}, but {doubts[0]!r} "
            f"({kinds[doubts[0]]}) is more likely meant; choose one with --data.column: "
            f"{listing}{_chat(doubts[0])}"
        )
    return found


def _is_nested(kind: str) -> bool:
    return kind.startswith(("list", "large_list", "struct", "map", "object", "a structure", "List"))


def _chat(column: str) -> str:
    """Say what to do with a list of messages, if a column holds one by its name."""
    way_out = "; a chat is read with --data.template chat"
    return way_out if column in CHATS else ""
