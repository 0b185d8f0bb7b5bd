"""What commands share when they write: log lines on stderr, results on stdout."""

from __future__ import annotations

import codecs
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from gpt2lib.utils.process import rank


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is at the moment; a test may have replaced it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def is_main_process() -> bool:
    """Whether this process is the one that prints, of the several that a launcher may start."""
    return rank() == 0


def set_up_logging() -> None:
    """Show the library's messages on stderr as plain lines; other processes show errors only."""
    logger = logging.getLogger("gpt2lib")
    logger.setLevel(logging.INFO if is_main_process() else logging.ERROR)
    if not any(isinstance(handler, _Stderr) for handler in logger.handlers):
        logger.addHandler(_Stderr())


@contextmanager
def logging_restored() -> Iterator[None]:
    """Undo `set_up_logging` when the block ends: Python code may call a command in between."""
    logger = logging.getLogger("gpt2lib")
    level, handlers = logger.level, list(logger.handlers)
    try:
        yield
    finally:
        logger.setLevel(level)
        for handler in set(logger.handlers) - set(handlers):
            logger.removeHandler(handler)


def print_json(values: Any) -> None:
    """Print values as JSON on stdout."""
    print(json.dumps(values, indent=1, ensure_ascii=False))


def print_table(rows: Mapping[str, str]) -> None:
    """Print names and values in two columns."""
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")


def scores_table(scores: Mapping[str, Any]) -> dict[str, str]:
    """Return a table's rows for what an evaluation returned."""
    return {
        "held-out loss": f"{scores['loss']:.4f} nats per token",
        "perplexity": f"{scores['perplexity']:,.2f}",
        "bits per byte": f"{scores['bits_per_byte']:.4f}",
        "tokens scored": f"{scores['tokens']:,}",
    }


def text_pieces(pieces: Iterable[bytes], stop: Iterable[str] = ()) -> Iterator[str]:
    """Decode bytes as they come, and end before the first of the stop texts.

    A token may end in the middle of a UTF-8 character, and a stop text may be spread over
    several tokens: both are held back until they are complete or ruled out.

    Args:
        pieces: the bytes of one token after the other.
        stop: texts that end the stream; they are not part of it.

    Yields:
        Text that is certain; what is not UTF-8 becomes U+FFFD.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    stops = [text for text in stop if text]
    held = ""
    for piece in pieces:
        held += decoder.decode(piece)
        found = [place for text in stops if (place := held.find(text)) >= 0]
        if found:
            yield held[: min(found)]
            return
        keep = max((_overlap(held, text) for text in stops), default=0)
        certain = len(held) - keep
        if certain:
            yield held[:certain]
            held = held[certain:]
    held += decoder.decode(b"", final=True)
    if held:
        yield held


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` begin `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
