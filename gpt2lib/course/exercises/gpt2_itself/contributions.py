"""Notebook 12: Who says it."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Function, Misconception, case
from gpt2lib.course.exercises.gpt2_itself.shared import draw


def _wrong_contributions(
    *, together: bool = True, centre: bool = True, scale: bool = True, gained: bool = True
) -> Function:
    """Return the split with one step done otherwise."""

    def split(parts: Any, gain: Any, direction: Any, eps: float) -> Any:
        whole = parts.sum(0) if together else parts
        size = (whole.var(-1, correction=0, keepdim=True) + eps).sqrt()
        x = parts - parts.mean(-1, keepdim=True) if centre else parts
        x = x / size if scale else x
        return (x * gain if gained else x) @ direction

    return split


def _unbiased(parts: Any, gain: Any, direction: Any, eps: float) -> Any:
    centred = parts - parts.mean(-1, keepdim=True)
    return centred / (parts.sum(0).var() + eps).sqrt() * gain @ direction


def _no_square_root(parts: Any, gain: Any, direction: Any, eps: float) -> Any:
    centred = parts - parts.mean(-1, keepdim=True)
    return centred / (parts.sum(0).var(correction=0) + eps) * gain @ direction


def _contribution_cases() -> list[Case]:
    return [
        case(draw(4, 8) + 1, 1 + draw(8, seed=1) / 2, draw(8, seed=2), 1e-5),
        case(3 * draw(2, 6, seed=3), draw(6, seed=4), draw(6, seed=5) - 2, 1e-5),
    ]


EXERCISE = Exercise(
    id="contributions",
    notebook="12",
    title="Who says it",
    signature="my_contributions(parts, gain, direction, eps)",
    reference="gpt2lib.course.inside:contributions",
    cases=_contribution_cases,
    atol=1e-5,
    hints=[
        "The layer norm subtracts a mean, which is linear, and divides by one number, which is "
        "the whole stream's and not a part's.",
        "That number: the root of (variance of parts.sum(0), divided by C, plus eps).",
        "(parts - parts.mean(-1, keepdim=True)) / scale * gain @ direction",
    ],
    misconceptions=[
        Misconception(
            "each-its-own-norm",
            "each part is divided by its own size, so a part that hardly adds anything counts "
            "as much as a large one, and the sum is not the logit: divide all of them by the "
            "size of their sum",
            wrong=_wrong_contributions(together=False),
        ),
        Misconception(
            "not-centred",
            "the mean over the channels is still in the parts; the layer norm takes it away",
            wrong=_wrong_contributions(centre=False),
        ),
        Misconception(
            "not-scaled",
            "the parts are not divided by the size of the stream, as the layer norm does",
            wrong=_wrong_contributions(scale=False),
        ),
        Misconception(
            "no-gain",
            "the gain of the layer norm is missing",
            wrong=_wrong_contributions(gained=False),
        ),
        Misconception(
            "unbiased-variance",
            "this variance is divided by C - 1; a layer norm divides by C (correction=0)",
            wrong=_unbiased,
        ),
        Misconception(
            "no-square-root",
            "the parts are divided by the variance; the layer norm divides by its square root",
            wrong=_no_square_root,
        ),
    ],
)
