"""Positions: vectors added at the input, or a rotation of queries and keys (RoPE).

Attention alone cannot tell one order of the same tokens from another. A position scheme has two
methods, and leaves the one it does not need as the identity: `embed` acts once, on the input of
the first block; `rotation` returns what every attention layer does to its queries and keys.

Shapes: B batch, T time, C channels, nh heads, hs head size. `positions` are those of the tokens,
(T,), or (B, T) where the rows differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lib.config import GPTConfig

Rotate = Callable[[Tensor], Tensor]
"""What attention does to queries and to keys, (B, nh, T, hs) to (B, nh, T, hs)."""


def identity(x: Tensor) -> Tensor:
    """Return queries or keys as they are."""
    return x


def positions_in(documents: Tensor) -> Tensor:
    """Return the position of each token in its document, (B, T), from 0; a row's start is one, too.

    Args:
        documents: (B, T), numbers that grow along a row wherever a document begins.
    """
    at = torch.arange(documents.size(1), device=documents.device)
    begins = F.pad(documents.diff(dim=1) != 0, (1, 0))  # (B, T), False at the row's start
    return at - (begins * at).cummax(dim=1).values


class LearnedPositions(nn.Embedding):
    """GPT-2's positions: one learned vector for each position of the block, added to the token's.

    Reference: Vaswani et al. 2017, section 3.5 (learned form); Radford et al. 2019.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config.block_size, config.n_embd)

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """Add to x, (B, T, C), the vectors of its positions."""
        return x + F.embedding(positions, self.weight)  # (B, T, C) + (T, C)

    def rotation(self, positions: Tensor) -> Rotate:
        """Return the identity: learned positions rotate nothing."""
        return identity


class NoPositions(nn.Module):
    """No positions: the order is known only through the causal mask."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """Return x, (B, T, C), as it is."""
        return x

    def rotation(self, positions: Tensor) -> Rotate:
        """Return the identity."""
        return identity


class RotaryPositions(NoPositions):
    """RoPE: queries and keys are rotated by angles that grow with their positions.

    Channel i and channel i + hs/2 form a pair, a point in a plane. At position p it is rotated by
    p · base^(-2i/hs): the first pairs fast, the last ones slowly. A rotation keeps lengths, and
    the product of a rotated query and a rotated key depends only on the distance of their
    positions.

    Reference: Su et al. 2021, section 3.2; Chen et al. 2023, section 2.3 (interpolation:
    positions divided by a scale).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.head_size = config.head_size
        self.base, self.scale = config.rope_base, config.rope_scale

    def rotation(self, positions: Tensor) -> Rotate:
        """Return the rotation for these positions; autocast, which lowers products, leaves it."""
        # Float32, or float64 for float64: in bf16, position 30001 would be position 29952.
        positions = positions.to(torch.promote_types(positions.dtype, torch.float32))
        evens = torch.arange(0, self.head_size, 2, dtype=positions.dtype, device=positions.device)
        speeds = 1 / self.base ** (evens / self.head_size) / self.scale  # (hs/2,), per position
        angles = positions[..., None] * speeds  # (T, hs/2)
        angles = torch.cat((angles, angles), dim=-1)  # (T, hs): a pair shares its angle
        if angles.dim() == 3:
            angles = angles[:, None]  # (B, 1, T, hs): the same for all heads
        return Rotation(angles.cos(), angles.sin())


@dataclass(frozen=True)
class Rotation:
    """The rotation of every pair of channels at every position; both (T, hs) or (B, 1, T, hs)."""

    cos: Tensor
    sin: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate queries or keys, (B, nh, T, hs), in float32 or above; the dtype stays."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        first, second = wide.chunk(2, dim=-1)  # 2 × (B, nh, T, hs/2)
        across = torch.cat((-second, first), dim=-1)  # each pair rotated by a right angle
        return (wide * self.cos + across * self.sin).to(x.dtype)


def ntk_base(base: float, scale: float, head_size: int) -> float:
    """Return the base with which RoPE reaches `scale` times as far.

    The slowest pair then rotates `scale` times slower, as in linear interpolation, and the
    fastest as before, so that neighbours stay as easy to tell apart.

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
