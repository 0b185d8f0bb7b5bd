"""From a token file to the batches that one process reads.

Which samples an update reads is a function of the step alone; how many processes there are, and
how large their micro-batches, only decides who reads which of them.

Shapes: B batch, T time (block_size).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gpt2lib.config import IGNORE, DataConfig, TrainConfig
from gpt2lib.data.order import evenly
from gpt2lib.data.preparation import Prepared
from gpt2lib.data.token_files import LEARNED, TokenFile
from gpt2lib.tokenizer import Tokenizer
from gpt2lib.utils.errors import UserError

if TYPE_CHECKING:  # preparing data must not pay for importing torch
    import torch
    from torch import Tensor


def batch(token_file: TokenFile, starts: ArrayLike, block_size: int) -> tuple[Tensor, Tensor]:
    """Read windows as inputs and the tokens that follow them.

    A window that reaches past the end of the file, or of the part of a joined one that it starts
    in, is padded: inputs with 0, targets with -1. So are targets that are not to be learned.

    Args:
        token_file: where to read.
        starts: B positions in tokens, each with at least one token after it.
        block_size: T.

    Returns:
        `idx` and `targets`, int64, (B, T); `targets[b, t]` is the token after `idx[b, t]`.
    """
    import torch

    first = np.asarray(starts, dtype=np.int64)
    if first.ndim != 1 or (
        first.size and not 0 <= first.min() <= first.max() < len(token_file) - 1
    ):
        raise ValueError(f"starts must be a row of positions in 0 .. {len(token_file) - 2}")
    positions = first[:, None] + np.arange(block_size + 1)  # (B, T + 1): the last is a target only
    end = token_file.window_ends(first, block_size)[:, None]  # (B, 1)
    inside = np.minimum(positions, end - 1)
    ids = token_file.tokens[inside].astype(np.int64)  # (B, T + 1)
    # A token is an input only if there is a token after it to predict.
    has_next = (positions < end)[:, 1:]  # (B, T)
    idx = np.where(has_next, ids[:, :-1], 0)  # (B, T)
    marks = token_file.marks
    learned = has_next if marks is None else has_next & (marks[inside] & LEARNED > 0)[:, 1:]
    targets = np.where(learned, ids[:, 1:], IGNORE)  # (B, T)
    return torch.from_numpy(idx), torch.from_numpy(targets)


def eval_batches(
    token_file: TokenFile, block_size: int, batch_size: int, limit: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over a file as an evaluation reads it, in batches as `batch` returns them.

    The last batch may be smaller. At most `limit` are read, evenly spread over the file; without
    one, every token but the first (of each part) is a target exactly once.
    """
    windows = None if limit is None else limit * batch_size
    starts = evenly(token_file.eval_windows(block_size), windows)
    for i in range(0, len(starts), batch_size):
        yield batch(token_file, starts[i : i + batch_size], block_size)


def document_ids(idx: Tensor, eot: int) -> Tensor:
    """Number the documents of each row, from the end-of-text tokens between them.

    As an input, an end-of-text token begins the document after it: there is nothing else that the
    first token of a document could be predicted from. As a target it ends the one before. So no
    target lies in another document than its input, and none has to be left out.

    Args:
        idx: (B, T), token ids.
        eot: the end-of-text token.

    Returns:
        (B, T): 0 for the rest of a document that the row's start has cut, then 1, 2, and so on.
    """
    return (idx == eot).cumsum(dim=1)


def masking_eot(config: DataConfig, tokenizer: Tokenizer) -> int | None:
    """Return the token by which documents are told apart, or None if they need not be.

    Raises:
        UserError: if `mask_documents` is set and the tokenizer has no end-of-text token.
    """
    if not config.mask_documents:
        return None
    if tokenizer.eot is None:
        raise UserError(
            f"data.mask_documents needs an end-of-text token, and a {tokenizer.name} tokenizer has "
            f"none; set data.tokenizer to bpe, or data.mask_documents to false"
        )
    return tokenizer.eot


class MicroBatch(NamedTuple):
    """One forward pass of one process; `model(*micro_batch)` returns its summed loss and count."""

    idx: Tensor  # (B, T), token ids
    targets: Tensor  # (B, T), the ids to predict, -1 where there is nothing to score
    documents: Tensor | None  # (B, T), which document of its row a token is in, if that matters

    @property
    def n_targets(self) -> int:
        """How many targets are scored."""
        return int((self.targets != IGNORE).sum())


class Loader:
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
        assert config.micro_batch != "auto", "resolved when the run is set up"
        self.size = config.micro_batch or self.share  # sequences in a micro-batch
        self.eot = masking_eot(config.data, data.tokenizer)

    def samples(self, step: int) -> range:
        """Return the global numbers of this process's samples in update `step`."""
        first = step * self.batch_size + self.rank * self.share
        return range(first, first + self.share)

    def micro_batches(self, step: int) -> list[MicroBatch]:
        """Read this process's share of update `step`."""
        starts = self.tokens.windows(self.block_size, self.seed, self.samples(step))  # (share,)
        return [self._read(starts[i : i + self.size]) for i in range(0, self.share, self.size)]

    def _read(self, starts: ArrayLike) -> MicroBatch:
        idx, targets = batch(self.tokens, starts, self.block_size)
        documents = None if self.eot is None else document_ids(idx, self.eot).to(self.device)
        return MicroBatch(idx.to(self.device), targets.to(self.device), documents)
