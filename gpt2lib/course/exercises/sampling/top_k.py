"""Notebook 11: Only the k likeliest."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.sampling.shared import draw

torch: Any = lazy("torch")


def _top_k(probabilities: Function) -> Function:
    return lambda logits, k: probabilities(logits, top_k=k)


def _kept(logits: Any, k: int, largest: bool = True) -> Any:
    """Return True for the k likeliest of each row."""
    best = logits.topk(k, largest=largest).indices
    return torch.zeros_like(logits, dtype=torch.bool).scatter(-1, best, True)


def _top_k_of_all(logits: Any, k: int) -> Any:
    threshold = logits.flatten().topk(k).values[-1]
    return logits.masked_fill(logits < threshold, -torch.inf).softmax(-1)


def _top_k_cases() -> list[Case]:
    return [case(draw(3, 7), 3), case(draw(2, 5, seed=1), 5)]


def _keeps_ties(top_k: Function) -> bool:
    """Whether more than k tokens stay where logits are equal, and k where they are not."""
    apart, tied = torch.tensor([[1.0, 3.0, 0.5, 0.0]]), torch.tensor([[1.0, 3.0, 1.0, 1.0]])
    kept, of_tied = ((top_k(logits, 2)[0] > 0).tolist() for logits in (apart, tied))
    return bool(kept == [True, True, False, False] and sum(of_tied) > 2)


EXERCISE = Exercise(
    id="top-k",
    notebook="11",
    title="Only the k likeliest",
    signature="my_top_k(logits, k)",
    reference="gpt2lib.generation.sampling:next_token_probabilities",
    adapt=_top_k,
    cases=_top_k_cases,
    hints=[
        "What has the logit -inf gets the probability 0.",
        "logits.topk(k) returns the values and where they are; scatter puts them back there.",
        "torch.full_like(logits, -torch.inf).scatter(-1, best.indices, best.values), and then "
        "the softmax.",
    ],
    misconceptions=[
        Misconception(
            "zero-logits",
            "a dropped token has the logit 0, and exp(0) is 1, not 0: set it to -inf",
            wrong=lambda logits, k: logits.masked_fill(~_kept(logits, k), 0.0).softmax(-1),
        ),
        Misconception(
            "not-renormalised",
            "what is left must sum to 1 again: drop before the softmax, or divide by the sum",
            wrong=lambda logits, k: logits.softmax(-1).masked_fill(~_kept(logits, k), 0.0),
        ),
        Misconception(
            "least-likely",
            "you keep the k least likely tokens",
            wrong=lambda logits, k: logits.masked_fill(
                ~_kept(logits, k, largest=False), -torch.inf
            ).softmax(-1),
        ),
        Misconception(
            "one-threshold-for-all",
            "the rows share one threshold here; each text has its own k likeliest tokens",
            wrong=_top_k_of_all,
        ),
        Misconception(
            "ties-stay",
            "with equal logits more than k tokens stay: choose by index, not by a threshold",
            test=_keeps_ties,
        ),
    ],
)
