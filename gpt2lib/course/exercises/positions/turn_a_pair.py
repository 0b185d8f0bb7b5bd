"""Notebook 05: Turn a point in the plane."""

from __future__ import annotations

import math
from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.positions.shared import draw

torch: Any = lazy("torch")


def _pair(kind: Any) -> Function:
    """A head of two channels is one pair."""

    def turn(x: Any, angle: float) -> Any:
        a = torch.tensor([angle])
        return kind(a.cos(), a.sin())(x)

    return turn


def _wrong_pair(
    *,
    a: Function = lambda x, y, c, s: x * c - y * s,
    b: Function = lambda x, y, c, s: x * s + y * c,
) -> Function:
    """Return the turn of a pair with one of the two coordinates changed."""

    def turn(x: Any, angle: float) -> Any:
        cos, sin = math.cos(angle), math.sin(angle)
        first = a(x[0], x[1], cos, sin)
        return torch.stack((first, b(x[0], x[1], cos, sin)))

    return turn


def _overwritten(x: Any, angle: float) -> Any:
    y = x.clone()
    y[0] = y[0] * math.cos(angle) - y[1] * math.sin(angle)
    y[1] = y[0] * math.sin(angle) + y[1] * math.cos(angle)
    return y


EXERCISE = Exercise(
    id="turn-a-pair",
    notebook="05",
    title="Turn a point in the plane",
    signature="my_turn(x, angle)",
    reference="gpt2lib.model.positions:Rotation",
    adapt=_pair,
    cases=lambda: [
        case(torch.tensor([1.0, 0.0]), math.pi / 2),
        case(draw(2), 0.3),
        case(draw(2, seed=1), -2.0),
    ],
    hints=[
        "Where do (1, 0) and (0, 1) go? To (cos, sin) and (-sin, cos). The rest is their sum.",
        "The new first coordinate is x[0]·cos - x[1]·sin.",
        "c, s = math.cos(angle), math.sin(angle); "
        "torch.stack((x[0] * c - x[1] * s, x[0] * s + x[1] * c))",
    ],
    misconceptions=[
        Misconception(
            "turns-backwards",
            "this turns clockwise: (1, 0) turned by a quarter must arrive at (0, 1), not at "
            "(0, -1). The minus belongs to the first coordinate",
            wrong=_wrong_pair(
                a=lambda x, y, c, s: x * c + y * s, b=lambda x, y, c, s: y * c - x * s
            ),
        ),
        Misconception(
            "no-minus",
            "both sines are added, which stretches and squeezes the plane: lengths change. "
            "In the first coordinate the sine is subtracted",
            wrong=_wrong_pair(a=lambda x, y, c, s: x * c + y * s),
        ),
        Misconception(
            "overwrites-the-first",
            "the second coordinate was made from the new first one: keep both old ones until "
            "both new ones are made",
            wrong=_overwritten,
        ),
        Misconception(
            "in-degrees",
            "the angle is in radians, in which a full turn is 2π, about 6.28; you took it as "
            "degrees",
            wrong=lambda x, angle: _wrong_pair()(x, math.radians(angle)),
        ),
        Misconception(
            "sine-and-cosine-swapped",
            "sine and cosine have changed places: an angle of 0 must leave the point where it "
            "is, and cos(0) is 1",
            wrong=lambda x, angle: torch.stack(
                (
                    x[0] * math.sin(angle) - x[1] * math.cos(angle),
                    x[0] * math.cos(angle) + x[1] * math.sin(angle),
                )
            ),
        ),
    ],
)
