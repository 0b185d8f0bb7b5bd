"""The optimiser, and the learning rate as a pure function of the step.

No scheduler object exists: there is nothing to prepare, to save or to step twice by mistake.

Reference: Loshchilov and Hutter 2019 (AdamW); Loshchilov and Hutter 2017, section 3 (cosine).
"""

from __future__ import annotations

import math

import torch
from torch import nn

from gpt2lib.config import OptimConfig


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Return the learning rate of update `step` of `steps`, counted from 0.

    It rises linearly over `warmup_steps` updates to `lr`, then falls along half a cosine to
    `lr * min_lr`, which the last update reaches. With no update left after the peak it only rises.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    falling = max(1, steps - 1 - config.warmup_steps)
    done = min(1.0, (step - config.warmup_steps) / falling)  # 0 at the top, 1 at the end
    share = 0.5 * (1 + math.cos(math.pi * done))  # 1 at the top, 0 at the end
    return config.lr * (config.min_lr + (1 - config.min_lr) * share)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Split the parameters: matrices and embeddings decay, biases and gains do not.

    Anything of two or more dimensions is multiplied with activations, and decay keeps it small.
    A bias or a gain has no such product to keep small.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Return AdamW over GPT-2's decay groups, in PyTorch's fused form."""
    return torch.optim.AdamW(
        decay_groups(model, config.weight_decay),
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr
