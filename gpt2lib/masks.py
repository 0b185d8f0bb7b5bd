"""Who may look at whom, as data.

A mask is a small frozen object that answers one question: may the query at place `q_idx` look
at the key at place `kv_idx`? The arguments are tensors of indices, so one call answers for a
whole table. Attention knows nothing of the kinds of mask; it only asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Mask(Protocol):
    """The question that every mask answers, for batch row `b` and head `h`."""

    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        """Return True where the query may look at the key."""
        ...


@dataclass(frozen=True)
class Causal:
    """Each place looks at itself and at what came before it, never ahead."""

    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        """Return True where the key is not ahead of the query."""
        return kv_idx <= q_idx


def dense(mask: Mask, n_query: int, n_key: int, device: torch.device | None = None) -> Tensor:
    """Write a mask out as a table of booleans, for one batch row and one head.

    The queries are the last `n_query` of the `n_key` places.

    Returns:
        (n_query, n_key), True where the query may look.
    """
    zero = torch.zeros((), dtype=torch.long, device=device)
    queries = torch.arange(n_key - n_query, n_key, device=device)[:, None]  # (n_query, 1)
    keys = torch.arange(n_key, device=device)[None, :]  # (1, n_key)
    return mask(zero, zero, queries, keys)  # (n_query, n_key)
