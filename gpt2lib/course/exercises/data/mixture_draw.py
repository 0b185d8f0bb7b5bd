"""Notebook 02: Two sources, in proportion."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gpt2lib.course.exercise import Exercise, Function, Misconception, case


def _one_sample(interleave: Function) -> Function:
    def draw(i: int, shares: Sequence[int]) -> tuple[int, int]:
        source, number = interleave(shares, i)
        return int(source), int(number)

    return draw


def _drawing(
    mine: Callable[[int, int, int], bool],
    first: Callable[[int, int, int], int],
    second: Callable[[int, int, int], int],
) -> Function:
    """Return the function that asks `mine` which source it is, and the others for the number."""

    def draw(i: int, shares: Sequence[int]) -> tuple[int, int]:
        a, total = shares[0], sum(shares)
        return (0, first(i, a, total)) if mine(i, a, total) else (1, second(i, a, total))

    return draw


def _grows(i: int, a: int, total: int) -> bool:
    return (i + 1) * a // total > i * a // total


def _in_floats(i: int, shares: Sequence[int]) -> tuple[int, int]:
    share = shares[0] / sum(shares)
    before = int(i * share)
    return (0, before) if int((i + 1) * share) > before else (1, i - before)


def _before(i: int, a: int, total: int) -> int:
    return i * a // total


def _rest(i: int, a: int, total: int) -> int:
    return i - i * a // total


EXERCISE = Exercise(
    id="mixture-draw",
    notebook="02",
    title="Two sources, in proportion",
    signature="my_draw(i, shares)",
    reference="gpt2lib.data.order:interleave",
    adapt=_one_sample,
    cases=lambda: [
        *(case(i, shares) for shares in ((2, 3), (5, 2), (1, 3)) for i in range(16)),
        *(case(i, (1, 48)) for i in (48, 49)),  # 49 · (1/49) is less than 1 in float64
    ],
    hints=[
        "Of the first n samples, the first source has had floor(n * a / total): n * a // total.",
        "Sample i is one of the first source's if that number is larger at n = i + 1 than at "
        "n = i. How many has it had before?",
        "The second source has had what the first has not: i minus the first one's number.",
    ],
    misconceptions=[
        Misconception(
            "in-blocks",
            "the share is right over a whole round, but the samples of a source come in one block; "
            "with large shares that is a long stretch of one source only. Spread them",
            wrong=_drawing(
                lambda i, a, total: i % total < a,
                lambda i, a, total: i // total * a + i % total,
                lambda i, a, total: i // total * (total - a) + i % total - a,
            ),
        ),
        Misconception(
            "one-number-for-all",
            "the second value is the sample's number in the mixture, so each source skips most of "
            "its own windows. Count within the source",
            wrong=_drawing(_grows, lambda i, a, total: i, lambda i, a, total: i),
        ),
        Misconception(
            "each-rounded-by-itself",
            "the second source's number is rounded by itself, and rounds to the same one twice: a "
            "window comes again and another never. It is i minus what the first source has had",
            wrong=_drawing(
                _grows,
                lambda i, a, total: i * a // total,
                lambda i, a, total: i * (total - a) // total,
            ),
        ),
        Misconception(
            "counts-itself",
            "the first sample of a source has number 1, so window 0 is never read: count the "
            "samples before this one",
            wrong=_drawing(
                _grows,
                lambda i, a, total: (i + 1) * a // total,
                lambda i, a, total: i + 1 - (i + 1) * a // total,
            ),
        ),
        Misconception(
            "in-floats",
            "a share as a float is rounded: 49 * (1 / 49) is 0.9999999999999999, which int cuts to "
            "0, so a sample goes to the wrong source. Whole numbers are exact: n * a // total",
            wrong=_in_floats,
        ),
        Misconception(
            "sources-swapped",
            "the shares are given to the wrong sources: the first of `shares` belongs to source 0",
            wrong=lambda i, shares: (
                1 - _drawing(_grows, _before, _rest)(i, shares)[0],
                _drawing(_grows, _before, _rest)(i, shares)[1],
            ),
        ),
    ],
)
