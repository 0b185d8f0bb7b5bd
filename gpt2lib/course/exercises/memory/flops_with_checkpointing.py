"""Notebook 09: What checkpointing costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.memory.shared import small_config

config: Any = lazy("gpt2lib.config")
counts: Any = lazy("gpt2lib.estimate.counts")


def _flops(passes: int, blocks: Callable[[int, int], int], again: int = 1) -> Function:
    """Return the count with so many passes, and so many blocks computed `again` times more."""

    def update_flops(shape: Any, every: int) -> int:
        parts = counts.forward_flops(shape)
        total = sum(parts.values())
        block = (total - parts["output head"]) // shape.n_layer
        return int(passes * total + again * blocks(shape.n_layer, every) * block)

    return update_flops


def _of_everything(passes: int) -> Function:
    def update_flops(shape: Any, every: int) -> int:
        return (passes if every else 3) * int(sum(counts.forward_flops(shape).values()))

    return update_flops


def _chosen(n_layer: int, every: int) -> int:
    return len(range(0, n_layer, every)) if every else 0


def _all_again(shape: Any, every: int) -> int:
    total = sum(counts.forward_flops(shape).values())
    return int(3 * total + total * _chosen(shape.n_layer, every) // shape.n_layer)


EXERCISE = Exercise(
    id="flops-with-checkpointing",
    notebook="09",
    title="What checkpointing costs",
    signature="my_update_flops(config, every)",
    reference="gpt2lib.estimate.counts:training_flops",
    cases=lambda: [
        case(small_config(n_layer=5, dropout=0.1), 2),
        case(small_config(n_layer=5, dropout=0.1), 3),
        case(small_config(n_layer=4, dropout=0.1, vocab_size=65), 1),
        case(small_config(n_layer=3, dropout=0.1), 0),
    ],
    rtol=1e-9,
    hints=[
        "Without checkpointing an update is three forward passes: one forward, and backward two "
        "products for each one.",
        "Blocks 0, k, 2k, … run forward once more: len(range(0, n_layer, every)) of them.",
        "One block has (total - head) // n_layer FLOPs, where head is "
        'forward_flops(config)["output head"]; the head is never computed again.',
    ],
    misconceptions=[
        Misconception(
            "nothing-again",
            "these are the FLOPs without checkpointing: the blocks 0, k, 2k, … run forward twice",
            wrong=_flops(3, lambda n_layer, every: 0),
        ),
        Misconception(
            "rounds-down",
            "you count n_layer // every blocks; block 0 is always among them, so 5 blocks with "
            "every 2 are three: 0, 2 and 4",
            wrong=_flops(3, lambda n_layer, every: n_layer // every if every else 0),
        ),
        Misconception(
            "the-other-blocks",
            "you count the blocks that keep their activations; the others are computed again",
            wrong=_flops(3, lambda n_layer, every: n_layer - _chosen(n_layer, every)),
        ),
        Misconception(
            "everything-again",
            "you count the whole forward pass twice; only the blocks 0, k, 2k, … run again, and "
            "the output head is in none of them",
            wrong=_of_everything(4),
        ),
        Misconception(
            "the-head-too",
            "you compute a share of the whole model again; the output head is not in a block, "
            "and runs once",
            wrong=_all_again,
        ),
        Misconception(
            "backward-as-forward",
            "you count two passes for forward and backward; backward takes two products for each "
            "one of the forward pass, so together there are three",
            wrong=_flops(2, _chosen),
        ),
        Misconception(
            "backward-again",
            "only the forward pass of a block is repeated; you also count its backward pass again",
            wrong=_flops(3, _chosen, again=3),
        ),
    ],
)
