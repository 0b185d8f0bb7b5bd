"""Notebook 12: How much a patch gives back."""

from __future__ import annotations

from gpt2lib.course.exercise import Case, Exercise, Misconception, case


def _recovered_cases() -> list[Case]:
    return [case(3.0, -1.0, 2.0), case(0.5, 4.5, 3.5), case(2.0, 0.0, -1.0), case(6.0, 1.0, 1.0)]


EXERCISE = Exercise(
    id="recovered",
    notebook="12",
    title="How much a patch gives back",
    signature="my_recovered(clean, corrupted, patched)",
    reference="gpt2lib.course.changing:recovered",
    cases=_recovered_cases,
    hints=[
        "0 must come out where the patch changes nothing, 1 where it gives all back.",
        "Both what the patch gave back and what was lost are counted from the corrupted run.",
        "(patched - corrupted) / (clean - corrupted)",
    ],
    misconceptions=[
        Misconception(
            "share-of-the-clean",
            "this is a share of the clean run's value, and not 0 where the patch does nothing: "
            "count both from the corrupted run",
            wrong=lambda clean, corrupted, patched: patched / clean,
        ),
        Misconception(
            "what-is-still-missing",
            "this is what is still missing: 1 where the patch does nothing",
            wrong=lambda clean, corrupted, patched: (clean - patched) / (clean - corrupted),
        ),
        Misconception(
            "not-a-share",
            "this is in logits; divide it by what was lost, clean - corrupted",
            wrong=lambda clean, corrupted, patched: patched - corrupted,
        ),
        Misconception(
            "wrong-sign",
            "the sign is turned: where the patch gives all back you have -1",
            wrong=lambda clean, corrupted, patched: (patched - corrupted) / (corrupted - clean),
        ),
        Misconception(
            "cut-to-0-and-1",
            "a patch may do harm, or more than undo it: values below 0 and above 1 are results",
            wrong=lambda clean, corrupted, patched: min(
                1.0, max(0.0, (patched - corrupted) / (clean - corrupted))
            ),
        ),
    ],
)
