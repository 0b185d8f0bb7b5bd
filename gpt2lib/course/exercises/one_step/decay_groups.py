"""Notebook 08: Which parameters decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.one_step.shared import small_gpt

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")
model: Any = lazy("gpt2lib.model.gpt")


def _names(decay_groups: Any) -> Function:
    def decaying(a_model: Any) -> list[str]:
        chosen = {id(p) for p in decay_groups(a_model, 0.1)[0]["params"]}
        return sorted(name for name, p in a_model.named_parameters() if id(p) in chosen)

    return decaying


def _those(keep: Callable[[str, Any], bool], twice: bool = False, frozen: bool = False) -> Function:
    def decaying(a_model: Any) -> list[str]:
        named = a_model.named_parameters(remove_duplicate=not twice)
        return sorted(n for n, p in named if (p.requires_grad or frozen) and keep(n, p))

    return decaying


EXERCISE = Exercise(
    id="decay-groups",
    notebook="08",
    title="Which parameters decay",
    signature="my_decaying(model)",
    reference="gpt2lib.training.optim:decay_groups",
    adapt=_names,
    cases=lambda: [
        case(small_gpt()),
        case(small_gpt(tie_weights=False, bias=False)),
        case(small_gpt(frozen=True, n_layer=2)),
    ],
    hints=[
        "model.named_parameters() gives each parameter once, with its name.",
        "What decays has two or more dimensions: matrices and embeddings. What is left are "
        "vectors: biases, and the gains of the layer norms.",
        "A parameter with requires_grad False is not trained, so it belongs to no group.",
        "sorted(name for name, p in model.named_parameters() if p.requires_grad and p.dim() >= 2)",
    ],
    misconceptions=[
        Misconception(
            "everything-decays",
            "biases and gains decay too: a gain belongs near 1, and decay pulls it to 0",
            wrong=_those(lambda name, p: True),
        ),
        Misconception(
            "gains-decay",
            'the gains of the layer norms decay: their names end in "weight" as well, but they '
            "are vectors that start at 1. Ask for the number of dimensions",
            wrong=_those(lambda name, p: name.endswith("weight")),
        ),
        Misconception(
            "embeddings-stay",
            "the embeddings do not decay; in GPT-2 they do, and the tied one is the head's matrix "
            "as well",
            wrong=_those(lambda name, p: p.dim() >= 2 and "wte" not in name and "wpe" not in name),
        ),
        Misconception(
            "tied-twice",
            "the tied matrix is listed under both of its names; an optimiser that holds it twice "
            "would step it twice. named_parameters() gives each object once",
            wrong=_those(lambda name, p: p.dim() >= 2, twice=True),
        ),
        Misconception(
            "frozen-too",
            "a frozen parameter (requires_grad False) is among them; it gets no gradient, and "
            "must not shrink either",
            wrong=_those(lambda name, p: p.dim() >= 2, frozen=True),
        ),
        Misconception(
            "the-other-group",
            "these are the parameters that do not decay",
            wrong=_those(lambda name, p: p.dim() < 2),
        ),
    ],
)
