"""LoRA: a trained matrix stays as it is, and a product of two thin ones is learned beside it.

A linear layer computes y = W·x + b. Fine-tuning moves W by some ΔW, and ΔW has few directions
that matter. So it is written as B·A, with A (r, in) and B (out, r): for 768 channels and r = 8
that is 12,288 numbers in place of 589,824. B begins at zero, so the model begins as it was.

After training B·A is added to W (`merge`), and nothing of it is left to compute.

Reference: Hu et al. 2021, section 4.1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lib.config import MethodConfig
from gpt2lib.utils.errors import UserError, nearest

A, B = "lora_A", "lora_B"
"""What the two matrices are called, behind the name of their layer."""


class LoRALinear(nn.Linear):
    """A linear layer that is frozen, and what is learned beside it.

    Args:
        linear: the trained layer; its weight and bias are taken over, not copied.
        rank: r.
        alpha: what is added is multiplied by alpha / r, so that another rank needs no other rate.
        dropout: probability of dropping what A reads.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, dropout: float = 0.0) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.scale, self.dropout = alpha / rank, dropout
        self.lora_A = nn.Parameter(linear.weight.new_empty(rank, self.in_features))
        self.lora_B = nn.Parameter(linear.weight.new_zeros(self.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # as an nn.Linear begins

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        read = F.dropout(x, self.dropout, self.training)
        added = F.linear(F.linear(read, self.lora_A), self.lora_B)  # never a matrix of W's size
        return super().forward(x) + self.scale * added


def merged_weight(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return W + scale · B·A, (out, in), summed in float32."""
    return (weight.float() + scale * (b.float() @ a.float())).to(weight.dtype)


def add_lora(model: nn.Module, config: MethodConfig) -> None:
    """Freeze a model, and put LoRA's matrices beside the linear layers that are named.

    Raises:
        UserError: for a name that no block has, a rank above a layer's width, or a model that has
            such matrices already.
    """
    if has_lora(model):
        raise UserError("the model has LoRA's matrices already; merge them first")
    model.requires_grad_(False)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    blocks = [name for name in names if name.startswith("transformer.h.")]
    for target in config.targets:
        found = [name for name in blocks if name.endswith(f".{target}")]
        if not found:
            raise UserError(_no_such_layer(target, names, blocks))
        for name in found:
            place, _, last = name.rpartition(".")
            linear = model.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            if config.rank > (most := min(linear.weight.shape)):
                raise UserError(
                    f"rank {config.rank} is above {most}, the rank that {name} has at most itself"
                )
            layer = LoRALinear(linear, config.rank, config.alpha, config.lora_dropout)
            setattr(model.get_submodule(place), last, layer)


def _no_such_layer(target: str, names: list[str], blocks: list[str]) -> str:
    """Say which layers there are, and why the output head is none of them."""
    if target in names:  # lm_head
        return (
            f"{target} gets no matrices of LoRA: tied, it is the token embedding, which they would "
            "part it from; method head trains it as it is"
        )
    there = list(dict.fromkeys(name.split(".", 3)[3] for name in blocks))
    return f"no block has a linear layer {target!r}; there are {', '.join(there)}" + nearest(
        target, there
    )


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """Return the layers with LoRA's matrices, by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, LoRALinear)}


def has_lora(model: nn.Module) -> bool:
    """Return whether a model has LoRA's matrices."""
    return bool(lora_layers(model))


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Add what LoRA's matrices have learned to the layers beside them, in place.

    Raises:
        UserError: if there are none; they may be merged already.
    """
    layers = lora_layers(model)
    if not layers:
        raise UserError("the model has no matrices of LoRA; were they merged already?")
    for name, layer in layers.items():
        linear = nn.Linear(layer.in_features, layer.out_features, device="meta")
        linear.weight, linear.bias = layer.weight, layer.bias
        linear.weight.copy_(merged_weight(layer.weight, layer.lora_A, layer.lora_B, layer.scale))
        place, _, last = name.rpartition(".")
        setattr(model.get_submodule(place), last, linear)
    model.requires_grad_(True)
