"""Copied or written: which stretches of a sample stand, byte for byte, in the training text.

A suffix array lists the positions of a text in the order of what follows them. So the text's
longest match with the start of any string lies beside the place where that string would be sorted
in, and a binary search finds it. The array takes five bytes for each byte of text; a long text is
therefore indexed a part at a time, and the best match of all parts counts.

Text matches by bytes and not by tokens: a model may write a sentence in other tokens than the
tokenizer would. A match does not reach over the end of a document.

Reference: Manber and Myers 1993 (suffix arrays); Carlini et al. 2023 (what a model repeats of its
training text grows with how often it was there).
"""

from __future__ import annotations

import html
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2lib.data import TokenFile
from gpt2lib.tokenizer import Tokenizer
from gpt2lib.utils.errors import UserError

PART = 100_000_000
"""Bytes of text that are indexed at once: half a gigabyte of memory."""
LEAST = 50
"""Bytes from which on a match counts: some ten words of English."""
_FIRST = 64  # bytes that are compared before it is known how long a match is


@dataclass(frozen=True)
class Copied:
    """What of a sample stands in a text.

    Attributes:
        sample: the bytes that were looked for.
        stretches: start and end of what is copied, in bytes, in order; none touches another. Each
            is covered by matches of at least `least` bytes.
        longest: bytes of the longest match.
        least: bytes from which on a match counts.
    """

    sample: bytes
    stretches: tuple[tuple[int, int], ...]
    longest: int
    least: int

    @property
    def share(self) -> float:
        """The share of the sample's bytes that are copied."""
        return sum(end - start for start, end in self.stretches) / max(1, len(self.sample))

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """Iterate over the sample's text, with whether it is copied; no character is cut."""
        borders = [border for stretch in self.stretches for border in stretch]
        whole = [self._whole(border) for border in borders]
        for i, (start, end) in enumerate(zip([0, *whole], [*whole, len(self.sample)], strict=True)):
            if end > start:
                yield self.sample[start:end].decode("utf-8", "replace"), i % 2 == 1

    def _whole(self, border: int) -> int:
        """Move a border that lies inside a character to the start of the character."""
        while 0 < border < len(self.sample) and self.sample[border] & 0xC0 == 0x80:
            border -= 1
        return border

    def painted(self, before: str = "[[", after: str = "]]") -> str:
        """Return the sample's text with marks around what is copied."""
        return "".join(f"{before}{text}{after}" if c else text for text, c in self.pieces())

    def about(self) -> str:
        """Say how much is copied."""
        return (
            f"{self.share:.1%} of {len(self.sample):,} bytes stand in the training text in "
            f"stretches of {self.least} bytes or more; the longest has {self.longest}"
        )

    def _repr_html_(self) -> str:
        """Show the sample in a notebook."""
        text = "".join(
            f"<mark>{html.escape(text)}</mark>" if c else html.escape(text)
            for text, c in self.pieces()
        )
        return f'<pre style="white-space: pre-wrap">{text}</pre><p>{html.escape(self.about())}</p>'


class CopyIndex:
    """The suffix array of a text, which finds the longest match of anything in it.

    Args:
        text: at most 2 GiB.
    """

    def __init__(self, text: bytes) -> None:
        from pydivsufsort import divsufsort

        self.text = text
        self.order: NDArray[np.int32] = divsufsort(text) if text else np.empty(0, np.int32)

    def matches(self, sample: bytes) -> NDArray[np.int64]:
        """Return how many bytes from each position of a sample on stand somewhere in the text."""
        return np.array([self._longest(sample, at) for at in range(len(sample))], dtype=np.int64)

    def _longest(self, sample: bytes, at: int) -> int:
        size = _FIRST
        while True:
            found = self._match(sample[at : at + size])
            if found < size:
                return found
            size *= 2

    def _match(self, needle: bytes) -> int:
        """Return how many bytes of the start of a needle stand in the text."""
        order: Any = self.order
        size = len(needle)
        place = bisect_left(order, needle, key=lambda at: self.text[at : at + size])
        beside = order[max(0, place - 1) : place + 1].tolist()
        return max((_in_common(needle, self.text[p : p + size]) for p in beside), default=0)


def _in_common(a: bytes, b: bytes) -> int:
    """Return with how many equal bytes two strings begin; the first is at least as long."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(b))


def find_copied(
    samples: Sequence[bytes], text: Iterable[bytes], least: int = LEAST, part: int = PART
) -> list[Copied]:
    """Find what of some samples stands in a text.

    Args:
        samples: what may be copied; of a run's sample, what it drew, without the prompt.
        text: in pieces of any size, in order.
        least: bytes from which on a match counts.
        part: bytes that are indexed at once.

    Raises:
        UserError: if `least` is not above 0.
    """
    if least < 1:
        raise UserError(f"a match has at least 1 byte, not {least}")
    lengths = [np.zeros(len(sample), dtype=np.int64) for sample in samples]
    overlap = max(map(len, samples), default=0)  # so that no match is cut between two parts
    for index in map(CopyIndex, _parts(text, max(part, 2 * overlap), overlap)):
        lengths = [np.maximum(n, index.matches(s)) for s, n in zip(samples, lengths, strict=True)]
    return [
        Copied(sample, _stretches(n, least), int(n.max(initial=0)), least)
        for sample, n in zip(samples, lengths, strict=True)
    ]


def text_of(tokens: TokenFile, tokenizer: Tokenizer, size: int = 1 << 20) -> Iterator[bytes]:
    """Iterate over the bytes that a row of tokens stands for; documents stay apart."""
    pieces = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
    for start in range(0, len(tokens), size):
        ids = np.asarray(tokens.tokens[start : start + size]).tolist()
        yield b"".join(map(pieces.__getitem__, ids))


def _parts(text: Iterable[bytes], size: int, overlap: int) -> Iterator[bytes]:
    """Gather pieces to parts of about `size` bytes, each beginning with the end of the last."""
    waiting = bytearray()
    fresh = False
    for piece in text:
        for start in range(0, len(piece), size):
            waiting += piece[start : start + size]
            fresh = True
            if len(waiting) >= size:
                yield bytes(waiting)
                del waiting[: len(waiting) - overlap]
                fresh = False
    if fresh:
        yield bytes(waiting)


def _stretches(lengths: NDArray[np.int64], least: int) -> tuple[tuple[int, int], ...]:
    """Join matches that are long enough and touch."""
    found: list[tuple[int, int]] = []
    for start in np.flatnonzero(lengths >= least).tolist():
        end = start + int(lengths[start])
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return tuple(found)
