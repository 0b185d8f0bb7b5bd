"""Notebook 02: A permutation of any size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, Seen, case, lazy

np: Any = lazy("numpy")


class _Table:
    """A permutation that is written out."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def __call__(self, number: int) -> int:
        return self.numbers[number]

    def __repr__(self) -> str:
        return f"the permutation {list(self.numbers)}"


def _one_place(cycle_walk: Function) -> Function:
    """Let the library's walk, which takes arrays, take one Python number."""

    def walk(position: int, n: int, permute: Callable[[int], int]) -> int:
        def words(numbers: Any) -> Any:
            return np.array([permute(int(i)) for i in numbers], dtype=np.uint64)

        return int(cycle_walk(np.array([position], dtype=np.uint64), n, words)[0])

    return walk


def _too_far(position: int, n: int, permute: Callable[[int], int]) -> int:
    out = permute(position)
    while out > n:
        out = permute(out)
    return out


def _neighbour(position: int, n: int, permute: Callable[[int], int]) -> int:
    while permute(position) >= n:
        position = (position + 1) % n
    return permute(position)


def _meet(seen: Seen) -> str:
    position, n, permute = seen.case.args
    other = next((p for p in range(n) if permute(p) == seen.got), None)
    meet = f" position {other} has window {seen.got} already," if other is not None else ""
    return (
        f"position {position} of {n} goes to {seen.got};{meet} so one window comes twice and "
        "another never. Send the number that is too large through permute again"
    )


EXERCISE = Exercise(
    id="cycle-walking",
    notebook="02",
    title="A permutation of any size",
    signature="my_walk(position, n, permute)",
    reference="gpt2lib.data.order:cycle_walk",
    adapt=_one_place,
    cases=lambda: [
        case(position, 5, table)
        for table in (_Table(6, 5, 4, 0, 7, 2, 3, 1), _Table(3, 7, 0, 5, 1, 4, 2, 6))
        for position in range(5)
    ],
    hints=[
        "permute(position) may be n or more. What could you do with such a number?",
        "It is a number that permute takes. Send it through again, until it is below n.",
        "number = permute(position), then: while number >= n: number = permute(number)",
    ],
    misconceptions=[
        Misconception("modulo", _meet, wrong=lambda position, n, permute: permute(position) % n),
        Misconception(
            "once-only",
            lambda seen: (
                f"position {seen.case.args[0]} goes to {seen.got}, and there is no such window: "
                f"they go from 0 to {seen.case.args[1] - 1}. Send it through again"
            ),
            wrong=lambda position, n, permute: permute(position),
        ),
        Misconception(
            "if-for-while",
            lambda seen: (
                f"position {seen.case.args[0]} goes to {seen.got}: you send a number that is too "
                f"large through once more, and it may be too large again. Go on while it is >= "
                f"{seen.case.args[1]}"
            ),
            wrong=lambda position, n, permute: (
                permute(position) if permute(position) < n else permute(permute(position))
            ),
        ),
        Misconception(
            "off-by-one",
            "n itself comes out, and the windows end at n - 1: go on while the number is >= n",
            wrong=_too_far,
        ),
        Misconception(
            "clips",
            "every number that is too large becomes the last window, which so comes often; send "
            "it through permute again",
            wrong=lambda position, n, permute: min(permute(position), n - 1),
        ),
        Misconception(
            "asks-the-neighbour",
            "where the number is too large you go on with the next position, whose window then "
            "comes twice; send the number itself through permute again",
            wrong=_neighbour,
        ),
        Misconception(
            "never-permutes",
            "positions come out as they went in: all are below n already, so permute once before "
            "you ask",
            wrong=lambda position, n, permute: position,
        ),
    ],
)
