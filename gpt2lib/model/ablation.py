"""Parts left out, to see what they are good for: what the configuration's `without` names."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn


class PartialBlock(nn.Module):
    """A block that lacks parts; what is left of it computes as before.

    Args:
        block: the whole block, whose parts it takes.
        without: mlp (and the layer norm before it), residual.
    """

    def __init__(self, block: Any, without: Collection[str]) -> None:
        super().__init__()
        self.ln_1, self.attn = block.ln_1, block.attn
        if "mlp" not in without:
            self.ln_2, self.mlp = block.ln_2, block.mlp
        self.residual = "residual" not in without

    def forward(self, x: Tensor, *arguments: Any) -> Tensor:
        """Map (B, T, C) to (B, T, C); the arguments are attention's."""
        y = self.attn(self.ln_1(x), *arguments)
        x = x + y if self.residual else y
        if hasattr(self, "mlp"):
            y = self.mlp(self.ln_2(x))
            x = x + y if self.residual else y
        return x


def leave_out(trunk: Any, without: Collection[str]) -> None:
    """Take parts out of a `Transformer` that was just made: mlp, residual, layer_norm."""
    if "layer_norm" in without:
        for block in trunk.h:
            block.ln_1 = block.ln_2 = nn.Identity()
        trunk.ln_f = nn.Identity()
    trunk.h = nn.ModuleList(PartialBlock(block, without) for block in trunk.h)
