"""Whether a run is well: updates that must not be made, and losses that stand out.

One infinite number in a gradient makes every weight NaN at the next step, and a week of training
is lost. Such an update is skipped and counted; several in a row mean that the run itself is sick.
A loss far above the recent ones does no such harm, but is worth a line.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

MEMORY = 0.99
"""What a step leaves of the running mean: the mean is over about the last 100 losses."""

TRUSTED_AFTER = 50
"""Losses after which the running mean and spread are worth comparing with."""


@dataclass
class Health:
    """What was seen so far. It is part of a checkpoint, so a resumed run judges the same.

    Attributes:
        skipped: updates that were not made, in all.
        in_a_row: those among them since the last one that was made.
        spikes: losses that stood out.
        seen: losses in the running mean.
        mean: running mean of the loss.
        variance: running variance of the loss.
    """

    skipped: int = 0
    in_a_row: int = 0
    spikes: int = 0
    seen: int = 0
    mean: float = 0.0
    variance: float = 0.0

    def sickness(self, loss: float, grad_norm: float, scale: float = 1.0) -> str | None:
        """Say why an update must not be made, and count it; None if it may.

        Args:
            loss: mean loss of the update's tokens.
            grad_norm: norm of its gradient, before clipping.
            scale: what fp16's loss scaler multiplies the loss with. Above 1, an infinite gradient
                may be the scale's fault: it is skipped, but the scaler lowers the scale, and
                the run is not sick.
        """
        values = {"loss": loss, "gradient": grad_norm}
        sick = [f"{name} {value}" for name, value in values.items() if not math.isfinite(value)]
        if not sick:
            self.in_a_row = 0
            return None
        self.skipped += 1
        self.in_a_row += not (math.isfinite(loss) and scale > 1)
        return ", ".join(sick)

    def spike(self, loss: float, threshold: float) -> bool:
        """Say whether a loss stands out from the recent ones, and add it to them.

        Args:
            loss: mean loss of the update's tokens, finite.
            threshold: standard deviations above the running mean that count as standing out.
        """
        above = loss - self.mean
        stands_out = self.seen >= TRUSTED_AFTER and above > threshold * math.sqrt(self.variance)
        self.spikes += stands_out
        # The first losses count as in a plain mean, later ones as in a moving one.
        share = max(1 / (self.seen + 1), 1 - MEMORY)
        self.mean += share * above
        self.variance = (1 - share) * (self.variance + share * above**2)
        self.seen += 1
        return stands_out

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, ready for JSON."""
        return asdict(self)
