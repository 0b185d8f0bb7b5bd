"""From logits to the probabilities that the next token is drawn from.

Shapes: B batch, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lib.utils.errors import UserError

GREEDY_BELOW = 1e-6
"""A temperature below this takes the likeliest token; float32 could round it to 0."""


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is sampled, checked once before anything is drawn.

    Attributes:
        temperature: below 1 sharpens, above 1 flattens, 0 leaves only the likeliest token.
        top_k: keep the k likeliest tokens.
        top_p: keep the smallest set of likeliest tokens whose probabilities reach p.
        repetition_penalty: above 1 makes tokens that occurred less likely; 1 does nothing.

    Raises:
        UserError: for values without a meaning, or that contradict one another.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature must be at least 0, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k must be at least 1, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if not 0 < self.repetition_penalty < math.inf:
            raise UserError(f"repetition_penalty must be above 0, not {self.repetition_penalty}")
        if self.temperature < GREEDY_BELOW:
            for name in ("top_k", "top_p"):
                if (value := getattr(self, name)) is not None:
                    raise UserError(
                        f"temperature 0 takes the likeliest token, so {name} {value} would do "
                        f"nothing; leave one of them out"
                    )


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make tokens that occurred less likely: positive logits divided, negative multiplied.

    Args:
        logits: (B, V).
        seen: (B, V), True for tokens that occurred.
        penalty: above 1; below 1 makes them likelier.

    Reference: Keskar et al. 2019, section 4.1.
    """
    lower = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, lower, logits)


def next_token_probabilities(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Turn logits, (B, V), into the probabilities to draw from; arguments as in `SamplingParams`.

    Returns:
        (B, V), each row sums to 1.

    Raises:
        UserError: for values without a meaning.

    Reference: Fan et al. 2018, section 5.3 (top-k); Holtzman et al. 2020, section 3.1 (top-p).
    """
    SamplingParams(temperature, top_k, top_p)
    logits = logits.float()
    if temperature < GREEDY_BELOW or top_k == 1:
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


def draw(probabilities: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw one token a row: the first at which the running sum passes a random number.

    `torch.multinomial` draws a number for every token of the vocabulary; this draws one.

    Args:
        probabilities: (B, V), not below 0; a row need not sum to 1 exactly.
        generator: where the random numbers come from; by default torch's own.

    Returns:
        (B,), never a token of probability 0.

    Reference: Devroye 1986, section III.2.1 (inversion by sequential search).
    """
    # In float32 the running sum would swallow tokens below 6e-8.
    wide = torch.float32 if probabilities.device.type == "mps" else torch.float64
    reached = probabilities.cumsum(-1, dtype=wide)  # (B, V)
    at = torch.rand(
        len(reached), 1, generator=generator, dtype=wide, device=probabilities.device
    )  # (B, 1), below 1 by so much that the product stays below the sum
    return torch.searchsorted(reached, at * reached[:, -1:], right=True)[:, 0]  # (B,)


def sample(
    logits: Tensor, params: SamplingParams, generator: torch.Generator | None = None
) -> Tensor:
    """Sample the next token of each row, (B,), from logits, (B, V)."""
    if params.temperature < GREEDY_BELOW:
        return logits.argmax(-1)
    return draw(
        next_token_probabilities(logits, params.temperature, params.top_k, params.top_p), generator
    )
