"""What one process reads for one update.

Which samples those are is a function of the step alone; how many processes there are, and in how
many pieces each reads its share, only decides who reads which of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt2lib.config import IGNORE, TrainConfig
from gpt2lib.data import Prepared, batch, document_ids, masking_eot


class MicroBatch(NamedTuple):
    """One forward pass of one process; `model(*micro_batch)` returns its summed loss and count.

    Attributes:
        idx: (B, T), token ids.
        targets: (B, T), the ids to predict, -1 where there is nothing to score.
        documents: (B, T), which document of its row a token is in; None where that is ignored.
    """

    idx: Tensor
    targets: Tensor
    documents: Tensor | None

    @property
    def n_targets(self) -> int:
        """How many targets are scored."""
        return int((self.targets != IGNORE).sum())


class Feed:
    """Reads a process's share of the samples of each update, in order, in micro-batches.

    Args:
        config: the run; its `batch_size` is over all processes.
        data: the prepared text.
        rank: number of this process, from 0.
        processes: how many there are.
        device: where the tensors go.
    """

    def __init__(
        self, config: TrainConfig, data: Prepared, rank: int, processes: int, device: torch.device
    ) -> None:
        self.tokens, self.block_size, self.seed = data.train, config.model.block_size, config.seed
        self.batch_size, self.share = config.batch_size, config.batch_size // processes
        self.rank, self.device = rank, device
        self.size = micro_batch_size(config, processes)
        self.eot = masking_eot(config.data, data.tokenizer)

    def samples(self, step: int) -> range:
        """Return the global numbers of this process's samples in update `step`."""
        first = step * self.batch_size + self.rank * self.share
        return range(first, first + self.share)

    def micro_batches(self, step: int) -> list[MicroBatch]:
        """Read this process's share of update `step`."""
        starts = self.tokens.windows(self.block_size, self.seed, self.samples(step))  # (share,)
        return [self._read(starts[i : i + self.size]) for i in range(0, self.share, self.size)]

    def _read(self, starts: NDArray[np.int64]) -> MicroBatch:
        idx, targets = batch(self.tokens, starts, self.block_size)
        documents = None if self.eot is None else document_ids(idx, self.eot).to(self.device)
        return MicroBatch(idx.to(self.device), targets.to(self.device), documents)


def micro_batch_size(config: TrainConfig, processes: int) -> int:
    """Return how many sequences one process passes through the model at once."""
    assert config.micro_batch != "auto", "resolved when the run starts"
    return config.micro_batch or config.batch_size // processes
