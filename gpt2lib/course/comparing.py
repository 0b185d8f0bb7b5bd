"""Two values compared, and the first difference said in words.

Right values are right in any sensible type: a NumPy number for a float, a range for a list, a
list for a tensor, float64 for float32. A truth value and a number are never the same, as
`~mask` differs for them. `strict` asks for kind and dtype too.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt2lib.course.readable import brief, kind_of
from gpt2lib.course.values import as_array, has_state, is_array, is_tensor, number, numeric


@dataclass(frozen=True)
class Difference:
    """Where and how two values first differ; `index` is the path to the position."""

    text: str
    index: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Tolerance:
    """How near a float must come, and whether the type counts."""

    rtol: float = 1e-5
    atol: float = 1e-6
    strict: bool = False

    def equal(self, got: Any, expected: Any) -> Any:
        """Return where two arrays agree; whole numbers must be met exactly."""
        if np.asarray(expected).dtype.kind not in "fc":
            return got == expected
        return np.isclose(got, expected, rtol=self.rtol, atol=self.atol, equal_nan=True)


def first_difference(
    expected: Any, got: Any, rtol: float = 1e-5, atol: float = 1e-6, strict: bool = False
) -> Difference | None:
    """Return the first difference of `got` from `expected`, or None if they are equal.

    Args:
        expected: the right value; lists, tuples and dicts are compared part by part, modules by
            their parameters and buffers.
        got: what is compared with it.
        rtol: how near a float must come, relative to the expected one.
        atol: the same, absolute.
        strict: whether the kind (tensor, array, list) and the dtype must be the same too. Lists
            and tuples always count as the same kind, and so do all Python numbers.
    """
    return _difference(expected, got, Tolerance(rtol, atol, strict))


def _difference(expected: Any, got: Any, tol: Tolerance) -> Difference | None:
    if has_state(expected) and has_state(got):
        expected, got = dict(expected.state_dict()), dict(got.state_dict())
    if is_array(expected):
        return _arrays(expected, got, tol)
    if not tol.strict:
        got = _sensible(expected, got)
    expected, got = _python_number(expected), _python_number(got)
    if not _same_kind(expected, got):
        way_out = "; .item() makes a number of it" if is_tensor(got) and got.ndim == 0 else ""
        return Difference(f"expected {kind_of(expected)}, got {kind_of(got)}{way_out}")
    if isinstance(expected, dict):
        return _dicts(expected, got, tol)
    if isinstance(expected, list | tuple | str | bytes):
        return _sequences(expected, got, tol)
    equal = tol.equal(got, expected) if isinstance(expected, float) else expected == got
    return None if bool(equal) else Difference(f"expected {brief(expected)}, got {brief(got)}")


def _python_number(value: Any) -> Any:
    return value if is_tensor(value) else number(value)


def _sensible(expected: Any, got: Any) -> Any:
    """Return `got` in the kind of `expected` where that is the same value in another type."""
    if isinstance(expected, list | tuple):
        if isinstance(got, range) or (is_array(got) and got.ndim > 0):
            return list(got)
    elif isinstance(expected, bytes):
        return bytes(got) if isinstance(got, bytearray | memoryview) else got
    elif isinstance(expected, numbers.Number | np.generic):
        return number(got)
    return got


def _same_kind(expected: Any, got: Any) -> bool:
    if isinstance(expected, bool) or isinstance(got, bool):
        return isinstance(expected, bool) and isinstance(got, bool)
    for kinds in (numbers.Number, list | tuple, set | frozenset):
        if isinstance(expected, kinds):
            return isinstance(got, kinds)
    return isinstance(got, type(expected))


def _arrays(expected: Any, got: Any, tol: Tolerance) -> Difference | None:
    if tol.strict and (not is_array(got) or is_tensor(expected) != is_tensor(got)):
        return Difference(f"expected {kind_of(expected)}, got {kind_of(got)}")
    have = numeric(got)
    if isinstance(got, list | tuple) and not len(got):
        have = np.empty(0, as_array(expected).dtype)
    if have is None:
        return Difference(f"expected {kind_of(expected)}, got {kind_of(got)}")
    want = np.asarray(as_array(expected))
    if want.shape != have.shape:
        return Difference(f"expected shape {want.shape}, got {have.shape}")
    if getattr(got, "dtype", None) != expected.dtype:
        is_bool = want.dtype.kind == "b"
        if is_bool != (have.dtype.kind == "b") or (tol.strict and is_array(got)):
            name = got.dtype if is_array(got) else f"{have.dtype} in {kind_of(got)}"
            return Difference(f"expected dtype {expected.dtype}, got {name}")
    unequal = ~np.asarray(tol.equal(have, want))
    differing = np.argwhere(unequal)
    if not len(differing):
        return None
    index = tuple(int(i) for i in differing[0])
    where = f"at index {index if len(index) != 1 else index[0]}" if index else "in the value"
    values = (want[index], have[index])
    want_text, have_text = (f"{bool(v)}" if want.dtype.kind == "b" else f"{v:.6g}" for v in values)
    return Difference(
        f"{len(differing)} of {want.size} values differ, first {where}: "
        f"expected {want_text}, got {have_text}",
        index,
    )


def _sequences(expected: Any, got: Any, tol: Tolerance) -> Difference | None:
    flat = isinstance(expected, str | bytes)
    for i, (want, have) in enumerate(zip(expected, got, strict=False)):
        if flat:
            want, have = expected[i : i + 1], got[i : i + 1]
            inner = None if want == have else Difference(f"expected {want!r}, got {have!r}")
        else:
            inner = _difference(want, have, tol)
        if inner:
            start = f"at index {i}, " if inner.index else f"first difference at index {i}: "
            return Difference(start + inner.text, (i, *inner.index))
    if len(expected) != len(got):
        end = min(len(expected), len(got))
        return Difference(f"expected length {len(expected)}, got {len(got)}", (end,))
    return None


def _dicts(expected: Any, got: Any, tol: Tolerance) -> Difference | None:
    for key in expected:
        if key not in got:
            return Difference(f"key {brief(key)} is missing", (key,))
        inner = _difference(expected[key], got[key], tol)
        if inner:
            return Difference(f"at key {brief(key)}: {inner.text}", (key, *inner.index))
    extra = [key for key in got if key not in expected]
    return Difference(f"key {brief(extra[0])} should not be there", (extra[0],)) if extra else None
