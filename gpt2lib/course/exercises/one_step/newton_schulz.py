"""Notebook 08: The same without a decomposition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, lazy
from gpt2lib.course.exercises.one_step.shared import matrices

torch: Any = lazy("torch")
library: Any = lazy("gpt2lib.training.muon")


def _rounds(
    coefficients: tuple[float, float, float] | None = None,
    rounds: int = 5,
    length: Callable[[Any], Any] = lambda gradient: gradient.norm(),
    by_element: bool = False,
    back: bool = True,
) -> Function:
    """Return Newton and Schulz's iteration with mistakes."""

    def iterate(gradient: Any) -> Any:
        a, b, c = library.COEFFICIENTS if coefficients is None else coefficients
        tall = gradient.size(0) > gradient.size(1)
        x = gradient / length(gradient)
        x = x.T if tall else x
        for _ in range(rounds):
            if by_element:
                x = a * x + b * x**3 + c * x**5
            else:
                square = x @ x.T
                x = a * x + (b * square + c * square @ square) @ x
        return x.T if tall and back else x

    return iterate


EXERCISE = Exercise(
    id="newton-schulz",
    notebook="08",
    title="The same without a decomposition",
    signature="my_newton_schulz(gradient)",
    reference="gpt2lib.training.muon:orthogonalise",
    adapt=lambda orthogonalise: lambda gradient: orthogonalise(gradient, gradient.dtype),
    cases=lambda: matrices(0.4),
    rtol=1e-4,
    atol=1e-5,
    hints=[
        "First divide by the norm of all numbers, gradient.norm(): then no singular value is "
        "above 1.",
        "In a product X · Xᵀ · X the U and V of the neighbours cancel, and the singular values "
        "are taken to the third power.",
        "square = x @ x.T, then x = a * x + b * square @ x + c * square @ square @ x, five times.",
    ],
    misconceptions=[
        Misconception(
            "not-shortened-first",
            "you do not divide by the norm first. These gradients are short, so it ends well but "
            "elsewhere; one with a singular value above 1.3 would grow without end",
            wrong=_rounds(length=lambda gradient: 1.0),
        ),
        Misconception(
            "number-by-number",
            "x**3 takes each number to its third power; the third power of the singular values is "
            "the matrix product x @ x.T @ x",
            wrong=_rounds(by_element=True),
        ),
        Misconception(
            "one-round-short",
            "you stop one round early: five rounds, for i in range(5)",
            wrong=_rounds(rounds=4),
        ),
        Misconception(
            "classic-coefficients",
            "1.5 and -0.5 are Newton and Schulz's own coefficients. They end exactly at 1, but "
            "need many more rounds for small singular values; take a, b and c",
            wrong=_rounds(coefficients=(1.5, -0.5, 0.0)),
        ),
        Misconception(
            "no-fifth-power",
            "the term with c is missing: square @ square @ x",
            wrong=_rounds(coefficients=(3.4445, -4.7750, 0.0)),
        ),
        Misconception(
            "largest-singular-value",
            "you divide by the largest singular value. It is a good choice, but takes a "
            "decomposition to know, and that is what we do without: use gradient.norm()",
            wrong=_rounds(length=lambda gradient: torch.linalg.matrix_norm(gradient, 2)),
        ),
        Misconception(
            "stays-transposed",
            "a tall matrix comes out lying on its side: transpose it back at the end",
            wrong=_rounds(back=False),
        ),
    ],
)
