"""The second look: what can be seen of a wrong answer when no known misconception shows.

Every case counts. A claim that holds on all cases that are wrong is said as it is; one that holds
on some of them says on which. All claims are computed before they are said, and none names a cause.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from gpt2lib.course.exercise import Exercise
from gpt2lib.course.looks import inside
from gpt2lib.course.looks.base import Look, Pair, two_arrays
from gpt2lib.course.looks.whole import looks as whole_looks
from gpt2lib.course.values import numeric

MOST = 3
"""Names that are listed."""


def second_look(exercise: Exercise, pairs: Sequence[Pair]) -> Look | None:
    """Return what is seen of an answer, or None if it is nothing that has a name.

    Args:
        exercise: whose tolerance and named steps are used.
        pairs: all cases, right and wrong ones.
    """
    wrong = [pair for pair in pairs if pair.wrong]
    found = next(whole_looks(exercise, pairs), None) or _single_numbers(exercise, pairs)
    if found:
        return found
    right = _list([f"case {p.number}" for p in pairs if not p.wrong])
    found, note = _case_by_case(exercise, wrong)
    if found:
        notes = "; ".join(filter(None, [note, f"{right}: right" if right else ""]))
        return Look(found.name, f"{found.text} ({notes})" if notes else found.text)
    if right:
        text = f"it is right on {right}, and wrong on {_list([f'case {p.number}' for p in wrong])}"
        return Look("some-cases", text)
    return None


def _single_numbers(exercise: Exercise, pairs: Sequence[Pair]) -> Look | None:
    """Look at single numbers over all cases, since one of them alone says little."""
    right, got = numeric([p.expected for p in pairs]), numeric([p.got for p in pairs])
    if right is None or got is None or not right.shape == got.shape == (len(pairs),):
        return None
    if len(pairs) < 2 or "c" in (right.dtype.kind, got.dtype.kind):
        return None
    labels = [f"case {p.number}" for p in pairs]
    tol = inside.tolerance(exercise)
    two = two_arrays(right, got, tol, labels=labels, everywhere="on every case")
    return next(inside.value_looks(two), None) if two else None


def _case_by_case(exercise: Exercise, wrong: Sequence[Pair]) -> tuple[Look | None, str]:
    """Return what fits all wrong cases, or the first that anything fits; and a note to it."""
    leaves = [leaf for pair in wrong for leaf in inside.wrong_leaves(exercise, pair)]
    per_leaf = [_once(inside.leaf_looks(exercise, leaf)) for leaf in leaves]
    per_case = [_once(inside.container_looks(exercise, pair)) for pair in wrong]
    cases, names = [f"case {p.number}" for p in wrong], [leaf.name for leaf in leaves]
    for found, where in ((per_case, cases), (per_leaf, names)):
        look, same = _shared(found)
        if look:
            return look, "" if same else f"{where[0]}; with other numbers the same on the others"
    first = _first(per_case, cases) or _first(per_leaf, names)
    return first or next(inside.some_parts(exercise, wrong[0]), None), ""


def _once(looks: Iterator[Look]) -> dict[str, str]:
    """Return the texts by name, in order, the first of each name."""
    found: dict[str, str] = {}
    for look in looks:
        found.setdefault(look.name, look.text)
    return found


def _shared(found: list[dict[str, str]]) -> tuple[Look | None, bool]:
    """Return the first look that fits all, with the numbers of the first; are they all the same?"""
    for name, text in found[0].items() if found else ():
        texts = [other.get(name, "") for other in found]
        if all(_words(other) == _words(text) for other in texts):
            return Look(name, text), len(set(texts)) == 1
    return None, False


def _words(text: str) -> set[str]:
    """Return what a claim says without its numbers: "too large" is not "too small"."""
    return set(re.findall(r"[A-Za-z_]{2,}", text)) - {"and", "more", "nan", "inf", "positions"}


def _first(found: list[dict[str, str]], names: list[str]) -> Look | None:
    """Return what fits the first part for which anything does, and say that it is of that part."""
    for looks, where in zip(found, names, strict=True):
        for look, text in looks.items():
            return Look(look, f"on {where}, {text}")
    return None


def _list(names: Sequence[Any]) -> str:
    return ", ".join(names) if len(names) <= MOST else f"{len(names)} cases"
