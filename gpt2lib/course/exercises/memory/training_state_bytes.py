"""Notebook 09: What AdamW keeps for every weight."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.memory.shared import small_config

config: Any = lazy("gpt2lib.config")
model: Any = lazy("gpt2lib.model.gpt")


def _kept(memory: Any) -> Function:
    def state_bytes(a_model: Any) -> int:
        size = memory(a_model.config)
        return int(size["weights"] + size["gradients"] + size["optimizer"])

    return state_bytes


def _times(factor: int) -> Function:
    return lambda a_model: factor * sum(p.numel() for p in a_model.parameters())


EXERCISE = Exercise(
    id="training-state-bytes",
    notebook="09",
    title="What AdamW keeps for every weight",
    signature="my_state_bytes(model)",
    reference="gpt2lib.estimate.counts:memory",
    adapt=_kept,
    cases=lambda: [
        case(model.GPT(small_config())),
        case(model.GPT(small_config(tie_weights=False, n_layer=1))),
        case(model.GPT(small_config(bias=False))),
    ],
    hints=[
        "A number in float32 has 4 bytes. Which tensors have the shape of the weights?",
        "For every weight there is a gradient, and AdamW keeps two averages of gradients.",
        "16 * sum(p.numel() for p in model.parameters())",
    ],
    misconceptions=[
        Misconception(
            "forgets-the-moments",
            "8 bytes a parameter are its weight and its gradient; AdamW also keeps two averages, "
            "as large as the weights each",
            wrong=_times(8),
        ),
        Misconception(
            "one-moment",
            "12 bytes a parameter: one tensor is missing. There are the weight, the gradient, the "
            "average of gradients and the average of their squares",
            wrong=_times(12),
        ),
        Misconception(
            "weights-only",
            "4 bytes a parameter are enough to generate text; training also keeps the gradient "
            "and two averages of it",
            wrong=_times(4),
        ),
        Misconception(
            "tied-twice",
            "the tied matrix is counted under both of its names, but its bytes are there once: "
            "parameters() gives each object once, state_dict() each name",
            wrong=lambda a_model: 16 * sum(t.numel() for t in a_model.state_dict().values()),
        ),
        Misconception(
            "matrices-only",
            "you leave out the biases and the gains of the layer norms: they do not decay, but "
            "they have gradients and averages as all parameters",
            wrong=lambda a_model: 16 * sum(p.numel() for p in a_model.parameters() if p.dim() > 1),
        ),
    ],
)
