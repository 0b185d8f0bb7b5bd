"""Text from a model, one token at a time.

Keys and values of what was read are kept in a cache, so that a new token costs one token's work.
Past block_size the context is the last half block of the text, read anew, and grows from there.

Shapes: B batch, T time, C channels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor

from gpt2lib.generation.sampling import SamplingParams, penalise, sample
from gpt2lib.model.cache import KVCache
from gpt2lib.model.gpt import GPT
from gpt2lib.utils.errors import UserError


class Options(TypedDict, total=False):
    """What `next_tokens`, `generate` and `stream` take; `next_tokens` explains it."""

    temperature: float
    top_k: int | None
    top_p: float | None
    repetition_penalty: float
    seed: int | None
    pad: Sequence[int] | None
    use_cache: bool
    past_block: Literal["reread", "refuse"]


class Context:
    """The tokens that the model sees: the end of each row's text, from column 0 on.

    Attributes:
        idx: (B, block_size + 1), padded on the right.
        lengths: how many tokens of each row are in the context.
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
                self.cache = None  # every position has moved: read anew


def left_pad(prompts: Sequence[Sequence[int]], fill: int = 0) -> tuple[Tensor, list[int]]:
    """Put prompts of different lengths into one batch, padded on the left.

    Args:
        prompts: token ids, at least one each.
        fill: the id to pad with; no model ever sees it.

    Returns:
        idx, (B, T), and how many positions of each row are padding: pass them on as `pad`.

    Raises:
        UserError: if there is no prompt, or one is empty.
    """
    if not prompts:
        raise UserError("there are no prompts; give at least one")
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise UserError(f"prompt {i} is empty; give at least one token")
    T = max(map(len, prompts))
    pad = [T - len(prompt) for prompt in prompts]
    rows = [[fill] * n + list(prompt) for n, prompt in zip(pad, prompts, strict=True)]
    return torch.tensor(rows), pad


@torch.no_grad()
def next_tokens(
    model: GPT,
    idx: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    pad: Sequence[int] | None = None,
    use_cache: bool = True,
    past_block: Literal["reread", "refuse"] = "reread",
) -> Iterator[Tensor]:
    """Draw one token after the other and yield each as it comes.

    Args:
        model: the model; it is put back into training mode if it was in it.
        idx: (B, T), the prompts, at least one token each.
        max_new_tokens: how many to draw.
        temperature, top_k, top_p, repetition_penalty: see `SamplingParams`.
        seed: makes the draws repeatable, apart from everything else; None draws from torch's
            own generator.
        pad: how many positions at the left of each row are padding, as `left_pad` returns it.
        use_cache: keep keys and values; without, everything is computed anew for each token.
        past_block: what happens when a row reaches block_size. "reread" goes on from the last half
            block, "refuse" refuses before anything is drawn.

    Yields:
        (B,), the next token of each row.

    Raises:
        UserError: for an empty prompt, one longer than block_size, token ids outside the
            vocabulary, or options that mean nothing or contradict one another.
    """
    params = SamplingParams(temperature, top_k, top_p, repetition_penalty)
    if seed is not None and not 0 <= seed < 2**63:
        raise UserError(f"seed must be from 0 to 2**63 - 1, not {seed}")
    pad = _check(model, idx, max_new_tokens, pad, past_block)
    generator = None if seed is None else torch.Generator(idx.device).manual_seed(seed)
    was_training = model.training
    model.eval()
    try:
        context = Context(model, idx.long(), pad, use_cache)
        seen = None if repetition_penalty == 1 else _seen(idx, pad, model.config.vocab_size)
        for i in range(max_new_tokens):
            logits = context.logits(max_new_tokens - i - 1).float()  # (B, V)
            if not bool(logits.amax(-1).isfinite().all()):  # a NaN is the largest of its row
                raise UserError(
                    "the model gives no numbers (NaN) or infinite ones as logits; it has diverged"
                )
            if seen is not None:
                logits = penalise(logits, seen, repetition_penalty)
            token = sample(logits, params, generator)  # (B,)
            if seen is not None:
                seen.scatter_(1, token[:, None], True)
            context.append(token)
            yield token
    finally:
        model.train(was_training)


def _check(
    model: GPT, idx: Tensor, max_new_tokens: int, pad: Sequence[int] | None, past_block: str
) -> list[int]:
    """Refuse prompts that cannot be continued; return the padding of each row."""
    if idx.dim() != 2 or idx.numel() == 0:
        raise UserError(
            f"prompts need shape (B, T) with B and T at least 1, not {tuple(idx.shape)}"
        )
    if idx.is_floating_point() or idx.dtype == torch.bool:
        raise UserError(f"prompts must be token ids, whole numbers, not {idx.dtype}")
    B, T = idx.shape
    if max_new_tokens < 0:
        raise UserError(f"max_new_tokens must be at least 0, not {max_new_tokens}")
    if past_block not in ("reread", "refuse"):
        raise UserError(f"past_block must be reread or refuse, not {past_block!r}")
    pad = [0] * B if pad is None else [int(n) for n in pad]
    if len(pad) != B or not all(0 <= n < T for n in pad):
        raise UserError(f"pad must be {B} numbers from 0 to {T - 1}, not {pad}")
    vocab_size, block_size = model.config.vocab_size, model.config.block_size
    read = torch.cat([row[n:] for row, n in zip(idx, pad, strict=True)])  # without the padding
    low, high = int(read.min()), int(read.max())
    if low < 0 or high >= vocab_size:
        bad = high if high >= vocab_size else low
        raise UserError(f"token id {bad} is outside the vocabulary of {vocab_size}")
    longest = T - min(pad)
    if longest > block_size:
        raise UserError(
            f"a prompt of {longest} tokens does not fit block_size {block_size}; shorten it to its "
            f"last {block_size}"
        )
    if past_block == "refuse" and longest + max_new_tokens - 1 > block_size:
        raise UserError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones do not fit block_size "
            f"{block_size}; draw at most {block_size - longest + 1}, or set past_block to reread"
        )
    return pad


def _seen(idx: Tensor, pad: Sequence[int], vocab_size: int) -> Tensor:
    """Return which tokens each prompt holds, (B, V)."""
    seen = torch.zeros(idx.size(0), vocab_size, dtype=torch.bool, device=idx.device)
    for row, n in enumerate(pad):
        seen[row, idx[row, n:].long()] = True
    return seen


def generate(
    model: GPT,
    idx: Tensor,
    max_new_tokens: int,
    *,
    stop: Collection[int] = (),
    **options: Unpack[Options],
) -> Tensor:
    """Continue prompts; arguments as in `next_tokens`.

    Args:
        stop: token ids that end a row; the row is then padded with the token it ended on.

    Returns:
        (B, T + n), the prompts and their continuations; n is `max_new_tokens`, or less if every
        row ended.
    """
    ended = torch.zeros(idx.size(0), dtype=torch.bool, device=idx.device)
    for token in next_tokens(model, idx, max_new_tokens, **options):
        token = torch.where(ended, idx[:, -1], token)
        idx = torch.cat((idx, token[:, None]), dim=1)
        if stop:
            ended |= torch.isin(token, torch.tensor(sorted(stop), device=token.device))
            if bool(ended.all()):
                break
    return idx


def stream(
    model: GPT,
    idx: Tensor,
    max_new_tokens: int,
    *,
    stop: Collection[int] = (),
    **options: Unpack[Options],
) -> Iterator[int]:
    """Yield the tokens of one prompt, (1, T), as they are drawn; options as in `generate`."""
    if idx.size(0) != 1:
        raise UserError(f"stream takes one prompt, not {idx.size(0)}; generate takes many")
    for token in next_tokens(model, idx, max_new_tokens, **options):
        yield int(token)
        if int(token) in stop:
            return
