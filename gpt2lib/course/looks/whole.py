"""All cases together: a step that was returned, an argument that came back, one answer for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gpt2lib.course.calling import call
from gpt2lib.course.exercise import Exercise
from gpt2lib.course.looks.base import Look, Pair, near
from gpt2lib.course.readable import brief
from gpt2lib.course.values import number, numeric

RELATIONS: list[tuple[str, Callable[[Any, float], Any]]] = [
    ("times", lambda right, by: right * by),
    ("divided by", lambda right, by: right / by),
    ("plus", lambda right, by: right + by),
    ("minus", lambda right, by: right - by),
    ("times the square root of", lambda right, by: right * math.sqrt(abs(by))),
    ("divided by the square root of", lambda right, by: right / math.sqrt(abs(by))),
]


def looks(exercise: Exercise, pairs: Sequence[Pair]) -> Iterator[Look]:
    """Yield what fits all wrong cases of an answer."""
    wrong = [pair for pair in pairs if pair.wrong]

    def all_equal(values: Sequence[Any]) -> bool:
        both = zip(values, wrong, strict=True)
        return not any(exercise.difference(value, pair.got) for value, pair in both)

    for name, step in exercise.steps.items():
        if all_equal([call(step, pair.case, exercise.inplace).value for pair in wrong]):
            yield Look("step", f"this is the right value {name}")
    for i, name in enumerate(exercise.parameters):
        arguments = [pair.case.args[i] for pair in wrong if i < len(pair.case.args)]
        if len(arguments) == len(wrong) and all_equal(arguments):
            said = f"{name} is left as it was" if exercise.inplace else f"it is {name}, unchanged"
            yield Look("unchanged", said)
    first, *others = pairs
    same = not any(exercise.difference(first.got, other.got) for other in others)
    if same and any(exercise.difference(first.expected, other.expected) for other in others):
        yield Look("same-for-all", f"it is the same on every case: {brief(first.got, 80)}")
    yield from _arguments(exercise, wrong)


def _arguments(exercise: Exercise, wrong: Sequence[Pair]) -> Iterator[Look]:
    """The right value times an argument, or the like, where that differs from case to case."""
    both = [(numeric(pair.expected), numeric(pair.got)) for pair in wrong]
    for right, got in both:
        if right is None or got is None or right.shape != got.shape or not right.any():
            return
        if {right.dtype.kind, got.dtype.kind} & set("bc"):
            return
    floats = [(right.astype(np.float64), got.astype(np.float64)) for right, got in both]
    for name, values in _sizes(exercise, wrong):
        if len(set(values)) < 2 or 0 in values:
            continue
        for word, relation in RELATIONS:
            made = [(relation(r, by), g) for (r, g), by in zip(floats, values, strict=True)]
            if all(near(g, other) for other, g in made):
                yield Look("argument", f"it is the right value {word} {name}")
                return


def _sizes(exercise: Exercise, wrong: Sequence[Pair]) -> Iterator[tuple[str, list[float]]]:
    """Yield the arguments that are numbers, and the sizes of the others, over the wrong cases."""
    for i, name in enumerate(exercise.parameters):
        values = [number(pair.case.args[i]) for pair in wrong if i < len(pair.case.args)]
        if len(values) < len(wrong):
            continue
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            yield name, values
        elif all(hasattr(v, "shape") for v in values):
            for axis in range(min(len(v.shape) for v in values)):
                yield f"the size of {name} along axis {axis}", [v.shape[axis] for v in values]
        elif all(isinstance(v, list | tuple | str | bytes) for v in values):
            yield f"the length of {name}", [len(v) for v in values]
