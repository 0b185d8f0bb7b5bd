"""Causal self-attention: every place asks a question of the places before it.

Shapes: B batch, T time, C channels, nh heads, nkv key/value heads, hs head size (C = nh * hs).

There is one formula and several ways to compute it. `eager` is the formula as the paper writes
it, and holds the whole table of T by T weights. `fused` gives the work to PyTorch, whose kernels
never hold that table. For masks with a window there are kernels that skip what no query sees.
`attend` picks one; all return the same numbers.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lib.config import GPTConfig
from gpt2lib.model.cache import LayerCache
from gpt2lib.model.kernels.flex import flex
from gpt2lib.model.kernels.window import chunked, local_pattern
from gpt2lib.model.masks import Causal, Mask, Written, additive, dense, layer_mask, table
from gpt2lib.model.positions import Turn

EAGER_UP_TO = 512
"""Longest context for which the eager form is used on a CPU in bf16.

There the backward pass of the fused CPU kernel is the slower one, up to about this length
(`python benchmarks/attention_cpu.py` prints the comparison)."""

Places = tuple[Tensor, Tensor]
"""Where queries and keys stand, (n_query,) or (B, n_query), and (n_key,) or (B, n_key)."""


def allowed_table(q: Tensor, k: Tensor, mask: Mask, places: Places | None) -> Tensor | None:
    """Return who may look at whom, ready to be broadcast over (B, nh, n_query, n_key).

    None means that all may look at all: so it is for one query, which stands last.
    """
    if isinstance(mask, Written):
        return mask.allowed
    if places is None and isinstance(mask, Causal) and q.size(-2) == 1:
        return None
    if places is None:
        return dense(mask, q.size(-2), k.size(-2), q.device, n_head=q.size(1))
    return table(mask, *places, n_head=q.size(1))


def eager(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask, dropout: float = 0.0, places: Places | None = None
) -> Tensor:
    """Compute attention as the formula reads: softmax(q·kᵀ / √hs) · v.

    Args:
        q: queries, (B, nh, n_query, hs).
        k, v: keys and values, (B, nkv, n_key, hs); each serves nh / nkv neighbouring heads.
        mask: who may look at whom.
        dropout: probability of dropping a weight.
        places: where queries and keys stand; by default the queries are the last of the keys.

    Returns:
        (B, nh, n_query, hs).

    Reference: Vaswani et al. 2017, section 3.2.1; Ainslie et al. 2023, section 2.2 (shared keys).
    """
    B, nh, n_query, hs = q.shape
    # The heads of a group stand below one another, so that they meet their keys in one product.
    q = q.reshape(B, k.size(1), -1, hs)  # (B, nkv, nh/nkv · n_query, hs)
    scores = (q / math.sqrt(hs)) @ k.transpose(-2, -1)  # (B, nkv, nh/nkv · n_query, n_key)
    scores = scores.view(B, nh, n_query, -1)
    allowed = allowed_table(scores, k, mask, places)
    if allowed is not None:
        scores = scores + additive(allowed, scores)  # 0 or -inf
    weights = F.softmax(scores, dim=-1)  # (B, nh, n_query, n_key), each row sums to 1
    weights = F.dropout(weights, dropout, training=dropout > 0)
    y = weights.to(v.dtype).view(B, k.size(1), -1, k.size(2)) @ v
    return y.view(B, nh, n_query, -1)


def fused(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask, dropout: float = 0.0, places: Places | None = None
) -> Tensor:
    """Compute the same through PyTorch's fused kernels; arguments as in `eager`.

    Reference: Dao et al. 2022, algorithm 1.
    """
    shared = q.size(1) != k.size(1)
    # The kernels know the causal mask by name, but count queries from the first key on.
    if isinstance(mask, Causal) and places is None and q.size(-2) == k.size(-2):
        return F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True, enable_gqa=shared
        )
    allowed = allowed_table(q, k, mask, places)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=allowed, dropout_p=dropout, enable_gqa=shared
    )


class Kernel(Protocol):
    """A way to compute attention."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask, dropout: float) -> Tensor:
        """Return what `eager` returns."""
        ...


def kernel_for(q: Tensor, mask: Mask, dropout: float) -> Kernel:
    """Pick the fastest way for this mask, device, dtype and length; queries are all the keys."""
    pattern = local_pattern(mask)
    if pattern is not None and q.size(-2) > 2 * pattern[0].window:
        return flex if q.is_cuda and not dropout else chunked
    on_cpu_in_bf16 = q.device.type == "cpu" and q.dtype == torch.bfloat16
    return eager if on_cpu_in_bf16 and q.size(-2) <= EAGER_UP_TO else fused


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask, dropout: float = 0.0, places: Places | None = None
) -> Tensor:
    """Compute attention in the fastest way; arguments as in `eager`."""
    if places is None and q.size(-2) == k.size(-2):
        return kernel_for(q, mask, dropout)(q, k, v, mask, dropout)
    # One query: the fused kernels prepare for many, and read shared keys once for each head.
    lean = q.size(-2) == 1 and (q.dtype == torch.bfloat16 or q.size(1) != k.size(1))
    form = eager if lean and q.device.type == "cpu" else fused
    return form(q, k, v, mask, dropout, places)


def step_mask(q: Tensor, k: Tensor, mask: Mask, places: Places | None, cache: LayerCache) -> Mask:
    """Return the mask of a step, written out once for all layers that have the same one."""
    if places is None and (q.size(-2) == k.size(-2) or isinstance(mask, Causal)):
        return mask  # the kernels know it by name

    def written() -> Mask:
        allowed = allowed_table(q, k, mask, places)
        return mask if allowed is None else Written(allowed)

    return cache.once(mask, written)


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which no place sees what comes after it.

    One matrix, `c_attn`, makes queries, keys and values at once. The heads work side by side on
    slices of them, and `c_proj` mixes what they found. With fewer key/value heads than heads,
    neighbouring heads share keys and values.

    Args:
        config: the shape of the model.
        layer: which block this is, from 0; windows may differ by layer.

    Raises:
        UserError: when the configuration is made, if the heads do not divide evenly.

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
        turn: Turn,
        cache: LayerCache | None = None,
        mask: Mask | None = None,
    ) -> Tensor:
        """Map x, (B, T, C), to (B, T, C); place t depends on places 0 to t only.

        Args:
            x: (B, T, C).
            turn: what the positions do to queries and keys.
            cache: keys and values of earlier places, which x then continues.
            mask: who may look at whom; by default the layer's own mask, which is the same in
                every row.
        """
        B, T, C = x.shape
        q, k, v = (  # heads become a batch dimension: (B, nh, T, hs), 2 × (B, nkv, T, hs)
            part.view(B, T, -1, self.head_size).transpose(1, 2)
            for part in self.c_attn(x).split(self.widths, dim=2)
        )
        q, k, places = turn(q), turn(k), None
        mask = self.mask if mask is None else mask
        if cache is not None:
            k, v, places = cache.extend(k, v)
            q, mask = q.to(k.dtype), step_mask(q, k, mask, places, cache)
        y = attend(q, k, v, mask, self.dropout if self.training else 0.0, places)
        y = y.transpose(1, 2).reshape(B, T, C).to(x.dtype)  # heads side by side again
        return F.dropout(self.c_proj(y), self.dropout, self.training)  # (B, T, C)
