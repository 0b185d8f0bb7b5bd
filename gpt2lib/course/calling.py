"""One call of an answer: with copies of the arguments, fixed seeds, and nothing let out."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import random
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from gpt2lib.course.comparing import brief, first_difference
from gpt2lib.course.exercise import Case

Function = Callable[..., Any]


@dataclasses.dataclass
class Outcome:
    """What one call gave: a value or an error, and the name of an argument that it changed."""

    value: Any = None
    error: BaseException | None = None
    changed: str | None = None


def call(function: Function, c: Case, inplace: bool) -> Outcome:
    """Call with copies of the arguments and fixed seeds."""
    args, kwargs = copy.deepcopy((c.args, c.kwargs))
    outcome = Outcome()
    try:
        with seeded():
            outcome.value = function(*args, **kwargs)
            if inspect.isgenerator(outcome.value):
                outcome.value = list(outcome.value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: nothing in an answer stops a notebook
        outcome.error = error
        return outcome
    if inplace:
        outcome.value = args[0]
        return outcome
    before = [(f"number {i}", a) for i, a in enumerate(c.args, 1)] + list(c.kwargs.items())
    for (name, was), value in zip(before, (*args, *kwargs.values()), strict=True):
        if _is_data(value) and first_difference(was, value, 0.0, 0.0):
            outcome.changed = name
            break
    return outcome


def _is_data(value: Any) -> bool:
    kinds = (list, tuple, dict, bytearray)
    return isinstance(value, kinds) or hasattr(value, "shape") or hasattr(value, "state_dict")


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """Fix the seeds for a call, and give the notebook its own random state back."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    python_state = random.getstate()
    numpy_state = numpy.random.get_state() if numpy else None
    torch_state = torch.get_rng_state() if torch else None
    try:
        random.seed(0)
        if numpy:
            numpy.random.seed(0)
        if torch:
            torch.manual_seed(0)
        yield
    finally:
        random.setstate(python_state)
        if numpy:
            numpy.random.set_state(numpy_state)
        if torch:
            torch.set_rng_state(torch_state)


def arguments_of(c: Case) -> str:
    parts = [brief(a) for a in c.args] + [f"{k}={brief(v)}" for k, v in c.kwargs.items()]
    return ", ".join(parts) or "nothing"


def one_line(error: BaseException, function: Function | None = None) -> str:
    """Return type, message and, if it is in the learner's function, the line of the error."""
    try:
        message = " ".join(str(error).split())
    except Exception:
        message = ""
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    code = getattr(function, "__code__", None)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f for f in frames if code and f.filename == code.co_filename]
    if lines and code:
        last = lines[-1]
        if last.name != code.co_name:  # a helper that the learner wrote beside the stub
            return f"{text}, in {last.name}"
        return f"{text}, in line {(last.lineno or 0) - code.co_firstlineno + 1} of {last.name}"
    return text
