"""Faults that a forked run is given before it begins; see `Server.run`, argument `prepare`."""

from __future__ import annotations

import resource
import signal
from typing import Any


def small_files(rank: int) -> None:
    """Have the system itself refuse every file above 40,000 bytes: the optimiser's, here."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))


def nan_on_one_rank(rank: int) -> None:
    """Make the loss of rank 1, and of no other, NaN in its fifth micro-batch."""
    from gpt2lib.model.gpt import GPT

    forward, calls = GPT.forward, [0]

    def with_nan(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = forward(self, *args, **kwargs)
        calls[0] += self.training
        if self.training and rank == 1 and calls[0] == 5:
            return out[0] * float("nan"), out[1]
        return out

    GPT.forward = with_nan  # type: ignore[method-assign]
