"""Who may look at whom, as data.

A mask is a small frozen object that answers one question: may the query at place `q_idx` look
at the key at place `kv_idx`? The arguments are tensors of indices, so one call answers for a
whole table. Masks combine with `&` and `|`. Attention knows nothing of the kinds of mask; it
only asks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lib.config import GPTConfig


class Mask(ABC):
    """The question that every mask answers, for batch row `b` and head `h`."""

    @abstractmethod
    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        """Return True where the query may look at the key."""

    def __and__(self, other: Mask) -> Mask:
        """Allow what both allow."""
        return Both(self, other)

    def __or__(self, other: Mask) -> Mask:
        """Allow what either allows."""
        return Either(self, other)


@dataclass(frozen=True)
class Both(Mask):
    """What two masks both allow."""

    first: Mask
    second: Mask

    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        """Return True where both do."""
        return self.first(b, h, q_idx, kv_idx) & self.second(b, h, q_idx, kv_idx)


@dataclass(frozen=True)
class Either(Mask):
    """What at least one of two masks allows."""

    first: Mask
    second: Mask

    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        """Return True where one does."""
        return self.first(b, h, q_idx, kv_idx) | self.second(b, h, q_idx, kv_idx)


@dataclass(frozen=True)
class Causal(Mask):
    """Each place looks at itself and at what came before it, never ahead."""

    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        """Return True where the key is not ahead of the query."""
        return kv_idx <= q_idx


@dataclass(frozen=True)
class SlidingWindow(Mask):
    """Each place looks at `window` places: itself, and those `dilation` apart on either side.

    A key is seen if its distance is a multiple of the dilation and below window · dilation. With
    `Causal` that leaves the window - 1 places before it.

    Attributes:
        window: how many places a query sees on its left, itself included.
        dilation: distance between two of them, for each head; one entry serves all heads.

    Reference: Beltagy et al. 2020, section 3.1.
    """

    window: int
    dilation: tuple[int, ...] = (1,)

    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        """Return True where the key lies in the window of the query."""
        apart: int | Tensor = self.dilation[0]
        # Asked head by head: a tensor of dilations is one that no compiled kernel would take in.
        for head, dilation in enumerate(self.dilation[1:], start=1):
            apart = torch.where(h < head, apart, dilation)
        distance = (q_idx - kv_idx).abs()
        return (distance < self.window * apart) & (distance % apart == 0)


@dataclass(frozen=True)
class GlobalTokens(Mask):
    """Some places look at all places, and all places look at them.

    Reference: Beltagy et al. 2020, section 3.1.
    """

    places: tuple[int, ...]

    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        """Return True where the query or the key is one of these places."""
        seen = (q_idx != q_idx) & (kv_idx != kv_idx)  # False, in the shape of the table
        for place in self.places:
            seen = seen | (q_idx == place) | (kv_idx == place)
        return seen


@dataclass(frozen=True, eq=False)
class PerDocument(Mask):
    """A mask that holds in each document by itself: nobody looks into another document.

    The mask is asked at the places that queries and keys have in their document, so that place 0
    of a window's global tokens is the first token of every document.

    Attributes:
        mask: who may look at whom in one document.
        documents: (B, T), the number of the document that each token of a row belongs to.
        places: (B, T), the place of each token in its document.
    """

    mask: Mask
    documents: Tensor
    places: Tensor

    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        """Return True where both are of one document and its mask allows it."""
        together = self.documents[b, q_idx] == self.documents[b, kv_idx]
        return together & self.mask(b, h, self.places[b, q_idx], self.places[b, kv_idx])


@dataclass(frozen=True, eq=False)
class Written(Mask):
    """A mask that is written out already, for layers that share it.

    Attributes:
        allowed: True where a query may look, (B, 1 or nh, n_query, n_key).
    """

    allowed: Tensor

    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        """Look the answer up."""
        return self.allowed[b, h % self.allowed.size(1), q_idx, kv_idx]


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


def table(
    mask: Mask, q_idx: Tensor, kv_idx: Tensor, n_head: int = 1, n_row: int | None = None
) -> Tensor:
    """Write a mask out for these queries and keys.

    Args:
        mask: who may look at whom.
        q_idx: the places of the queries, (n_query,), or (B, n_query) where the rows differ.
        kv_idx: the places of the keys, (n_key,) or (B, n_key); one below 0 is empty, and seen by
            nobody.
        n_head: number of heads to ask for.
        n_row: number of batch rows to ask for, where the mask itself differs by row.

    Returns:
        True where the query may look: (n_query, n_key) if neither row nor head matters, and
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


def additive(allowed: Tensor, like: Tensor) -> Tensor:
    """Write a mask as what is added to scores: 0 where one may look, minus infinity elsewhere.

    The softmax makes 0 of minus infinity. A sum hands its gradient on as it is, so that the
    backward pass does not touch the mask again.

    Args:
        allowed: who may look at whom, True or False, of any shape.
        like: the scores, for their type and device.
    """
    bias = torch.zeros(allowed.shape, dtype=like.dtype, device=like.device)
    return bias.masked_fill_(~allowed, -torch.inf)


class DocumentMasks:
    """The layers' masks for rows that hold several documents each.

    Layers with the same mask share one table, because a table is large.

    Args:
        config: the shape of the model.
    """

    def __init__(self, config: GPTConfig) -> None:
        own = [layer_mask(config, layer) for layer in range(config.n_layer)]
        self.kinds = list(dict.fromkeys(own))
        self.of_layer, self.n_head = [self.kinds.index(mask) for mask in own], config.n_head

    def __call__(self, documents: Tensor | None, places: Tensor) -> list[Mask | None]:
        """Write the masks out; documents and places are as in `PerDocument`, (B, T).

        Returns:
            For each layer a table, (B, 1 or nh, T, T): B·T² bytes, or nh times as many where the
            mask differs by head. Without documents None, which stands for the layer's own mask.
        """
        if documents is None:
            return [None] * len(self.of_layer)
        at = torch.arange(documents.size(1), device=documents.device)
        tables = [
            Written(
                table(PerDocument(kind, documents, places), at, at, self.n_head, documents.size(0))
            )
            for kind in self.kinds
        ]
        return [tables[kind] for kind in self.of_layer]


def dense(
    mask: Mask, n_query: int, n_key: int, device: torch.device | None = None, n_head: int = 1
) -> Tensor:
    """Write a mask out where the queries are the last `n_query` of the `n_key` places.

    Returns:
        True where the query may look, (n_query, n_key), or (n_head, n_query, n_key) if heads
        differ.
    """
    places = torch.arange(n_key, device=device)
    return table(mask, places[n_key - n_query :], places, n_head)
