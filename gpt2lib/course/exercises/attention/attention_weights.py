"""Notebook 04: From queries and keys to weights."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.attention.shared import causal_table, draw, sees

torch: Any = lazy("torch")
masks: Any = lazy("gpt2lib.model.masks")


def _weights(eager: Function) -> Function:
    """With the unit vectors as values, the output is the table of weights."""

    def weights(q: Any, k: Any) -> Any:
        values = torch.eye(k.size(-2))
        return eager(q[None, None], k[None, None], values[None, None], masks.Causal())[0, 0]

    return weights


def _wrong_weights(
    *,
    scale: Function = lambda hs: hs**0.5,
    dim: int = -1,
    late: bool = False,
    allowed: Function = causal_table,
    fill: float = -float("inf"),
) -> Function:
    """Return the weights with one thing changed."""

    def weights(q: Any, k: Any) -> Any:
        scores = q @ k.T / scale(q.size(-1))
        mask = allowed(q.size(0))
        if late:
            return scores.softmax(dim).masked_fill(~mask, 0.0)
        return scores.masked_fill(~mask, fill).softmax(dim)

    return weights


def _scaled_late(q: Any, k: Any) -> Any:
    return _wrong_weights(scale=lambda hs: 1)(q, k) / q.size(-1) ** 0.5


EXERCISE = Exercise(
    id="attention-weights",
    notebook="04",
    title="From queries and keys to weights",
    signature="my_attention_weights(q, k)",
    reference="gpt2lib.model.attention:eager",
    adapt=_weights,
    cases=lambda: [case(*draw((5, 8), (5, 8))), case(*draw((3, 4), (3, 4), seed=1))],
    hints=[
        "scores = q @ k.T is (T, T): row i holds the scores of query i with every key.",
        "Divide by the square root of hs, which is q.size(-1), before anything else.",
        "Fill the forbidden scores with -torch.inf, then take the softmax over the keys: "
        "scores.masked_fill(~mask, -torch.inf).softmax(dim=-1)",
    ],
    misconceptions=[
        Misconception(
            "mask-after-softmax",
            lambda seen: (
                f"row {seen.index[0]} sums to {float(seen.got[seen.index[0]].sum()):.2f}, not "
                "to 1: the mask is applied after the softmax, when the hidden keys have taken "
                "their share already"
            ),
            wrong=_wrong_weights(late=True),
        ),
        Misconception(
            "no-scale",
            "the scores are not divided by the square root of hs: the softmax is sharper than "
            "it should be",
            wrong=_wrong_weights(scale=lambda hs: 1),
        ),
        Misconception(
            "scaled-by-hs",
            "you divided by hs; a sum of hs products has standard deviation √hs, so divide by "
            "its square root",
            wrong=_wrong_weights(scale=lambda hs: hs),
        ),
        Misconception(
            "scaled-after-the-softmax",
            lambda seen: (
                f"row {seen.index[0]} sums to {float(seen.got[seen.index[0]].sum()):.2f}, not "
                "to 1: you divide the weights by √hs, after the softmax; what is divided are "
                "the scores, before it"
            ),
            wrong=_scaled_late,
        ),
        Misconception(
            "keys-ask-queries",
            "this is k @ q.T, whose row i holds the scores of key i with every query; a row "
            "belongs to a query: q @ k.T",
            wrong=lambda q, k: _wrong_weights()(k, q),
        ),
        Misconception(
            "softmax-over-queries",
            "the columns sum to 1, not the rows: each query shares out its attention over the "
            "keys, which lie along dim=-1",
            wrong=_wrong_weights(dim=0),
        ),
        Misconception(
            "zero-for-minus-infinity",
            "the hidden scores were set to 0, and exp(0) is 1: they still get a weight. Only "
            "minus infinity gives 0",
            wrong=_wrong_weights(fill=0.0),
        ),
        Misconception(
            "sees-the-future",
            lambda seen: sees(
                seen, "which comes after it: the mask is transposed, it looks ahead only"
            ),
            wrong=_wrong_weights(allowed=lambda T: torch.ones(T, T, dtype=torch.bool).triu()),
        ),
        Misconception(
            "no-mask",
            lambda seen: sees(seen, "which comes after it: there is no mask"),
            wrong=_wrong_weights(allowed=lambda T: torch.ones(T, T, dtype=torch.bool)),
        ),
        Misconception(
            "blind-to-itself",
            "place 0 has nothing left to see, and a softmax over nothing is nan: the diagonal "
            "must stay visible",
            wrong=_wrong_weights(allowed=lambda T: torch.ones(T, T, dtype=torch.bool).tril(-1)),
        ),
    ],
)
