"""Notebook 08: Shorten a gradient, keep its direction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy

torch: Any = lazy("torch")
Tensors = Sequence[Any]


def _norm(tensors: Tensors) -> float:
    """Return the length of all numbers of all tensors, as one vector."""
    return math.sqrt(sum(float((t.double() ** 2).sum()) for t in tensors))


def _clipper(clip_grad_norm_: Any) -> Function:
    def clip(grads: Tensors, max_norm: float) -> list[Any]:
        parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in grads]
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad.clone()
        clip_grad_norm_(parameters, max_norm)
        return [p.grad for p in parameters]

    return clip


def _each_by_itself(grads: Tensors, max_norm: float) -> list[Any]:
    return [g * min(1.0, max_norm / (_norm([g]) + 1e-6)) for g in grads]


def _only_large_ones(grads: Tensors, max_norm: float) -> list[Any]:
    return [g * min(1.0, max_norm / float(g.abs().max())) for g in grads]


def _no_epsilon(my_clip: Any) -> bool:
    clipped = my_clip([torch.zeros(2), torch.zeros(3)], 1.0)
    return any(bool(torch.isnan(g).any()) for g in clipped)


EXERCISE = Exercise(
    id="clip-by-norm",
    notebook="08",
    title="Shorten a gradient, keep its direction",
    signature="my_clip(grads, max_norm)",
    reference="torch.nn.utils:clip_grad_norm_",
    adapt=_clipper,
    cases=lambda: [
        case([torch.tensor([3.0, 0.0]), torch.tensor([[-4.0], [0.5]])], 1.0),  # too long
        case([torch.tensor([0.3, -0.2]), torch.tensor([0.1])], 1.0),  # short enough
        case([torch.tensor([0.9, 0.0]), torch.tensor([-0.8])], 1.0),  # long only together
        case([torch.tensor([30.0, -2.0, 0.4]), torch.tensor([0.1])], 2.5),
    ],
    hints=[
        "The norm is that of all numbers of all tensors together: the root of the sum of all "
        "squares.",
        "Every tensor is multiplied by the same number, which is never above 1.",
        "factor = min(1, max_norm / (norm + 1e-6)), and the 1e-6 keeps a gradient of zeros from "
        "0 / 0.",
    ],
    misconceptions=[
        Misconception(
            "each-tensor-by-itself",
            "you clip each tensor by its own norm: together they may still be too long, and the "
            "direction of the whole gradient changes. Take one norm over all of them",
            wrong=_each_by_itself,
        ),
        Misconception(
            "clamps-each-number",
            "you cut off each number at max_norm: large numbers become equal, so the direction "
            "changes. Multiply all by one factor",
            wrong=lambda grads, max_norm: [g.clamp(-max_norm, max_norm) for g in grads],
        ),
        Misconception(
            "lengthens-short-ones",
            "a short gradient comes out longer: the factor must never be above 1, or the model "
            "never comes to rest",
            wrong=lambda grads, max_norm: [g * max_norm / (_norm(grads) + 1e-6) for g in grads],
        ),
        Misconception(
            "largest-number",
            "you compare the largest number of each tensor with max_norm; the norm is the root of "
            "the sum of all squares",
            wrong=_only_large_ones,
        ),
        Misconception(
            "adds-the-norms",
            "you add up the norms of the tensors; add their squares, and take the root of the sum",
            wrong=lambda grads, max_norm: [
                g * min(1.0, max_norm / (sum(_norm([t]) for t in grads) + 1e-6)) for g in grads
            ],
        ),
        Misconception(
            "forgets-the-root",
            "you divide by the sum of the squares; the norm is its root",
            wrong=lambda grads, max_norm: [
                g * min(1.0, max_norm / (_norm(grads) ** 2 + 1e-6)) for g in grads
            ],
        ),
        Misconception(
            "zero-by-zero",
            "a gradient of zeros becomes NaN, and the next step makes NaN of every weight: add "
            "1e-6 to the norm before you divide",
            test=_no_epsilon,
        ),
    ],
)
