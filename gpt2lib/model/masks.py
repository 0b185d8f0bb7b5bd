"""Attention masks, as data: which key positions a query position sees.

A mask is a small frozen object that answers one question: does the query at position `q_idx` see
the key at position `kv_idx`? The arguments are tensors of indices, so one call answers for a
whole (T, T) mask. Masks combine with `&` and `|`. Attention knows nothing of the kinds of mask; it
only asks. Where a mask must be a tensor, it is materialised: boolean, True where a key is seen.

Shapes: B batch, T time, nh heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lib.config import GPTConfig


class Mask(ABC):
    """The question that every mask answers, for batch row `b` and head `h`."""

    @abstractmethod
    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        """Return True where the query sees the key."""

    def __and__(self, other: Mask) -> Mask:
        """Return the mask that sees what both see."""
        return Both(self, other)

    def __or__(self, other: Mask) -> Mask:
        """Return the mask that sees what either sees."""
        return Either(self, other)


@dataclass(frozen=True)
class Both(Mask):
    """What two masks both see."""

    first: Mask
    second: Mask

    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return self.first(b, h, q_idx, kv_idx) & self.second(b, h, q_idx, kv_idx)


@dataclass(frozen=True)
class Either(Mask):
    """What at least one of two masks sees."""

    first: Mask
    second: Mask

    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return self.first(b, h, q_idx, kv_idx) | self.second(b, h, q_idx, kv_idx)


@dataclass(frozen=True)
class Causal(Mask):
    """Each position sees itself and what came before it, never ahead."""

    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return kv_idx <= q_idx


@dataclass(frozen=True)
class SlidingWindow(Mask):
    """Each position sees `window` positions: itself, and those `dilation` apart on either side.

    A key is seen if its distance is a multiple of the dilation and below window · dilation. With
    `Causal` that leaves the window - 1 positions before it.

    Attributes:
        window: how many positions a query sees on its left, itself included.
        dilation: distance between two of them, for each head; one entry serves all heads.

    Reference: Beltagy et al. 2020, section 3.1.
    """

    window: int
    dilation: tuple[int, ...] = (1,)

    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        apart: int | Tensor = self.dilation[0]
        # Asked head by head: a tensor of dilations is one that no compiled kernel would take in.
        for head, dilation in enumerate(self.dilation[1:], start=1):
            apart = torch.where(h < head, apart, dilation)
        distance = (q_idx - kv_idx).abs()
        return (distance < self.window * apart) & (distance % apart == 0)


@dataclass(frozen=True)
class GlobalTokens(Mask):
    """Some positions see all positions, and all positions see them.

    Reference: Beltagy et al. 2020, section 3.1.
    """

    positions: tuple[int, ...]

    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        seen = (q_idx != q_idx) & (kv_idx != kv_idx)  # False, in the shape of the mask
        for position in self.positions:
            seen = seen | (q_idx == position) | (kv_idx == position)
        return seen


@dataclass(frozen=True, eq=False)
class PerDocument(Mask):
    """A mask that holds in each document by itself: no token sees another document.

    The mask is asked at the positions that queries and keys have in their document, so that
    position 0 of a window's global tokens is the first token of every document.

    Attributes:
        mask: the mask inside of one document.
        documents: (B, T), the number of the document that each token of a row belongs to.
        positions: (B, T), the position of each token in its document.
    """

    mask: Mask
    documents: Tensor
    positions: Tensor

    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        together = self.documents[b, q_idx] == self.documents[b, kv_idx]
        return together & self.mask(b, h, self.positions[b, q_idx], self.positions[b, kv_idx])


def layer_mask(config: GPTConfig, layer: int) -> Mask:
    """Return the mask of one layer: causal, and where a window is set, no more than that."""
    window = config.windows[layer]
    if window is None:
        return Causal()
    dilations = config.dilations[layer]
    near: Mask = SlidingWindow(window, dilations if len(set(dilations)) > 1 else dilations[:1])
    if config.global_tokens:
        near = near | GlobalTokens(config.global_tokens)
    return Causal() & near


def materialise(
    mask: Mask, q_idx: Tensor, kv_idx: Tensor, n_head: int = 1, n_row: int | None = None
) -> Tensor:
    """Return a mask as a boolean tensor, for these queries and keys.

    Args:
        mask: which keys a query sees.
        q_idx: the positions of the queries, (n_query,), or (B, n_query) where the rows differ.
        kv_idx: the positions of the keys, (n_key,) or (B, n_key); one below 0 is empty, and no
            query sees it.
        n_head: number of heads to ask for.
        n_row: number of batch rows to ask for, where the mask itself differs by row.

    Returns:
        True where the query sees the key: (n_query, n_key) if neither row nor head matters, and
        otherwise (B or 1, n_head or 1, n_query, n_key).
    """
    rows = q_idx.dim() == 2 or kv_idx.dim() == 2
    queries = q_idx[..., :, None]  # (..., n_query, 1)
    keys = kv_idx[..., None, :]  # (..., 1, n_key)
    if rows:
        queries, keys = (i.unsqueeze(-3) for i in (queries, keys))  # a dimension for the heads
    zero = torch.zeros((), dtype=torch.long, device=q_idx.device)
    b = zero if n_row is None else torch.arange(n_row, device=q_idx.device)[:, None, None, None]
    h = torch.arange(n_head, device=q_idx.device)[:, None, None] if n_head > 1 else zero
    return mask(b, h, queries, keys) & (keys >= 0)


def dense(
    mask: Mask, n_query: int, n_key: int, device: torch.device | None = None, n_head: int = 1
) -> Tensor:
    """Return a mask as a boolean tensor where the queries are the last of the keys.

    Returns:
        (n_query, n_key), or (n_head, n_query, n_key) if heads differ.
    """
    positions = torch.arange(n_key, device=device)
    return materialise(mask, positions[n_key - n_query :], positions, n_head)


def attention_mask(
    mask: Mask | Tensor, q: Tensor, k: Tensor, positions: tuple[Tensor, Tensor] | None = None
) -> Tensor | None:
    """Return the boolean attention mask of these queries and keys; None if every query sees all.

    Args:
        mask: which keys a query sees; a tensor is one already.
        q, k: (B, nh, n_query, hs) and (B, nkv, n_key, hs).
        positions: of queries and keys; by default the queries are the last of the keys.

    Returns:
        To be broadcast over (B, nh, n_query, n_key).
    """
    if isinstance(mask, Tensor):
        return mask
    if positions is not None:
        return materialise(mask, *positions, n_head=q.size(1))
    if isinstance(mask, Causal) and q.size(-2) == 1:
        return None  # the query is the last position
    return dense(mask, q.size(-2), k.size(-2), q.device, n_head=q.size(1))


def document_masks(
    masks: Sequence[Mask], documents: Tensor, positions: Tensor, n_head: int
) -> list[Tensor]:
    """Materialise the layers' masks for rows that hold several documents each.

    Args:
        masks: each layer's own; layers with the same mask share one tensor, because it is large.
        documents, positions: as in `PerDocument`, (B, T).
        n_head: number of heads.

    Returns:
        For each layer (B, 1 or nh, T, T): B·T² bytes, or nh times as many where the mask differs
        by head.
    """
    at = torch.arange(documents.size(1), device=documents.device)
    made = {
        mask: materialise(
            PerDocument(mask, documents, positions), at, at, n_head, documents.size(0)
        )
        for mask in dict.fromkeys(masks)
    }
    return [made[mask] for mask in masks]


def additive(seen: Tensor, like: Tensor) -> Tensor:
    """Return a boolean mask as what is added to scores: 0 where seen, minus infinity elsewhere.

    The softmax makes 0 of minus infinity. A sum hands its gradient on as it is, so that the
    backward pass does not touch the mask again.

    Args:
        seen: True where a query sees a key, of any shape.
        like: the scores, for their type and device.
    """
    bias = torch.zeros(seen.shape, dtype=like.dtype, device=like.device)
    return bias.masked_fill_(~seen, -torch.inf)
