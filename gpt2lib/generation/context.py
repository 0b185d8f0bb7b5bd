"""What a model has in view while it writes: the end of each text, and a cache of what was read.

Shapes: B batch, T time, C channels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gpt2lib.model.cache import KVCache
from gpt2lib.model.gpt import GPT


class Context:
    """What the model has in view: the end of each row's text, from column 0 on.

    Attributes:
        idx: (B, block_size + 1), filled up on the right.
        lengths: how many tokens of each row are in view.
    """

    def __init__(self, model: GPT, idx: Tensor, pad: Sequence[int], use_cache: bool) -> None:
        B, T = idx.shape
        self.model, self.use_cache = model, use_cache
        self.block_size = model.config.block_size
        self.lengths = [T - n for n in pad]
        self.idx = idx.new_zeros(B, self.block_size + 1)
        for row, length in enumerate(self.lengths):
            self.idx[row, :length] = idx[row, T - length :]
        self.ends = torch.tensor(self.lengths, device=idx.device) - 1  # (B,), the last columns
        self.cache: KVCache | None = None

    def logits(self, to_come: int) -> Tensor:
        """Return the logits of the next token, (B, V); `to_come` more will be asked for at most."""
        trunk, ends = self.model.transformer, self.ends
        if self.cache is not None:
            last = self.idx.gather(1, ends[:, None])  # (B, 1)
            return self.model.lm_head(trunk(last, self.cache)[:, 0])  # type: ignore[no-any-return]
        longest = max(self.lengths)
        if self.use_cache:
            room = min(self.block_size, longest + to_come)
            self.cache = KVCache(self.model.config, ends + 1, room, self.model.cache_dtype)
        x = trunk(self.idx[:, :longest], self.cache)  # (B, T, C)
        x = x[torch.arange(len(x), device=x.device), ends]  # (B, C), each row's last token
        return self.model.lm_head(x)  # type: ignore[no-any-return]

    def append(self, token: Tensor) -> None:
        """Add a token to each row, (B,); a full row keeps its last half block."""
        self.ends = self.ends + 1
        self.idx.scatter_(1, self.ends[:, None], token[:, None])
        self.lengths = [length + 1 for length in self.lengths]
        for row, length in enumerate(self.lengths):
            if length > self.block_size:
                half = max(1, self.block_size // 2)
                self.idx[row, :half] = self.idx[row, length - half : length].clone()
                self.lengths[row], self.ends[row] = half, half - 1
                self.cache = None  # every place has moved: read anew
