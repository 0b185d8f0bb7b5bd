"""Whether a stub is untouched, told from its compiled code: the source may be out of reach."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable
from typing import Any

QUIET = {
    "CACHE", "CALL", "COPY_FREE_VARS", "EXTENDED_ARG", "LOAD_COMMON_CONSTANT", "LOAD_CONST",
    "LOAD_GLOBAL", "MAKE_CELL", "NOP", "NOT_TAKEN", "POP_TOP", "PRECALL", "PUSH_NULL",
    "RAISE_VARARGS", "RESUME", "RETURN_CONST", "RETURN_VALUE",
}  # fmt: skip
"""Operations that occur in `...`, `pass`, `return None`, `raise NotImplementedError("text")`."""


def is_untouched(function: Callable[..., Any]) -> bool:
    """Return whether the body is only a docstring, `...`, `pass`, or NotImplementedError."""
    function = inspect.unwrap(function)
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    raises = "NotImplementedError" in code.co_names
    if set(code.co_names) - {"NotImplementedError"}:
        return False
    for step in dis.get_instructions(code):
        if step.opname not in QUIET:
            return False
        if step.opname in ("LOAD_CONST", "RETURN_CONST"):
            blank = step.argval is None or step.argval is ...
            if not (blank or (raises and isinstance(step.argval, str))):
                return False
    return True
