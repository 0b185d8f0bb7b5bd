"""Two values compared, and the first difference said in words."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np

LONGEST = 300
"""Characters of a value that are shown."""


@dataclass(frozen=True)
class Difference:
    """Where and how two values first differ; `index` is the path to the place."""

    text: str
    index: tuple[Any, ...] = ()


def _is_tensor(value: Any) -> bool:
    return type(value).__module__.startswith("torch") and hasattr(value, "detach")


def _is_array(value: Any) -> bool:
    return _is_tensor(value) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _array(value: Any) -> Any:
    """Return a NumPy array of the same values; bfloat16, which NumPy lacks, becomes float64."""
    if not _is_tensor(value):
        return value
    value = value.detach().cpu()
    return (value.double() if value.is_floating_point() else value).numpy()


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic | np.ndarray) else value


def kind_of(value: Any) -> str:
    """Return what a value is, in a few words: "a tensor of shape (2, 3), torch.float32"."""
    if _is_array(value):
        name = "a tensor" if _is_tensor(value) else "an array"
        return f"{name} of shape {tuple(value.shape)}, {value.dtype}"
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def brief(value: Any) -> str:
    """Return a short text of a value: small tensors as lists, large ones by kind and start."""
    try:
        if _is_array(value):
            array = _array(value)
            if array.dtype.kind == "f":
                array = array.round(4)
            if array.size > 36:
                return f"{kind_of(value)}, beginning {array.ravel()[:6].tolist()}"
            text = repr(array.tolist())
        elif hasattr(value, "state_dict"):
            text = f"a module {type(value).__name__}"
        else:
            text = repr(value)
    except Exception:  # a learner's object may have a broken __repr__
        text = kind_of(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def first_difference(
    expected: Any, got: Any, rtol: float = 1e-5, atol: float = 1e-6
) -> Difference | None:
    """Return the first difference of `got` from `expected`, or None if they are equal.

    Lists and tuples count as the same kind, and so do all numbers; a tensor must have the shape
    and the dtype that is expected. Modules are compared by their parameters and buffers.
    """
    if hasattr(expected, "state_dict") and hasattr(got, "state_dict"):
        expected, got = dict(expected.state_dict()), dict(got.state_dict())
    if _is_array(expected):
        return _arrays(expected, got, rtol, atol)
    expected, got = _number(expected), _number(got)
    if isinstance(expected, bool) or isinstance(got, bool):
        same = isinstance(expected, bool) and isinstance(got, bool)
    elif isinstance(expected, numbers.Number):
        same = isinstance(got, numbers.Number)
    elif isinstance(expected, list | tuple):
        same = isinstance(got, list | tuple)
    else:
        same = isinstance(got, type(expected))
    if not same:
        way_out = "; .item() makes a number of it" if _is_tensor(got) and got.ndim == 0 else ""
        return Difference(f"expected {kind_of(expected)}, got {kind_of(got)}{way_out}")
    if isinstance(expected, dict):
        return _dicts(expected, got, rtol, atol)
    if isinstance(expected, list | tuple | str | bytes):
        return _sequences(expected, got, rtol, atol)
    if isinstance(expected, float) or isinstance(got, float):
        equal = bool(np.isclose(got, expected, rtol=rtol, atol=atol, equal_nan=True))
    else:
        equal = bool(expected == got)
    return None if equal else Difference(f"expected {brief(expected)}, got {brief(got)}")


def _arrays(expected: Any, got: Any, rtol: float, atol: float) -> Difference | None:
    if not _is_array(got) or _is_tensor(expected) != _is_tensor(got):
        return Difference(f"expected {kind_of(expected)}, got {kind_of(got)}")
    if tuple(expected.shape) != tuple(got.shape):
        return Difference(f"expected shape {tuple(expected.shape)}, got {tuple(got.shape)}")
    if expected.dtype != got.dtype:
        return Difference(f"expected dtype {expected.dtype}, got {got.dtype}")
    want, have = _array(expected), _array(got)
    if want.dtype.kind in "fc":
        unequal = ~np.isclose(have, want, rtol=rtol, atol=atol, equal_nan=True)
    else:
        unequal = want != have
    places = np.argwhere(unequal)
    if not len(places):
        return None
    index = tuple(int(i) for i in places[0])
    where = f"at index {index if len(index) != 1 else index[0]}" if index else "in the value"
    return Difference(
        f"{len(places)} of {want.size} values differ, first {where}: "
        f"expected {want[index]:.6g}, got {have[index]:.6g}"
        if want.dtype.kind != "b"
        else f"{len(places)} of {want.size} values differ, first {where}: "
        f"expected {bool(want[index])}, got {bool(have[index])}",
        index,
    )


def _sequences(expected: Any, got: Any, rtol: float, atol: float) -> Difference | None:
    flat = isinstance(expected, str | bytes)
    for i, (want, have) in enumerate(zip(expected, got, strict=False)):
        if flat:
            want, have = expected[i : i + 1], got[i : i + 1]
            inner = None if want == have else Difference(f"expected {want!r}, got {have!r}")
        else:
            inner = first_difference(want, have, rtol, atol)
        if inner:
            place = f"at index {i}, " if inner.index else f"first difference at index {i}: "
            return Difference(place + inner.text, (i, *inner.index))
    if len(expected) != len(got):
        end = min(len(expected), len(got))
        return Difference(f"expected length {len(expected)}, got {len(got)}", (end,))
    return None


def _dicts(expected: Any, got: Any, rtol: float, atol: float) -> Difference | None:
    for key in expected:
        if key not in got:
            return Difference(f"key {brief(key)} is missing", (key,))
        inner = first_difference(expected[key], got[key], rtol, atol)
        if inner:
            return Difference(f"at key {brief(key)}: {inner.text}", (key, *inner.index))
    extra = [key for key in got if key not in expected]
    return Difference(f"key {brief(extra[0])} should not be there", (extra[0],)) if extra else None
