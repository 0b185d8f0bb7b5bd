"""Notebook 09: What bf16 makes of a number."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy

torch: Any = lazy("torch")


def round_to_bf16(x: Any) -> Any:
    """Round float32 to what bf16 can hold, by hand; the result is float32.

    A number is mantissa · 2^exponent with a mantissa from 0.5 to 1. Of it, bf16 keeps 8 binary
    digits; torch.round takes the even neighbour of a number that lies in the middle.
    """
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * 256).round() / 256, exponent)


def _bits(x: Any, add: int) -> Any:
    return ((x.view(torch.int32) + add) & -65536).view(torch.float32)


def _digits(n: int) -> Function:
    def rounded(x: Any) -> Any:
        mantissa, exponent = torch.frexp(x)
        return torch.ldexp((mantissa * 2**n).round() / 2**n, exponent)

    return rounded


EXERCISE = Exercise(
    id="round-to-bf16",
    notebook="09",
    title="What bf16 makes of a number",
    signature="my_bf16(x)",
    reference="torch:Tensor.bfloat16",
    adapt=lambda bfloat16: lambda x: bfloat16(x).float(),
    shows="gpt2lib.course.exercises.memory.round_to_bf16:round_to_bf16",
    strict_type=True,  # float32 again, so that one can go on computing
    cases=lambda: [
        case(torch.tensor([1 + 1 / 256, 1 + 3 / 256, -1 - 1 / 256, 1.0])),
        case(torch.tensor([3.14159, -2.71828, 0.1, 1e-3, 0.0])),
        case(torch.tensor([70000.0, 1.2345e30, 5.4321e-12])),
    ],
    rtol=1e-7,
    atol=0.0,
    hints=[
        "mantissa, exponent = torch.frexp(x) takes x apart: x = mantissa · 2^exponent, and the "
        "mantissa lies between 0.5 and 1.",
        "bf16 keeps 8 binary digits of such a mantissa (7 of them are stored: the first is always "
        "1). So 256 times the mantissa becomes a whole number.",
        "torch.round takes the even one of two equally near numbers, as the hardware does.",
        "torch.ldexp((mantissa * 256).round() / 256, exponent)",
    ],
    misconceptions=[
        Misconception(
            "truncates",
            "you cut the digits off, so every number gets smaller in size, and sums drift; take "
            "the nearest one",
            wrong=lambda x: _bits(x, 0),
        ),
        Misconception(
            "half-away-from-zero",
            "of two equally near numbers you always take the larger one: 1 + 1/256 becomes 1.0078. "
            "The rule is to take the even one, so that such errors cancel",
            wrong=lambda x: _bits(x, 1 << 15),
        ),
        Misconception(
            "nine-digits",
            "you keep one binary digit too many: the leading 1 is among the 8",
            wrong=_digits(9),
        ),
        Misconception(
            "seven-digits",
            "you keep one binary digit too few: 7 are stored, and the leading 1 comes on top",
            wrong=_digits(7),
        ),
        Misconception(
            "fp16-instead",
            "this is fp16: 11 binary digits, but nothing above 65,504. bf16 has float32's range",
            wrong=lambda x: x.half().float(),
        ),
        Misconception(
            "wrong-dtype",
            "the values are right, but the tensor is of type bfloat16: return float32, so that "
            "one can go on computing with it",
            wrong=lambda x: x.bfloat16(),
        ),
    ],
)
