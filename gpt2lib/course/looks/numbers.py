"""Value by value: what was done to the right numbers, if it was the same to all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpt2lib.course.looks.base import ATOL, RTOL, Look, Two, near, scale, short, varied

TRANSFORMS: list[tuple[str, Callable[[Any], Any]]] = [
    ("right, but without their minus signs", np.abs),
    ("right, with 0 in place of every negative value", lambda v: np.maximum(v, 0)),
    ("the squares of the right values", np.square),
    ("the square roots of the right values", np.sqrt),
    ("1 divided by the right values", lambda v: 1 / v),
    ("1 minus the right values", lambda v: 1 - v),
    ("the logarithms of the right values", np.log),
    ("the logarithms to base 2 of the right values", np.log2),
    ("the exponentials of the right values", np.exp),
    ("the right values rounded to whole numbers", np.round),
    ("the right values rounded down to whole numbers", np.floor),
    ("the right values rounded up to whole numbers", np.ceil),
]
"""What is said, and what was done; the first that fits."""
MOST = 0.02
"""How far, relative to the right value, "near" goes."""


def looks(two: Two) -> Iterator[Look]:
    """Yield what fits, the most telling first."""
    if two.right.dtype.kind == "b":
        yield from _truth(two)
        return
    infinite = list(_infinite(two))
    yield from infinite
    if not infinite:
        for look in (_constant, _sign, _factor, _offset, _transform, _affine, _power):
            found = look(two)
            if found:
                yield found


def _truth(two: Two) -> Iterator[Look]:
    right, got = two.right, two.got
    if right.size > 1 and np.array_equal(got, ~right):
        yield Look("opposite", f"True and False are exchanged {two.everywhere}")
    elif right.size > 1 and (got.all() or not got.any()):
        yield Look("constant", f"it is {bool(got.flat[0])} {two.everywhere}")
    else:
        more, less = got & ~right, right & ~got
        for where, yes, no in ((more, "True", "False"), (less, "False", "True")):
            if where.any() and np.array_equal(where, two.wrong):
                text = f"{yes} where {no} is right at {two.names(where)}; never the other way round"
                yield Look("one-sided", text)


def _infinite(two: Two) -> Iterator[Look]:
    """NaN and infinity where a number is right."""
    bad = ~np.isfinite(two.got) & np.isfinite(two.right)
    if not bad.any():
        return
    values = two.got[bad]
    what = "NaN" if np.isnan(values).all() else "NaN or infinity"
    if np.isinf(values).all():
        what = "infinity" if (values > 0).any() else "-infinity"
        what = "infinity or -infinity" if varied(values) else what
    if bad.all() and bad.size > 1:
        yield Look("nan", f"it is {what} {two.everywhere}")
    elif np.array_equal(bad, two.wrong):
        rest = ", and right everywhere else" if bad.size > 1 else ""
        yield Look(
            "nan", f"it is {what} at {two.names(bad)}{rest}" if bad.ndim else f"it is {what}"
        )
    else:
        where = (
            f"{int(bad.sum())} of {bad.size} positions, first at {two.name(np.argwhere(bad)[0])}"
        )
        yield Look("nan-some", f"it is {what} at {where}")


def _constant(two: Two) -> Look | None:
    if two.got.size < 2 or varied(two.got):
        return None
    value, same = short(two.got.flat[0]), not varied(two.right)
    rest = f", where {short(two.right.flat[0])} is right" if same else ""
    return Look("constant", f"it is {value} {two.everywhere}{rest}")


def _sign(two: Two) -> Look | None:
    if not two.right.any():
        return None
    if near(two.got, -two.right):
        return Look("sign", "it is right but for the sign")
    if (
        two.right.size > 1
        and near(np.abs(two.got), np.abs(two.right))
        and not near(two.got, np.abs(two.right))
    ):
        return Look("sign-at", f"it is right but for the sign at {two.names(two.wrong)}")
    return None


def _factor(two: Two) -> Look | None:
    usable = np.isfinite(two.right) & (two.right != 0)
    if usable.sum() < 2:
        return None
    at = np.unravel_index(np.argmax(np.where(usable, np.abs(two.right), 0)), two.right.shape)
    factor = two.got[at] / two.right[at]
    if short(factor) in ("0", "1", "nan") or not near(two.got, factor * two.right):
        return None
    return Look("factor", f"it is {short(factor)} times the right values {two.everywhere}")


def _offset(two: Two) -> Look | None:
    finite = np.isfinite(two.right)
    if finite.sum() < 2 or not np.array_equal(two.got[~finite], two.right[~finite]):
        return None
    steps = two.got[finite] - two.right[finite]
    step = float(np.median(steps))
    slack = ATOL * (scale(two.right) + abs(step))  # a float32 sum has no more digits
    if abs(step) <= 20 * slack or (np.abs(steps - step) > slack).any():
        return None
    word = "large" if step > 0 else "small"
    return Look("offset", f"it is {short(abs(step))} too {word} {two.everywhere}")


def _transform(two: Two) -> Look | None:
    if not varied(two.right):
        return None
    for text, function in TRANSFORMS:
        with np.errstate(all="ignore"):
            other = function(two.right)
        if np.isfinite(other).all() and near(two.got, other) and varied(other):
            return Look("transform", f"these are {text}" if "values" in text else f"it is {text}")
    return None


def _affine(two: Two) -> Look | None:
    """A factor and a summand at once; two values would always fit."""
    right, got = two.right, two.got
    if not np.isfinite(right).all() or not varied(right, 3):
        return None
    low, high = (np.unravel_index(at, right.shape) for at in (right.argmin(), right.argmax()))
    factor = (got[high] - got[low]) / (right[high] - right[low])
    summand = got[low] - factor * right[low]
    if (
        abs(factor) < RTOL
        or not near(got, factor * right + summand)
        or scale(got) > 1e6 * scale(right)
    ):
        return None
    word = "plus" if summand > 0 else "minus"
    times = f"{short(factor)} times the right values {word} {short(abs(summand))}"
    return Look("affine", f"it is {times} {two.everywhere}")


def _power(two: Two) -> Look | None:
    """A power of the right values, in quarters, with a factor."""
    right, got = two.right, two.got
    if not (right > 0).all() or not (got > 0).all() or not varied(right, 3):
        return None
    if not np.isfinite(right).all():
        return None
    low, high = (np.unravel_index(at, right.shape) for at in (right.argmin(), right.argmax()))
    power = np.round(4 * np.log(got[high] / got[low]) / np.log(right[high] / right[low])) / 4
    factor = got[high] / right[high] ** power
    if power in (0, 1) or not np.isfinite(factor) or not near(got, factor * right**power):
        return None
    text = f"it is {short(factor)} times the right values to the power {short(power)}"
    return Look("power", f"{text} {two.everywhere}")


def almost(two: Two) -> Iterator[Look]:
    """Values that are near the right ones, and not near enough: said with the distance."""
    if two.right.dtype.kind == "b" or not (np.isfinite(two.got) & np.isfinite(two.right)).all():
        return
    zero = two.right == 0
    if zero.all() or two.got[zero].any():
        return
    off = np.abs(two.got - two.right)[~zero] / np.abs(two.right[~zero])
    if off.max() <= MOST:
        most = f"{100 * off.max():.2g} %"
        yield Look("almost", f"it is near the right value, off by at most {most}, {two.everywhere}")
