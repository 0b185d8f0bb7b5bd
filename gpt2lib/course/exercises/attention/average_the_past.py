"""Notebook 04: Every place becomes the average of its past."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.attention.shared import draw

torch: Any = lazy("torch")
masks: Any = lazy("gpt2lib.model.masks")


def _average(eager: Function) -> Function:
    """With queries of zero all scores are equal, and attention is the plain average."""

    def average(x: Any) -> Any:
        heads = x[:, None]  # (B, 1, T, C)
        return eager(torch.zeros_like(heads), heads, heads, masks.Causal())[:, 0]

    return average


EXERCISE = Exercise(
    id="average-the-past",
    notebook="04",
    title="Every place becomes the average of its past",
    signature="my_average_past(x)",
    reference="gpt2lib.model.attention:eager",
    adapt=_average,
    cases=lambda: [case(*draw((2, 5, 3))), case(*draw((1, 8, 2), seed=1))],
    hints=[
        "x is (B, T, C). Place t takes the mean of x[:, 0], ..., x[:, t], itself included.",
        "Loop over t, take x[:, : t + 1].mean(dim=1), and stack the results along dim=1.",
        "Without a loop: x.cumsum(dim=1) divided by 1, 2, ..., T, shaped (T, 1).",
    ],
    misconceptions=[
        Misconception(
            "forgets-to-divide",
            "these are sums: place t has t + 1 terms, so divide by t + 1",
            wrong=lambda x: x.cumsum(1),
        ),
        Misconception(
            "divides-by-T",
            "you divided every place by T, but place t has only t + 1 terms: place 0 must stay "
            "as it is",
            wrong=lambda x: x.cumsum(1) / x.size(1),
        ),
        Misconception(
            "averages-everything",
            "every place gets the average of all places, the later ones too: place t may use "
            "x[:, : t + 1] only",
            wrong=lambda x: x.mean(1, keepdim=True).expand_as(x),
        ),
        Misconception(
            "without-itself",
            "place t must count itself: the slice x[:, :t] ends before t, x[:, : t + 1] does not",
            wrong=lambda x: torch.cat(
                [torch.zeros_like(x[:, :1])]
                + [x[:, :t].mean(1, keepdim=True) for t in range(1, x.size(1))],
                dim=1,
            ),
        ),
        Misconception(
            "mean-of-nothing",
            "position 0 is nan: the slice x[:, :t] is empty for t = 0, and a mean over nothing "
            "is 0/0. Position t counts itself: x[:, : t + 1]",
            wrong=lambda x: torch.stack([x[:, :t].mean(1) for t in range(x.size(1))], dim=1),
        ),
        Misconception(
            "averages-the-batch",
            "you averaged over dim=0, the batch, and mixed texts that have nothing to do with "
            "each other; time is dim=1",
            wrong=lambda x: (
                x.cumsum(0) / torch.arange(1, x.size(0) + 1, device=x.device)[:, None, None]
            ),
        ),
        Misconception(
            "averages-the-future",
            "place t gets the average of x[:, t:], what comes after it; the past is x[:, : t + 1]",
            wrong=lambda x: torch.stack([x[:, t:].mean(1) for t in range(x.size(1))], dim=1),
        ),
    ],
)
