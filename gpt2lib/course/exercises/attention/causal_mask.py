"""Notebook 04: Who may see whom."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, case, lazy
from gpt2lib.course.exercises.attention.shared import sees

torch: Any = lazy("torch")
masks: Any = lazy("gpt2lib.model.masks")


EXERCISE = Exercise(
    id="causal-mask",
    notebook="04",
    title="Who may see whom",
    signature="my_causal_mask(T)",
    reference="gpt2lib.model.masks:Causal",
    adapt=lambda kind: lambda T: masks.dense(kind(), T, T),
    cases=lambda: [case(1), case(4), case(7)],
    hints=[
        "Row i is the query, column j the key. Which j may i see?",
        "j <= i, and i may see itself. torch.tril keeps the lower triangle of a matrix.",
        "torch.ones(T, T, dtype=torch.bool).tril()",
    ],
    misconceptions=[
        Misconception(
            "sees-the-future",
            lambda seen: sees(
                seen, "which comes after it: the mask is transposed (triu in place of tril)"
            ),
            wrong=lambda T: torch.ones(T, T, dtype=torch.bool).triu(),
        ),
        Misconception(
            "blind-to-itself",
            "a place must see itself: the diagonal belongs to the mask (j <= i, not j < i)",
            wrong=lambda T: torch.ones(T, T, dtype=torch.bool).tril(-1),
        ),
        Misconception(
            "true-where-forbidden",
            "your True marks what is hidden; here True means that the query may look. Both "
            "conventions are in use, so it pays to check: invert it with ~",
            wrong=lambda T: torch.ones(T, T, dtype=torch.bool).triu(1),
        ),
        Misconception(
            "float-mask",
            "the pattern is right, but it is made of numbers: PyTorch adds a float mask to the "
            "scores instead of hiding anything. Return booleans",
            wrong=lambda T: torch.ones(T, T).tril(),
        ),
        Misconception(
            "hides-nothing",
            lambda seen: sees(seen, "and everyone sees everyone: nothing is hidden"),
            wrong=lambda T: torch.ones(T, T, dtype=torch.bool),
        ),
    ],
)
