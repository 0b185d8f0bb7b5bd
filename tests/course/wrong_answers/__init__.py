"""Answers as learners write them, independent of the exercises' own wrong variants.

One or two modules for each folder of `gpt2lib.course.exercises`; `test_wrong_answers.py` runs them
all.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """An answer and the verdict it must get."""

    exercise: str
    function: Callable
    status: str
    misconception: str | None = None
    says: str = ""


ANSWERS: list[Answer] = []


def wrong(exercise: str, misconception: str | None, says: str = ""):
    """Mark a function that must be refused with this misconception (None: nobody foresaw it).

    `says` is a part of the diagnosis, for those that are made of values.
    """
    return lambda function: _add(Answer(exercise, function, "wrong", misconception, says))


def fails(exercise: str, says: str):
    """Mark a function that raises; `says` is a part of the one line that tells so."""
    return lambda function: _add(Answer(exercise, function, "error", None, says))


def right(exercise: str):
    """Mark a function that must be accepted."""
    return lambda function: _add(Answer(exercise, function, "right"))


def _add(answer: Answer) -> Callable:
    ANSWERS.append(answer)
    return answer.function


def load_all() -> list[Answer]:
    """Return the answers of all modules of this package."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return ANSWERS
