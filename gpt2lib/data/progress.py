"""A progress bar that counts the bytes of documents passing by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class Progress:
    """Counts UTF-8 bytes; made by `follow`."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def add(self, n_bytes: int) -> None:
        """Move the bar on."""
        self._bar.update(n_bytes)

    def over(self, documents: Iterable[str]) -> Iterator[str]:
        """Pass documents on, counting each."""
        for text in documents:
            yield text
            self.add(len(text.encode("utf-8", "surrogatepass")))


@contextmanager
def follow(what: str, n_bytes: int | None, shown: bool) -> Iterator[Progress]:
    """Show a bar while the block runs.

    Args:
        what: what is being done.
        n_bytes: bytes in all, or None if unknown.
        shown: whether to show anything.
    """
    from tqdm.auto import tqdm

    with tqdm(
        desc=what, total=n_bytes, unit="B", unit_scale=True, disable=not shown, leave=False
    ) as bar:
        yield Progress(bar)
