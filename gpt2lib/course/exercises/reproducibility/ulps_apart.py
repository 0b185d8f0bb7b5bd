"""Notebook 10: How many floats lie between two results."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Function, Misconception, case, lazy

torch: Any = lazy("torch")
EPSILON = 2.0**-23
"""The distance from 1 to the next float32."""


def _bits(x: Any) -> int:
    return int(x.view(torch.int32))


def _minus(x: Any) -> int:
    """Return the place of a float32 in the order of all of them."""
    bits = _bits(x)
    return bits if bits >= 0 else -(bits + 2**31)


def _through_zero(count: Function) -> Function:
    """Count on each side of zero by itself: over all float32, NumPy's own sum overflows."""

    def ulps(a: Any, b: Any) -> int:
        ends = [(a, b)] if bool(a < 0) == bool(b < 0) else [(a, 0 * a), (b, 0 * b)]
        counted = [count(abs(x).numpy(), abs(y).numpy(), maxulp=2**31) for x, y in ends]
        return sum(int(n.item()) for n in counted)

    return ulps


def _wraps_around(a: Any, b: Any) -> int:
    """Take the distance in 32 bits, as tensors of int32 do."""
    return abs((_minus(a) - _minus(b) + 2**31) % 2**32 - 2**31)


def _floats(*pairs: tuple[float, float]) -> list[Case]:
    return [case(torch.tensor(a), torch.tensor(b)) for a, b in pairs]


EXERCISE = Exercise(
    id="ulps-apart",
    notebook="10",
    title="How many floats lie between two results",
    signature="my_ulps(a, b)",
    reference="numpy.testing:assert_array_max_ulp",
    adapt=_through_zero,
    cases=lambda: _floats(
        (1.0, 1.0 + EPSILON),
        (100.0, 100.0 + 2**-16),
        (1.99999, 2.00001),
        (0.3, 0.3),
        (-1.0, -1.0 + EPSILON),
        (5.6e-45, -2.8e-45),  # on both sides of zero
        (-(2.0**100), 2.0**100),  # farther apart than an int32 can say
    ),
    hints=[
        "The bits of a positive float32, read as a whole number, grow by one from each float to "
        "the next. `a.view(torch.int32)` reads them so.",
        "The first bit is the sign. Below zero the other 31 bits count away from zero.",
        "place = bits if bits >= 0 else -(bits + 2**31), and the answer is the distance of the "
        "two places.",
    ],
    misconceptions=[
        Misconception(
            "divides-by-epsilon",
            "you divide the difference by 2⁻²³. That is the distance of floats just above 1; it "
            "doubles at each power of two. Read the bits as whole numbers instead",
            wrong=lambda a, b: round(abs(a.item() - b.item()) / EPSILON),
        ),
        Misconception(
            "relative-difference",
            "a relative difference in units of 2⁻²³ is only near the number of floats: their "
            "distance stays the same between two powers of two, and does not grow with the number",
            wrong=lambda a, b: round(
                abs(a.item() - b.item()) / (EPSILON * max(abs(a.item()), abs(b.item())))
            ),
        ),
        Misconception(
            "bits-of-negatives",
            "across zero the bits jump: the first bit is the sign, and below zero the others count "
            "away from zero. Turn the bits of a negative number into a place below zero first",
            wrong=lambda a, b: abs(_bits(a) - _bits(b)),
        ),
        Misconception(
            "converts-the-value",
            "`.int()` converts the value 1.0 to the number 1; `.view(torch.int32)` reads the same "
            "32 bits as a whole number",
            test=lambda my_ulps: (
                [my_ulps(*c.args) for c in _floats((1.0, 3.0), (100.0, 103.0))] == [2, 3]
            ),
        ),
        Misconception(
            "with-a-sign",
            "the distance has no sign: my_ulps(a, b) must be my_ulps(b, a)",
            wrong=lambda a, b: _minus(b) - _minus(a),
        ),
        Misconception(
            "only-those-between",
            "two neighbours are one step apart, and a number is 0 from itself: count steps, not "
            "the floats strictly between",
            wrong=lambda a, b: max(0, abs(_minus(a) - _minus(b)) - 1),
        ),
        Misconception(
            "wraps-around",
            "from -2¹⁰⁰ to 2¹⁰⁰ there are more floats than an int32 can count, so the difference "
            "of two int32 wraps around: make Python numbers of them first, with int(...)",
            wrong=_wraps_around,
        ),
    ],
)
