"""The library's functions under a learner's name, marked so that they are known again.

`my_f = check("an-id", my_f).use` puts the library's function where the learner's was, unless
that was right. Without a mark, running the check once more would find a right answer.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

MARK = "__gpt2lib_handed_on__"
"""The attribute of what `use` hands on; its value is the exercise's id."""


def hand_on(reference: Any, exercise: str) -> Any:
    """Return what behaves like `reference` and is marked; `reference` itself stays unmarked.

    The mark is on a wrapper (of a class: on a subclass), since `reference` may be a function of
    the library that a learner hands in or calls knowingly, and that is a right answer.
    """
    if isinstance(reference, type):
        inside = {MARK: exercise, "__doc__": reference.__doc__, "__module__": reference.__module__}
        return type(reference.__name__, (reference,), inside)

    @functools.wraps(reference, updated=())
    def handed_on(*args: Any, **kwargs: Any) -> Any:
        return reference(*args, **kwargs)

    setattr(handed_on, MARK, exercise)
    return handed_on


def is_handed_on(function: Callable[..., Any]) -> bool:
    """Return whether `function` is the library's, as an earlier check has handed it on.

    It is found through other names, `functools.partial`, `functools.wraps` and caches, and
    methods. A function of the learner's that calls it is the learner's.
    """
    return any(MARK in getattr(layer, "__dict__", {}) for layer in _layers(function))


def _layers(function: Any) -> Iterator[Any]:
    """Yield `function` and what it wraps, outermost first."""
    for _ in range(100):  # a function may wrap itself
        yield function
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            return
