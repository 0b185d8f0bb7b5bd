"""Notebook 07: What a model that knows nothing should lose."""

import math
from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, case, lazy

torch: Any = lazy("torch")


def _uniform_loss(next_token_loss: Any) -> Any:
    """Ask the library's loss what equal scores for every token cost."""

    def initial_loss(vocab_size: int) -> float:
        target = torch.zeros(1, 1, dtype=torch.long)
        return float(next_token_loss(torch.zeros(1, 1, vocab_size), target)[0])

    return initial_loss


EXERCISE = Exercise(
    id="expected-initial-loss",
    notebook="07",
    title="What a model that knows nothing should lose",
    signature="my_initial_loss(vocab_size)",
    reference="gpt2lib.model.loss:next_token_loss",
    adapt=_uniform_loss,
    cases=lambda: [case(2), case(65), case(1024), case(50257)],
    hints=[
        "A model that knows nothing gives each of the V tokens the same probability. Which one?",
        "The loss of one token is minus the natural logarithm of its probability.",
        "-math.log(1 / vocab_size), which is math.log(vocab_size)",
    ],
    misconceptions=[
        Misconception(
            "bits-not-nats",
            "this is the loss in bits; the library counts in nats, so take math.log, not math.log2",
            wrong=lambda vocab_size: math.log2(vocab_size),
        ),
        Misconception(
            "log10",
            "this is the logarithm to base 10; the loss takes the natural one, math.log",
            wrong=lambda vocab_size: math.log10(vocab_size),
        ),
        Misconception(
            "negative",
            lambda seen: (
                f"{seen.got:.2f} is the log-probability, which is below 0; the loss is minus that"
            ),
            wrong=lambda vocab_size: math.log(1 / vocab_size),
        ),
        Misconception(
            "probability",
            "this is the probability of one token; the loss is minus the logarithm of it",
            wrong=lambda vocab_size: 1 / vocab_size,
        ),
        Misconception(
            "perplexity",
            "the number of equally likely choices is the perplexity; the loss is its logarithm",
            wrong=lambda vocab_size: float(vocab_size),
        ),
    ],
)
