"""`check`: tells the learner which misconception an answer shows, and never stops a notebook."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect

from gpt2lib.course import registry, scores
from gpt2lib.course.calling import Function, Outcome, arguments_of, call, one_line, seeded
from gpt2lib.course.comparing import Difference, brief, first_difference, kind_of
from gpt2lib.course.exercise import Case, CheckResult, Exercise, Misconception, Seen
from gpt2lib.course.screen import cell_number
from gpt2lib.course.stubs import is_untouched
from gpt2lib.utils.errors import UserError

BLANK = (None, ..., NotImplemented)
"""What a stub returns that nobody has filled in."""


def check(id: str, function: Function) -> CheckResult:
    """Check an answer, show what was found, and return it.

    Nothing that the answer does stops the notebook; only a real keyboard interrupt does.

    Args:
        id: the exercise's, such as "causal-mask".
        function: the learner's function.

    Returns:
        The result; its `use` is the learner's function if it is right, else the library's.
    """
    try:
        exercise = registry.find(id)
    except UserError as error:
        result = CheckResult(id, "error", str(error), use=function)
    else:
        result = judge(exercise, function)
        with contextlib.suppress(OSError):  # a read-only folder is no reason to stop
            scores.record(result)
    result = dataclasses.replace(result, shown_in=cell_number())
    result.show()
    return result


def judge(exercise: Exercise, function: Function) -> CheckResult:
    """Return the verdict on an answer, without showing or recording it."""
    try:
        reference = exercise.function()
    except Exception as error:
        text = f"the check itself failed, not your answer: {one_line(error)}"
        return CheckResult(exercise.id, "error", text, use=function)
    try:
        result = _judge(exercise, function, reference)
    except Exception as error:
        text = f"the check could not judge this answer: {one_line(error)}"
        result = CheckResult(exercise.id, "error", text)
    use = function if result.status == "right" else reference
    return dataclasses.replace(result, use=use)


def _judge(exercise: Exercise, function: Function, reference: Function) -> CheckResult:
    name = exercise.id
    if not callable(function):
        text = f"give the function itself, not its result: got {kind_of(function)}"
        return CheckResult(name, "error", text)
    goes_on = f"the notebook goes on with {exercise.reference.replace(':', '.')}"
    help_ = f'hint("{name}") helps.'
    if is_untouched(function):
        return CheckResult(name, "not attempted", f"{goes_on}; {help_}")
    cases = list(exercise.cases())
    problem = _signature_problem(exercise, function, cases[0])
    if problem:
        return CheckResult(name, "error", problem)
    outcomes = [call(function, c, exercise.inplace) for c in cases]
    blank = _blank(exercise, outcomes)
    if blank:
        return CheckResult(name, "not attempted", f"{blank}; {goes_on}; {help_}")
    for c, outcome in zip(cases, outcomes, strict=True):
        if outcome.error is not None:
            text = f"{one_line(outcome.error, function)} (called with {arguments_of(c)})"
            return CheckResult(name, "error", text)
    return _compare(exercise, function, reference, cases, outcomes)


def _compare(
    exercise: Exercise,
    function: Function,
    reference: Function,
    cases: list[Case],
    outcomes: list[Outcome],
) -> CheckResult:
    """Judge outputs: a known misconception first, then a changed argument, then the difference."""
    seen: Seen | None = None
    difference = Difference("")
    for c, outcome in zip(cases, outcomes, strict=True):
        wanted = call(reference, c, exercise.inplace)
        if wanted.error is not None:
            raise wanted.error
        found = first_difference(wanted.value, outcome.value, exercise.rtol, exercise.atol)
        if found:
            difference = found
            seen = Seen(c, wanted.value, outcome.value, found.index)
            break
    for misconception in exercise.misconceptions:
        diagnosis = _shows(exercise, misconception, function, cases, outcomes, seen)
        if diagnosis:
            return CheckResult(exercise.id, "wrong", diagnosis, misconception.name)
    changed = next((o.changed for o in outcomes if o.changed), None)
    if changed:
        text = f"your function changes its argument {changed}; work on a copy of it"
        return CheckResult(exercise.id, "wrong", text, "changes-its-input")
    if seen is None:
        return CheckResult(exercise.id, "right")
    text = (
        f"{difference.text}\n  input:    {arguments_of(seen.case)}\n"
        f"  expected: {brief(seen.expected)}\n  got:      {brief(seen.got)}"
    )
    return CheckResult(exercise.id, "wrong", text)


def _shows(
    exercise: Exercise,
    misconception: Misconception,
    function: Function,
    cases: list[Case],
    outcomes: list[Outcome],
    seen: Seen | None,
) -> str | None:
    """Return the diagnosis if the answer shows the misconception."""
    said: str | bool | None = None
    if misconception.test is not None:
        with contextlib.suppress(Exception, SystemExit), seeded():
            said = misconception.test(function)
    elif seen is not None and misconception.wrong is not None:
        said = all(
            variant.error is None
            and not first_difference(variant.value, o.value, exercise.rtol, exercise.atol)
            for c, o in zip(cases, outcomes, strict=True)
            for variant in [call(misconception.wrong, c, exercise.inplace)]
        )
    if not said:
        return None
    if isinstance(said, str):
        return said
    if isinstance(misconception.diagnosis, str):
        return misconception.diagnosis
    return misconception.diagnosis(seen) if seen else misconception.name


def _blank(exercise: Exercise, outcomes: list[Outcome]) -> str | None:
    """Return what shows that the stub is not filled in, or None."""
    for outcome in outcomes:
        if isinstance(outcome.error, NotImplementedError):
            return "it raises NotImplementedError"
        if outcome.error is not None and "ellipsis" in one_line(outcome.error).lower():
            return "a `...` is still in it"
    if exercise.inplace or not all(o.error is None for o in outcomes):
        return None
    if all(any(o.value is blank for blank in BLANK) for o in outcomes):
        value = outcomes[0].value
        if value is None:
            return "it returns None (if you wrote it, a `return` is missing)"
        return f"it returns {'...' if value is ... else value!r}"
    return None


def _signature_problem(exercise: Exercise, function: Function, c: Case) -> str | None:
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return None
    try:
        signature.bind(*c.args, **c.kwargs)
    except TypeError as error:
        return f"it must be callable as {exercise.signature}; yours takes {signature} ({error})"
    return None
