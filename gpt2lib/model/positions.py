"""Where a token stands: what the model adds at its input or turns in its queries and keys.

Attention alone cannot tell one order of the same tokens from another. A position scheme mends
that through one small interface of two methods, of which it leaves the one it does not need as
the identity. `embed` acts once, on the input of the first block. `turn` returns what every
attention layer does to its queries and keys.

Shapes: B batch, T time, C channels, nh heads, hs head size. `places` are the positions of the
tokens, (T,), or (B, T) where the rows differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lib.config import GPTConfig

Turn = Callable[[Tensor], Tensor]
"""What attention does to queries and to keys, (B, nh, T, hs) to (B, nh, T, hs)."""


def unturned(x: Tensor) -> Tensor:
    """Return queries or keys as they are."""
    return x


def places_in(documents: Tensor) -> Tensor:
    """Return the place of each token in its document; a window's start begins one, too.

    Args:
        documents: (B, T), numbers that grow along a row wherever a document begins.

    Returns:
        (B, T), from 0 in each document.
    """
    T = documents.size(1)
    at = torch.arange(T, device=documents.device)
    begins = F.pad(documents.diff(dim=1) != 0, (1, 0))  # (B, T), False at the row's start
    return at - (begins * at).cummax(dim=1).values


class LearnedPositions(nn.Embedding):
    """GPT-2's positions: one learned vector for each place in the block, added to the token's.

    Reference: Vaswani et al. 2017, section 3.5 (learned form); Radford et al. 2019.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config.block_size, config.n_embd)

    def embed(self, x: Tensor, places: Tensor) -> Tensor:
        """Add to x, (B, T, C), the vectors of its places."""
        return x + F.embedding(places, self.weight)  # (B, T, C) + (T, C)

    def turn(self, places: Tensor) -> Turn:
        """Return the identity: learned positions turn nothing."""
        return unturned


class NoPositions(nn.Module):
    """No positions: the order is known only through who may see whom."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()

    def embed(self, x: Tensor, places: Tensor) -> Tensor:
        """Return x, (B, T, C), as it is."""
        return x

    def turn(self, places: Tensor) -> Turn:
        """Return the identity."""
        return unturned


class RotaryPositions(NoPositions):
    """RoPE: a query and a key are turned by angles that grow with their places.

    Channel i and channel i + hs/2 form a pair, a point in a plane. At place p it is turned by
    p · base^(-2i/hs): the first pairs fast, the last ones slowly. Turning keeps lengths, and the
    product of a turned query and a turned key depends only on the distance of their places.

    Reference: Su et al. 2021, section 3.2; Chen et al. 2023, section 2.3 (interpolation: places
    divided by a scale).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.head_size = config.head_size
        self.base, self.scale = config.rope_base, config.rope_scale

    def turn(self, places: Tensor) -> Turn:
        """Return the rotation for these places.

        The angles are float32 for whole places and float64 for float64 ones, under any autocast:
        that lowers matrix products only. In bf16, place 30001 would be place 29952.
        """
        places = places.to(torch.promote_types(places.dtype, torch.float32))
        evens = torch.arange(0, self.head_size, 2, dtype=places.dtype, device=places.device)
        speeds = 1 / self.base ** (evens / self.head_size) / self.scale  # (hs/2,), per place
        angles = places[..., None] * speeds  # (T, hs/2)
        angles = torch.cat((angles, angles), dim=-1)  # (T, hs): a pair shares its angle
        if angles.dim() == 3:
            angles = angles[:, None]  # (B, 1, T, hs): the same for all heads
        return Rotation(angles.cos(), angles.sin())


@dataclass(frozen=True)
class Rotation:
    """The rotation of every pair of channels at every place; both (T, hs) or (B, 1, T, hs)."""

    cos: Tensor
    sin: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Turn queries or keys, (B, nh, T, hs), in float32 or above; the result has their dtype."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        first, second = wide.chunk(2, dim=-1)  # 2 × (B, nh, T, hs/2)
        across = torch.cat((-second, first), dim=-1)  # each pair turned by a right angle
        return (wide * self.cos + across * self.sin).to(x.dtype)


def ntk_base(base: float, scale: float, head_size: int) -> float:
    """Return the base with which RoPE reaches `scale` times as far.

    The slowest pair then turns `scale` times slower, as in linear interpolation, and the fastest
    as before, so that neighbours stay as easy to tell apart.

    Reference: Peng et al. 2023, section 3.1.
    """
    if head_size == 2:  # one pair, which is the fastest: nothing to slow down
        return base
    return float(base * scale ** (head_size / (head_size - 2)))


POSITIONS: dict[str, type[LearnedPositions] | type[NoPositions]] = {
    "learned": LearnedPositions,
    "rope": RotaryPositions,
    "none": NoPositions,
}
"""By the name that the configuration's `position` has."""
