"""A look, and how two arrays are held against each other for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt2lib.course.comparing import Tolerance
from gpt2lib.course.exercise import Case

RTOL, WHOLE, ATOL = 2e-5, 1e-6, 1e-6
"""How near values must come for a claim, and whole numbers; ATOL is relative to the largest."""
FEW = 4
"""Positions that are named one by one."""
EXACT = 2**53
"""Up to here a float64 holds every whole number."""


@dataclass(frozen=True)
class Look:
    """One claim: a short name for tests and statistics, and the sentence."""

    name: str
    text: str


@dataclass(frozen=True)
class Pair:
    """One case: its number from 1, the call, the right and the given value, whether they differ."""

    number: int
    case: Case
    expected: Any
    got: Any
    wrong: bool = True


@dataclass(frozen=True)
class Two:
    """Two arrays of numbers: what is right and what came.

    Attributes:
        right: the expected values, float64 (or bool).
        got: the answer's, float64 (or bool).
        wrong: where they differ by the tolerance of the exercise; of the shape of `right`.
        labels: names of the positions, if they are not indices: cases, or keys.
        everywhere: how "at all positions" is said.
    """

    right: Any
    got: Any
    wrong: Any
    labels: Sequence[str] | None = None
    everywhere: str = "everywhere"

    def name(self, index: Any) -> str:
        """Return the name of one position: (0, 3), or 5 of a row."""
        at = tuple(int(i) for i in index)
        if self.labels is not None:
            return self.labels[at[0]]
        return str(at if len(at) != 1 else at[0])

    def names(self, where: Any) -> str:
        """Return the names of the first few positions where `where` is true."""
        found = np.argwhere(where)
        first = ", ".join(self.name(i) for i in found[:FEW])
        return first + (f" and {len(found) - FEW} more" if len(found) > FEW else "")


def two_arrays(right: Any, got: Any, tol: Tolerance, **more: Any) -> Two | None:
    """Return `Two`, or None if the numbers are too large to be held against each other."""
    wrong = ~np.asarray(tol.equal(got, right)) if right.shape == got.shape else None
    if (right.dtype.kind == "b") != (got.dtype.kind == "b"):
        return None
    if right.dtype.kind != "b":
        for whole in (right, got):
            if whole.dtype.kind in "iu" and whole.size and abs(whole).max() > EXACT:
                return None
        right, got = right.astype(np.float64), got.astype(np.float64)
    return Two(right, got, wrong, **more)


def near(value: Any, right: Any) -> bool:
    """Return whether two arrays have one shape and are equal as far as a claim needs."""
    value, right = np.asarray(value), np.asarray(right)
    if value.shape != right.shape:
        return False
    if right.dtype.kind == "b" or value.dtype.kind == "b":
        return bool(np.array_equal(value, right))
    rtol = WHOLE if np.isfinite(right).all() and (right % 1 == 0).all() else RTOL
    atol = min(ATOL, rtol / 10) * scale(right)
    return bool(np.isclose(value, right, rtol=rtol, atol=atol, equal_nan=True).all())


def scale(values: Any) -> float:
    """Return the largest finite magnitude, or 0."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size else 0.0


def varied(values: Any, least: int = 2) -> bool:
    """Return whether there are at least `least` different values."""
    return len(np.unique(values)) >= least


def short(value: float) -> str:
    """Return a number in four digits."""
    return f"{value:.4g}"
