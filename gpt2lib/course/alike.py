"""A right answer of another type goes on as the type that the notebook expects.

A list for a tensor, float64 for float32, or a tensor for a number is a right answer; the cells
that come after it were written for what the library returns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from gpt2lib.course.readable import kind_of
from gpt2lib.course.values import as_array, is_array, is_tensor, number

Plain = bool | int | float


def like(template: Any, value: Any) -> Any:
    """Return `value` with the types of `template`; what cannot be converted stays as it is.

    Numbers, tensors and arrays are converted, alone or inside of lists, tuples and dicts. Python's
    numbers stay, as do lists for tuples. A gradient goes through the conversion of a tensor.
    """
    if is_array(template):
        return _array_like(template, value)
    if isinstance(template, Plain):
        return value if isinstance(value, Plain) else number(value)
    if isinstance(template, list | tuple):
        return _sequence_like(template, value)
    if isinstance(template, dict) and isinstance(value, dict) and template:
        some = next(iter(template.values()))
        parts = {k: like(template.get(k, some), v) for k, v in value.items()}
        return value if all(parts[k] is value[k] for k in value) else parts
    return value


def _array_like(template: Any, value: Any) -> Any:
    if is_tensor(template):
        import torch

        if is_tensor(value):
            return value.to(template.dtype)
        return torch.as_tensor(_plain(value), dtype=template.dtype)
    if isinstance(value, np.ndarray) and value.dtype == template.dtype:
        return value
    return np.asarray(as_array(value), dtype=template.dtype)


def _plain(value: Any) -> Any:
    """Return nested lists without tensors inside, which torch.as_tensor does not take."""
    if isinstance(value, list | tuple | range):
        return [_plain(part) for part in value]
    return number(value).tolist() if is_array(number(value)) else number(value)


def _sequence_like(template: Any, value: Any) -> Any:
    if isinstance(value, range) or (is_array(value) and value.ndim > 0):
        value = list(value)
    if not isinstance(value, list | tuple) or not template:
        return value
    same = len(template) == len(value)
    parts = [like(template[i] if same else template[0], part) for i, part in enumerate(value)]
    if all(new is old for new, old in zip(parts, value, strict=True)):
        return value
    return parts if isinstance(value, list) else tuple(parts)


def going_on(
    function: Callable[..., Any], expected: Any, got: Any
) -> tuple[Callable[..., Any], str]:
    """Return the function that a notebook goes on with, and what to say about its type.

    Args:
        function: a right answer.
        expected: what the library returned.
        got: what the answer returned for the same arguments.

    Returns:
        The function itself and "", or one that converts its results to the library's types.
    """
    if like(expected, got) is got:
        return function, ""

    @functools.wraps(function)
    def converted(*args: Any, **kwargs: Any) -> Any:
        return like(expected, function(*args, **kwargs))

    if kind_of(got) == kind_of(expected):
        return converted, "parts of your result go on in the types of the library's"
    return converted, f"your result, {kind_of(got)}, goes on as {kind_of(expected)}"
