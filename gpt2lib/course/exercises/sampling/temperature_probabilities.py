"""Notebook 11: Sharper and flatter."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.sampling.shared import draw

torch: Any = lazy("torch")


def _temperature(probabilities: Function) -> Function:
    return lambda logits, temperature: probabilities(logits, temperature)


def _temperature_cases() -> list[Case]:
    return [case(torch.tensor([[2.0, 1.0, 0.0]]), 0.5), case(3 * draw(4, 6), 2.0)]


EXERCISE = Exercise(
    id="temperature-probabilities",
    notebook="11",
    title="Sharper and flatter",
    signature="my_temperature_probabilities(logits, temperature)",
    reference="gpt2lib.generation.sampling:next_token_probabilities",
    adapt=_temperature,
    cases=_temperature_cases,
    hints=[
        "The temperature acts on the logits, before the softmax.",
        "A small temperature must pull the logits apart: divide by it.",
        "torch.softmax(logits / temperature, dim=-1)",
    ],
    misconceptions=[
        Misconception(
            "multiplies",
            "a low temperature must sharpen, and yours flattens: divide the logits by it",
            wrong=lambda logits, temperature: (logits * temperature).softmax(-1),
        ),
        Misconception(
            "after-the-softmax",
            "the probabilities were divided, so they no longer sum to 1, and their ratios are "
            "as before: divide the logits, before the softmax",
            wrong=lambda logits, temperature: logits.softmax(-1) / temperature,
        ),
        Misconception(
            "without-temperature",
            "the temperature changes nothing in your result: probabilities that are divided "
            "and then brought back to a sum of 1 are what they were",
            wrong=lambda logits, temperature: logits.softmax(-1),
        ),
        Misconception(
            "over-the-batch",
            "each row is a text of its own and must sum to 1: softmax over the last dimension",
            wrong=lambda logits, temperature: (logits / temperature).softmax(0),
        ),
        Misconception(
            "no-softmax",
            "these are still logits; probabilities come out of a softmax",
            wrong=lambda logits, temperature: logits / temperature,
        ),
    ],
)
