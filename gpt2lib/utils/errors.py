"""The one exception for bad input.

A `UserError` carries one line: the thing, both numbers and the way out. The command line prints
it without a traceback and exits with code 2; in Python it is an ordinary `ValueError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Input that cannot be used, said in one line that names the way out."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the valid name closest to `name`, or ``""``."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def visible(text: str) -> str:
    """Return a text of a stranger so that a terminal shows it and obeys nothing in it.

    A file's name, a column's or what a model writes may hold the characters that move the cursor,
    rename the window or type into it.
    """
    return text.translate(CONTROLS)
