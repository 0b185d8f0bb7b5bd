"""Notebook 16: Warm up, then fall along a cosine."""

import math
from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy

config: Any = lazy("gpt2lib.config")


def _schedule(library: Any) -> Function:
    def learning_rate(step: int, steps: int, lr: float, warmup_steps: int, min_lr: float) -> float:
        settings = config.OptimConfig(lr=lr, warmup_steps=warmup_steps, min_lr=min_lr)
        return float(library(step, steps, settings))

    return learning_rate


def _cosine(lr: float, min_lr: float, done: float) -> float:
    return lr * (min_lr + (1 - min_lr) * 0.5 * (1 + math.cos(math.pi * done)))


def _starts_at_zero(step: int, steps: int, lr: float, warmup_steps: int, min_lr: float) -> float:
    if step < warmup_steps:
        return lr * step / warmup_steps
    return _cosine(lr, min_lr, (step - warmup_steps) / (steps - 1 - warmup_steps))


def _falls_to_zero(step: int, steps: int, lr: float, warmup_steps: int, min_lr: float) -> float:
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    return _cosine(lr, 0.0, (step - warmup_steps) / (steps - 1 - warmup_steps))


def _falls_to_a_rate(step: int, steps: int, lr: float, warmup_steps: int, min_lr: float) -> float:
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    share = 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (steps - 1 - warmup_steps)))
    return min_lr + (lr - min_lr) * share


def _forgets_the_warmup(
    step: int, steps: int, lr: float, warmup_steps: int, min_lr: float
) -> float:
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    return _cosine(lr, min_lr, step / (steps - 1))


def _never_arrives(step: int, steps: int, lr: float, warmup_steps: int, min_lr: float) -> float:
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    return _cosine(lr, min_lr, (step - warmup_steps) / (steps - warmup_steps))


def _whole_wave(step: int, steps: int, lr: float, warmup_steps: int, min_lr: float) -> float:
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    return _cosine(lr, min_lr, 2 * (step - warmup_steps) / (steps - 1 - warmup_steps))


def _straight_line(step: int, steps: int, lr: float, warmup_steps: int, min_lr: float) -> float:
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    done = (step - warmup_steps) / (steps - 1 - warmup_steps)
    return lr * (1 - (1 - min_lr) * done)


EXERCISE = Exercise(
    id="learning-rate",
    notebook="16",
    title="Warm up, then fall along a cosine",
    signature="my_learning_rate(step, steps, lr, warmup_steps, min_lr)",
    reference="gpt2lib.training.optim:learning_rate",
    adapt=_schedule,
    cases=lambda: [case(step, 12, 0.5, 4, 0.2) for step in (0, 1, 3, 4, 5, 7, 10, 11)],
    hints=[
        "Two cases: step < warmup_steps is a straight line, the rest is half a cosine.",
        "The first update is step 0 and must already do something: (step + 1) / warmup_steps.",
        "After the warm-up, `done` goes from 0 (step warmup_steps) to 1 (step steps - 1), "
        "and 0.5 * (1 + math.cos(math.pi * done)) from 1 to 0.",
        "min_lr is a share: the rate ends at lr * min_lr.",
    ],
    misconceptions=[
        Misconception(
            "starts-at-zero",
            "the first update has learning rate 0 and changes nothing: warm up with "
            "(step + 1) / warmup_steps",
            wrong=_starts_at_zero,
        ),
        Misconception(
            "falls-to-zero",
            "the rate falls to 0, but it should end at lr * min_lr",
            wrong=_falls_to_zero,
        ),
        Misconception(
            "min-lr-is-a-rate",
            "min_lr is a share of lr, not a rate: with lr 0.5 and min_lr 0.2 the last update "
            "has 0.1",
            wrong=_falls_to_a_rate,
        ),
        Misconception(
            "cosine-from-step-zero",
            "your cosine begins at step 0, so the rate jumps down where the warm-up ends: "
            "count its progress from warmup_steps",
            wrong=_forgets_the_warmup,
        ),
        Misconception(
            "never-arrives",
            "the last update is step steps - 1, and there the rate must have arrived at "
            "lr * min_lr; yours is one step short",
            wrong=_never_arrives,
        ),
        Misconception(
            "whole-wave",
            "your rate comes up again before the end: half a cosine is wanted, from 0 to pi",
            wrong=_whole_wave,
        ),
        Misconception(
            "straight-line",
            "you fall along a straight line; take 0.5 * (1 + cos(pi * done)) as the share",
            wrong=_straight_line,
        ),
    ],
)
