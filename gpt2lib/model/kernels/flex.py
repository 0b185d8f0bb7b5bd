"""Attention through PyTorch's flex_attention: kernels made for a mask, for CUDA.

The mask's own function becomes part of a compiled kernel, which skips every tile of it
in which nothing is seen. It has no dropout, and no backward pass on a CPU.

Shapes: B batch, T time, nh heads, nkv key/value heads, hs head size.

Reference: Dong et al. 2024, section 3.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gpt2lib.model.masks import Mask, materialise

KERNELS = 64
"""Kernels that may be compiled: one for every kind of mask, dtype and head size, in training and
without gradients. PyTorch's own limit is 8; past it, the whole mask is materialised again."""

TILE = 128
"""Queries and keys in a tile of the mask."""


@lru_cache(maxsize=64)
def _tiles(mask: Mask, n_head: int, T: int, device: torch.device) -> Any:
    """Return which tiles of the mask hold something to see; made once for a mask and length.

    PyTorch's `create_block_mask` finds the same tiles, but materialises all T by T of the mask.
    """
    from torch.nn.attention.flex_attention import BlockMask

    keys = torch.arange(T + -T % TILE, device=device)  # filled up to whole tiles ...
    keys = keys.where(keys < T, -1)  # ... by keys that no query sees
    some, whole = [], []
    for queries in torch.split(torch.arange(T, device=device), TILE):
        seen = materialise(mask, queries, keys, n_head)  # (T', T), or (nh, T', T) if heads differ
        seen = seen.view(-1, len(queries), len(keys) // TILE, TILE)  # (nh, T', T/128, 128)
        some.append(seen.any(-1).any(1))  # (nh, T/128)
        whole.append(seen.all(-1).all(1) & (len(queries) == TILE))
    partly, fully = torch.stack(some, dim=1), torch.stack(whole, dim=1)  # 2 × (nh, T/128, T/128)
    listed = (*_listed(partly & ~fully), *_listed(fully))
    return BlockMask.from_kv_blocks(*listed, BLOCK_SIZE=TILE, mask_mod=mask, seq_lengths=(T, T))


def _listed(tiles: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many tiles a row has, (1, nh, n), and which, those first, (1, nh, n, n)."""
    order = tiles.int().argsort(dim=-1, descending=True, stable=True)
    return tiles.sum(-1).int()[None], order.int()[None]


@lru_cache(maxsize=1)
def _compiled() -> Any:
    import torch._dynamo
    from torch.nn.attention.flex_attention import flex_attention

    torch._dynamo.config.recompile_limit = max(KERNELS, torch._dynamo.config.recompile_limit)
    return torch.compile(flex_attention)


def tiled(q: Tensor, k: Tensor, v: Tensor, mask: Mask, dropout: float = 0.0) -> Tensor:
    """Compute masked attention where queries are all the keys.

    Args:
        q: (B, nh, T, hs).
        k, v: (B, nkv, T, hs).
        mask: which keys a query sees.
        dropout: must be 0.

    Returns:
        (B, nh, T, hs).

    Raises:
        ValueError: if dropout is asked for.
    """
    from torch.nn.attention.flex_attention import flex_attention

    if dropout:
        raise ValueError(f"flex_attention has no dropout, and {dropout} was asked for")
    tiles = _tiles(mask, q.size(1), q.size(2), q.device)
    form: Any = _compiled() if q.is_cuda else flex_attention
    return form(q, k, v, block_mask=tiles, enable_gqa=q.size(1) != k.size(1))  # type: ignore[no-any-return]
