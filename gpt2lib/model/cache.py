"""Keys and values of the tokens that were read, so that each is computed once.

The first call holds the prompts, of different lengths, filled up on the right: what follows a
prompt lies in its future, and no token of it looks there. After that comes one token a row at a
time. A layer with a window keeps only what a query can still reach, in a ring: the token at
place p lies in slot p mod R. Global tokens have slots of their own behind the ring.

Shapes: B batch, nkv key/value heads, hs head size, R slots of the ring, G global tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from gpt2lib.config import GPTConfig

Found = TypeVar("Found")


def slots(
    config: GPTConfig, layer: int, capacity: int, read: int = 0
) -> tuple[int, tuple[int, ...]]:
    """Return how many recent places a layer keeps, and which places it keeps for good.

    A window of w with dilation d reaches (w - 1)·d + 1 places. A global token looks at all before
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
    kept = tuple(sorted({place for place in config.global_tokens if place < capacity}))
    ring = max(reach, *(place + 1 for place in kept if place >= read), 1)
    return (ring, kept) if ring + len(kept) < capacity else (capacity, ())


@dataclass
class Read:
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
        read: how far the rows have been read.
        ring: slots for recent places.
        kept: places that are kept for good.
        dtype: what keys and values are kept in; by default as they come.

    Attributes:
        k, v: (B, nkv, R + G, hs), once something was read.
    """

    def __init__(
        self, read: Read, ring: int, kept: tuple[int, ...], dtype: torch.dtype | None = None
    ) -> None:
        self.read, self.ring, self.dtype = read, ring, dtype
        self.kind = (ring, kept)
        self.kept = torch.tensor(kept, dtype=torch.long, device=read.lengths.device)  # (G,)
        self.k: Tensor | None = None
        self.v: Tensor | None = None

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """Add the keys and values of the next tokens.

        Args:
            k, v: (B, nkv, T, hs): the prompts at first, then one token a row.

        Returns:
            Keys and values to look at, and the places of queries and keys, (B, 1) and (B, n);
            None means that the keys stand at places 0 to n - 1 and the queries at the last ones.
        """
        if self.k is None or self.v is None:
            at = self.places(self.read.lengths - 1).clamp(0, k.size(2) - 1)  # (B, R + G)
            at = at[:, None, :, None].expand(-1, k.size(1), -1, k.size(3))
            self.k, self.v = (  # (B, nkv, R + G, hs)
                part.gather(2, at).to(self.dtype or part.dtype) for part in (k, v)
            )
            return k, v, None
        used = self.read.longest + 1
        if self.read.even and used <= self.ring:  # every row writes the same slot: no indices
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
        places = (self.read.lengths[:, None], held)  # (B, 1), (B, R + G)
        if used > self.ring:
            return self.k, self.v, places
        return self.k[:, :, :used], self.v[:, :, :used], (places[0], held[:, :used])

    def once(self, what: Hashable, find: Callable[[], Found]) -> Found:
        """Return what `find` returns, worked out once a step for all layers of this kind."""
        key = (what, self.kind)
        if key not in self.read.found:
            self.read.found[key] = find()
        return self.read.found[key]  # type: ignore[return-value]

    def _own_slots(self, place: int) -> list[int]:
        """Return the slot behind the ring of the token at `place`, if it is a global one."""
        ring, kept = self.kind
        return [ring + i for i, of in enumerate(kept) if of == place]

    def _slots(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return where the next token goes, which place each slot holds then, and if it is kept."""
        place = self.read.lengths  # (B,), of the token that comes now
        rows = torch.arange(len(place), device=place.device)
        held = self.places(place, twice=False)  # (B, R + G)
        now = (self.kept == place[:, None])[:, None, :, None]  # (B, 1, G, 1)
        return rows, place % self.ring, held, now

    def places(self, last: Tensor, twice: bool = True) -> Tensor:
        """Return which place each slot holds when `last`, (B,), was read; below 0 if none.

        Args:
            last: the newest place of each row.
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
        self.read = Read(lengths.clone(), longest, even=shortest == longest)
        self.empty = True
        self.layers = [
            LayerCache(self.read, *slots(config, layer, capacity, shortest), dtype)
            for layer in range(config.n_layer)
        ]

    def places(self, T: int) -> Tensor:
        """Return the places of the next T tokens: (T,) for the prompts, then (B, 1)."""
        if self.empty:
            return torch.arange(T, device=self.read.lengths.device)
        return self.read.lengths[:, None]

    def advance(self) -> None:
        """Count the tokens that all layers have read now."""
        if not self.empty:
            self.read.advance()
        self.empty = False

    def n_bytes(self) -> int:
        """Return the bytes that keys and values take up."""
        held = (t for layer in self.layers for t in (layer.k, layer.v) if t is not None)
        return sum(t.numel() * t.element_size() for t in held)
