"""Notebook 05: More places on the same arc."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.positions.shared import draw, make_rotation, wrong_rope

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")


def _interpolated(kind: Any) -> Function:
    def interpolated(x: Any, base: float, scale: float) -> Any:
        T, hs = x.shape
        return make_rotation(kind, torch.arange(T), hs, base, scale)(x[None, None])[0, 0]

    return interpolated


def _interpolated_cases() -> list[Case]:
    return [case(draw(8, 8), 10000.0, 4.0), case(draw(6, 4, seed=1), 100.0, 2.0)]


EXERCISE = Exercise(
    id="interpolated-rope",
    notebook="05",
    title="More places on the same arc",
    signature="my_interpolated_rope(x, base, scale)",
    reference="gpt2lib.model.positions:RotaryPositions",
    adapt=_interpolated,
    shows="gpt2lib.model.positions:RotaryPositions.rotation",
    cases=_interpolated_cases,
    hints=[
        "Interpolation leaves the frequencies as they are. Which number becomes smaller?",
        "Place p is treated as place p / scale, a fraction.",
        "As my_rope, with torch.arange(T) / scale for the places.",
    ],
    misconceptions=[
        Misconception(
            "multiplies-the-places",
            "you multiplied the places by the scale, so that the angles go even further beyond "
            "what was trained; divide",
            wrong=wrong_rope(places=lambda T, scale: torch.arange(T) * scale),
        ),
        Misconception(
            "whole-places-only",
            lambda seen: (
                f"places were divided with // and rounded down: with scale "
                f"{seen.case.args[2]:g}, neighbours get the same angles and cannot be told "
                "apart. Divide with /"
            ),
            wrong=wrong_rope(places=lambda T, scale: torch.arange(T) // scale),
        ),
        Misconception(
            "scales-the-base",
            "you multiplied the base by the scale, which slows down the slow pairs and leaves "
            "the fast ones: that is close to the NTK form. Linear interpolation divides the "
            "places, the same for all pairs",
            wrong=wrong_rope(
                places=lambda T, scale: torch.arange(T),
                scaled_base=lambda base, scale, hs: base * scale,
            ),
        ),
        Misconception(
            "ntk-in-place-of-linear",
            "this is the NTK form, which raises the base and so slows down the slow pairs "
            "only; linear interpolation keeps the base and divides the places",
            wrong=wrong_rope(
                places=lambda T, scale: torch.arange(T),
                scaled_base=lambda base, scale, hs: base * scale ** (hs / (hs - 2)),
            ),
        ),
        Misconception(
            "scales-the-vectors",
            "you divided the queries and keys by the scale, and lengths change; what is "
            "divided are the places",
            wrong=wrong_rope(
                places=lambda T, scale: torch.arange(T), before=lambda x, scale: x / scale
            ),
        ),
        Misconception(
            "scale-unused",
            "these are the angles without interpolation: the scale is not used",
            wrong=wrong_rope(places=lambda T, scale: torch.arange(T)),
        ),
    ],
)
