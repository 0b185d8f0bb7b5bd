"""From a token file to tensors.

Shapes: B batch, T time (block_size).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpt2lib.config import IGNORE, DataConfig
from gpt2lib.data.token_files import TokenFile
from gpt2lib.tokenizer import Tokenizer
from gpt2lib.utils.errors import UserError

if TYPE_CHECKING:  # preparing data must not pay for importing torch
    import torch


def document_ids(idx: torch.Tensor, eot: int) -> torch.Tensor:
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


def batch(
    token_file: TokenFile, starts: ArrayLike, block_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read windows as inputs and the tokens that follow them.

    A window that reaches past the end of the file, or of the part of a joined one that it starts
    in, is padded: inputs with 0, targets with -1.

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
    where = first[:, None] + np.arange(block_size + 1)  # (B, T + 1)
    borders = np.cumsum([len(part) for part in token_file.parts])
    end = borders[np.searchsorted(borders, first, side="right")][:, None]  # (B, 1)
    inside = where < end
    ids = token_file.tokens[np.minimum(where, end - 1)].astype(np.int64)
    # A token is an input only if there is a token after it to predict.
    idx = np.where(inside[:, 1:], ids[:, :-1], 0)  # (B, T)
    targets = np.where(inside[:, 1:], ids[:, 1:], IGNORE)  # (B, T)
    return torch.from_numpy(idx), torch.from_numpy(targets)


def eval_starts(
    n_tokens: int | Sequence[int], block_size: int, limit: int | None = None
) -> NDArray[np.int64]:
    """Return where the windows of an evaluation start: end to end, the whole file.

    Windows that do not overlap score every token but the first exactly once. The last one may
    be shorter than the others; `batch` pads it.

    Args:
        n_tokens: tokens in the file, or in each of several that are read one behind the other;
            each of these has windows of its own.
        block_size: T.
        limit: how many windows to take at most, evenly spread over the file; None takes all.
    """
    files = [n_tokens] if isinstance(n_tokens, int) else list(n_tokens)
    begins = [sum(files[:k]) for k in range(len(files))]
    starts = np.concatenate(
        [
            np.arange(begin, begin + n - 1, block_size, dtype=np.int64)
            for begin, n in zip(begins, files, strict=True)
        ]
    )
    if limit is not None and limit < len(starts):
        starts = starts[np.arange(limit) * len(starts) // limit]
    return starts


def eval_batches(
    token_file: TokenFile, block_size: int, batch_size: int, limit: int | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Iterate over a file as an evaluation reads it.

    Args:
        token_file: what to read.
        block_size: T.
        batch_size: B; the last batch may be smaller.
        limit: how many batches to read at most, evenly spread over the file; None reads it all,
            and then every token but the first (of each part) is a target exactly once.

    Yields:
        `idx` and `targets`, int64, (B, T); targets to leave out are -1.
    """
    windows = None if limit is None else limit * batch_size
    starts = eval_starts([len(part) for part in token_file.parts], block_size, windows)
    for i in range(0, len(starts), batch_size):
        yield batch(token_file, starts[i : i + batch_size], block_size)
