"""Values in words: what a learner is shown of arguments and results."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from gpt2lib.course.values import as_array, has_state, is_array, is_tensor

LONGEST = 300
"""Characters of a value that are shown."""
ELEMENTS = 36
"""Values of a tensor that are shown one by one; of a larger one only the first six are."""


def article(name: str) -> str:
    """Return `name` with "a" or "an" before it."""
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def kind_of(value: Any) -> str:
    """Return what a value is, in a few words: "a tensor of shape (2, 3), torch.float32"."""
    if is_array(value):
        name = "a tensor" if is_tensor(value) else "an array"
        return f"{name} of shape {tuple(value.shape)}, {value.dtype}"
    return "None" if value is None else article(type(value).__name__.lstrip("_"))


def brief(value: Any, longest: int = LONGEST) -> str:
    """Return a short text of a value.

    Small tensors are shown as lists, large ones by shape and beginning; functions, modules and
    classes by name; settings by what differs from the defaults.
    """
    try:
        text = _text(value)
    except Exception:  # a learner's object may have a broken __repr__
        text = kind_of(value)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _text(value: Any) -> str:
    if is_array(value):
        return _array_text(value)
    if isinstance(value, list | tuple):
        return _sequence_text(value)
    if isinstance(value, Mapping) and type(value).__repr__ is dict.__repr__:
        return "{" + ", ".join(f"{_text(k)}: {_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, PurePath):
        return repr(value.as_posix())
    if has_state(value):
        return _state_text(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _settings_text(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return _object_text(value)


def _array_text(value: Any) -> str:
    array = as_array(value)
    if array.dtype.kind == "f":
        array = array.round(4)
    if array.size > ELEMENTS:
        return f"{kind_of(value)}, beginning {array.ravel()[:6].tolist()}"
    return repr(array.tolist())


def _sequence_text(value: Any) -> str:
    parts = [_text(part) for part in value[:LONGEST]]  # what is longer is cut anyway
    if isinstance(value, list):
        return f"[{', '.join(parts)}]"
    return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"


def _state_text(value: Any) -> str:
    name = type(value).__name__
    if not hasattr(value, "parameters"):
        return article(name)
    return f"a module {name} of {sum(p.numel() for p in value.parameters()):,} parameters"


def _settings_text(value: Any) -> str:
    """Show a dataclass by those of its fields that are not at their default."""
    shown = []
    for field in dataclasses.fields(value):
        is_ = getattr(value, field.name)
        if field.repr and (field.default is dataclasses.MISSING or is_ != field.default):
            shown.append(f"{field.name}={_text(is_)}")
    return f"{type(value).__name__}({', '.join(shown)})"


def _object_text(value: Any) -> str:
    text = repr(value)
    if not re.search(r" at 0x[0-9a-fA-F]+>", text):
        return text
    name = getattr(value, "__name__", "")
    if name:
        return "a function" if name == "<lambda>" else f"the function {name.lstrip('_')}"
    return article(type(value).__name__.lstrip("_"))
