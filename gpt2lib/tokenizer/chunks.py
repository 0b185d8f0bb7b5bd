"""From text to rows of bytes: the two steps before any merge.

Reference: Radford et al. 2019, section 2.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import regex

CHUNK = regex.compile(
    r"""
      '(?:s|t|re|ve|m|ll|d)     # English endings: it's, don't, we're, I've, I'm, he'll, I'd
    | [ ]?\p{L}+                # letters, with the one space before them
    | [ ]?\p{N}+                # digits and other numbers
    | [ ]?[^\s\p{L}\p{N}]+      # punctuation, symbols, emoji
    | \s+(?!\S)                 # white space, but for the last one before a word
    | \s+                       # what white space is left
    """,
    regex.VERBOSE,
)
PIECE = 1 << 16  # characters; long texts are encoded in pieces, which run in parallel
CUT = re.compile(r"\S(?=[ \n])")


def byte_to_unicode() -> dict[int, str]:
    """Return a visible character for each byte, in the order of the token ids 0 to 255.

    Files of tokens are text, so each byte needs a character of its own. The 188 bytes that print
    well in Latin-1 stand for themselves and come first; the others, white space among them, take
    the characters from U+0100 on: a space is written Ġ, a newline Ċ.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    visible += range(ord("®"), ord("ÿ") + 1)
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {
        byte: chr(256 + n) for n, byte in enumerate(hidden)
    }


BYTES = [bytes([byte]) for byte in byte_to_unicode()]  # token id -> its byte
BYTE_ID = {byte[0]: token for token, byte in enumerate(BYTES)}  # byte -> its token id


def split(text: str) -> list[str]:
    """Cut a text into the chunks that merges never cross; joined, they are the text."""
    return CHUNK.findall(text)  # type: ignore[no-any-return]


def to_byte_ids(chunk: str) -> list[int]:
    """Return the tokens of a chunk before any merge: one for each UTF-8 byte."""
    return [BYTE_ID[byte] for byte in chunk.encode("utf-8")]


def pieces(text: str) -> Iterator[str]:
    """Cut a long text only where `split` always cuts: between a word and white space.

    No chunk has white space after something else, and what follows such a place does not change
    the chunks before it, so the pieces' ids, joined, are the ids of the whole.
    """
    start = 0
    while len(text) - start > PIECE and (cut := CUT.search(text, start + PIECE)):
        yield text[start : cut.end()]
        start = cut.end()
    yield text[start:]
