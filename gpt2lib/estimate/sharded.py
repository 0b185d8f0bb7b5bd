"""The memory of an update whose weights, gradients and moments are spread over GPUs (FSDP2).

Each of them holds a share of every tensor, and gathers a block's weights when it computes the
block. Whole then are

    what is outside the blocks: it stays gathered through the whole update
    the weights of two blocks, the one at work and the one that is being fetched, which lies twice:
        as it came, and in the shapes of its matrices
    the gradients of a block before they are shared out, and of two, packed to be sent: one may
        still be on its way
    all gradients, where micro-batches are accumulated: they are shared out at the last one only

The activations are those of a GPU that has everything. How long packed gradients live depends on
how fast they are sent: measured peaks of the same update differ by a tenth.

Reference: Rajbhandari et al. 2020 (ZeRO), section 5; Zhao et al. 2023 (FSDP), section 3.
"""

from __future__ import annotations

import math

from gpt2lib.config import GPTConfig
from gpt2lib.estimate.counts import BYTES, count_parameters, moments
from gpt2lib.estimate.fit import MARGIN, divisors
from gpt2lib.estimate.ledger import Ledger
from gpt2lib.estimate.simulated import Model, Setting
from gpt2lib.estimate.tables import INT64
from gpt2lib.estimate.update import CUDA_GRAIN, CUDA_WORKSPACE, muon_step


class SharedLedger(Ledger):
    """A ledger in which a gradient takes the share of one process.

    Args:
        grain: what the allocator hands out is a multiple of this many bytes.
        shares: among how many processes gradients are shared out at once; 1 where they are not.
    """

    def __init__(self, grain: int, shares: int) -> None:
        super().__init__(grain)
        self.shares = shares

    def add(self, kind: str, size: int) -> None:
        """Count bytes that came to life, or died."""
        super().add(kind, int(size / self.shares) if kind == "gradients" else size)


def gathered(config: GPTConfig, accumulates: bool) -> int:
    """Count the bytes that one process holds whole, beside its shares.

    Args:
        config: the shape of the model.
        accumulates: whether an update has several micro-batches; their gradients are whole anyway.
    """
    parameters = count_parameters(config)
    block = (parameters - count_parameters(config.replace(n_layer=0))) // max(1, config.n_layer)
    outside = parameters - config.n_layer * block
    weights = outside + min(3, config.n_layer) * block
    packed = max(outside, block)
    return BYTES * (weights + packed * (1 if accumulates else 3))


def sharded_peak(config: GPTConfig, setting: Setting, processes: int) -> int:
    """Return the most bytes that live at once in one of so many processes.

    Args:
        config: the shape of the model, with its true vocabulary.
        setting: how it is trained; its number of processes is not looked at.
        processes: over how many the model is spread.
    """
    accumulates = setting.accumulation > 1
    ledger = SharedLedger(CUDA_GRAIN, 1 if accumulates else processes)
    states = count_parameters(config) + moments(config, setting.muon)
    always = [ledger.hold(math.ceil(states / processes), BYTES, "states")]
    always.append(ledger.hold(CUDA_WORKSPACE if setting.device == "cuda" else 0, 1, "workspace"))
    always.append(ledger.hold(gathered(config, accumulates), 1, "gathered"))
    tokens = setting.micro_batch * config.block_size
    always.append(ledger.hold(2 * tokens * setting.accumulation, INT64, "tokens"))
    model = Model(config, setting, ledger)
    for i in range(min(2, setting.accumulation)):  # the third is as the second
        model.has_gradients = i > 0
        model.pass_through()
    if setting.muon:
        always.append(ledger.hold(muon_step(config, setting.precision), 1, "states"))
    del model, always
    return ledger.peak


def largest_sharded(
    config: GPTConfig, setting: Setting, processes: int, share: int, available: int
) -> int:
    """Return the largest divisor of `share` whose peak fits, or 0; as `fit.largest_that_fits`.

    Args:
        config: the shape, with its true vocabulary.
        setting: how it is trained; its micro-batch is not looked at.
        processes: over how many the model is spread.
        share: sequences of one process in an update.
        available: bytes that are free in each; `MARGIN` of them stay free.
    """
    for size in divisors(share):
        one = setting.of_micro_batch(size, share // size)
        if sharded_peak(config, one, processes) <= (1 - MARGIN) * available:
            return size
    return 0
