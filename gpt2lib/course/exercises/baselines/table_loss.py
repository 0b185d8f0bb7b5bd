"""Notebook 03: The loss of a text under a table of bets."""

import math
from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.baselines.shared import BITS, rows, sum_not_mean

torch: Any = lazy("torch")


def _underflows(my_table_loss: Function) -> str | None:
    table, n = torch.full((4, 4), 0.25, dtype=torch.float64), 2001
    loss = float(my_table_loss(table, torch.zeros(n, dtype=torch.long)))
    if abs(loss - math.log(4)) < 1e-6 or math.isfinite(loss):
        return None
    return (
        f"for a text of {n:,} tokens, each with probability 0.25, it gives {loss}: the product of "
        "so many probabilities is smaller than any number that float64 holds. Take the logarithm "
        "of each, then add"
    )


def _bets() -> list[Any]:
    numbers = torch.Generator().manual_seed(2)
    table = torch.rand(4, 4, generator=numbers, dtype=torch.float64)
    ids = torch.randint(0, 4, (12,), generator=numbers)
    return [case(rows(table), ids), case(rows(table.T), torch.tensor([3, 0, 0, 2, 1]))]


def _bet(table: Any, ids: Any) -> Any:
    return table[ids[:-1], ids[1:]]


EXERCISE = Exercise(
    id="table-loss",
    notebook="03",
    title="The loss of a text under a table of bets",
    signature="my_table_loss(probabilities, ids)",
    reference="gpt2lib.course.baselines:table_loss",
    cases=_bets,
    hints=[
        "The first token has none before it: N tokens have N − 1 bets.",
        "probabilities[ids[:-1], ids[1:]] picks what each token had got, all at once.",
        "The mean of minus the logarithms.",
    ],
    misconceptions=[
        Misconception(
            "looks-back",
            "you looked up [next, present]: the row is the token that is known, the column "
            "the one to guess",
            wrong=lambda table, ids: float(-table[ids[1:], ids[:-1]].log().mean()),
        ),
        Misconception(
            "predicts-itself",
            "each token was scored after itself ([i, i]): targets are one place further on, "
            "ids[1:]",
            wrong=lambda table, ids: float(-table[ids, ids].log().mean()),
        ),
        Misconception(
            "divides-by-n",
            "N tokens hold N − 1 pairs: the first is never guessed, so divide by N − 1",
            wrong=lambda table, ids: float(-_bet(table, ids).log().sum() / len(ids)),
        ),
        Misconception(
            "log-of-the-mean",
            "you averaged the probabilities and took the logarithm once; take it of each, "
            "then average",
            wrong=lambda table, ids: float(-_bet(table, ids).mean().log()),
        ),
        Misconception(
            "perplexity",
            "this is the perplexity, exp(loss); the loss is the mean itself",
            wrong=lambda table, ids: float((-_bet(table, ids).log().mean()).exp()),
        ),
        Misconception(
            "sum-not-mean",
            sum_not_mean,
            wrong=lambda table, ids: float(-_bet(table, ids).log().sum()),
        ),
        Misconception(
            "bits",
            BITS,
            wrong=lambda table, ids: float(-_bet(table, ids).log2().mean()),
        ),
        Misconception("underflows", test=_underflows, when_right=True),
    ],
)
