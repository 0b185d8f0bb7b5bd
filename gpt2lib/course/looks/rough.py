"""Coarse facts, for when nothing finer fits: zeros, sums, size, and which lines are right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpt2lib.course.looks.base import FEW, Look, Two, near, short
from gpt2lib.course.looks.rows import REST, WRONG, lines_of


def looks(two: Two) -> Iterator[Look]:
    """Yield what fits two arrays of one shape."""
    yield from _lines(two)
    yield from facts(two)


def facts(two: Two) -> Iterator[Look]:
    """Yield what is true of the values, wherever they stand."""
    if two.right.dtype.kind == "b" or not np.isfinite(two.got).all():
        return
    yield from _zeros(two)
    yield from _sums(two)
    yield from _size(two)


def _lines(two: Two) -> Iterator[Look]:
    """Some rows, columns or the like are right as a whole: said for the axis where most are."""
    found = []
    for axis, n in enumerate(two.wrong.shape):
        others = tuple(a for a in range(two.wrong.ndim) if a != axis)
        lines = [int(i) for i in np.flatnonzero(two.wrong.any(others))]
        if 0 < len(lines) < n and (two.wrong.ndim > 1 or _run(lines)):
            found.append((len(lines) / n, axis, lines))
    if found:
        _, axis, lines = min(found)
        where = f"index {_indices(lines)}" + (f" of axis {axis}" if two.wrong.ndim > 1 else "")
        yield Look("lines", f"{WRONG} at {where}; {REST}")


def _run(lines: list[int]) -> bool:
    return len(lines) > 1 and lines[-1] - lines[0] == len(lines) - 1


def _indices(lines: list[int]) -> str:
    if _run(lines):
        return f"{lines[0]} to {lines[-1]}"
    more = f" and {len(lines) - FEW} more" if len(lines) > FEW else ""
    return ", ".join(map(str, lines[:FEW])) + more


def _zeros(two: Two) -> Iterator[Look]:
    extra, lost = (two.right == 0) & (two.got != 0), (two.right != 0) & (two.got == 0)
    if two.right.size < 2:
        return
    if (extra & two.wrong).any() and two.right.any():
        yield Look("zeros", f"it is not 0 at {two.names(extra & two.wrong)}, where 0 is right")
    elif (lost & two.wrong).any():
        at = two.names(lost & two.wrong)
        yield Look("zeros", f"it is 0 at {at}, where another number is right")


def _sums(two: Two) -> Iterator[Look]:
    if two.right.ndim == 0 or two.right.shape[-1] < 2 or (two.right < 0).any():
        return
    sums = two.got.sum(-1)
    if near(two.right.sum(-1), np.ones_like(sums)) and not near(sums, np.ones_like(sums)):
        some = ", ".join(short(v) for v in np.ravel(sums)[:3])
        more = ", …" if sums.size > 3 else ""
        yield Look("sums", f"{lines_of(two.right, -1)} should sum to 1, and sum to {some}{more}")


def _size(two: Two) -> Iterator[Look]:
    if two.right.size < 2 or not two.right.all() or not np.isfinite(two.right).all():
        return
    ratio: Any = two.got / two.right
    low, high = float(ratio.min()), float(ratio.max())
    if low > 1 or 0 < low <= high < 1:
        word = "large" if low > 1 else "small"
        size = "" if (two.right > 0).all() else " in size"
        times = f"{short(low)} to {short(high)} times the right value"
        yield Look("size", f"it is too {word}{size} {two.everywhere}, {times}")
