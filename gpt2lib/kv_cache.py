"""Keys and values of the tokens that were read, so that each is computed once.

The first call holds the prompts, of different lengths, filled up on the right: what follows a
prompt lies in its future, and no token of it looks there. After that comes one token a row at a
time. A layer with a window keeps only what a query can still reach, in a ring: the token at
place p lies in slot p mod R. Global tokens have slots of their own behind the ring.

Shapes: B batch, nkv key/value heads, hs head size, R slots of the ring, G global tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lib.config import GPTConfig


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
    """

    lengths: Tensor
    longest: int


class LayerCache:
    """The keys and values of one layer.

    Attributes:
        k, v: (B, nkv, R + G, hs), once something was read.
    """

    def __init__(self, read: Read, ring: int, kept: tuple[int, ...]) -> None:
        self.read, self.ring = read, ring
        self.kept = torch.tensor(kept, dtype=torch.long, device=read.lengths.device)  # (G,)
        self.k: Tensor | None = None
        self.v: Tensor | None = None

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """Add the keys and values of the next tokens.

        Args:
            k, v: (B, nkv, T, hs): the prompts at first, then one token a row.

        Returns:
            Keys and values to look at, and the places of queries and keys, (B, 1) and (B, n);
            None means that the keys are those of the queries themselves.
        """
        if self.k is None or self.v is None:
            at = self.places(self.read.lengths - 1).clamp(0, k.size(2) - 1)  # (B, R + G)
            at = at[:, None, :, None].expand(-1, k.size(1), -1, k.size(3))
            self.k, self.v = k.gather(2, at), v.gather(2, at)  # (B, nkv, R + G, hs)
            return k, v, None
        place = self.read.lengths  # (B,), of the token that comes now
        rows = torch.arange(len(place), device=place.device)
        self.k[rows, :, place % self.ring] = k[:, :, 0]
        self.v[rows, :, place % self.ring] = v[:, :, 0]
        if len(self.kept):
            now = (self.kept == place[:, None])[:, None, :, None]  # (B, 1, G, 1)
            for old, new in ((self.k, k), (self.v, v)):
                old[:, :, self.ring :] = torch.where(now, new, old[:, :, self.ring :])
        held = self.places(place, twice=False)  # (B, R + G)
        used = self.read.longest + 1
        if used > self.ring:
            return self.k, self.v, (place[:, None], held)
        return self.k[:, :, :used], self.v[:, :, :used], (place[:, None], held[:, :used])

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
    """

    def __init__(self, config: GPTConfig, lengths: Tensor, capacity: int) -> None:
        self.read = Read(lengths.clone(), int(lengths.max()))
        self.empty = True
        shortest = int(lengths.min())
        self.layers = [
            LayerCache(self.read, *slots(config, layer, capacity, shortest))
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
            self.read.lengths += 1
            self.read.longest += 1
        self.empty = False

    def n_bytes(self) -> int:
        """Return the bytes that keys and values take up."""
        held = (t for layer in self.layers for t in (layer.k, layer.v) if t is not None)
        return sum(t.numel() * t.element_size() for t in held)
