"""Notebook 11: Less of the same."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Function, Misconception, Seen, case, lazy
from gpt2lib.course.exercises.sampling.shared import draw

torch: Any = lazy("torch")


def _wrong_penalty(formula: Function, flip: bool = False) -> Function:
    def penalise(logits: Any, seen: Any, penalty: float) -> Any:
        return torch.where(~seen if flip else seen, formula(logits, penalty), logits)

    return penalise


def _divided(logits: Any, penalty: float) -> Any:
    return torch.where(logits > 0, logits / penalty, logits * penalty)


def _negative_rises(seen: Seen) -> str:
    place = seen.index
    before = float(seen.case.args[0][place])
    return (
        f"a logit of {before:.2f} became {float(seen.got[place]):.2f}, which is higher: a negative "
        f"logit divided by the penalty makes the token likelier; multiply it"
    )


def _penalty_cases() -> list[Case]:
    seen = torch.tensor([[True, False, True, False], [False, True, True, True]])
    logits = torch.tensor([[2.0, 1.0, -2.0, -1.0], [0.5, -3.0, 4.0, 0.0]])
    return [case(logits, seen, 2.0), case(draw(2, 4), seen, 1.3)]


EXERCISE = Exercise(
    id="repetition-penalty",
    notebook="11",
    title="Less of the same",
    signature="my_repetition_penalty(logits, seen, penalty)",
    reference="gpt2lib.generation.sampling:penalise",
    cases=_penalty_cases,
    hints=[
        "Try the numbers: which is lower, -2 / 2 or -2 * 2?",
        "torch.where(condition, a, b) takes a where the condition holds.",
        "torch.where(logits > 0, logits / penalty, logits * penalty), but only where seen.",
    ],
    misconceptions=[
        Misconception(
            "divides-negative-logits",
            _negative_rises,
            wrong=_wrong_penalty(lambda logits, penalty: logits / penalty),
        ),
        Misconception(
            "multiplies-all",
            "a positive logit times the penalty makes the token likelier: divide it",
            wrong=_wrong_penalty(lambda logits, penalty: logits * penalty),
        ),
        Misconception(
            "subtracts",
            "this subtracts the penalty; the paper divides by it",
            wrong=_wrong_penalty(lambda logits, penalty: logits - penalty),
        ),
        Misconception(
            "everything",
            "every token is penalised, also those that did not occur",
            wrong=lambda logits, seen, penalty: _divided(logits, penalty),
        ),
        Misconception(
            "the-unseen",
            "the tokens that did not occur are penalised, and those that did are not",
            wrong=_wrong_penalty(_divided, flip=True),
        ),
    ],
)
