"""Causal self-attention: every place asks a question of the places before it.

Shapes: B batch, T time, C channels, nh heads, hs head size (C = nh * hs).

There is one formula and two ways to compute it. `eager` is the formula as the paper writes it,
and holds the whole table of T by T weights. `fused` gives the work to PyTorch, whose kernels
never hold that table. `attend` picks one; both return the same numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lib.config import GPTConfig
from gpt2lib.masks import Causal, Mask, dense
from gpt2lib.positions import LearnedPositions

EAGER_UP_TO = 512
"""Longest context for which the eager form is used on a CPU in bf16.

There the backward pass of the fused CPU kernel is the slower one, up to about this length
(`python benchmarks/attention_cpu.py` prints the comparison)."""


def eager(q: Tensor, k: Tensor, v: Tensor, mask: Mask, dropout: float = 0.0) -> Tensor:
    """Compute attention as the formula reads: softmax(q·kᵀ / √hs) · v.

    Args:
        q, k, v: queries, keys and values, each (B, nh, T, hs).
        mask: who may look at whom.
        dropout: probability of dropping a weight.

    Returns:
        (B, nh, T, hs).

    Reference: Vaswani et al. 2017, section 3.2.1.
    """
    scores = (q / math.sqrt(q.size(-1))) @ k.transpose(-2, -1)  # (B, nh, T, T)
    allowed = dense(mask, q.size(-2), k.size(-2), q.device)  # (T, T)
    scores = scores.masked_fill(~allowed, -torch.inf)
    weights = F.softmax(scores, dim=-1)  # (B, nh, T, T), each row sums to 1
    weights = F.dropout(weights, dropout, training=dropout > 0)
    return weights.to(v.dtype) @ v  # (B, nh, T, hs)


def fused(q: Tensor, k: Tensor, v: Tensor, mask: Mask, dropout: float = 0.0) -> Tensor:
    """Compute the same through PyTorch's fused kernels; shapes as in `eager`.

    Reference: Dao et al. 2022, algorithm 1.
    """
    # The kernels know the causal mask by name, but count queries from the first key on.
    if isinstance(mask, Causal) and q.size(-2) == k.size(-2):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    allowed = dense(mask, q.size(-2), k.size(-2), q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask, dropout: float = 0.0) -> Tensor:
    """Compute attention in the faster of the two forms for this device, dtype and length."""
    on_cpu_in_bf16 = q.device.type == "cpu" and q.dtype == torch.bfloat16
    form = eager if on_cpu_in_bf16 and q.size(-2) <= EAGER_UP_TO else fused
    return form(q, k, v, mask, dropout)


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which no place sees what comes after it.

    One matrix, `c_attn`, makes queries, keys and values at once. The heads work side by side on
    slices of them, and `c_proj` mixes what they found.

    Raises:
        UserError: when the configuration is made, if n_head does not divide n_embd.

    Reference: Vaswani et al. 2017, section 3.2; Radford et al. 2019 for the names.
    """

    mask: Mask = Causal()

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head, self.head_size = config.n_head, config.head_size
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = config.dropout

    def forward(self, x: Tensor, positions: LearnedPositions) -> Tensor:
        """Map x, (B, T, C), to (B, T, C); place t depends on places 0 to t only."""
        B, T, C = x.shape
        q, k, v = self.c_attn(x).split(C, dim=2)  # 3 × (B, T, C)
        q, k, v = (  # heads become a batch dimension: 3 × (B, nh, T, hs)
            part.view(B, T, self.n_head, self.head_size).transpose(1, 2) for part in (q, k, v)
        )
        q, k = positions.rotate(q, k)
        y = attend(q, k, v, self.mask, self.dropout if self.training else 0.0)  # (B, nh, T, hs)
        y = y.transpose(1, 2).reshape(B, T, C)  # heads side by side again
        return F.dropout(self.c_proj(y), self.dropout, self.training)  # (B, T, C)
