"""An induction head is born: two layers of attention alone learn to copy, and how that is told.

Each row of tokens is random, but it is said again and again. Nothing about the first time can be
known. From the second time on each token can be: find where the present token was, and say what
came after it. No head can do this by itself; a head of the first layer and one of the second do.

Reference: Elhage et al. 2021, section "Induction heads"; Olsson et al. 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gpt2lib.config import IGNORE, GPTConfig, OptimConfig
from gpt2lib.course.changing import Head
from gpt2lib.course.inside import look
from gpt2lib.model.gpt import GPT
from gpt2lib.training.optim import learning_rate, make_optimizer

SHAPE = GPTConfig(
    vocab_size=64,
    block_size=64,
    n_layer=2,
    n_head=2,
    n_embd=64,
    without=("mlp",),
    tie_weights=False,
)
"""The model: 2 layers of attention, no MLP."""
OPTIM = OptimConfig(lr=2e-3, beta2=0.98, warmup_steps=50, decay_share=0.0)
ROWS = 16
"""Rows in an update."""
PERIODS = (8, 32)
"""Shortest and longest row before it is said again."""
FOUND = 0.2
"""From this prefix-matching score on a head is called an induction head: three times what a head
has that looks everywhere alike."""


@dataclass
class Birth:
    """What was measured while a model learned to copy.

    Attributes:
        model: as it is at the end.
        steps: updates made before each measurement.
        copy: by measurement the loss on tokens that were said before, nats a token.
        first: by measurement the loss on the others.
        scores: by measurement the prefix-matching score of each head, (n_layer, nh).
    """

    model: GPT
    steps: list[int] = field(default_factory=list)
    copy: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)


def repeated_rows(n: int, numbers: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw rows of tokens that are said again and again, each with a period of its own.

    Args:
        n: how many rows.
        numbers: where they are drawn from.

    Returns:
        idx and targets, (n, T), and where the target was said before and can be known, (n, T).
    """
    T = SHAPE.block_size
    shortest, longest = PERIODS
    said = torch.randint(SHAPE.vocab_size, (n, longest), generator=numbers)
    period = torch.randint(shortest, longest + 1, (n, 1), generator=numbers)
    at = torch.arange(T + 1)
    rows = said.gather(1, at % period)  # (n, T + 1)
    return rows[:, :-1], rows[:, 1:], at[:-1] >= period


def prefix_mask(idx: Tensor) -> Tensor:
    """Mark where a copying head should look: behind earlier copies of the present token.

    Args:
        idx: (B, T), token ids.

    Returns:
        (B, T, T), True at query t and key j <= t where the token before j is the token at t.
    """
    before = idx.roll(1, dims=1)  # (B, T)
    same = idx[:, :, None] == before[:, None, :]  # (B, T, T)
    same[:, :, 0] = False  # nothing is before the first
    return same.tril()


def prefix_matching(patterns: Sequence[Tensor], idx: Tensor, where: Tensor) -> Tensor:
    """Score every head by how much of its attention is behind earlier copies of the present token.

    Args:
        patterns: by layer the attention weights, (B, nh, T, T).
        idx: (B, T), token ids.
        where: (B, T), True at the positions to score, such as those of a second copy.

    Returns:
        (n_layer, nh), from 0 to 1.

    Reference: Olsson et al. 2022, section "Head activation evaluators".
    """
    marked = prefix_mask(idx)[:, None]  # (B, 1, T, T)
    found = torch.stack([(weights * marked).sum(-1) for weights in patterns])  # (L, B, nh, T)
    return (found * where[:, None]).sum(dim=(1, 3)) / where.sum()


def previous_token(patterns: Sequence[Tensor]) -> Tensor:
    """Score every head by how much of its attention is on the position before: (n_layer, nh)."""
    return torch.stack([p.diagonal(-1, -2, -1).mean(dim=(0, 2)) for p in patterns])


@torch.no_grad()
def loss_on(model: GPT, idx: Tensor, targets: Tensor, where: Tensor) -> float:
    """Return the mean loss at the positions where `where`, (B, T), is True."""
    total, n = model(idx, targets.masked_fill(~where, IGNORE))
    return float(total / n)


def held_out_rows() -> tuple[Tensor, Tensor, Tensor]:
    """Return the 64 rows that everything is measured on; no training draws from their seed."""
    return repeated_rows(64, torch.Generator().manual_seed(10**6))


def learn_to_copy(seed: int, steps: int, *, every: int = 10, shuffled: bool = False) -> Birth:
    """Train a new model on rows that are said again and again, and measure on the way.

    Args:
        seed: of the weights and of the rows.
        steps: updates.
        every: updates between two measurements.
        shuffled: give each row the targets of another one: the control, where the inputs are the
            same and there is nothing to copy.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        birth = Birth(GPT(SHAPE))
    model, numbers = birth.model, torch.Generator().manual_seed(seed)
    optimizer = make_optimizer(model, OPTIM)
    for step in range(steps + 1):
        if step % every == 0:
            _measure(birth, step)
        idx, targets, _ = repeated_rows(ROWS, numbers)
        total, n = model(idx, targets.roll(1, dims=0) if shuffled else targets)
        optimizer.zero_grad()
        (total / n).backward()
        nn.utils.clip_grad_norm_(model.parameters(), OPTIM.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, OPTIM)
        optimizer.step()
    return birth


def _measure(birth: Birth, step: int) -> None:
    idx, targets, known = held_out_rows()
    birth.steps.append(step)
    birth.copy.append(loss_on(birth.model, idx, targets, known))
    birth.first.append(loss_on(birth.model, idx, targets, ~known))
    birth.scores.append(prefix_matching(look(birth.model, idx).patterns, idx, known))


def induction_heads(scores: Tensor, least: float = FOUND) -> list[Head]:
    """Return the heads, (layer, head), whose score, (n_layer, nh), is at least `least`."""
    return [(int(layer), int(head)) for layer, head in (scores >= least).nonzero().tolist()]


def steepest_fall(steps: Sequence[int], losses: Sequence[float], width: int) -> tuple[int, float]:
    """Find the kink: where a loss falls most from `width` measurements before to as many after.

    Args:
        steps: where the loss was measured.
        losses: as many.
        width: measurements on either side; one alone would find the noise.

    Returns:
        The step in the middle, and the fall there.
    """
    falls = [losses[i - width] - losses[i + width] for i in range(width, len(losses) - width)]
    most = max(range(len(falls)), key=falls.__getitem__)
    return steps[most + width], falls[most]
