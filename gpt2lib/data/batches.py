"""Where documents and windows begin: what batches are made by, without reading any.

Shapes: B batch, T time (block_size).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpt2lib.config import DataConfig
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
    ends = np.cumsum(files)
    each = [np.arange(end - n, end - 1, block_size) for end, n in zip(ends, files, strict=True)]
    starts = np.concatenate(each)
    if limit is not None and limit < len(starts):
        starts = starts[np.arange(limit) * len(starts) // limit]
    return starts
