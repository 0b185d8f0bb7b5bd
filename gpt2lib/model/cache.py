"""The key/value cache: keys and values of the tokens that were read, each computed once.

The first call holds the prompts, of different lengths, padded on the right: what follows a prompt
lies in its future, and no token of it looks there. After that comes one token a row at a time.
A layer with a window keeps only what a query can still reach, in a ring: the token at position p
lies in slot p mod R. Global tokens have slots of their own behind the ring.

Shapes: B batch, nkv key/value heads, hs head size, R slots of the ring, G global tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from gpt2lib.config import GPTConfig
from gpt2lib.model.masks import Causal, Mask, attention_mask

Found = TypeVar("Found")


def slots(
    config: GPTConfig, layer: int, capacity: int, read: int = 0
) -> tuple[int, tuple[int, ...]]:
    """Return how many recent positions a layer keeps, and which positions it keeps for good.

    A window of w with dilation d reaches (w - 1)·d + 1 positions. A global token sees all before
    it, so as long as one is still to come, everything is kept.

    Args:
        config: the shape of the model.
        layer: which block, from 0.
        capacity: the most tokens that a row will have.
        read: tokens that every row has when the cache is made.
    """
    window = config.windows[layer]
    if window is None:
        return capacity, ()
    reach = (window - 1) * max(config.dilations[layer]) + 1
    kept = tuple(sorted({position for position in config.global_tokens if position < capacity}))
    ring = max(reach, *(position + 1 for position in kept if position >= read), 1)
    return (ring, kept) if ring + len(kept) < capacity else (capacity, ())


@dataclass
class Progress:
    """How far the rows have been read; shared by the layers.

    Attributes:
        lengths: (B,), tokens of each row.
        longest: the largest of them.
        even: whether all rows have as many.
        found: what layers of one kind have worked out for this step already.
    """

    lengths: Tensor
    longest: int
    even: bool
    found: dict[Hashable, object] = field(default_factory=dict)

    def advance(self) -> None:
        """Count one more token in every row."""
        self.lengths += 1
        self.longest += 1
        self.found.clear()


class LayerCache:
    """The keys and values of one layer.

    Args:
        progress: how far the rows have been read.
        ring: slots for recent positions.
        kept: positions that are kept for good.
        dtype: what keys and values are kept in; by default as they come.

    Attributes:
        k, v: (B, nkv, R + G, hs), once something was read.
    """

    def __init__(
        self, progress: Progress, ring: int, kept: tuple[int, ...], dtype: torch.dtype | None = None
    ) -> None:
        self.progress, self.ring, self.dtype = progress, ring, dtype
        self.kind = (ring, kept)
        self.kept = torch.tensor(kept, dtype=torch.long, device=progress.lengths.device)  # (G,)
        self.k: Tensor | None = None
        self.v: Tensor | None = None

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """Add the keys and values of the next tokens.

        Args:
            k, v: (B, nkv, T, hs): the prompts at first, then one token a row.

        Returns:
            Keys and values to attend to, and the positions of queries and keys, (B, 1) and
            (B, n); None: the keys have positions 0 to n - 1 and the queries the last ones.
        """
        if self.k is None or self.v is None:
            at = self.positions(self.progress.lengths - 1).clamp(0, k.size(2) - 1)  # (B, R + G)
            at = at[:, None, :, None].expand(-1, k.size(1), -1, k.size(3))
            self.k, self.v = (  # (B, nkv, R + G, hs)
                part.gather(2, at).to(self.dtype or part.dtype) for part in (k, v)
            )
            return k, v, None
        used = self.progress.longest + 1
        if self.progress.even and used <= self.ring:  # every row writes the same slot: no indices
            for now_at in (used - 1, *self._own_slots(used - 1)):
                self.k.select(2, now_at).copy_(k[:, :, 0])
                self.v.select(2, now_at).copy_(v[:, :, 0])
            return self.k.narrow(2, 0, used), self.v.narrow(2, 0, used), None
        rows, slot, held, now = self.once("slots", self._slots)
        self.k[rows, :, slot] = k[:, :, 0].to(self.k.dtype)
        self.v[rows, :, slot] = v[:, :, 0].to(self.v.dtype)
        if len(self.kept):
            for old, new in ((self.k, k), (self.v, v)):
                old[:, :, self.ring :] = torch.where(now, new, old[:, :, self.ring :])
        positions = (self.progress.lengths[:, None], held)  # (B, 1), (B, R + G)
        if used > self.ring:
            return self.k, self.v, positions
        return self.k[:, :, :used], self.v[:, :, :used], (positions[0], held[:, :used])

    def once(self, what: Hashable, find: Callable[[], Found]) -> Found:
        """Return what `find` returns, worked out once a step for all layers of this kind."""
        key = (what, self.kind)
        if key not in self.progress.found:
            self.progress.found[key] = find()
        return self.progress.found[key]  # type: ignore[return-value]

    def attention_mask(
        self, mask: Mask | Tensor, q: Tensor, k: Tensor, positions: tuple[Tensor, Tensor] | None
    ) -> Mask | Tensor:
        """Return the mask of a step, materialised once for all layers that have the same one."""
        if positions is None and (q.size(-2) == k.size(-2) or isinstance(mask, Causal)):
            return mask  # the kernels know it by name

        def made() -> Mask | Tensor:
            seen = attention_mask(mask, q, k, positions)
            return mask if seen is None else seen

        return self.once(mask, made)

    def _own_slots(self, position: int) -> list[int]:
        """Return the slot behind the ring of the token at `position`, if it is a global one."""
        ring, kept = self.kind
        return [ring + i for i, of in enumerate(kept) if of == position]

    def _slots(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return where the next token goes, what each slot holds then, and whether it is kept."""
        position = self.progress.lengths  # (B,), of the token that comes now
        rows = torch.arange(len(position), device=position.device)
        held = self.positions(position, twice=False)  # (B, R + G)
        now = (self.kept == position[:, None])[:, None, :, None]  # (B, 1, G, 1)
        return rows, position % self.ring, held, now

    def positions(self, last: Tensor, twice: bool = True) -> Tensor:
        """Return which position each slot holds when `last`, (B,), was read; below 0 if none.

        Args:
            last: the newest position of each row.
            twice: whether a global token that is still in the ring is named there and in its own
                slot, too. A query must see it once.

        Returns:
            (B, R + G).
        """
        slot = torch.arange(self.ring, device=last.device)
        ring = last[:, None] - (last[:, None] - slot) % self.ring  # (B, R)
        kept = self.kept.expand(len(last), -1)  # (B, G)
        if not twice:
            kept = kept.where(kept <= last[:, None] - self.ring, -1)
        return torch.cat((ring, kept), dim=1)


class KVCache:
    """The keys and values of all layers.

    Args:
        config: the shape of the model.
        lengths: (B,), tokens of each prompt.
        capacity: the most tokens that a row will have, at most block_size.
        dtype: what keys and values are kept in; by default as they come.
    """

    def __init__(
        self,
        config: GPTConfig,
        lengths: Tensor,
        capacity: int,
        dtype: torch.dtype | None = None,
    ) -> None:
        shortest, longest = int(lengths.min()), int(lengths.max())
        self.progress = Progress(lengths.clone(), longest, even=shortest == longest)
        self.empty = True
        self.layers = [
            LayerCache(self.progress, *slots(config, layer, capacity, shortest), dtype)
            for layer in range(config.n_layer)
        ]

    def positions(self, T: int) -> Tensor:
        """Return the positions of the next T tokens: (T,) for the prompts, then (B, 1)."""
        if self.empty:
            return torch.arange(T, device=self.progress.lengths.device)
        return self.progress.lengths[:, None]

    def advance(self) -> None:
        """Count the tokens that all layers have read now."""
        if not self.empty:
            self.progress.advance()
        self.empty = False

    def n_bytes(self) -> int:
        """Return the bytes that keys and values take up."""
        tensors = (t for layer in self.layers for t in (layer.k, layer.v) if t is not None)
        return sum(t.nbytes for t in tensors)
