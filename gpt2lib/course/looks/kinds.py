"""The right value in a type that is not accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpt2lib.course.comparing import Tolerance, first_difference
from gpt2lib.course.looks.base import Look
from gpt2lib.course.readable import kind_of
from gpt2lib.course.values import numeric


def looks(
    right: Any, got: Any, difference: Callable[[Any, Any], object], tol: Tolerance
) -> Iterator[Look]:
    """Yield what is true of the types of two values that differ.

    Args:
        right: the expected value.
        got: the answer's.
        difference: what tells whether two values differ in this exercise.
        tol: how near floats must come, whatever their type.
    """
    if got is None or got is ...:
        yield Look("blank", f"it is {'None' if got is None else '...'}")
    elif not first_difference(right, got, tol.rtol, tol.atol):
        it, asked = "it is", (kind_of(right), kind_of(got))
        if asked[0] == asked[1] and isinstance(right, list | tuple):  # the same around others
            it, asked = _first_part_of_another_kind(right, got)
        text = f"the values are right, but {it} {asked[1]} where {asked[0]} is asked for"
        yield Look("type", text)
    elif isinstance(got, list | tuple) and len(got) == 1 and not difference(right, got[0]):
        yield Look("type", f"it is {kind_of(got)} that holds the right value")
    elif isinstance(right, str | bytes) and isinstance(got, str | bytes):
        if _encoded(right) == _encoded(got) and type(right) is not type(got):
            yield Look("type", f"it says the right thing as {kind_of(got)}, not {kind_of(right)}")
    else:
        yield from _truth_as_number(numeric(right), numeric(got))


def _first_part_of_another_kind(right: Any, got: Any) -> tuple[str, tuple[str, str]]:
    """Return "at index i there is", and the kinds that are asked for and that came there."""
    kinds = [(kind_of(a), kind_of(b)) for a, b in zip(right, got, strict=True)]
    place = next((i for i, (a, b) in enumerate(kinds) if a != b), 0)
    return f"at index {place} there is", kinds[place]


def _encoded(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _truth_as_number(right: Any, got: Any) -> Iterator[Look]:
    if right is None or got is None or right.shape != got.shape:
        return
    truth = [a.dtype.kind == "b" for a in (right, got)]
    if truth[0] == truth[1] or not np.array_equal(right.astype(float), got.astype(float)):
        return
    asked, came = ("True and False", "numbers") if truth[0] else ("numbers", "True and False")
    yield Look("type", f"the values are right, but as {came} where {asked} are asked for")
