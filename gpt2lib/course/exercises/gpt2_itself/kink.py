"""Notebook 12: Where the loss breaks off."""

from __future__ import annotations

from collections.abc import Sequence

from gpt2lib.course.exercise import Case, Exercise, Function, Misconception, case


def _kink(falls: Function, best: Function = max) -> Function:
    def find(steps: Sequence[int], losses: Sequence[float], width: int) -> int:
        middle = range(width, len(losses) - width)
        return steps[best(middle, key=lambda i: falls(losses, i, width))]

    return find


def _fall(losses: Sequence[float], i: int, width: int) -> float:
    return losses[i - width] - losses[i + width]


def _position(steps: Sequence[int], losses: Sequence[float], width: int) -> int:
    return steps.index(_kink(_fall)(steps, losses, width))


def _relative(losses: Sequence[float], i: int, width: int) -> float:
    return losses[i - width] / losses[i + width]


def _kink_cases() -> list[Case]:
    steps = list(range(0, 200, 10))
    slow = [4.0 - 0.02 * i for i in range(8)]
    drop = [3.8, 3.3, 2.6, 2.0, 1.5, 1.2]
    tail = [1.1, 0.1, 1.0, 0.9, 0.3, 0.05]  # noise falls further in one step than the kink does
    rise = [3.0, 2.9, 2.8, 1.9, 0.9, 0.6, 0.5, 0.5, 1.9, 0.5, 0.45, 0.4]
    return [case(steps, slow + drop + tail, 3), case(list(range(0, 60, 5)), rise, 2)]


EXERCISE = Exercise(
    id="kink",
    notebook="12",
    title="Where the loss breaks off",
    signature="my_kink(steps, losses, width)",
    reference="gpt2lib.course.induction:steepest_fall",
    adapt=lambda steepest_fall: lambda *arguments: steepest_fall(*arguments)[0],
    cases=_kink_cases,
    hints=[
        "Compare the loss `width` measurements before with that `width` after.",
        "For each i from width to len(losses) - width - 1: losses[i - width] - losses[i + width].",
        "Return steps[i] of the largest fall, not i.",
    ],
    misconceptions=[
        Misconception(
            "one-step",
            "this is the largest fall from one measurement to the next, and that is noise: "
            "compare `width` before with `width` after",
            wrong=lambda steps, losses, width: steps[
                max(range(1, len(losses)), key=lambda i: losses[i - 1] - losses[i])
            ],
        ),
        Misconception(
            "lowest-loss",
            "this is where the loss is lowest; the kink is where it falls",
            wrong=lambda steps, losses, width: steps[
                min(range(len(losses)), key=losses.__getitem__)
            ],
        ),
        Misconception(
            "position-not-step",
            "this is a position in the list; return the step that was measured there",
            wrong=_position,
        ),
        Misconception(
            "steepest-rise",
            "this is where the loss rises most, or falls least: turn the difference round",
            wrong=_kink(_fall, best=min),
        ),
        Misconception(
            "relative",
            "this is the largest fall in proportion, which late in training is noise about a "
            "small loss; take the difference",
            wrong=_kink(_relative),
        ),
        Misconception(
            "where-it-begins",
            "this is where the window begins; the kink is in its middle",
            wrong=lambda steps, losses, width: steps[
                steps.index(_kink(_fall)(steps, losses, width)) - width
            ],
        ),
    ],
)
