"""Notebook 08: One size for every direction of a matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, lazy
from gpt2lib.course.exercises.one_step.shared import matrices

torch: Any = lazy("torch")


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


EXERCISE = Exercise(
    id="orthogonal-step",
    notebook="08",
    title="One size for every direction of a matrix",
    signature="my_orthogonal(gradient)",
    reference="gpt2lib.training.muon:orthogonalise",
    adapt=_exact,
    cases=lambda: matrices(5.0),
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
