"""Notebook 05: How fast each pair turns."""

from __future__ import annotations

import math
from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.positions.shared import make_rotation

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")


def _frequencies(kind: Any) -> Function:
    """At place 1 the angles are the frequencies, all within half a turn."""

    def frequencies(head_size: int, base: float) -> Any:
        turn = make_rotation(kind, torch.ones(1), head_size, base)
        return torch.atan2(turn.sin, turn.cos)[0, : head_size // 2]

    return frequencies


def _wrong_frequencies(exponent: Function) -> Function:
    """Return base to another exponent, which is given the pairs 0 .. hs/2 - 1 and hs."""

    def frequencies(head_size: int, base: float) -> Any:
        return base ** exponent(torch.arange(head_size // 2), head_size)

    return frequencies


EXERCISE = Exercise(
    id="rope-frequencies",
    notebook="05",
    title="How fast each pair turns",
    signature="my_frequencies(head_size, base)",
    reference="gpt2lib.model.positions:RotaryPositions",
    adapt=_frequencies,
    shows="gpt2lib.model.positions:RotaryPositions.rotation",
    cases=lambda: [case(8, 10000.0), case(64, 10000.0), case(6, 100.0)],
    hints=[
        "There is one frequency for each pair, so hs/2 of them. Pair 0 turns by 1 radian a place.",
        "Pair i turns by base^(-2i/hs). torch.arange(0, head_size, 2) holds the 2i.",
        "base ** (-torch.arange(0, head_size, 2) / head_size)",
    ],
    misconceptions=[
        Misconception(
            "i-without-the-two",
            "the exponent is -2i/hs, and you took -i/hs: the slowest pair then turns about "
            "1/√base a place, not about 1/base",
            wrong=_wrong_frequencies(lambda i, hs: -i / hs),
        ),
        Misconception(
            "exponent-without-minus",
            "the frequencies grow with i: the minus of the exponent is missing. The last pairs "
            "are the slow ones",
            wrong=_wrong_frequencies(lambda i, hs: 2 * i / hs),
        ),
        Misconception(
            "one-a-channel",
            lambda seen: (
                f"you returned {len(seen.got)} frequencies for heads of "
                f"{seen.case.args[0]} channels; two channels make one pair, so there are "
                f"{len(seen.expected)}"
            ),
            wrong=lambda head_size, base: base ** (-torch.arange(head_size) / head_size),
        ),
        Misconception(
            "twice-in-a-row",
            lambda seen: (
                f"you returned {len(seen.got)} numbers, each frequency twice; here we want one "
                f"for each pair, {len(seen.expected)}"
            ),
            wrong=lambda head_size, base: (
                base ** (-torch.arange(0, head_size, 2) / head_size)
            ).repeat(2),
        ),
        Misconception(
            "counts-from-one",
            "i counts from 0: the first pair turns by base^0 = 1 radian a place",
            wrong=_wrong_frequencies(lambda i, hs: -2 * (i + 1) / hs),
        ),
        Misconception(
            "reaches-the-base",
            "the last pair turns by exactly 1/base here, but the exponents are 2i/hs and stop "
            "one short of 1: divide by hs, not by hs - 2 (beware of linspace)",
            wrong=_wrong_frequencies(lambda i, hs: -2 * i / (hs - 2)),
        ),
        Misconception(
            "wavelengths",
            "these are wavelengths, places for a full turn. Radians a place are 2π divided by them",
            wrong=lambda head_size, base: (
                2 * math.pi * base ** (torch.arange(0, head_size, 2) / head_size)
            ),
        ),
    ],
)
