"""Which part of a text is held out: a share of its bytes, as whole documents where that comes near.

Documents differ in length, and a share of their number can be any share of the text. So they are
weighed, and spread at random: neighbours often resemble each other (a sorted folder, a dated
archive), so neither the last ones nor every tenth would be a fair sample. Each position has a
hash, and documents are taken in the order of their hashes. Where whole ones do not come near the
share, because a few long ones are most of the text, the end of the longest is held out as well.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

COUNTED = 1 << 17
"""Documents up to which they are weighed; of more, each is held out with that probability."""
NEAR = 0.5
"""By which part of the share whole documents may miss it: 5 to 15 % come near to 10 %."""
_WORDS = 1 << 64


class HeldOut(NamedTuple):
    """What is held out of a row of documents.

    Attributes:
        below: a document whose position has a hash below this is held out, if they were too many
            to be weighed.
        whole: the positions of those held out whole, otherwise.
        cut: the position of a document of which the end is held out, and its first character that
            is; None if there is none.
        copies: documents held out, whole or in part, whose text is trained on at another position.
        as_counted: whether as many documents of one length would have been split the same way.
    """

    below: int = 0
    whole: frozenset[int] = frozenset()
    cut: tuple[int, int] | None = None
    copies: int = 0
    as_counted: bool = True

    def holds(self, position: int) -> bool:
        """Whether a document is held out, whole."""
        return position in self.whole or (bool(self.below) and _word(position) < self.below)


def by_bytes(documents: Iterable[Iterable[str]], fraction: float, may_cut: bool = True) -> HeldOut:
    """Weigh documents, which are read once, and choose which are held out.

    Where none may be cut, and whole ones do not come near the share, it is one of their number.
    Some text is held out if `fraction` is above 0, and some is not, if there are two characters.
    """
    sizes, lengths, texts = array("q"), array("q"), []
    for document in islice(documents, COUNTED + 1):
        size, length, sha = 0, 0, hashlib.blake2b(digest_size=8)
        for part in document if len(sizes) < COUNTED else ():
            data = part.encode("utf-8", "surrogatepass")
            size, length = size + len(data), length + len(part)
            sha.update(data)
        sizes.append(size)
        lengths.append(length)
        texts.append(sha.digest())
    n = len(sizes)
    if n > COUNTED:
        return HeldOut(limit(n, fraction))
    whole, missing = _whole_documents(sizes, fraction)
    cut = None
    if missing and not may_cut:
        whole = frozenset(np.flatnonzero(held_out(n, fraction)).tolist())
    elif missing:
        longest = max((i for i in range(n) if i not in whole), key=lengths.__getitem__)
        length, share = lengths[longest], fraction if n == 1 else missing / sizes[longest]
        if length > 1:
            cut = longest, min(max(1, round(length * (1 - share))), length - 1)
        elif n > 1 and not whole:  # there are only single characters
            whole = frozenset({int(np.argmin(_word(np.arange(n, dtype=np.uint64))))})
    held = {*whole, *([cut[0]] if cut else [])}
    trained_on = {text for i, text in enumerate(texts) if i not in held}
    counted = np.flatnonzero(held_out(n, fraction))
    return HeldOut(
        whole=whole,
        cut=cut,
        copies=sum(texts[i] in trained_on for i in held),
        as_counted=n == 1 or (cut is None and whole == frozenset(counted.tolist())),
    )


def _whole_documents(sizes: array[int], fraction: float) -> tuple[frozenset[int], float]:
    """Return the documents that come nearest to a share of the bytes, and the bytes missing.

    None are missing where they come near. At least one document is left.
    """
    target, taken = fraction * sum(sizes), 0
    whole: set[int] = set()
    for i in np.argsort(_word(np.arange(len(sizes), dtype=np.uint64))).tolist():
        nearer = sizes[i] < 2 * (target - taken)
        if nearer and taken + sizes[i] <= (1 + NEAR) * target and len(whole) < len(sizes) - 1:
            whole.add(i)
            taken += sizes[i]
    missing = target - taken
    return frozenset(whole), missing if missing > NEAR * target else 0.0


def _word(i: Any) -> Any:
    """Hash a position, or an array of them as uint64, to 64 bits, never two to the same.

    Multiplying by an odd constant permutes the 64-bit words; the golden ratio spreads them, and
    the shifts and the second product remove the regular steps it would leave.
    """
    mask = _WORDS - 1
    word = (i + 1) * 0x9E3779B97F4A7C15 & mask
    word = (word ^ (word >> 32)) * 0xD6E8FEB86659FD93 & mask
    return word ^ (word >> 32)


def limit(n: int | None, fraction: float) -> int:
    """Return below which hash one of `n` documents (None: it is not known how many) is held out."""
    if fraction <= 0 or n in (0, 1):
        return 0
    share = int(fraction * _WORDS)
    if n is None:
        return share
    words = np.sort(_word(np.arange(min(n, COUNTED), dtype=np.uint64)))
    if n <= COUNTED:
        return int(words[min(max(1, round(n * fraction)), n - 1) - 1]) + 1
    return min(max(share, int(words[0]) + 1), int(words[-1]))  # never none, never all


def held_out(n: int, fraction: float) -> NDArray[np.bool_]:
    """Say which of `n` documents of one length are held out: the same ones each time.

    Args:
        n: number of documents.
        fraction: share to hold out; above 0, at least one document is, and at least one is not.
            Up to `COUNTED` documents it is exact.

    Returns:
        True where held out, shape (n,).
    """
    below = min(limit(n, fraction), _WORDS - 1)
    words: NDArray[np.uint64] = _word(np.arange(n, dtype=np.uint64))
    return words < np.uint64(below)
