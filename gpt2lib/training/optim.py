"""The optimiser, and the learning rate as a pure function of the step.

No scheduler object exists: there is nothing to prepare, to save or to step twice by mistake.

Reference: Loshchilov and Hutter 2019 (AdamW); Loshchilov and Hutter 2017, section 3 (cosine);
Hägele et al. 2024, section 3 (a constant rate, then a fall).
"""

from __future__ import annotations

import math

import torch
from torch import nn

from gpt2lib.config import OptimConfig
from gpt2lib.training.muon import MuonAdamW, muon_groups
from gpt2lib.utils.errors import UserError


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Return the learning rate of update `step` of `steps`, counted from 0.

    It rises linearly over `warmup_steps` updates to `lr`, stays there until the last `decay_share`
    of the updates, then falls along half a cosine or a straight line to `lr * min_lr`, which the
    last update reaches. With no update left after the peak it only rises.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    top = max(config.warmup_steps, steps - 1 - round(steps * config.decay_share))
    falling = max(1, steps - 1 - top)
    done = min(1.0, max(0, step - top) / falling)  # 0 at the top, 1 at the end
    share = 1 - done if config.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))
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


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, object]]:
    """Split the parameters by how they are stepped; each that has a gradient is in one group.

    First come the groups of `decay_groups`, with what the others leave, then those with a rate of
    their own, and Muon's: queries, keys and values, and the other matrices of the blocks. A group's
    `scale` is its rate as a multiple of `lr`.

    Raises:
        UserError: for a rate of a tied head, and for a wrapped model, whose parts have other names.
    """
    named = dict(model.named_parameters())
    own_rate = config.embedding_lr is not None or config.head_lr is not None
    if (config.name == "muon" or own_rate) and "transformer.wte.weight" not in named:
        raise UserError(
            f"Muon, embedding_lr and head_lr need the GPT itself, not {type(model).__name__}; make "
            "the optimiser from the model inside, which shares its weights"
        )
    rest = {name: p for name, p in named.items() if p.requires_grad}
    own_rates = {f"transformer.{name}.weight": config.embedding_lr for name in ("wte", "wpe")}
    own_rates["lm_head.weight"] = config.head_lr
    if config.head_lr is not None and "lm_head.weight" not in named:
        raise UserError(
            f"head_lr is {config.head_lr}, but the output head is the token embedding; set "
            "embedding_lr for both, or model.tie_weights false"
        )
    decay = config.weight_decay
    groups: list[dict[str, object]] = [
        {"params": [rest.pop(name)], "weight_decay": decay, "scale": rate / config.lr}
        for name, rate in own_rates.items()
        if rate is not None and name in rest
    ]
    if config.name == "muon":
        groups += muon_groups(rest, decay, config.muon_lr / config.lr)
    return [*decay_groups(nn.ParameterList(rest.values()), decay), *groups]


def make_optimizer(
    model: nn.Module, config: OptimConfig, precision: str = "fp32"
) -> torch.optim.Optimizer:
    """Return the optimiser over `parameter_groups`: AdamW in PyTorch's fused form, or Muon.

    Args:
        model: a GPT, or for AdamW any module.
        config: which one, and its settings.
        precision: what the model trains in; Muon's products are in bf16 where that is bf16, and in
            float32 otherwise.
    """
    groups = parameter_groups(model, config)
    betas = config.beta1, config.beta2
    if config.name == "muon":
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        return MuonAdamW(groups, config.lr, betas, config.eps, config.muon_momentum, dtype)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group this learning rate, times its `scale`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("scale", 1.0)
