"""`check`: tells the learner which misconception an answer shows, and never stops a notebook."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect

from gpt2lib.course import registry, scores
from gpt2lib.course.alike import going_on, like
from gpt2lib.course.calling import (
    Outcome,
    arguments_of,
    call,
    call_answer,
    heard,
    one_line,
    seconds,
    seeded,
)
from gpt2lib.course.comparing import Difference
from gpt2lib.course.exercise import Case, CheckResult, Exercise, Function, Misconception, Seen
from gpt2lib.course.handed import hand_on, is_handed_on
from gpt2lib.course.limits import Stopped, within
from gpt2lib.course.looks.base import Pair
from gpt2lib.course.readable import brief, kind_of
from gpt2lib.course.screen import cell_number
from gpt2lib.course.second_look import second_look
from gpt2lib.course.stubs import is_untouched
from gpt2lib.utils.errors import UserError

BLANK = (None, ..., NotImplemented)
"""What a stub returns that nobody has filled in."""


def check(id: str, function: Function) -> CheckResult:
    """Check an answer, show what was found, and return it.

    Nothing that the answer does stops the notebook; only a real keyboard interrupt does. What an
    earlier check has handed on is known again and neither judged nor counted.

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
    if is_handed_on(function):
        text = "this is the library's; run the cell with your function again, then this one"
        return CheckResult(exercise.id, "handed on", text, use=function)
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
    if result.status == "right":
        return result
    return dataclasses.replace(result, use=hand_on(reference, exercise.id))


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
    names, outcomes = exercise.parameters, []
    for number, c in enumerate(cases, 1):
        outcomes.append(call_answer(function, c, exercise.inplace, names, number))
        if isinstance(outcomes[-1].error, Stopped):
            break  # nobody waits for the others
    blank = _blank(exercise, outcomes)
    if blank:
        return CheckResult(name, "not attempted", f"{blank}; {goes_on}; {help_}")
    for c, outcome in zip(cases, outcomes, strict=False):
        if outcome.error is not None:
            text = f"{one_line(outcome.error, function)} (called with {arguments_of(c, names)})"
            return _known_error(exercise, reference, cases, outcomes, text) or CheckResult(
                name, "error", text
            )
    return _compare(exercise, function, reference, cases, outcomes)


def _compare(
    exercise: Exercise,
    function: Function,
    reference: Function,
    cases: list[Case],
    outcomes: list[Outcome],
) -> CheckResult:
    """Judge outputs: a known misconception, a changed argument, the second look, the difference."""
    pairs, first = [], None
    for number, (c, outcome) in enumerate(zip(cases, outcomes, strict=True), 1):
        wanted = call(reference, c, exercise.inplace)
        if wanted.error is not None:
            raise wanted.error
        difference = exercise.difference(wanted.value, outcome.value)
        pairs.append(Pair(number, c, wanted.value, outcome.value, bool(difference)))
        if difference and first is None:
            got = outcome.value
            with contextlib.suppress(Exception):  # so that a diagnosis can point into it
                got = like(wanted.value, got)
            first = (Seen(c, wanted.value, got, difference.index), difference)
    try:
        for known in exercise.misconceptions:
            diagnosis = _shows(exercise, known, function, pairs, first[0] if first else None)
            if diagnosis:
                return CheckResult(exercise.id, "wrong", diagnosis, known.name)
    except Stopped as stopped:
        text = f"{one_line(stopped, function)} (tried with more arguments than those of the cases)"
        return CheckResult(exercise.id, "error", text)
    changed = next((o.changed for o in outcomes if o.changed), None)
    if changed:
        text = f"your function changes its argument {changed}; work on a copy of it"
        return CheckResult(exercise.id, "wrong", text, "changes-its-input")
    if first is None:
        use, said = function, ""
        if not exercise.inplace:
            use, said = going_on(function, pairs[0].expected, pairs[0].got)
        return CheckResult(exercise.id, "right", said, use=use)
    return _unforeseen(exercise, pairs, *first)


def _known_error(
    exercise: Exercise,
    reference: Function,
    cases: list[Case],
    outcomes: list[Outcome],
    text: str,
) -> CheckResult | None:
    """Return the misconception that fails on the same cases and is equal on the others."""
    pairs = zip(cases, outcomes, strict=False)
    ended = [(c, o) for c, o in pairs if not isinstance(o.error, Stopped)]
    values = [(c, o.value) for c, o in ended if o.error is None]
    if len(ended) < len(cases) or not values:
        return None
    wanted = [call(reference, c, exercise.inplace).value for c, _ in values]
    differences = [exercise.difference(w, got) for w, (_, got) in zip(wanted, values, strict=True)]
    if not any(differences):
        return None  # right wherever it ends: the error is what there is to say
    i = next(i for i, difference in enumerate(differences) if difference)
    seen = Seen(values[i][0], wanted[i], values[i][1], differences[i].index)  # type: ignore[union-attr]
    for known in exercise.misconceptions:
        if known.wrong is not None and all(
            _same(exercise, call(known.wrong, c, exercise.inplace), o) for c, o in ended
        ):
            said = known.diagnosis if isinstance(known.diagnosis, str) else None
            with contextlib.suppress(Exception):  # values that it cannot point into
                said = said or known.diagnosis(seen)  # type: ignore[operator]
            if said:
                return CheckResult(exercise.id, "wrong", f"{said}\n  {text}", known.name)
    return None


def _same(exercise: Exercise, variant: Outcome, outcome: Outcome) -> bool:
    if variant.error is not None or outcome.error is not None:
        return type(variant.error) is type(outcome.error)
    return not exercise.difference(variant.value, outcome.value)


def _unforeseen(
    exercise: Exercise, pairs: list[Pair], seen: Seen, difference: Difference
) -> CheckResult:
    """Say what can be seen of an answer that nobody foresaw, and show the first wrong case."""
    look = None
    with contextlib.suppress(Exception):  # an odd object; the difference is known already
        look = second_look(exercise, pairs)
    text = (
        f"{f'{look.text}. {difference.text}' if look else difference.text}\n"
        f"  input:    {arguments_of(seen.case, exercise.parameters)}\n"
        f"  expected: {brief(seen.expected)}\n  got:      {brief(seen.got)}"
    )
    return CheckResult(exercise.id, "wrong", text, look=look.name if look else None)


def _shows(
    exercise: Exercise,
    misconception: Misconception,
    function: Function,
    pairs: list[Pair],
    seen: Seen | None,
) -> str | None:
    """Return the diagnosis if the answer shows the misconception."""
    said: str | bool | None = None
    test, wrong = misconception.test, misconception.wrong
    if misconception.when_right and seen is not None:
        return None
    if test is not None:
        with contextlib.suppress(Exception, SystemExit, GeneratorExit), seeded(), heard(""):
            said = within(seconds(), lambda: test(function))
    elif seen is not None and wrong is not None:
        said = all(
            variant.error is None and not exercise.difference(variant.value, pair.got)
            for pair in pairs
            for variant in [call(wrong, pair.case, exercise.inplace)]
        )
    if not said:
        return None
    if isinstance(said, str):
        return said
    if isinstance(misconception.diagnosis, str):
        return misconception.diagnosis
    with contextlib.suppress(Exception):  # values that it cannot point into: then it is not said
        return misconception.diagnosis(seen) if seen else misconception.name
    return None


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
