"""What a value is, whatever library it comes from: tensor, array, number, sequence."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np


def is_tensor(value: Any) -> bool:
    """Return whether `value` is PyTorch's, told without importing PyTorch."""
    return type(value).__module__.startswith("torch") and hasattr(value, "detach")


def is_array(value: Any) -> bool:
    """Return whether `value` is a tensor, or a NumPy array of at least one dimension."""
    return is_tensor(value) or (isinstance(value, np.ndarray) and value.ndim > 0)


def has_state(value: Any) -> bool:
    """Return whether `value` is a module or an optimiser."""
    return hasattr(value, "state_dict") and not isinstance(value, type)


def as_array(value: Any) -> Any:
    """Return a tensor as a NumPy array; bfloat16, which NumPy lacks, becomes float64."""
    if not is_tensor(value):
        return value
    value = value.detach().cpu()
    return (value.double() if value.is_floating_point() else value).numpy()


def numeric(value: Any) -> Any:
    """Return an array of the numbers in `value`, or None if it is not made of numbers alone.

    Tensors, arrays, numbers of any library, and rectangular lists and tuples of those. None, a
    text, a dict, an empty list and rows of different lengths give None.
    """
    if is_tensor(value) and str(value.layout) != "torch.strided":  # sparse
        return None
    if is_array(value) or isinstance(value, np.ndarray | np.generic | numbers.Number):
        array = np.asarray(as_array(value))
    elif isinstance(value, list | tuple | range) and len(value):
        parts = [numeric(part) for part in value]
        if any(part is None or part.shape != parts[0].shape for part in parts):
            return None
        if len({part.dtype.kind == "b" for part in parts}) > 1:
            return None
        array = np.stack(parts)
    else:
        return None
    return array if array.dtype.kind in "biufc" else None


def number(value: Any) -> Any:
    """Return NumPy's numbers, and tensors and arrays without dimensions, as Python's."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return value.item() if is_tensor(value) and value.ndim == 0 else value
