"""One call of an answer: with copies of the arguments, fixed seeds, limits, and nothing let out."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import io
import random
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from gpt2lib.course.comparing import first_difference
from gpt2lib.course.exercise import Case, Function
from gpt2lib.course.limits import Counted, Stopped, within
from gpt2lib.course.readable import brief
from gpt2lib.course.session import budget
from gpt2lib.course.values import has_state

LINES = 40
"""Lines printed by one call that are shown; a loop may print more than a browser can take."""


@dataclasses.dataclass
class Outcome:
    """What one call gave: a value or an error, and the name of an argument that it changed."""

    value: Any = None
    error: BaseException | None = None
    changed: str | None = None


def seconds() -> float:
    """Return how long a call of an answer may take; right ones take far less than a second."""
    return budget(full=20.0, fast=10.0)


def call(
    function: Function, c: Case, inplace: bool, names: Sequence[str] = (), said_by: str = ""
) -> Outcome:
    """Call the library's or another trusted function with copies of the arguments.

    Args:
        function: what is called, with fixed seeds.
        c: the arguments.
        inplace: whether the first argument, changed, is the result.
        names: of the arguments.
        said_by: put before what it prints.
    """
    args, kwargs = copy.deepcopy((c.args, c.kwargs))
    outcome = Outcome()
    try:
        with seeded(), heard(said_by):
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
    before = [(name_of(names, i), a) for i, a in enumerate(c.args)] + list(c.kwargs.items())
    for (name, was), value in zip(before, (*args, *kwargs.values()), strict=True):
        if _is_data(value) and first_difference(was, value, 0.0, 0.0, strict=True):
            outcome.changed = name
            break
    return outcome


def call_answer(
    function: Function, c: Case, inplace: bool, names: Sequence[str] = (), number: int = 1
) -> Outcome:
    """Call a learner's function on case `number`: as `call` does, with limits."""

    def limited(*args: Any, **kwargs: Any) -> Any:
        counted = [_counted(a, name_of(names, i)) for i, a in enumerate(args)]
        named = {k: _counted(v, k) for k, v in kwargs.items()}

        def to_the_end() -> Any:
            value = function(*counted, **named)
            return list(value) if inspect.isgenerator(value) else value

        return within(seconds(), to_the_end)

    outcome = call(limited, c, inplace, names, f"printed by your function on case {number}:")
    if isinstance(outcome.error, Stopped):
        traceback.clear_frames(outcome.error.__traceback__)  # they hold what filled the memory
    return outcome


def _counted(value: Any, name: str) -> Any:
    """Count the calls of a function that is handed in; modules and classes stay what they are."""
    plain = callable(value) and not has_state(value) and not isinstance(value, type)
    return Counted(value, name) if plain else value


def name_of(names: Sequence[str], i: int) -> str:
    """Return the name of argument `i`, counted from 0."""
    return names[i] if i < len(names) else f"number {i + 1}"


def _is_data(value: Any) -> bool:
    kinds = (list, tuple, dict, bytearray)
    return isinstance(value, kinds) or hasattr(value, "shape") or has_state(value)


class _Heard(io.TextIOBase):
    """Standard output with a line before what is printed, and a bound on it."""

    def __init__(self, out: TextIO, heading: str) -> None:
        self._out, self._heading, self._lines, self._end = out, heading, 0, ""

    def write(self, text: str) -> int:
        if text and not self._end:
            self._out.write(f"{self._heading}\n")
        for line in text.splitlines(keepends=True):
            if self._lines < LINES:
                self._out.write(line)
            self._end = line[-1]
            self._lines += line.endswith("\n")
        return len(text)

    def flush(self) -> None:
        self._out.flush()

    def end(self) -> None:
        """Close the last line, and say how many were left out."""
        if self._end not in ("", "\n"):
            self.write("\n")
        if self._lines > LINES:
            self._out.write(f"… and {self._lines - LINES:,} more lines\n")


class _Silent(io.TextIOBase):
    def write(self, text: str) -> int:
        return len(text)


@contextlib.contextmanager
def heard(heading: str) -> Iterator[None]:
    """Say before what is printed whose it is; with "" it is not shown at all."""
    if not heading:
        with contextlib.redirect_stdout(_Silent()):
            yield
        return
    out = _Heard(sys.stdout, heading)
    with contextlib.redirect_stdout(out):
        try:
            yield
        finally:
            out.end()


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


def arguments_of(c: Case, names: Sequence[str] = ()) -> str:
    """Return the arguments of a call as text: "T=4, window=2"."""
    parts = [f"{names[i]}={brief(a)}" if i < len(names) else brief(a) for i, a in enumerate(c.args)]
    return ", ".join([*parts, *(f"{k}={brief(v)}" for k, v in c.kwargs.items())]) or "nothing"


def one_line(error: BaseException, function: Function | None = None) -> str:
    """Return type, message and, if it is in the learner's function, the line of the error."""
    try:
        message = " ".join(str(error).split())
    except Exception:
        message = ""
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if isinstance(error, Stopped):
        text = message
    where = _line_of(error, function)
    return f"{text}, in {where}" if where else text


def _line_of(error: BaseException, function: Function | None) -> str:
    """Return "line 3 of my_f, `return values[99]`", or "" if the error is not in the answer."""
    code = getattr(inspect.unwrap(function) if function else None, "__code__", None)
    if code is None:
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename == code.co_filename]
    if not own:
        return ""
    last = own[-1]
    source = f": `{last.line}`" if last.line else ""
    if last.name != code.co_name:  # a helper that the learner wrote beside the stub
        return f"{last.name}{source}"
    return f"line {(last.lineno or 0) - code.co_firstlineno + 1} of {last.name}{source}"
