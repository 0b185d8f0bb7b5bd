"""Where a token stands: what the model adds at its input or turns in its queries and keys.

Attention alone cannot tell one order of the same tokens from another. A position scheme mends
that through one small interface of two methods. `embed` acts once, on the input of the first
block; `rotate` acts in every attention layer, on queries and keys. A scheme that needs only one
of them leaves the other as the identity.

Shapes: B batch, T time, C channels, nh heads, hs head size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LearnedPositions(nn.Embedding):
    """GPT-2's positions: one learned vector for each place in the block, added to the token's.

    Reference: Vaswani et al. 2017, section 3.5 (learned form); Radford et al. 2019.
    """

    def embed(self, x: Tensor, start: int = 0) -> Tensor:
        """Add the vectors of the places `start`, `start + 1`, ... to `x`, (B, T, C)."""
        places = torch.arange(start, start + x.size(1), device=x.device)
        return x + F.embedding(places, self.weight)  # (B, T, C) + (T, C)

    def rotate(self, q: Tensor, k: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
        """Return queries and keys, (B, nh, T, hs), as they are: learned positions do not turn."""
        return q, k
