"""Attention through a sliding window, at a cost that grows with T and not with T².

The sequence is cut into blocks. A block of queries can only reach its own keys and the few
before it, so a small attention a block is enough: T/S blocks of S by S + window numbers, where
the whole attention has T by T. What is seen inside a block is asked of the mask itself, at the true
positions, so that this file holds no second definition of a window.

Two things lie outside of that picture. With dilation d, a query sees every d-th position only: the
sequence is then d interleaved ones, each with an ordinary window. Global tokens are few: their
keys are added to every block, and their queries are answered apart, over all keys.

Shapes: B batch, T time, nh heads, nkv key/value heads, hs head size.

Reference: Beltagy et al. 2020, section 3.1 and appendix A (the chunked form).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lib.model.masks import (
    Both,
    Causal,
    Either,
    GlobalTokens,
    Mask,
    SlidingWindow,
    additive,
    materialise,
)

SMALLEST_BLOCK = 128
"""Least number of queries in a block; of a larger window it is half.

A query meets the keys of its block and the window before it: small blocks waste less work, but
are more calls, and copy the window more often (`python benchmarks/long_context.py` measures)."""


def local_pattern(mask: Mask) -> tuple[SlidingWindow, tuple[int, ...]] | None:
    """Return the window and the global tokens of a causal mask that has a window, else None."""
    match mask:
        case Both(Causal(), SlidingWindow() as near):
            return near, ()
        case Both(Causal(), Either(SlidingWindow() as near, GlobalTokens(positions))):
            return near, positions
    return None


def sparse_kernel(q: Tensor, mask: Mask, dropout: float) -> Callable[..., Tensor] | None:
    """Return the kernel that skips what no query sees; None if too little could be skipped.

    Args:
        q: (B, nh, T, hs), queries that are all the keys.
        mask: which keys a query sees.
        dropout: probability of dropping a weight.
    """
    pattern = local_pattern(mask)
    if pattern is None or q.size(-2) <= 2 * pattern[0].window:
        return None
    if not q.is_cuda or dropout:
        return chunked
    from gpt2lib.model.kernels.flex import tiled

    return tiled


def chunked(q: Tensor, k: Tensor, v: Tensor, mask: Mask, dropout: float = 0.0) -> Tensor:
    """Compute windowed causal attention in time and memory of O(T · window).

    Args:
        q: (B, nh, T, hs).
        k, v: (B, nkv, T, hs); each serves nh / nkv heads.
        mask: `Causal() & SlidingWindow(...)`, or `Causal() & (SlidingWindow(...) |
            GlobalTokens(...))`.
        dropout: probability of dropping a weight.

    Returns:
        (B, nh, T, hs), equal to the dense form.

    Raises:
        ValueError: for a mask of another kind.
    """
    pattern = local_pattern(mask)
    if pattern is None:
        raise ValueError(f"the chunked form needs a causal sliding window, not {mask}")
    near, positions = pattern
    positions = tuple(sorted({position for position in positions if position < q.size(-2)}))
    parts = []
    for heads, dilation in _runs(near.dilation, q.size(1)):
        kv = _kv_heads(heads, q.size(1) // k.size(1))
        part = q[:, heads.start : heads.stop], k[:, kv], v[:, kv]
        parts.append(_one_dilation(*part, near.window, dilation, positions, dropout))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _runs(dilations: tuple[int, ...], n_head: int) -> Iterator[tuple[range, int]]:
    """Yield the runs of neighbouring heads that share a dilation."""
    each = dilations * n_head if len(dilations) == 1 else dilations
    start = 0
    for head in range(1, n_head + 1):
        if head == n_head or each[head] != each[start]:
            yield range(start, head), each[start]
            start = head


def _kv_heads(heads: range, group: int) -> slice | list[int]:
    """Return the key/value heads of a run: a slice, or one a head if the run cuts a group."""
    used = [head // group for head in heads]
    distinct = sorted(set(used))
    share, rest = divmod(len(used), len(distinct))
    if rest == 0 and used == [kv for kv in distinct for _ in range(share)]:
        return slice(distinct[0], distinct[-1] + 1)
    return used


def _one_dilation(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int,
    dilation: int,
    positions: tuple[int, ...],
    p: float,
) -> Tensor:
    """Compute heads that share a dilation: as many interleaved sequences, each in blocks."""
    T = q.size(2)
    mask = Causal() & (SlidingWindow(window, (dilation,)) | GlobalTokens(positions))
    few = torch.tensor(positions, dtype=torch.long, device=q.device)
    kept = Strand(positions, k[:, :, few], v[:, :, few])  # 2 × (B, nkv, G, hs)
    if dilation == 1:
        y = _in_blocks(q, Strand(range(T), k, v), kept, mask, window, p)
    else:
        spare = -T % dilation  # filled up at the end, where no true query looks
        woven = [
            F.pad(x, (0, 0, 0, spare)).reshape(*x.shape[:2], -1, dilation, x.size(3))
            for x in (q, k, v)
        ]
        ys = []
        for first, (qs, ks, vs) in enumerate(zip(*(x.unbind(3) for x in woven), strict=True)):
            strand = Strand(range(first, T + spare, dilation), ks, vs)
            ys.append(_in_blocks(qs, strand, kept, mask, window, p))
        y = torch.stack(ys, dim=3).flatten(2, 3)[:, :, :T]  # (B, nh, T, hs), woven again
    if not positions:
        return y
    end = positions[-1] + 1
    bias = _additive(mask, positions, range(end), q)
    whole = _sdpa(q[:, :, few], k[:, :, :end], v[:, :, :end], bias, p)
    return y.index_copy(2, few, whole)


class Strand(NamedTuple):
    """Keys and values, 2 × (B, nkv, n, hs), and their positions."""

    at: Sequence[int]
    k: Tensor
    v: Tensor

    def join(self, other: Strand) -> Strand:
        """Return both, one behind the other."""
        k, v = torch.cat((self.k, other.k), 2), torch.cat((self.v, other.v), 2)
        return Strand((*self.at, *other.at), k, v)

    def pick(self, which: Sequence[int]) -> Strand:
        """Return some of the keys and values."""
        index = list(which)
        return Strand([self.at[i] for i in index], self.k[:, :, index], self.v[:, :, index])

    def last(self, n: int) -> Strand:
        """Return the last n of them, or all if there are fewer."""
        first = max(0, len(self.at) - n)
        return Strand(self.at[first:], self.k[:, :, first:], self.v[:, :, first:])

    def blocks(self, size: int) -> Iterator[Strand]:
        """Cut into blocks."""
        parts = zip(torch.split(self.k, size, dim=2), torch.split(self.v, size, dim=2), strict=True)
        for i, (k, v) in enumerate(parts):
            yield Strand(self.at[i * size : (i + 1) * size], k, v)


def _in_blocks(
    q: Tensor, strand: Strand, kept: Strand, mask: Mask, window: int, dropout: float
) -> Tensor:
    """Compute a sequence block by block: its own keys, those just before it, and global ones.

    Split and joined, never sliced out of the whole: the gradient of a slice is as long as what
    it was cut from, which would bring T²/S back.
    """
    size = max(window // 2, SMALLEST_BLOCK)
    biases: dict[tuple[object, ...], Tensor] = {}
    ys, before = [], strand.last(0)
    for block_q, block in zip(torch.split(q, size, dim=2), strand.blocks(size), strict=True):
        near = before.join(block)
        first, end = near.at[0], block.at[-1]
        here = set(near.at) if kept.at else set()
        seen = [i for i, position in enumerate(kept.at) if position < end and position not in here]
        keys = kept.pick(seen).join(near) if seen else near
        # Blocks alike share one mask: it depends on the positions relative to the block alone.
        alike = (
            *(len(block.at), len(near.at), len(seen)),
            tuple(position - first for position in kept.at if first <= position <= end),
        )
        if alike not in biases:
            biases[alike] = _additive(mask, block.at, keys.at, q)
        ys.append(_sdpa(block_q, keys.k, keys.v, biases[alike], dropout))
        before = near.last(window - 1)
    return torch.cat(ys, dim=2)  # (B, nh, n, hs)


def _additive(mask: Mask, queries: Sequence[int], keys: Sequence[int], like: Tensor) -> Tensor:
    """Return a mask as what is added to the scores: 0, or minus infinity."""
    q_idx, kv_idx = (torch.tensor(list(at), device=like.device) for at in (queries, keys))
    return additive(materialise(mask, q_idx, kv_idx), like)  # (n_query, n_key)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float) -> Tensor:
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, enable_gqa=q.size(1) != k.size(1)
    )
