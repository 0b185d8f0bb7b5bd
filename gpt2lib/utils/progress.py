"""A progress bar where somebody can see it move, and a plain line now and then where not."""

from __future__ import annotations

import sys
from typing import Any

EVERY = 30.0
"""Seconds between two lines."""


class _Lines:
    """A stream for tqdm that makes a line of what would be drawn over the last one."""

    def write(self, text: str) -> None:
        """Write what is not empty."""
        if text.strip():
            sys.stderr.write(f"{text.strip()}\n")

    def flush(self) -> None:
        """Hand on what was written."""
        sys.stderr.flush()


def progress_bar(total: int | None, unit: str, shown: bool = True, **options: Any) -> Any:
    """Return a tqdm bar; in a file or a pipe it writes a line every half minute.

    Args:
        total: how many units there are, None if unknown.
        unit: what is counted.
        shown: whether anything is written.
        options: further ones of tqdm, such as `initial`.
    """
    from tqdm.auto import tqdm

    plain = not sys.stderr.isatty() and "ipykernel" not in sys.modules
    if plain:
        count = "{n_fmt} of {total_fmt}" if total else "{n_fmt}"
        form = f"{{desc}}{count} {unit}, {{elapsed}}<{{remaining}}, {{rate_fmt}}{{postfix}}"
        lines = {"file": _Lines(), "bar_format": form, "mininterval": EVERY, "delay": EVERY}
        options = {**options, **lines, "miniters": 1}
    return tqdm(total=total, unit=unit, disable=not shown, **options)
