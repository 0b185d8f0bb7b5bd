"""Exercises of notebook 16."""

import math
from collections.abc import Callable
from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, case, lazy

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")

Function = Callable[..., Any]
Pieces = list[tuple[Any, Any]]
"""Micro-batches: logits and targets of each."""


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


def _pieces(*sizes: tuple[int, int]) -> Pieces:
    """Return (logits, targets) of micro-batches: uneven in size, with targets to leave out."""
    numbers = torch.Generator().manual_seed(0)
    pieces: Pieces = []
    for size, ignored in sizes:
        targets = torch.randint(0, 5, (1, size), generator=numbers)
        targets[:, :ignored] = -1
        pieces.append((2 * torch.randn(1, size, 5, generator=numbers), targets))
    return pieces


def _big_batch(next_token_loss: Any) -> Function:
    def batch_loss(pieces: Pieces) -> float:
        logits = torch.cat([logits for logits, _ in pieces], dim=1)  # one batch, no pieces
        targets = torch.cat([targets for _, targets in pieces], dim=1)
        loss, count = next_token_loss(logits, targets)
        return float(loss / count)

    return batch_loss


def _each(pieces: Pieces) -> list[tuple[float, int, int]]:
    """Return the summed loss, the number of scored targets and of all targets, a piece each."""
    entropy = torch.nn.functional.cross_entropy
    found = []
    for logits, targets in pieces:
        loss = entropy(logits[0], targets[0], ignore_index=-1, reduction="sum")
        found.append((float(loss), int((targets >= 0).sum()), targets.numel()))
    return found


EXERCISES = [
    Exercise(
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
    ),
    Exercise(
        id="accumulated-loss",
        notebook="16",
        title="The loss of a batch that comes in pieces",
        signature="my_batch_loss(pieces)",
        reference="gpt2lib.model.loss:next_token_loss",
        adapt=_big_batch,
        cases=lambda: [
            case(_pieces((6, 0), (6, 3))),
            case(_pieces((8, 1), (2, 0), (5, 4))),
            case(_pieces((4, 3), (3, 0), (7, 2))),
        ],
        hints=[
            "next_token_loss(logits, targets) returns a sum and a count for one piece.",
            "Sums can be added, and so can counts; means cannot.",
            "Divide once, at the end: all the loss by all the counted targets.",
        ],
        misconceptions=[
            Misconception(
                "mean-of-means",
                "this is the mean of the pieces' means: a piece with few targets then counts as "
                "much as one with many. Add sums and counts, and divide once",
                wrong=lambda pieces: sum(s / c for s, c, _ in _each(pieces)) / len(pieces),
            ),
            Misconception(
                "counts-ignored-targets",
                "you divide by all positions; targets of -1 are not scored and must not be counted",
                wrong=lambda pieces: (
                    sum(s for s, _, _ in _each(pieces)) / sum(n for _, _, n in _each(pieces))
                ),
            ),
            Misconception(
                "a-sum",
                "this is the summed loss; divide it by the number of targets that were scored",
                wrong=lambda pieces: sum(s for s, _, _ in _each(pieces)),
            ),
            Misconception(
                "divided-twice",
                "you divide by the number of pieces as well; the sum over the counts is the mean",
                wrong=lambda pieces: (
                    sum(s for s, _, _ in _each(pieces))
                    / sum(c for _, c, _ in _each(pieces))
                    / len(pieces)
                ),
            ),
            Misconception(
                "last-piece-only",
                "this is the loss of the last piece alone: add the pieces up in the loop",
                wrong=lambda pieces: _each(pieces)[-1][0] / _each(pieces)[-1][1],
            ),
        ],
    ),
    Exercise(
        id="eval-windows",
        notebook="16",
        title="Windows that score every token once",
        signature="my_window_starts(n_tokens, block_size)",
        reference="gpt2lib.data.order:eval_starts",
        adapt=lambda library: lambda n_tokens, block_size: library(n_tokens, block_size).tolist(),
        cases=lambda: [case(10, 4), case(9, 4), case(3, 8), case(13, 4), case(100, 7)],
        hints=[
            "A window that starts at s reads tokens s … s + T - 1 and predicts s + 1 … s + T.",
            "The next window predicts s + T + 1 first, so it starts at s + T.",
            "A start needs a token after it: the last possible one is n_tokens - 2.",
        ],
        misconceptions=[
            Misconception(
                "drops-the-rest",
                "the last, shorter window is missing: the end of the text is never scored, and the "
                "bytes in the denominator are too many",
                wrong=lambda n, t: list(range(0, n - t, t)),
            ),
            Misconception(
                "nothing-to-predict",
                "with 9 tokens and blocks of 4, a window at 8 has an input but no token after it",
                wrong=lambda n, t: list(range(0, n, t)),
            ),
            Misconception(
                "overlapping",
                "your windows overlap by one, so some tokens are scored twice: a window reads "
                "block_size + 1 tokens, but the last of them is only a target",
                wrong=lambda n, t: list(range(0, n - 1, t - 1)),
            ),
            Misconception(
                "skips-a-token",
                "between two windows one token is never scored: the target that ends one window is "
                "the first input of the next",
                wrong=lambda n, t: list(range(0, n - 1, t + 1)),
            ),
            Misconception(
                "last-moved-back",
                "the last window is moved back so that it is full: the tokens at its beginning are "
                "scored twice. It starts behind the one before it, and is shorter",
                wrong=lambda n, t: [min(s, max(0, n - 1 - t)) for s in range(0, n - 1, t)],
            ),
            Misconception(
                "starts-at-one",
                "token 0 is never an input: the first window starts at 0",
                wrong=lambda n, t: list(range(1, n - 1, t)),
            ),
        ],
    ),
]
