"""A progress bar that counts the bytes of documents passing by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class Progress:
    """Counts UTF-8 bytes; made by `follow`.

    Attributes:
        n_bytes: how many have passed.
    """

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self.n_bytes = 0

    def name(self, what: str) -> None:
        """Say what is being done now."""
        self._bar.set_description(what)

    def add(self, n_bytes: int) -> None:
        """Move the bar on."""
        self.n_bytes += n_bytes
        self._bar.update(n_bytes)

    def skip(self, n_bytes: int) -> None:
        """Move the bar on by what was done before; the speed leaves it out."""
        if not self._bar.disable:
            self._bar.initial += n_bytes
        self.add(n_bytes)

    def over(self, documents: Iterable[str]) -> Iterator[str]:
        """Pass documents on, counting each."""
        for text in documents:
            yield text
            self.add(len(text.encode("utf-8", "surrogatepass")))


@contextmanager
def follow(what: str, n_bytes: int | None, shown: bool) -> Iterator[Progress]:
    """Show a bar with bytes and speed while the block runs.

    Args:
        what: what is being done, at first.
        n_bytes: bytes in all, or None if unknown.
        shown: whether to show anything.
    """
    from tqdm.auto import tqdm

    with tqdm(
        desc=what, total=n_bytes, unit="B", unit_scale=True, disable=not shown, leave=False
    ) as bar:
        yield Progress(bar)
