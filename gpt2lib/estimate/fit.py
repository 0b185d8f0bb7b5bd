"""Which micro-batch fits into memory."""

from __future__ import annotations

from gpt2lib.config import GPTConfig, TrainConfig
from gpt2lib.estimate.simulated import Setting
from gpt2lib.estimate.update import update_memory

MARGIN = 0.12
"""Share of the free memory that is left alone: for what the estimate does not see, and for others.

It does not see Python and PyTorch themselves, the allocator's gaps, and the scratch space of some
kernels (`python benchmarks/memory.py` prints how near it comes)."""


def setting_of(
    config: TrainConfig, share: int, device: str, precision: str, processes: int = 1
) -> Setting:
    """Return what the memory of a run's update depends on, for one forward pass of the share.

    Args:
        config: the run.
        share: sequences of one process in an update.
        device: cpu, cuda or mps.
        precision: fp32, bf16 or fp16.
        processes: how many train together.
    """
    return Setting(
        micro_batch=share,
        precision=precision,
        device=device,
        checkpointing=int(config.gradient_checkpointing),
        processes=processes,
        documents=config.data.mask_documents,
        muon=config.optim.name == "muon",
    )


def divisors(share: int) -> list[int]:
    """Return the micro-batches into which a share can be cut evenly, largest first."""
    return [size for size in range(share, 0, -1) if share % size == 0]


def largest_that_fits(model: GPTConfig, setting: Setting, share: int, available: int) -> int:
    """Return the largest divisor of `share` whose estimated peak fits, or 0 if none does.

    Args:
        model: the shape, with its true vocabulary.
        setting: how it is trained; its micro-batch is not looked at.
        share: sequences of one process in an update.
        available: bytes that are free; `MARGIN` of them stay free.
    """
    for size in divisors(share):
        one = setting.of_micro_batch(size, share // size)
        if update_memory(model, one).peak <= (1 - MARGIN) * available:
            return size
    return 0
