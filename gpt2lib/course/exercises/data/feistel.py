"""Notebook 02: Shuffle without a list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy

np: Any = lazy("numpy")
order: Any = lazy("gpt2lib.data.order")


class _Mix:
    """Bits that look random, from the round and the right half; far more bits than a half has."""

    def __init__(self, key: int) -> None:
        self.key = key

    def __call__(self, round_: int, right: int) -> int:
        word = order._mix(order._word(self.key * 1000 + round_) ^ order._word(right))
        return int(word[0])


def _whole_numbers(feistel: Function) -> Function:
    """Let the library's network, which takes arrays, take one Python number."""

    def permute(number: int, half: int, mix: Callable[[int, int], int]) -> int:
        def words(round_: int, right: Any) -> Any:
            return np.uint64(mix(round_, int(right)) % (1 << 64))

        return int(feistel(np.uint64(number), half, words))

    return permute


def _network(
    step: Callable[[int, int, int, int, Callable[[int, int], int]], tuple[int, int]],
    rounds: int = 8,
    swapped: bool = False,
) -> Function:
    """Return a network of other rounds; `step` takes left, right, mask, the round and mix."""

    def permute(number: int, half: int, mix: Callable[[int, int], int]) -> int:
        mask = (1 << half) - 1
        left, right = number >> half, number & mask
        for round_ in range(rounds):
            left, right = step(left, right, mask, round_, mix)
        return (right << half) | left if swapped else (left << half) | right

    return permute


EXERCISE = Exercise(
    id="feistel",
    notebook="02",
    title="Shuffle without a list",
    signature="my_feistel(number, half, mix)",
    reference="gpt2lib.data.order:feistel",
    adapt=_whole_numbers,
    cases=lambda: [
        *(case(number, 2, _Mix(1)) for number in (0, 6, 11, 15)),
        *(case(number, 4, _Mix(2)) for number in (1, 100, 255)),
        case(70_000, 9, _Mix(3)),
    ],
    hints=[
        "mask = (1 << half) - 1 has `half` ones. The left half of a number is number >> half, the "
        "right one number & mask.",
        "A round makes the old right half the new left one, and changes the old left half by a "
        "number that depends on the right half only.",
        "left, right = right, left ^ (mix(round_, right) & mask), for round_ in range(8)",
        "In the end put them together again: (left << half) | right.",
    ],
    misconceptions=[
        Misconception(
            "left-half-lost",
            "the left half is thrown away in each round, so different numbers meet and nothing "
            "is shuffled but overwritten: combine it with the mixed bits by ^",
            wrong=_network(lambda le, r, mask, i, mix: (r, mix(i, r) & mask)),
        ),
        Misconception(
            "one-after-the-other",
            "the left half becomes the right one before it is used, so the old left half is lost "
            "and numbers meet: assign both at once, left, right = right, left ^ …",
            wrong=_network(lambda le, r, mask, i, mix: (r, r ^ (mix(i, r) & mask))),
        ),
        Misconception(
            "mixes-the-wrong-half",
            "you mix the half that is being changed; it cannot be found again from the result, so "
            "two numbers may meet. mix takes the right half, which the round keeps",
            wrong=_network(lambda le, r, mask, i, mix: (r, le ^ (mix(i, le) & mask))),
        ),
        Misconception(
            "never-swaps",
            "the right half comes out as it went in: after each round the halves must change "
            "places",
            wrong=_network(lambda le, r, mask, i, mix: (le ^ (mix(i, r) & mask), r)),
        ),
        Misconception(
            "no-mask",
            "mix returns 64 bits, and a half has room for few: keep the last ones with & mask, or "
            "the result is no number of 2 * half bits",
            wrong=_network(lambda le, r, mask, i, mix: (r, le ^ mix(i, r))),
        ),
        Misconception(
            "adds",
            "adding and cutting off is a permutation, too, and a good one, but another: the "
            "library combines by ^ (exclusive or)",
            wrong=_network(lambda le, r, mask, i, mix: (r, (le + mix(i, r)) & mask)),
        ),
        Misconception(
            "one-round-only",
            "one round moves the right half to the left as it is; it takes eight of them",
            wrong=_network(lambda le, r, mask, i, mix: (r, le ^ (mix(i, r) & mask)), rounds=1),
        ),
        Misconception(
            "halves-swapped-in-the-end",
            "in the end the halves are put together the other way round: left belongs to the left",
            wrong=_network(lambda le, r, mask, i, mix: (r, le ^ (mix(i, r) & mask)), swapped=True),
        ),
    ],
)
