"""The next-token loss, from the logits.

Shapes: B batch, T time, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from gpt2lib.config import IGNORE


def next_token_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the cross-entropy over the targets, and count them.

    A sum and a count, not a mean: means of batches with different counts cannot be averaged,
    but sums can be added over micro-batches and processes and divided once. With every target
    ignored the sum is 0, where a mean would be NaN.

    Args:
        logits: (B, T, V), unnormalised log-probabilities.
        targets: (B, T), token ids, or `IGNORE`.

    Returns:
        The summed loss in nats, float32, and the number of targets scored, both scalars.

    Reference: Radford et al. 2018, equation 1 (the negative of its sum).
    """
    loss = F.cross_entropy(
        logits.float().flatten(0, -2),  # (B·T, V): in float32 whatever autocast chose
        targets.flatten(),  # (B·T,)
        ignore_index=IGNORE,
        reduction="sum",
    )
    return loss, (targets != IGNORE).sum()
