"""Where values stand: axes, directions, shifts, orders and shapes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpt2lib.course.looks.base import Look, Two, near, varied

MOST_AXES = 4


def looks(two: Two) -> Iterator[Look]:
    """Yield what fits two arrays of one shape."""
    right, got = two.right, two.got
    if not varied(right):
        return
    yield from _axes(right, got)
    for axis in range(right.ndim):
        if near(got, np.flip(right, axis)):
            yield Look("reversed", f"it is right, but reversed{_along(right, axis)}")
    for axis in range(right.ndim):
        yield from _shifted(right, got, axis)
    yield from _another_order(right, got)


def shapes(right: Any, got: Any) -> Iterator[Look]:
    """Yield what fits two arrays of different shapes."""
    yield from _axes(right, got)
    if right.size == got.size and near(got.ravel(), right.ravel()):
        yield Look("shape", f"the values are right, in the shape {got.shape} for {right.shape}")
    elif right.size and _broadcasts(got, right):
        yield Look("broadcast", f"it would be right if it were repeated to the shape {right.shape}")
    elif got.size and _broadcasts(right, got):
        yield Look("repeated", f"the right values are there, repeated to the shape {got.shape}")
    yield from _parts(right, got)
    if right.dtype.kind != "b":
        yield from _reduced(right, got)


def _along(array: Any, axis: int) -> str:
    return f" along axis {axis}" if array.ndim > 1 else ""


def _axes(right: Any, got: Any) -> Iterator[Look]:
    """Axes in another order."""
    if not 2 <= right.ndim == got.ndim <= MOST_AXES:
        return
    for order in itertools.permutations(range(right.ndim)):
        moved = [i for i, axis in enumerate(order) if i != axis]
        if moved and near(got.transpose(order), right):
            if right.ndim == 2:
                text = "it is right, but transposed"
            elif len(moved) == 2:
                text = f"it is right, but axes {moved[0]} and {moved[1]} are exchanged"
            else:
                text = f"it would be right with its axes in the order {order}"
            yield Look("axes", text)
            return


def _shifted(right: Any, got: Any, axis: int) -> Iterator[Look]:
    """A row of values that begins one or two positions early or late."""
    n = right.shape[axis]
    for by in (1, -1, 2, -2):
        if abs(by) >= n:
            continue
        if n > 2 and near(got, np.roll(right, by, axis)):
            yield Look("shifted", f"{_moved(by)}{_along(right, axis)}, around the end")
            return
        late = (got, right) if by > 0 else (right, got)
        there = np.take(late[0], range(abs(by), n), axis)
        belongs = np.take(late[1], range(n - abs(by)), axis)
        if varied(belongs) and varied(there) and near(there, belongs):
            rest = (
                "what moved in at the end aside" if by < 0 else "what moved in at the start aside"
            )
            yield Look("shifted", f"{_moved(by)}{_along(right, axis)}, {rest}")
            return


def _moved(by: int) -> str:
    count = f"{abs(by)} position{'s' if abs(by) > 1 else ''}"
    return f"the right values stand {count} too {'late' if by > 0 else 'early'}"


def _another_order(right: Any, got: Any) -> Iterator[Look]:
    if right.dtype.kind == "b" or not varied(right, 3) or not np.isfinite(got).all():
        return
    if right.ndim > 1:
        n = len(right)
        rows = [next((j for j in range(n) if near(got[i], right[j])), None) for i in range(n)]
        if n <= 64 and sorted(r for r in rows if r is not None) == list(range(n)):
            yield Look("order", f"the right rows (axis 0) in another order: {rows}")
        elif near(np.sort(got, -1), np.sort(right, -1)):
            yield Look(
                "order", "each row has its right values, in another order along the last axis"
            )
    if near(np.sort(got.ravel()), np.sort(right.ravel())):
        yield Look("order", "the right values, all of them, in another order")


def _broadcasts(small: Any, large: Any) -> bool:
    try:
        return near(np.broadcast_to(small, large.shape), large)
    except ValueError:
        return False


def _parts(right: Any, got: Any) -> Iterator[Look]:
    """Too much or too little along one axis."""
    unlike = [i for i, (a, b) in enumerate(zip(right.shape, got.shape, strict=False)) if a != b]
    if right.ndim != got.ndim or len(unlike) != 1:
        return
    axis = unlike[0]
    less, long = sorted((right, got), key=lambda a: int(a.shape[axis]))
    n, more = less.shape[axis], long.shape[axis] - less.shape[axis]
    if not n:
        return
    ends = {"end": range(n), "start": range(more, n + more)}
    for end, kept in ends.items():
        if near(np.take(long, kept, axis), less):
            what = f"{more} too many" if long is got else f"{more} missing"
            yield Look("length", f"right but for {what} at the {end}{_along(right, axis)}")
            return


def _reduced(right: Any, got: Any) -> Iterator[Look]:
    """One of the two is a sum or a mean of the other."""
    for of, is_, text in (
        (got, right, "its {} would be right"),
        (right, got, "it is the {} of the right values"),
    ):
        axes: list[Any] = [None, *range(of.ndim)]
        for axis in axes:
            if not of.size or of.size == is_.size:
                continue
            for name, reduced in (("sum", of.sum(axis)), ("mean", of.mean(axis))):
                if near(reduced, is_) or near(np.squeeze(is_), reduced):
                    along = "" if axis is None else _along(of, axis)
                    yield Look("reduced", text.format(name + along))
                    return
