"""Row by row: what a row of its own has to do with the right one; and where alone it is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpt2lib.course.looks.base import FEW, Look, Two, near, short, varied

WRONG, REST = "all wrong values stand", "the rest is right"


def looks(two: Two) -> Iterator[Look]:
    """Yield what fits two arrays of one shape."""
    if two.right.dtype.kind != "b" and np.isfinite(two.got).all() and np.isfinite(two.right).all():
        for axis in range(-1, -two.right.ndim - 1, -1):
            yield from _normalised(two.right, two.got, axis)
        for axis in range(-1, -two.right.ndim - 1, -1):
            yield from _own_factor(two.right, two.got, axis)
            yield from _own_offset(two.right, two.got, axis)
    yield from _where(two)
    yield from all_but(two)


def lines_of(array: Any, axis: int) -> str:
    if array.ndim == 1:
        return "the values"
    if array.ndim == 2:
        return "the rows" if axis == -1 else "the columns"
    return f"the values along axis {axis % array.ndim}"


def _normalised(right: Any, got: Any, axis: int) -> Iterator[Look]:
    """Right rows that sum to 1 (or have length 1), and others."""
    if right.shape[axis] < 2:
        return
    for what, measure in (("sum to", np.sum), ("have the length", np.linalg.norm)):
        ours, theirs = (measure(a, axis=axis, keepdims=True) for a in (right, got))
        if not near(ours, np.ones_like(ours)) or (theirs == 0).any() or near(theirs, ours):
            continue
        if near(got / theirs, right):
            first = short(theirs.flat[0])
            lines = lines_of(right, axis)
            text = f"it is right after normalising: {lines} should {what} 1"
            yield Look("normalise", f"{text}, and {what} {first}{', …' if theirs.size > 1 else ''}")
            return


def _own_factor(right: Any, got: Any, axis: int) -> Iterator[Look]:
    if right.ndim < 2 or right.shape[axis] < 2 or right.size == right.shape[axis]:
        return
    peak = np.expand_dims(np.abs(right).argmax(axis), axis)
    top, ours = (np.take_along_axis(a, peak, axis) for a in (got, right))
    if (ours == 0).any() or (np.count_nonzero(right, axis=axis) < 2).any():
        return
    if near(got, right * (top / ours)):
        some = ", ".join(short(v) for v in (top / ours).ravel()[:3])
        text = f"{lines_of(right, axis)} are the right ones times a number for each: {some}, …"
        yield Look("row-factor", text)


def _own_offset(right: Any, got: Any, axis: int) -> Iterator[Look]:
    if right.ndim < 2 or right.shape[axis] < 2 or right.size == right.shape[axis]:
        return
    steps = np.take(got - right, [0], axis)
    if np.abs(steps).max() > 1e-4 * np.abs(right).max() and near(got - steps, right):
        some = ", ".join(short(v) for v in steps.ravel()[:3])
        text = f"{lines_of(right, axis)} are the right ones plus a number for each: {some}, …"
        yield Look("row-offset", text)


def _where(two: Two) -> Iterator[Look]:
    """All wrong values stand in one row, one column, on the diagonal, or on one side of it."""
    wrong, n_wrong = two.wrong, int(two.wrong.sum())
    if wrong.ndim < 2 or n_wrong <= 1 or n_wrong == wrong.size:
        return
    for axis, n in enumerate(wrong.shape):
        others = tuple(a for a in range(wrong.ndim) if a != axis)
        lines = np.flatnonzero(wrong.any(others))
        if n > 1 and len(lines) == 1:
            yield Look("where", f"{WRONG} at index {lines[0]} of axis {axis}; {REST}")
            return
    if wrong.shape[-1] < 2 or wrong.shape[-2] < 2:
        return
    i, j = np.indices(wrong.shape)[-2:]
    for text, region in (
        ("on the diagonal", i == j),
        ("above the diagonal", j > i),
        ("below the diagonal", j < i),
    ):
        if not (wrong & ~region).any() and varied(region):
            yield Look("where", f"{WRONG} {text} (of the last two axes); {REST}")
            return


def all_but(two: Two) -> Iterator[Look]:
    n_wrong, size = int(two.wrong.sum()), two.wrong.size
    if not 0 < n_wrong <= max(1, size // 3) or size < 3:
        return
    some = []
    for index in np.argwhere(two.wrong)[:FEW]:
        got, right = two.got[tuple(index)], two.right[tuple(index)]
        if two.right.dtype.kind == "b":
            some.append(f"{two.name(index)}: {bool(got)}")
        else:
            some.append(f"{two.name(index)}: {short(got)} for {short(right)}")
    more = f", and {n_wrong - FEW} more" if n_wrong > FEW else ""
    text = f"it is right in all but {n_wrong} of {size}: at {'; '.join(some)}{more}"
    yield Look("all-but", text)
