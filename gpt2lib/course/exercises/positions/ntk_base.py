"""Notebook 05: A base that reaches further."""

from __future__ import annotations

from gpt2lib.course.exercise import Exercise, Misconception, case

EXERCISE = Exercise(
    id="ntk-base",
    notebook="05",
    title="A base that reaches further",
    signature="my_ntk_base(base, scale, head_size)",
    reference="gpt2lib.model.positions:ntk_base",
    cases=lambda: [case(10000.0, 4.0, 64), case(10000.0, 2.0, 8), case(500.0, 8.0, 32)],
    hints=[
        "The slowest pair is i = hs/2 - 1, with frequency base^(-(hs - 2)/hs).",
        "Its frequency with the new base must be that of the old one divided by scale. Solve "
        "new^(-(hs - 2)/hs) = base^(-(hs - 2)/hs) / scale for new.",
        "base * scale ** (head_size / (head_size - 2))",
    ],
    misconceptions=[
        Misconception(
            "base-times-scale",
            "base · scale slows the slowest pair down by a little less than the scale: its "
            "exponent is (hs - 2)/hs, not 1, so scale must be raised to hs/(hs - 2)",
            wrong=lambda base, scale, head_size: base * scale,
        ),
        Misconception(
            "exponent-inverted",
            "the exponent is upside down: new^((hs - 2)/hs) = ... · scale, so that scale gets "
            "the inverse, hs/(hs - 2)",
            wrong=lambda base, scale, head_size: base * scale ** ((head_size - 2) / head_size),
        ),
        Misconception(
            "base-lowered",
            "you divided: a smaller base makes every pair turn faster. To reach further they "
            "must turn slower, and the base must rise",
            wrong=lambda base, scale, head_size: base / scale ** (head_size / (head_size - 2)),
        ),
        Misconception(
            "minus-one",
            "the exponent is hs/(hs - 2): of hs/2 pairs the last has the number hs/2 - 1, and "
            "you took one channel off where it is one pair, two channels",
            wrong=lambda base, scale, head_size: base * scale ** (head_size / (head_size - 1)),
        ),
        Misconception(
            "base-and-scale-raised",
            "only the scale is raised to hs/(hs - 2); the base stays as it is: with scale 1 "
            "nothing may change",
            wrong=lambda base, scale, head_size: (base * scale) ** (head_size / (head_size - 2)),
        ),
    ],
)
