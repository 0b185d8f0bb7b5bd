"""What an update takes in memory, and the micro-batch that a run takes.

On a CPU the estimate is the measurement, played with empty tensors: the model, the loss, clipping
and the optimiser are those that train. It counts the bytes of living tensors. Resident memory is
more; the loop gives back what lies free when the first update has made the moments among it
(`give_back_freed_memory`). For a GPU there is a formula: PyTorch without CUDA plays no CUDA update.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import gather_object

from gpt2lib.config import GPTConfig, TrainConfig
from gpt2lib.estimate.update import MARGIN, Moments, UpdateMemory, divisors, highest
from gpt2lib.model.kernels.chunked_loss import CHUNK, IN_CACHE
from gpt2lib.model.kernels.window import SMALLEST_BLOCK
from gpt2lib.training.live_bytes import play
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.process import available_memory

logger = logging.getLogger(__name__)

LONGEST, WHOLE, SHORT = 100_000, 30_000, 20_000
"""Operations of the longest play, some twenty seconds; of one that is made as a whole; and of one
that nobody has to wait for."""


class PlayedMemory(UpdateMemory):
    """The same for a CPU, played.

    Most of a play's time goes into the logits, so a large micro-batch is played in two halves: all
    its blocks with a vocabulary of one token, and the true vocabulary with few sequences, because a
    loss in chunks takes the same for more of them.
    """

    def __init__(self, config: TrainConfig, share: int, processes: int = 1) -> None:
        super().__init__(config, share, processes)
        self._played: dict[tuple[int, int, bool], Moments] = {}
        of_sequence = config.model.block_size * config.model.vocab_size
        self._few = max(2, min(share, 2 * CHUNK // of_sequence))  # a loss in two chunks

    def moments(self, size: int) -> Moments:
        """Return what lives at the moments of an update, with so many sequences at once."""
        V, later = self.config.model.vocab_size, size < self.share
        if operations(self.config.model, size) <= WHOLE:
            return self._play(size, V, later)
        blocks, few, fewer = (
            self._play(n, v, later) for n, v in ((size, 1), (self._few, V), (self._few, 1))
        )
        found = {name: parts.copy() for name, parts in blocks.items()}
        for name, parts in found.items():
            parts.update(few[name])
            parts.subtract(fewer[name])
        return found

    def fits(self, size: int, available: int) -> bool:
        """Return whether a micro-batch fits; one that is far too large is not played.

        Memory is affine in the micro-batch, or grows faster where another moment becomes the
        highest: the line through two small ones says how much is needed at least.
        """
        if size > self._few:
            low, high = (
                highest(self._play(n, self.config.model.vocab_size, size < self.share))[1]
                for n in (self._few // 2, self._few)
            )
            more = (size - self._few) / (self._few - self._few // 2)
            if high + more * (high - low) > available:
                return False
        return super().fits(size, available)

    def _play(self, size: int, vocab_size: int, later: bool) -> Moments:
        key = size, vocab_size, later
        if key not in self._played:
            model = self.config.model.replace(vocab_size=vocab_size)
            if operations(model, size) > SHORT:
                logger.info("playing an update with empty tensors, %d sequences at once", size)
            moments = play(self.config.replace(model=model), size, self.share, later)
            for parts in moments.values() if self.processes > 1 else ():
                parts["gradients"] += parts["weights"]
            self._played[key] = moments
        return self._played[key]


def operations(model: GPTConfig, size: int) -> int:
    """Return about how many operations a play has: in the blocks, and on pieces of logits."""
    windows = model.block_size // SMALLEST_BLOCK if model.window else 0
    pieces = size * model.block_size * model.vocab_size // IN_CACHE
    return model.n_layer * (800 + 300 * windows) + 100 * pieces


def update_memory(config: TrainConfig, share: int, processes: int = 1) -> UpdateMemory:
    """Return what an update takes: on a CPU played, unless that is too long, else the formula."""
    plays = config.device == "cpu" and operations(config.model, 2) <= LONGEST
    return (PlayedMemory if plays else UpdateMemory)(config, share, processes)


def largest_micro_batch(update: UpdateMemory, available: int) -> int:
    """Return the largest divisor of the share whose estimated peak fits into what is free.

    Nothing but `available` depends on the machine: processes that agree on it agree on the result.

    Raises:
        UserError: if a single sequence does not fit.
    """
    if size := update.largest(available):
        return size
    again = update.config.replace(gradient_checkpointing=True)
    needed, least = (
        one.peak(1) for one in (update, update_memory(again, update.share, update.processes))
    )
    way_out = "a smaller model.block_size or a smaller model needs less"
    if least < needed:
        way_out = f"gradient_checkpointing true needs {least / 1e9:.2f} GB, and {way_out}"
    raise UserError(
        f"even micro_batch 1 needs {needed / 1e9:.2f} GB, but of {available / 1e9:.2f} GB free on "
        f"{update.config.device} a run takes at most {(1 - MARGIN) * available / 1e9:.2f} GB; "
        f"{way_out}"
    )


def resolve_micro_batch(config: TrainConfig, processes: int, before: Any) -> int:
    """Return the micro-batch that auto means, the same in every process; each must call it.

    Args:
        config: the run, its device and precision resolved.
        processes: how many train together.
        before: what was chosen before, which stays if it is possible.

    Raises:
        UserError: if a single sequence does not fit.
    """
    share = config.batch_size // processes
    if isinstance(before, int) and share % before == 0:
        return before
    update = update_memory(config, share, processes)
    return choose_micro_batch(update, lambda n: min(gather_object([n])))


def choose_micro_batch(update: UpdateMemory, agree: Callable[[int], int] = int) -> int:
    """Find the micro-batch of `--micro_batch auto`, and say in the log what was chosen and why.

    On a GPU the estimate is then tried out, and the next smaller divisor is taken if it does not
    fit after all.

    Args:
        update: of the run.
        agree: returns the least of a number over the processes; each calls it twice.

    Returns:
        Sequences in a micro-batch, a divisor of share.

    Raises:
        UserError: if a single sequence does not fit.
    """
    share, device = update.share, update.config.device
    free = agree(available_memory(device))
    size = largest_micro_batch(update, free)
    size = agree(tried(update, size) if device == "cuda" else size)
    logger.info(
        "micro_batch: auto → %d of %d sequences at once, %d times an update (estimated peak "
        "%.2f GB of %.2f GB free on %s)",
        *(size, share, share // size, update.peak(size) / 1e9, free / 1e9, device),
    )
    return size


def tried(update: UpdateMemory, size: int) -> int:
    """Return the largest divisor of the share, at most `size`, that there is room for.

    Raises:
        UserError: if a single sequence does not fit.
    """
    for candidate in (one for one in divisors(update.share) if one <= size):
        try:
            play(update.config, candidate, update.share, candidate < update.share, empty=False)
            return candidate
        except torch.OutOfMemoryError:
            continue
        finally:
            if update.config.device == "cuda":
                torch.cuda.empty_cache()
    raise UserError(
        f"even micro_batch 1 does not fit on {update.config.device}; set gradient_checkpointing, "
        f"or a smaller model.block_size"
    )
