"""One case: its result as a whole if that is a list, a text or a dict, and the parts inside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gpt2lib.course.comparing import Tolerance
from gpt2lib.course.exercise import Exercise
from gpt2lib.course.looks import kinds, numbers, order, parts, rough, rows
from gpt2lib.course.looks.base import Look, Pair, Two, two_arrays
from gpt2lib.course.values import has_state, numeric

MOST = 6
"""Parts up to which it is said which are right."""


@dataclass(frozen=True)
class Leaf:
    """A wrong part of a result that has no parts of its own to look at, and where it stands.

    Attributes:
        pair: the case.
        path: such as "[0]['weight']".
        right: the expected part.
        got: the answer's.
        labels: the keys, if the values of a dict are looked at together.
    """

    pair: Pair
    path: str
    right: Any
    got: Any
    labels: Sequence[str] | None = None

    @property
    def name(self) -> str:
        """Where it is, in words."""
        return f"case {self.pair.number}{f', {self.path}' if self.path else ''}"


def tolerance(exercise: Exercise) -> Tolerance:
    """Return how near values must come in an exercise, whatever their type."""
    return Tolerance(exercise.rtol, exercise.atol)


def wrong_leaves(exercise: Exercise, pair: Pair) -> Iterator[Leaf]:
    """Yield the innermost parts of a result that are wrong."""

    def walk(right: Any, got: Any, path: str) -> Iterator[Leaf]:
        if not exercise.difference(right, got):
            return
        right, got = _state(right, got)
        if _both(right, got, dict) and right.keys() == got.keys():
            values = list(right.values()), [got[k] for k in right]
            if all(a is not None and a.ndim == 1 for a in map(numeric, values)):
                yield Leaf(pair, path, *values, labels=[f"key {k!r}" for k in right])
                return
            inside = [(right[k], got[k], f"{path}[{k!r}]") for k in right]
        elif _both(right, got, list | tuple) and len(right) == len(got) and not _table(right, got):
            inside = [(right[i], got[i], f"{path}[{i}]") for i in range(len(right))]
        else:
            yield Leaf(pair, path, right, got)
            return
        for part in inside:
            yield from walk(*part)

    return walk(pair.expected, pair.got, "")


def leaf_looks(exercise: Exercise, leaf: Leaf) -> Iterator[Look]:
    """Yield what fits one part."""
    tol = tolerance(exercise)
    if leaf.labels is None:
        yield from kinds.looks(leaf.right, leaf.got, exercise.difference, tol)
    right, got = numeric(leaf.right), numeric(leaf.got)
    if right is None or got is None or "c" in (right.dtype.kind, got.dtype.kind):
        return
    two = two_arrays(right, got, tol, labels=leaf.labels)
    if two is None:
        return
    if right.shape != got.shape:
        yield from order.shapes(two.right, two.got)
    elif leaf.labels is not None:
        yield from value_looks(two)
    elif two.wrong.any():
        yield from numbers.looks(two)
        yield from order.looks(two)
        yield from rows.looks(two)
        yield from numbers.almost(two)
        yield from rough.looks(two)


def value_looks(two: Two) -> Iterator[Look]:
    """Yield what fits values whose order has no meaning, such as one of each case."""
    yield from numbers.looks(two)
    yield from rows.all_but(two)
    yield from numbers.almost(two)
    yield from rough.facts(two)


def container_looks(exercise: Exercise, pair: Pair) -> Iterator[Look]:
    """Yield what fits a list, a text or a dict as a whole: what is missing, or elsewhere."""
    right, got = _state(pair.expected, pair.got)

    def same(one: Any, other: Any) -> bool:
        return not exercise.difference(one, other)

    if _both(right, got, dict):
        yield from parts.dicts(right, got, same)
    elif any(_both(right, got, kind) for kind in (str, bytes, list | tuple)):
        table = len(right) == len(got) and _table(right, got)
        yield from () if table else parts.sequences(right, got, same)


def some_parts(exercise: Exercise, pair: Pair) -> Iterator[Look]:
    """Yield which parts of a tuple, list or dict are right, if some are."""
    right, got = pair.expected, pair.got
    if _both(right, got, dict):
        keys: list[Any] = [k for k in right if k in got]
    elif _both(right, got, list | tuple) and len(right) == len(got):
        keys = list(range(len(right)))
    else:
        return
    wrong = [k for k in keys if exercise.difference(right[k], got[k])]
    fine = [str(k) for k in keys if k not in wrong]
    if fine and wrong and len(keys) <= MOST:
        said = (
            f"part {', '.join(fine)} of it is right, and part {', '.join(map(str, wrong))} is not"
        )
        yield Look("some-parts", f"on case {pair.number}, {said}")


def _state(right: Any, got: Any) -> tuple[Any, Any]:
    """Return the parameters and buffers of two modules, and anything else as it is."""
    if has_state(right) and has_state(got):
        return dict(right.state_dict()), dict(got.state_dict())
    return right, got


def _both(right: Any, got: Any, kind: Any) -> bool:
    return isinstance(right, kind) and isinstance(got, kind)


def _table(right: Any, got: Any) -> bool:
    """Return whether both are numbers alone, which are looked at as arrays."""
    return numeric(right) is not None and numeric(got) is not None
