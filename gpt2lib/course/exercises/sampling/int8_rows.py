"""Notebook 11: A matrix in 8 bits."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.sampling.shared import draw

torch: Any = lazy("torch")


def _int8_cases() -> list[Case]:
    skewed = draw(3, 5, seed=4)
    skewed[1, 2] = -9.0  # the farthest from 0 is negative
    return [case(skewed), case(draw(4, 4, seed=5) * torch.tensor([[1.0], [10.0], [0.1], [3.0]]))]


def _wrong_int8(scale: Function, rounded: bool = True) -> Function:
    def wrong(weight: Any) -> Any:
        s = scale(weight)
        q = weight / s
        q = (q.round() if rounded else q.trunc()).long()
        return (q + 128).remainder(256).sub(128).to(torch.int8), s  # what does not fit wraps around

    return wrong


def _row_of_zeros(my_quantize: Function) -> str | None:
    q, scale = my_quantize(torch.tensor([[1.0, -2.0], [0.0, 0.0]]))
    zero = float(scale[1])
    if zero > 0 and not q[1].any():
        return None
    return (
        f"the scale of a row of zeros is {zero:g}: dividing by it gives 0/0, and what an int8 "
        "makes of nan is left to chance. Keep scales above 0: .clamp(min=1e-30)"
    )


def _row_scale(weight: Any, steps: int = 127) -> Any:
    return weight.abs().amax(1, keepdim=True) / steps


EXERCISE = Exercise(
    id="int8-rows",
    notebook="11",
    title="A matrix in 8 bits",
    signature="my_quantize(weight)",
    reference="gpt2lib.generation.quantization:quantize",
    adapt=lambda quantize: lambda weight: quantize(weight, torch.float32),
    cases=_int8_cases,
    strict_type=True,  # one byte a weight is the lesson
    hints=[
        "The weight of a row that is farthest from 0 shall become 127 or -127.",
        "weight.abs().amax(dim=1, keepdim=True) has shape (N, 1): one number a row, ready to "
        "be divided by.",
        "A row of zeros has no largest weight: .clamp(min=1e-30) keeps its scale above 0.",
        "scale = (weight.abs().amax(1, keepdim=True) / 127).clamp(min=1e-30); "
        "q = (weight / scale).round().to(torch.int8)",
    ],
    misconceptions=[
        Misconception(
            "one-scale-for-all",
            "all rows share one scale, so small rows have few steps left: take each row's own "
            "largest weight",
            wrong=_wrong_int8(
                lambda w: (w.abs().max() / 127).expand(len(w), 1).clone(),
            ),
        ),
        Misconception(
            "a-scale-a-column",
            "these are the scales of the columns; a row is what one output is made from, and "
            "only a scale of the row can be multiplied in after the product",
            wrong=_wrong_int8(lambda w: w.abs().amax(0, keepdim=True) / 127),
        ),
        Misconception(
            "cuts-off",
            "the digits after the point are cut off, which doubles the error: round first, "
            "then convert to int8",
            wrong=_wrong_int8(_row_scale, rounded=False),
        ),
        Misconception(
            "forgets-the-sign",
            "the largest weight is not the one farthest from 0: -9 needs room, too, so take "
            "abs() first",
            wrong=_wrong_int8(lambda w: w.amax(1, keepdim=True) / 127),
        ),
        Misconception(
            "128-steps",
            "8 bits reach from -128 to 127: with 128 steps the largest weight becomes 128 and "
            "wraps around to -128; divide by 127",
            wrong=_wrong_int8(lambda w: _row_scale(w, 128)),
        ),
        Misconception("row-of-zeros", test=_row_of_zeros, when_right=True),
    ],
)
