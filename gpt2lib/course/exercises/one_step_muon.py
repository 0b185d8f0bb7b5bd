"""Exercises of notebook 08, section 9: a step of one size in every direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, case, lazy

torch: Any = lazy("torch")
library: Any = lazy("gpt2lib.training.muon")

Function = Callable[..., Any]


def _matrices(size: float = 1.0) -> list[Any]:
    """Return calls with a square, a wide and a tall matrix that have one dominant direction."""
    numbers = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Any:
        return torch.randn(*shape, generator=numbers, dtype=torch.float64)

    made = []
    for rows, columns in ((4, 4), (3, 6), (7, 4)):
        gradient = draw(rows, columns) + 3 * draw(rows, 1) * draw(1, columns)
        made.append(case(size * gradient / gradient.norm()))
    return made


def _with_sizes(sizes: Callable[[Any], Any]) -> Function:
    """Return a function that gives a matrix other singular values."""

    def changed(gradient: Any) -> Any:
        u, s, vt = torch.linalg.svd(gradient, full_matrices=False)
        return u * sizes(s) @ vt

    return changed


def _exact(orthogonalise: Any) -> Function:
    """Take the directions from the library, and the size of exactly 1 from a decomposition."""

    def orthogonal(gradient: Any) -> Any:
        near = orthogonalise(gradient, gradient.dtype)
        u, _, vt = torch.linalg.svd(near, full_matrices=False)
        return u @ vt

    return orthogonal


def _svd_v(gradient: Any) -> Any:
    """Take V as `torch.svd` returns it, not transposed."""
    u, _, vt = torch.linalg.svd(gradient, full_matrices=False)
    return u @ vt.T


ORTHOGONAL_STEP = Exercise(
    id="orthogonal-step",
    notebook="08",
    title="One size for every direction of a matrix",
    signature="my_orthogonal(gradient)",
    reference="gpt2lib.training.muon:orthogonalise",
    adapt=_exact,
    cases=lambda: _matrices(5.0),
    rtol=1e-5,
    atol=1e-6,
    hints=[
        "The singular value decomposition writes the gradient as U · S · Vᵀ: directions, and in S "
        "how large each is.",
        "Keep U and Vᵀ and leave S out, which is the same as making all of it 1.",
        "torch.linalg.svd(gradient, full_matrices=False) returns U, the diagonal of S, and Vᵀ, "
        "transposed already.",
        "u @ vt",
    ],
    misconceptions=[
        Misconception(
            "keeps-the-sizes",
            "this is the gradient itself: U · S · Vᵀ puts the sizes back. Leave S out",
            wrong=_with_sizes(lambda s: s),
        ),
        Misconception(
            "one-length-for-the-whole",
            "you divide the whole gradient by its norm: the loud direction is as loud as before, "
            "compared with the others. Each singular value has to become 1",
            wrong=_with_sizes(lambda s: s / s.square().sum().sqrt()),
        ),
        Misconception(
            "largest-becomes-1",
            "only the largest singular value is 1 now, and the others are smaller by the same "
            "factor as before. Each has to become 1",
            wrong=_with_sizes(lambda s: s / s.max()),
        ),
        Misconception(
            "signs",
            "you make every *number* 1 or -1, which is Adam's first step. The directions of a "
            "matrix are not its numbers",
            wrong=lambda gradient: gradient.sign(),
        ),
        Misconception(
            "divides-twice",
            "you divide by the singular values twice, so what was quiet is loud now: 1 / s instead "
            "of 1",
            wrong=_with_sizes(lambda s: 1 / s),
        ),
        Misconception(
            "v-not-transposed",
            "this is U · V, where the product takes Vᵀ: torch.linalg.svd returns Vᵀ already, "
            "torch.svd returns V",
            wrong=_svd_v,
        ),
        Misconception(
            "rows-of-length-1",
            "each row has length 1, but rows may still point almost the same way; all *singular "
            "values* have to be 1",
            wrong=lambda gradient: gradient / gradient.norm(dim=1, keepdim=True),
        ),
    ],
)


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


NEWTON_SCHULZ = Exercise(
    id="newton-schulz",
    notebook="08",
    title="The same without a decomposition",
    signature="my_newton_schulz(gradient)",
    reference="gpt2lib.training.muon:orthogonalise",
    adapt=lambda orthogonalise: lambda gradient: orthogonalise(gradient, gradient.dtype),
    cases=lambda: _matrices(0.4),
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

EXERCISES = [ORTHOGONAL_STEP, NEWTON_SCHULZ]
