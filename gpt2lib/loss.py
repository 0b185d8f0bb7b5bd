"""The next-token loss, from the logits, or from the head's input without ever holding all logits.

Shapes: B batch, T time, N = B·T places, C channels, V vocabulary, R rows of a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gpt2lib.data import IGNORE
from gpt2lib.logit_chunks import rows_in_cache, rows_of_chunk


def next_token_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the cross-entropy over the targets, and count them.

    A sum and a count, not a mean: means of batches with different counts cannot be averaged,
    but sums can be added over micro-batches and processes and divided once. With every target
    ignored the sum is 0, where a mean would be NaN.

    Args:
        logits: (B, T, V), unnormalised log-probabilities.
        targets: (B, T), token ids, or `IGNORE`.

    Returns:
        The summed loss in nats, float32, and the number of targets scored, both scalars.

    Reference: Radford et al. 2018, equation 1 (the negative of its sum).
    """
    loss = F.cross_entropy(
        logits.float().flatten(0, -2),  # (B·T, V): in float32 whatever autocast chose
        targets.flatten(),  # (B·T,)
        ignore_index=IGNORE,
        reduction="sum",
    )
    return loss, (targets != IGNORE).sum()


def linear_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `next_token_loss(x @ weight.T, targets)` a chunk of rows at a time.

    The logits are the largest thing of a whole update, and are needed for a moment only: the
    gradient of the loss with respect to a row of logits is its probabilities, less one at the
    target. So each chunk is multiplied on at once, into the gradients of `x` and of `weight`, and
    forgotten. The backward pass has nothing left to do but to scale both.

    Args:
        x: (B, T, C), what the head reads.
        weight: (V, C), of the head; autocast lowers it as it does in a linear layer.
        targets: (B, T), token ids, or `IGNORE`.

    Returns:
        As `next_token_loss`. A backward pass is possible once.

    Raises:
        RuntimeError: for a second backward pass through the same loss.

    Reference: Hsu et al. 2024 (Liger Kernel), section 3.2, FusedLinearCrossEntropy.
    """
    device = x.device.type
    lowered = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    loss: Tensor = _LinearCrossEntropy.apply(x, weight, targets, lowered)  # type: ignore[no-untyped-call]
    return loss, (targets != IGNORE).sum()


class _LinearCrossEntropy(torch.autograd.Function):
    """The loss and its gradients, in one pass over the chunks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        w, target = weight.to(dtype), targets.flatten()  # (V, C), (N,)
        rows = x.flatten(0, -2).to(dtype)  # (N, C)
        size = rows_of_chunk(len(rows), len(w))
        loss = torch.zeros((), dtype=torch.float32, device=x.device)
        grad_x, grad_w = (torch.empty_like(t) for t in (rows, weight)) if wanted else (None, None)
        with torch.autocast(x.device.type, enabled=False):
            for start in range(0, len(rows), size):
                part = rows[start : start + size]  # (R, C)
                logits = part @ w.t()  # (R, V)
                loss += _to_gradient(logits, target[start : start + size], wanted)
                if grad_x is not None and grad_w is not None:
                    torch.mm(logits, w, out=grad_x[start : start + size])
                    _add_product(grad_w, logits, part, first=start == 0)
                del logits  # before the next are made
        ctx.grads = None if grad_x is None or grad_w is None else (grad_x.view(x.shape), grad_w)
        ctx.dtype = x.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError("the gradients of this loss were taken already; compute it again")
        (grad_x, grad_w), ctx.grads = ctx.grads, None
        return grad_x.to(ctx.dtype).mul_(grad), grad_w.mul_(grad), None, None


def _to_gradient(logits: Tensor, targets: Tensor, wanted: bool) -> Tensor:
    """Return the summed loss of some rows; put the loss's gradient in the place of the logits.

    Args:
        logits: (R, V), overwritten if `wanted`.
        targets: (R,), token ids, or `IGNORE`.
        wanted: whether the gradient is.
    """
    kept = targets != IGNORE
    target = targets.where(kept, 0)[:, None]  # (R, 1)
    loss = torch.zeros((), dtype=torch.float32, device=logits.device)
    size = rows_in_cache(len(logits), logits.size(1), logits.device.type)
    for start in range(0, len(logits), size):
        some = slice(start, start + size)
        p = F.log_softmax(logits[some].float(), dim=-1)  # (r, V), their logarithms as yet
        loss -= p.gather(1, target[some])[:, 0].where(kept[some], 0).sum()
        if wanted:
            p.exp_().scatter_add_(1, target[some], torch.full_like(target[some], -1, dtype=p.dtype))
            logits[some] = p.mul_(kept[some, None])
        del p  # its place in the cache is the next one's
    return loss


def _add_product(total: Tensor, logits: Tensor, rows: Tensor, first: bool) -> None:
    """Add a chunk's part to the gradient of the head: (V, R) times (R, C).

    Args:
        total: (V, C), the sum; before the first chunk it holds nothing yet.
        logits: (R, V), the gradient of the loss with respect to them.
        rows: (R, C), what the head read.
        first: whether this is the first chunk.
    """
    if total.dtype == logits.dtype:
        total.addmm_(logits.t(), rows, beta=0 if first else 1)
        return
    # A sum of 16-bit numbers needs more bits than they have. Some tokens of the vocabulary at a
    # time: what is added need not leave the cache, and is widened there.
    size = rows_in_cache(len(total), total.size(1), total.device.type)
    for start in range(0, len(total), size):
        some = slice(start, start + size)
        added = logits[:, some].t() @ rows  # (v, C)
        if first:
            total[some] = added
        else:
            total[some] += added
