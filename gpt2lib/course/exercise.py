"""What an exercise is: data that a module in `exercises/` fills in.

The reference is named by its import path and looked up when it is needed, so it cannot drift
from the library, and listing the exercises imports neither torch nor the library's rooms.
"""

from __future__ import annotations

import html
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gpt2lib.course.comparing import Difference, first_difference
from gpt2lib.course.screen import cell_number, show
from gpt2lib.course.sources import resolve

Function = Callable[..., Any]
Status = Literal["not attempted", "handed on", "right", "wrong", "error"]


class _Lazy:
    """A module that is imported when it is first used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


def lazy(name: str) -> Any:
    """Return a stand-in for module `name`, imported at its first use: `torch = lazy("torch")`."""
    return _Lazy(name)


@dataclass(frozen=True)
class Case:
    """The arguments of one call, made by `case(...)`."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


def case(*args: Any, **kwargs: Any) -> Case:
    """Return the arguments of one call of the learner's function."""
    return Case(args, kwargs)


@dataclass(frozen=True)
class Seen:
    """The first difference between the learner's output and the reference's.

    Attributes:
        case: the arguments of the call.
        expected: what the reference returned (all of it).
        got: what the learner's function returned (all of it).
        index: where the two first differ, such as (3, 5) of a matrix; () for one number.
    """

    case: Case
    expected: Any
    got: Any
    index: tuple[Any, ...]


@dataclass(frozen=True)
class Misconception:
    """A classic wrong answer and what to say to whoever gives it.

    Exactly one of `wrong` and `test` is given.

    Attributes:
        name: in words, such as "mask-after-softmax"; unique within the exercise.
        diagnosis: a sentence that names the mistake and points to the way out. A function of
            `Seen` may put values into it: "position 3 can see position 5".
        wrong: the wrong function; the learner shows this misconception if the outputs on every
            case are equal to those of `wrong`.
        test: takes the learner's function; a string (the diagnosis) or True means that the
            misconception shows. It is run for right outputs too: use it for properties that
            outputs alone do not prove. An error inside of it counts as "does not show".
        when_right: the test is about answers whose outputs are right on every case, and is run
            for no others: "the numbers are right, but".
    """

    name: str
    diagnosis: str | Callable[[Seen], str] = ""
    wrong: Callable[..., Any] | None = None
    test: Callable[[Callable[..., Any]], str | bool | None] | None = None
    when_right: bool = False

    def __post_init__(self) -> None:
        if (self.wrong is None) == (self.test is None):
            raise ValueError(f"misconception {self.name!r} needs either wrong= or test=")


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        id: words joined by hyphens, unique over the course.
        notebook: two digits, such as "04".
        title: what is to be done, a few words.
        signature: of the learner's function, such as "my_causal_mask(T)".
        reference: "module:name" in the library.
        cases: returns the calls (`case(...)`) that are compared; it must be deterministic.
        hints: from a nudge to nearly the answer; each call of `hint(id)` shows one more.
        misconceptions: in order; the first that shows is told.
        adapt: makes a function of the exercise's signature from the reference, if it has another.
        shows: "module:name" that `solution(id)` shows after the answer in `solutions/`, if it is
            not the reference.
        steps: values on the way to the result, by name: {"before the softmax": function of the
            exercise's signature}. An answer that returns one of them is told so.
        strict_type: whether kind and dtype must be the library's, as where they are the lesson.
        inplace: the function changes its first argument, and that is compared.
        rtol: relative tolerance for floats.
        atol: absolute tolerance for floats.
    """

    id: str
    notebook: str
    title: str
    signature: str
    reference: str
    cases: Callable[[], Sequence[Case]]
    hints: Sequence[str]
    misconceptions: Sequence[Misconception] = ()
    adapt: Callable[[Any], Callable[..., Any]] | None = None
    shows: str | None = None
    steps: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    strict_type: bool = False
    inplace: bool = False
    rtol: float = 1e-5
    atol: float = 1e-6

    def function(self) -> Callable[..., Any]:
        """Return the library's answer, callable as the learner's function is."""
        found = resolve(self.reference)
        answer: Callable[..., Any] = self.adapt(found) if self.adapt else found
        return answer

    @property
    def name(self) -> str:
        """The name of the learner's function."""
        return self.signature.partition("(")[0]

    @property
    def parameters(self) -> list[str]:
        """The names of the arguments, from the signature."""
        inside = self.signature.partition("(")[2].rpartition(")")[0]
        names = (part.partition("=")[0].partition(":")[0] for part in inside.split(","))
        return [name.strip(" *") for name in names if name.strip(" */")]

    def difference(self, expected: Any, got: Any) -> Difference | None:
        """Return the first difference that counts in this exercise."""
        return first_difference(expected, got, self.rtol, self.atol, self.strict_type)


SIGNS: dict[str, tuple[str, str]] = {
    "right": ("✔", "#009E73"),
    "wrong": ("✘", "#D55E00"),
    "not attempted": ("○", "#E69F00"),
    "handed on": ("○", "#E69F00"),
    "error": ("⚠", "#D55E00"),
}
"""A symbol and a colour for each status; the status is always said in words, too."""
WORDS = {"not attempted": "not attempted yet", "handed on": "not checked"}


@dataclass(frozen=True)
class CheckResult:
    """What `check` found.

    Attributes:
        exercise: the id.
        status: "not attempted", "right", "wrong", "error", or "handed on": it is the library's,
            under the learner's name.
        diagnosis: what to say about it; "" if right, unless the type is another.
        misconception: name of the known misconception that shows, if one does.
        look: name of what the second look saw, if no misconception shows.
        use: the learner's function if it is right, else the library's, marked as such: what the
            notebook goes on with.
    """

    exercise: str
    status: Status
    diagnosis: str = ""
    misconception: str | None = None
    look: str | None = None
    use: Callable[..., Any] = field(default=lambda *_, **__: None, repr=False, compare=False)
    shown_in: int | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        word = WORDS.get(self.status, self.status)
        rest = f": {self.diagnosis}" if self.diagnosis else "."
        return f"{SIGNS[self.status][0]} {self.exercise}: {word}{rest}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        first, _, rest = str(self).partition("\n")
        colour = SIGNS[self.status][1]
        more = f"<pre>{html.escape(rest)}</pre>" if rest else ""
        return (
            f'<div style="border-left: 6px solid {colour}; padding: 0.3em 0.8em">'
            f"{html.escape(first)}{more}</div>"
        )

    def _ipython_display_(self) -> None:
        # `check` has shown it already when it is the last line of the same cell.
        if self.shown_in is None or self.shown_in != cell_number():
            self.show()

    def show(self) -> None:
        """Display the result."""
        record = {"exercise": self.exercise, "status": self.status}
        show(str(self), metadata={"gpt2lib": record}, html=self._repr_html_())
