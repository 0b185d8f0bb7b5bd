"""Pre-tokenisation: from a text to pre-tokens, and from each of them to a row of bytes.

Reference: Radford et al. 2019, section 2.2.
"""

from __future__ import annotations

from collections.abc import Iterator

import regex

PATTERN = regex.compile(
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


def pretokenize(text: str) -> list[str]:
    """Cut a text into the pre-tokens that merges never cross; joined, they are the text."""
    return PATTERN.findall(text)  # type: ignore[no-any-return]


LONGEST = 1024
"""Characters after which a pre-token is cut while merges are learnt."""
_STRETCH = regex.compile(rf"(?<!\S)\S{{{LONGEST}}}|(?<!\s)\s{{{LONGEST}}}")


def has_stretch(text: str) -> bool:
    """Return whether some pre-token may be longer than `LONGEST`."""
    return _STRETCH.search(text) is not None


def to_learn_from(text: str) -> Iterator[str]:
    """Iterate over the pre-tokens that merges are learnt from: a long one comes in pieces.

    Each merge goes through all words that it changes, so the time to learn grows with the square
    of their length, and DNA, Chinese without marks or a line of dashes is one word. Such a word is
    as good in pieces, since no token is that long. Only learning cuts: to encode a word of n
    tokens takes n log n steps, and its ids stay those that GPT-2 has for it.
    """
    for pretoken in pretokenize(text):
        for start in range(0, len(pretoken), LONGEST):
            yield pretoken[start : start + LONGEST]


def byte_to_unicode() -> dict[int, str]:
    """Return the byte-level alphabet: a visible character for each byte, in the order of the ids.

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


def to_byte_ids(pretoken: str) -> list[int]:
    """Return the tokens of a pre-token before any merge: one for each UTF-8 byte."""
    return [BYTE_ID[byte] for byte in pretoken.encode("utf-8")]
