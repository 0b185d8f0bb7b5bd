"""All exercises of the course, found in the modules of `exercises/` when first asked for."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

from gpt2lib.course import exercises
from gpt2lib.course.exercise import Exercise
from gpt2lib.course.screen import show
from gpt2lib.course.sources import resolve, show_source
from gpt2lib.utils.errors import UserError, nearest

_hints_shown: dict[str, int] = {}


def _by_room() -> list[tuple[str, list[Exercise]]]:
    """Return the exercises of each module or folder of `exercises/`, by its name."""
    rooms = [module.name for module in pkgutil.iter_modules(exercises.__path__)]
    return [(r, importlib.import_module(f"{exercises.__name__}.{r}").EXERCISES) for r in rooms]


@functools.cache
def all_exercises() -> dict[str, Exercise]:
    """Return all exercises by id, in the order of the notebooks."""
    found = [exercise for _, of_room in _by_room() for exercise in of_room]
    found.sort(key=lambda e: e.notebook)  # stable: within a notebook in the order of the module
    by_id = {e.id: e for e in found}
    if len(by_id) != len(found):
        twice = sorted({e.id for e in found if sum(o.id == e.id for o in found) > 1})
        raise ValueError(f"two exercises share an id: {', '.join(twice)}")
    return by_id


def find(id: str) -> Exercise:
    """Return an exercise.

    Raises:
        UserError: for an unknown id, with the nearest one.
    """
    known = all_exercises()
    if id not in known:
        near = nearest(str(id), known) or f"; there are {', '.join(known)}"
        raise UserError(f"no exercise {id!r}{near}")
    return known[id]


def listing() -> list[dict[str, str]]:
    """Return id, notebook, signature and title of every exercise, in the course's order."""
    return [
        {"id": e.id, "notebook": e.notebook, "signature": e.signature, "title": e.title}
        for e in all_exercises().values()
    ]


def hint(id: str) -> None:
    """Show a hint; each further call shows the next one."""
    try:
        exercise = find(id)
    except UserError as error:
        show(str(error))
        return
    given = min(_hints_shown.get(id, 0), len(exercise.hints) - 1)
    _hints_shown[id] = given + 1
    left = len(exercise.hints) - given - 1
    more = f" ({left} more: call hint again)" if left else f' (the last; solution("{id}") is next)'
    show(f"Hint {given + 1} of {len(exercise.hints)}: {exercise.hints[given]}{more}")


def answer(exercise: Exercise) -> Callable[..., Any]:
    """Return the answer to an exercise in its own signature, from `solutions/`."""
    room = next(room for room, of_room in _by_room() if exercise in of_room)
    module = importlib.import_module(f"gpt2lib.course.solutions.{room}")
    return getattr(module, exercise.name)  # type: ignore[no-any-return]


def solution(id: str) -> None:
    """Show an answer in the exercise's own signature, then the library's source of the same."""
    try:
        exercise = find(id)
    except UserError as error:
        show(str(error))
        return
    code = inspect.getsource(answer(exercise))
    show(code, markdown=f"A solution of `{id}`:\n\n```python\n{code}```")
    show("The library's:", markdown="The library's:")
    show_source(resolve(exercise.shows or exercise.reference))
