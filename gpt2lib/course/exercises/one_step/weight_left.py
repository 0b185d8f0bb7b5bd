"""Notebook 08: How long does decay remember?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")


def _decay_products(make_optimizer: Any) -> Function:
    """Let the library's optimiser act on a weight that has a gradient of 0."""

    def share_left(rates: Sequence[float], weight_decay: float) -> float:
        holder = torch.nn.Module()
        holder.weight = torch.nn.Parameter(torch.ones(1, 1, dtype=torch.float64))
        holder.weight.grad = torch.zeros(1, 1, dtype=torch.float64)
        optimizer = make_optimizer(holder, config.OptimConfig(weight_decay=weight_decay))
        for rate in rates:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        return float(holder.weight.detach())

    return share_left


EXERCISE = Exercise(
    id="weight-left",
    notebook="08",
    title="How long does decay remember?",
    signature="my_weight_left(rates, weight_decay)",
    reference="gpt2lib.training.optim:make_optimizer",
    adapt=_decay_products,
    rtol=1e-9,
    atol=1e-12,
    cases=lambda: [
        case([0.5, 0.2, 0.1], 0.4),
        case([0.1] * 8, 0.5),
        case([0.01, 0.4, 0.3, 0.2, 0.05], 0.9),
    ],
    hints=[
        "What is left after one update with rate lr, if the gradient is 0?",
        "One update leaves the share 1 - lr * weight_decay of whatever was there before.",
        "Shares of shares are multiplied: math.prod(...) over the rates.",
    ],
    misconceptions=[
        Misconception(
            "forgets-the-rate",
            "you take away the share weight_decay in each update; it is lr * weight_decay, so a "
            "small rate makes decay slow",
            wrong=lambda rates, weight_decay: (1 - weight_decay) ** len(rates),
        ),
        Misconception(
            "adds-up",
            "you take away a share of the first weight each time; each update takes its share of "
            "what is left, so the shares are multiplied",
            wrong=lambda rates, weight_decay: 1 - weight_decay * sum(rates),
        ),
        Misconception(
            "one-rate-for-all",
            "you use the highest rate for all updates; each update has its own",
            wrong=lambda rates, weight_decay: (1 - weight_decay * max(rates)) ** len(rates),
        ),
        Misconception(
            "exponential",
            "exp(-weight_decay * sum of the rates) is close where lr * weight_decay is small, but "
            "AdamW multiplies by 1 - lr * weight_decay in each update",
            wrong=lambda rates, weight_decay: math.exp(-weight_decay * sum(rates)),
        ),
        Misconception(
            "what-is-gone",
            "this is the share that is gone; the share that is left was asked for",
            wrong=lambda rates, weight_decay: (
                1 - math.prod(1 - rate * weight_decay for rate in rates)
            ),
        ),
    ],
)
