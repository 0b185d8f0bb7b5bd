"""Notebook 03: The surprise of knowing how often each token comes."""

import math
from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, case, lazy
from gpt2lib.course.exercises.baselines.shared import BITS

torch: Any = lazy("torch")


def _counts() -> list[Any]:
    return [
        case(torch.tensor([2, 2, 4])),
        case(torch.tensor([7, 0, 1, 0, 3])),
        case(torch.tensor([5, 5, 5, 5, 5])),
    ]


def _shares(counts: Any) -> Any:
    shares = counts.double() / counts.sum()
    return shares[shares > 0]


def _nan_at_zero(counts: Any) -> float:
    shares = counts.double() / counts.sum()
    return float(-(shares * shares.log()).sum())


def _raw_counts(counts: Any) -> float:
    raw = counts.double()[counts > 0]
    return float(-(raw * raw.log()).sum())


def _unweighted(counts: Any) -> float:
    return float(-_shares(counts).log().mean())


EXERCISE = Exercise(
    id="entropy",
    notebook="03",
    title="The surprise of knowing how often each token comes",
    signature="my_entropy(counts)",
    reference="gpt2lib.course.baselines:entropy",
    cases=_counts,
    hints=[
        "Shares first: counts / counts.sum().",
        "A token of share p costs −ln p, and comes with probability p: add up −p·ln p.",
        "0·ln 0 is nan for a computer, but tends to 0: leave out the zeros.",
    ],
    misconceptions=[
        Misconception(
            "nan-at-zero",
            "a token that never comes makes this nan: 0·ln 0 is 0 in the limit, so leave out "
            "the tokens with count 0",
            wrong=_nan_at_zero,
        ),
        Misconception(
            "raw-counts",
            "these are counts, not shares: divide by their sum before you take the logarithm",
            wrong=_raw_counts,
        ),
        Misconception(
            "unweighted",
            "this averages over the vocabulary, so a rare token counts as much as a common "
            "one; weight each −ln p by p",
            wrong=_unweighted,
        ),
        Misconception(
            "blind-guess",
            "this is ln V, the loss of a blind guess: it does not look at the counts",
            wrong=lambda counts: math.log(len(counts)),
        ),
        Misconception(
            "bits",
            BITS,
            wrong=lambda counts: float(-(_shares(counts) * _shares(counts).log2()).sum()),
        ),
        Misconception(
            "negative",
            "an entropy is never negative: put a minus before the sum",
            wrong=lambda counts: float((_shares(counts) * _shares(counts).log()).sum()),
        ),
    ],
)
