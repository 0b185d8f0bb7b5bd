"""Text from a model, one token at a time.

Shapes: B batch, T time, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lib.errors import UserError
from gpt2lib.model import GPT


def next_token_probabilities(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Turn logits into the probabilities to draw from.

    Args:
        logits: (B, V).
        temperature: below 1 sharpens, above 1 flattens, 0 leaves only the likeliest token
            (so does anything below 1e-6, which float32 could round to 0).
        top_k: keep the k likeliest tokens.
        top_p: keep the smallest set of likeliest tokens whose probabilities reach p.

    Returns:
        (B, V), each row sums to 1.

    Raises:
        UserError: for values without a meaning.

    Reference: Fan et al. 2018, section 5.3 (top-k); Holtzman et al. 2020, section 3.1 (top-p).
    """
    if not temperature >= 0:
        raise UserError(f"temperature must be at least 0, not {temperature}")
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k must be at least 1, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise UserError(f"top_p must be above 0 and at most 1, not {top_p}")
    logits = logits.float()
    if temperature < 1e-6:
        return F.one_hot(logits.argmax(-1), logits.size(-1)).float()
    # The likeliest is moved to 0, so that a tiny temperature does not overflow.
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature
    if top_k is not None and top_k < logits.size(-1):
        kept = logits.topk(top_k)  # by index: of equal logits no more than k stay
        logits = torch.full_like(logits, -torch.inf).scatter(-1, kept.indices, kept.values)
    probabilities = F.softmax(logits, dim=-1)
    if top_p is not None and top_p < 1:
        ordered, order = probabilities.sort(descending=True)  # (B, V)
        reached_before = ordered.cumsum(-1) - ordered
        dropped = torch.zeros_like(reached_before, dtype=torch.bool)
        dropped = dropped.scatter(-1, order, reached_before >= top_p)
        probabilities = probabilities.masked_fill(dropped, 0.0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities


@torch.no_grad()
def next_tokens(
    model: GPT,
    idx: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
) -> Iterator[Tensor]:
    """Draw one token after the other and yield each as it comes.

    Past block_size the model sees the last block_size tokens only.

    Args:
        model: the model; it is put back into training mode if it was in it.
        idx: (B, T), the prompts, at least one token each.
        max_new_tokens: how many to draw.
        temperature, top_k, top_p: see `next_token_probabilities`.
        seed: makes the draws repeatable, apart from everything else; None draws from torch's
            own generator.

    Yields:
        (B,), the next token of each row.

    Raises:
        UserError: for an empty prompt, or token ids outside the vocabulary.
    """
    if idx.dim() != 2 or idx.numel() == 0:
        raise UserError(
            f"prompts need shape (B, T) with B and T at least 1, not {tuple(idx.shape)}"
        )
    if max_new_tokens < 0:
        raise UserError(f"max_new_tokens must be at least 0, not {max_new_tokens}")
    vocab_size, block_size = model.config.vocab_size, model.config.block_size
    if int(idx.min()) < 0 or int(idx.max()) >= vocab_size:
        bad = int(idx.max()) if int(idx.max()) >= vocab_size else int(idx.min())
        raise UserError(f"token id {bad} is outside the vocabulary of {vocab_size}")
    generator = None if seed is None else torch.Generator(idx.device).manual_seed(seed)
    was_training = model.training
    model.eval()
    try:
        for _ in range(max_new_tokens):
            logits = model(idx[:, -block_size:])[:, -1]  # (B, V)
            probabilities = next_token_probabilities(logits, temperature, top_k, top_p)
            token = torch.multinomial(probabilities, 1, generator=generator)  # (B, 1)
            idx = torch.cat((idx, token), dim=1)
            yield token[:, 0]
    finally:
        model.train(was_training)


def generate(
    model: GPT,
    idx: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Collection[int] = (),
    seed: int | None = None,
) -> Tensor:
    """Continue prompts; arguments as in `next_tokens`.

    Args:
        stop: token ids that end a row; the row is then filled up with the token it ended on.

    Returns:
        (B, T + n), the prompts and their continuations; n is `max_new_tokens`, or less if every
        row ended.
    """
    ended = torch.zeros(idx.size(0), dtype=torch.bool, device=idx.device)
    for token in next_tokens(
        model, idx, max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
    ):
        token = torch.where(ended, idx[:, -1], token)
        idx = torch.cat((idx, token[:, None]), dim=1)
        if stop:
            ended |= torch.isin(token, torch.tensor(sorted(stop), device=token.device))
            if bool(ended.all()):
                break
    return idx


def stream(model: GPT, idx: Tensor, max_new_tokens: int, **options: object) -> Iterator[int]:
    """Yield the tokens of one prompt, (1, T), as they are drawn; options as in `generate`."""
    if idx.size(0) != 1:
        raise UserError(f"stream takes one prompt, not {idx.size(0)}; generate takes many")
    stop = options.pop("stop", ())
    for token in next_tokens(model, idx, max_new_tokens, **options):  # type: ignore[arg-type]
        yield int(token)
        if int(token) in stop:  # type: ignore[operator]
            return
