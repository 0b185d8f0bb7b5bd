"""Notebook 11: The smallest set that reaches p."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.sampling.shared import draw

torch: Any = lazy("torch")


def _top_p(probabilities: Function) -> Function:
    return lambda logits, p: probabilities(logits, top_p=p)


def _wrong_top_p(
    *, crossing: bool = True, again: bool = True, undone: bool = True, largest: bool = True
) -> Function:
    """Return top-p with one thing changed."""

    def top_p(logits: Any, p: float) -> Any:
        ordered, order = logits.softmax(-1).sort(descending=largest)
        reached = ordered.cumsum(-1)
        dropped = (reached - ordered >= p) if crossing else (reached > p)
        ordered = ordered.masked_fill(dropped, 0.0)
        if again:
            ordered = ordered / ordered.sum(-1, keepdim=True)
        return torch.zeros_like(ordered).scatter(-1, order, ordered) if undone else ordered

    return top_p


def _zero_logits(logits: Any, p: float) -> Any:
    dropped = _wrong_top_p()(logits, p) == 0
    return logits.masked_fill(dropped, 0.0).softmax(-1)


def _as_a_threshold(logits: Any, p: float) -> Any:
    chances = logits.softmax(-1)
    chances = chances.masked_fill(chances < p, 0.0)
    return chances / chances.sum(-1, keepdim=True)


def _top_p_cases() -> list[Case]:
    unordered = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.3, 0.1, 0.35, 0.25]]).log()
    return [case(unordered, 0.6), case(draw(3, 8), 0.9)]


EXERCISE = Exercise(
    id="top-p",
    notebook="11",
    title="The smallest set that reaches p",
    signature="my_top_p(logits, p)",
    reference="gpt2lib.generation.sampling:next_token_probabilities",
    adapt=_top_p,
    cases=_top_p_cases,
    hints=[
        "Sort the probabilities of a row, likeliest first, and add them up.",
        "A token stays if what was reached before it is still below p.",
        "sort returns (ordered, order). ordered.cumsum(-1) - ordered is what was reached "
        "before; scatter(-1, order, ...) brings the answer back to the tokens' own places.",
    ],
    misconceptions=[
        Misconception(
            "drops-the-crossing-token",
            "the token that crosses p belongs to the set; without it p is not reached",
            wrong=_wrong_top_p(crossing=False),
        ),
        Misconception(
            "not-renormalised",
            "what is left must sum to 1 again: divide by its sum",
            wrong=_wrong_top_p(again=False),
        ),
        Misconception(
            "zero-logits",
            "a dropped token has the logit 0, and exp(0) is 1, not 0: set it to -inf before "
            "the second softmax, or set its probability to 0",
            wrong=_zero_logits,
        ),
        Misconception(
            "stays-sorted",
            "the probabilities are those of the sorted tokens: entry 0 must belong to token 0, "
            "so undo the order",
            wrong=_wrong_top_p(undone=False),
        ),
        Misconception(
            "least-likely-first",
            "the set begins with the least likely tokens: sort with descending=True",
            wrong=_wrong_top_p(largest=False),
        ),
        Misconception(
            "as-a-threshold",
            "p is not the least probability of a token, but what the kept ones sum up to",
            wrong=_as_a_threshold,
        ),
    ],
)
