"""Causal self-attention: softmax(q·kᵀ / √hs) · v, where no position sees a later one.

Shapes: B batch, T time, C channels, nh heads, nkv key/value heads, hs head size (C = nh * hs).

There is one formula and several ways to compute it. `eager` is the formula as the paper writes
it, and holds all T by T weights. `fused` gives the work to PyTorch, whose kernels never hold
them. `attend` picks one of these, or the kernel that a mask has of its own; all return the same
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lib.config import GPTConfig
from gpt2lib.model.cache import LayerCache
from gpt2lib.model.kernels.window import sparse_kernel
from gpt2lib.model.masks import Causal, Mask, additive, attention_mask, layer_mask
from gpt2lib.model.positions import Rotate

EAGER_UP_TO = 512
"""Longest context for which the eager form is used on a CPU in bf16.

There the backward pass of the fused CPU kernel is the slower one, up to about this length
(`python benchmarks/studies/attention_cpu.py` prints the comparison)."""


def eager(q: Tensor, k: Tensor, v: Tensor, mask: Mask | Tensor, dropout: float = 0.0) -> Tensor:
    """Compute attention as the formula reads: softmax(q·kᵀ / √hs) · v.

    Args:
        q: queries, (B, nh, n_query, hs), the last ones of the keys where there are fewer.
        k, v: keys and values, (B, nkv, n_key, hs); each serves nh / nkv neighbouring heads.
        mask: which keys a query sees; or the boolean attention mask, to be broadcast over
            (B, nh, n_query, n_key).
        dropout: probability of dropping a weight.

    Returns:
        (B, nh, n_query, hs).

    Reference: Vaswani et al. 2017, section 3.2.1; Ainslie et al. 2023, section 2.2 (shared keys).
    """
    B, nh, n_query, hs = q.shape
    seen = attention_mask(mask, q, k)
    # The heads of a group stand below one another, so that they meet their keys in one product.
    q = q.reshape(B, k.size(1), -1, hs)  # (B, nkv, nh/nkv · n_query, hs)
    scores = (q / math.sqrt(hs)) @ k.transpose(-2, -1)  # (B, nkv, nh/nkv · n_query, n_key)
    scores = scores.view(B, nh, n_query, -1)
    if seen is not None:
        scores = scores + additive(seen, scores)  # 0 or -inf
    weights = F.softmax(scores, dim=-1)  # (B, nh, n_query, n_key), each row sums to 1
    weights = F.dropout(weights, dropout, training=dropout > 0)
    y = weights.to(v.dtype).view(B, k.size(1), -1, k.size(2)) @ v  # (B, nkv, nh/nkv · n_query, hs)
    return y.view(B, nh, n_query, -1)


def fused(q: Tensor, k: Tensor, v: Tensor, mask: Mask | Tensor, dropout: float = 0.0) -> Tensor:
    """Compute the same through PyTorch's fused kernels; arguments as in `eager`.

    Reference: Dao et al. 2022, algorithm 1.
    """
    shared = q.size(1) != k.size(1)
    # The kernels know the causal mask by name, but count queries from the first key on.
    if isinstance(mask, Causal) and q.size(-2) == k.size(-2):
        return F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True, enable_gqa=shared
        )
    seen = attention_mask(mask, q, k)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=seen, dropout_p=dropout, enable_gqa=shared
    )


def kernel_for(q: Tensor, mask: Mask | Tensor, dropout: float) -> Callable[..., Tensor]:
    """Pick the fastest way for this mask, device, dtype and length; queries are all the keys."""
    if not isinstance(mask, Causal | Tensor) and (own := sparse_kernel(q, mask, dropout)):
        return own
    on_cpu_in_bf16 = q.device.type == "cpu" and q.dtype == torch.bfloat16
    return eager if on_cpu_in_bf16 and q.size(-2) <= EAGER_UP_TO else fused


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask | Tensor, dropout: float = 0.0) -> Tensor:
    """Compute attention in the fastest way; arguments as in `eager`."""
    if q.size(-2) == k.size(-2):
        return kernel_for(q, mask, dropout)(q, k, v, mask, dropout)
    # One query: the fused kernels prepare for many, and read shared keys once for each head.
    lean = q.size(-2) == 1 and (q.dtype == torch.bfloat16 or q.size(1) != k.size(1))
    form = eager if lean and q.device.type == "cpu" else fused
    return form(q, k, v, mask, dropout)


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which no position sees what comes after it.

    One matrix, `c_attn`, makes queries, keys and values at once. The heads work side by side on
    slices of them, and `c_proj` mixes what they found. With fewer key/value heads than heads,
    neighbouring heads share keys and values.

    Args:
        config: the shape of the model.
        layer: which block this is, from 0; windows may differ by layer.

    Reference: Vaswani et al. 2017, section 3.2; Radford et al. 2019 for the names; Ainslie et al.
    2023, section 2.2 (grouped queries).
    """

    def __init__(self, config: GPTConfig, layer: int = 0) -> None:
        super().__init__()
        self.n_head, self.head_size = config.n_head, config.head_size
        self.dropout = config.dropout
        self.widths = [config.n_embd, *2 * [config.kv_heads * self.head_size]]
        self.c_attn = nn.Linear(config.n_embd, sum(self.widths), bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.mask = layer_mask(config, layer)

    def forward(
        self,
        x: Tensor,
        rotate: Rotate,
        cache: LayerCache | None = None,
        mask: Mask | Tensor | None = None,
    ) -> Tensor:
        """Map x, (B, T, C), to (B, T, C); position t depends on positions 0 to t only.

        Args:
            x: (B, T, C).
            rotate: what the positions do to queries and keys.
            cache: keys and values of earlier positions, which x then continues.
            mask: in place of the layer's own mask, which is the same in every row.
        """
        B, T, C = x.shape
        q, k, v = (  # heads become a batch dimension: (B, nh, T, hs), 2 × (B, nkv, T, hs)
            part.view(B, T, -1, self.head_size).transpose(1, 2)
            for part in self.c_attn(x).split(self.widths, dim=2)
        )
        q, k, mask = rotate(q), rotate(k), self.mask if mask is None else mask
        if cache is not None:
            k, v, positions = cache.extend(k, v)
            q, mask = q.to(k.dtype), cache.attention_mask(mask, q, k, positions)
        y = attend(q, k, v, mask, self.dropout if self.training else 0.0)
        y = y.transpose(1, 2).reshape(B, T, C).to(x.dtype)  # heads side by side again
        return F.dropout(self.c_proj(y), self.dropout, self.training)  # (B, T, C)
