"""The output head and the loss together, without ever holding all logits.

Shapes: B batch, T time, N = B·T positions, C channels, V vocabulary, R rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lib.config import IGNORE
from gpt2lib.model.loss import next_token_loss
from gpt2lib.utils.errors import UserError

CHUNK = 2**25
"""Most logits that exist at once: 667 rows of GPT-2's vocabulary.

Fewer cost time, because the gradient of the head is added up once a chunk."""
IN_CACHE = 2**20
"""Logits that become probabilities at a time on a CPU, so that they stay in its cache."""


def _seen(register: Any) -> Any:
    """Return a way to register a hook on a head that shows the hook all logits."""

    def registered(head: LMHead, *args: Any, **kwargs: Any) -> Any:
        head.whole = True
        return register(head, *args, **kwargs)

    return registered


class LMHead(nn.Linear):
    """The output head: the logits of every token, or with targets their loss, chunk by chunk.

    A hook on what the head returns is meant for logits. From the first one on, `whole` is true,
    and `head_loss` makes all logits and takes the plain loss.
    """

    whole = False

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Any:
        """Map x, (B, T, C), to logits, (B, T, V), or with targets, (B, T), to loss and count."""
        if targets is None:
            return super().forward(x)
        return linear_cross_entropy(x, self.weight, targets)

    register_forward_hook = _seen(nn.Linear.register_forward_hook)
    register_backward_hook = _seen(nn.Linear.register_backward_hook)
    register_full_backward_hook = _seen(nn.Linear.register_full_backward_hook)
    register_full_backward_pre_hook = _seen(nn.Linear.register_full_backward_pre_hook)


def check_ids(idx: Tensor, targets: Tensor | None, vocab_size: int) -> None:
    """Refuse ids that the model has no row for; a GPU would have to be waited for, and stops.

    Raises:
        UserError: naming the first id that is wrong.
    """
    for what, ids in {"idx": idx, "targets": targets}.items():
        if ids is None or ids.device.type != "cpu" or type(ids) is not Tensor or not ids.numel():
            continue  # a subclass, as of FakeTensorMode, has no values to look at
        least, most = (int(end) for end in ids.aminmax())
        if least < (0 if what == "idx" else min(0, IGNORE)) or most >= vocab_size:
            wrong = most if most >= vocab_size else least
            hint = f"; what is not to be scored is {IGNORE}" if what == "targets" else ""
            there = f"{vocab_size} tokens, 0 to {vocab_size - 1}"
            raise UserError(f"{what} hold {wrong}, but the model has {there}{hint}")


def head_loss(head: nn.Module, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed loss of a head's logits and the number of targets scored.

    Whatever stands in the place of an `LMHead` (an adapter, a quantized layer) is asked for its
    logits.

    Args:
        head: maps (B, T, C) to (B, T, V).
        x: (B, T, C), what the head reads.
        targets: (B, T), token ids, or `IGNORE`.
    """
    if type(head) is LMHead and head.bias is None and not head.whole:
        return head(x, targets=targets)
    return next_token_loss(head(x), targets)


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
        UserError: if there is not one target for each row of x.
        RuntimeError: for a second backward pass through the same loss, and for one that is to be
            differentiated again (`create_graph`); `next_token_loss` can do both.

    Reference: Hsu et al. 2024 (Liger Kernel), section 3.2, FusedLinearCrossEntropy.
    """
    if targets.shape != x.shape[:-1]:
        raise UserError(
            f"targets have the shape {tuple(targets.shape)}, but the tokens {tuple(x.shape[:-1])}; "
            f"give one for each token, {IGNORE} where there is nothing to score"
        )
    device = x.device.type
    lowers = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    lowered = torch.get_autocast_dtype(device) if lowers else x.dtype
    # Inside of `forward` gradients are off, and it cannot be told whether they are outside.
    wanted = torch.is_grad_enabled()
    loss: Tensor = _LinearCrossEntropy.apply(x, weight, targets, lowered, wanted)  # type: ignore[no-untyped-call]
    return loss, (targets != IGNORE).sum()


class _LinearCrossEntropy(torch.autograd.Function):
    """The loss and its gradients, in one pass over the chunks."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, wanted: bool
    ) -> Tensor:
        wanted = wanted and (ctx.needs_input_grad[0] or ctx.needs_input_grad[1])
        target, rows = targets.flatten(), x.flatten(0, -2).to(dtype)  # (N,), (N, C)
        size = rows_of_chunk(len(rows), len(weight))
        loss = torch.zeros((), dtype=torch.float32, device=x.device)
        wide = torch.promote_types(weight.dtype, torch.float32)  # they are sums
        grad_x, grad_w = (  # a frozen head has no gradient, nor needs room for one
            torch.empty_like(t, dtype=wide) if wanted and needed else None
            for t, needed in zip((x, weight), ctx.needs_input_grad, strict=False)
        )
        with _as_it_is(x.device.type):
            for start in range(0, len(rows), size):
                some = slice(start, start + size)
                logits = linear_in_pieces(rows[some], weight)  # (R, V)
                loss += _to_gradient(logits, target[some], wanted)
                if wanted:
                    into = None if grad_x is None else grad_x.flatten(0, -2)[some]
                    _to_inputs(logits, rows[some], weight, into, grad_w, first=start == 0)
                del logits  # before the next are made
        ctx.grads = (grad_x, grad_w) if wanted else None
        ctx.dtypes = x.dtype, weight.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # `once_differentiable` would take what is kept for constants, and say nothing.
        if torch.is_grad_enabled():
            raise RuntimeError(
                "this loss has no second derivatives; take next_token_loss(model(idx), targets)"
            )
        if ctx.grads is None:
            raise RuntimeError("the gradients of this loss were taken already; compute it again")
        grads, ctx.grads = ctx.grads, None
        pairs = zip(grads, ctx.dtypes, strict=True)
        scaled = (None if g is None else g.mul_(grad).to(dtype) for g, dtype in pairs)
        return *scaled, None, None, None


def _as_it_is(device: str) -> AbstractContextManager[Any]:
    """Return a context without autocast; some devices, such as meta, know none."""
    known = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if known else nullcontext()


def _pieces(weight: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Yield which tokens of the vocabulary, (v,), and their rows of the head as `dtype`, (v, C).

    A lowered copy of the whole head would be as large as a chunk of logits; of a piece, it need
    not leave the cache.
    """
    V, C = weight.shape
    size = V if weight.dtype == dtype else rows_in_cache(V, C, weight.device.type)
    for start in range(0, V, size):
        some = slice(start, start + size)
        yield some, weight[some].to(dtype)


def linear_in_pieces(rows: Tensor, weight: Tensor) -> Tensor:
    """Return rows @ weight.T, (R, V), in the dtype of the rows, (R, C), whatever the weight has."""
    logits = rows.new_empty(len(rows), len(weight))
    for some, w in _pieces(weight, rows.dtype):
        torch.mm(rows, w.t(), out=logits[:, some])
    return logits


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
        here = logits[some].gather(1, target[some]).float()  # (r, 1)
        top = logits[some].amax(1, keepdim=True).float()
        p = F.softmax(logits[some].float(), dim=1)  # (r, V)
        # The largest of V probabilities is at least 1/V, so its logarithm is exact, whatever the
        # target's is; and there is one exponential for a logit and not two.
        loss += (top - here - p.amax(1, keepdim=True).log()).where(kept[some, None], 0).sum()
        if wanted:
            p.scatter_add_(1, target[some], torch.full_like(here, -1))
            logits[some] = p.mul_(kept[some, None])
        del p  # its place in the cache is the next one's
    return loss


def _to_inputs(
    logits: Tensor,
    rows: Tensor,
    weight: Tensor,
    grad_x: Tensor | None,
    grad_w: Tensor | None,
    first: bool,
) -> None:
    """Multiply the gradient of a chunk's logits on, into those of the rows and of the head.

    A sum of 16-bit numbers needs more bits than they have: what is added is widened, a piece of
    the vocabulary at a time.

    Args:
        logits: (R, V), the gradient of the loss with respect to them.
        rows: (R, C), what the head read.
        weight: (V, C), of the head.
        grad_x: (R, C), filled here, or None where it is not wanted.
        grad_w: (V, C), the sum over chunks, or None; before the first it holds nothing yet.
        first: whether this is the first chunk.
    """
    if grad_x is not None:
        grad_x.zero_()
    for some, w in _pieces(weight, rows.dtype):
        part = logits[:, some]  # (R, v)
        if grad_x is not None:
            grad_x += part @ w  # (R, C)
        if grad_w is None:
            continue
        total = grad_w[some]  # (v, C)
        if total.dtype == part.dtype:
            total.addmm_(part.t(), rows, beta=0 if first else 1)
        elif first:
            total.copy_(part.t() @ rows)
        else:
            total += part.t() @ rows


def rows_of_chunk(n_rows: int, vocab_size: int) -> int:
    """Return how many of N rows of V logits are made at a time; chunks are about equal."""
    n_chunks = max(1, -(-n_rows * vocab_size // CHUNK))
    return max(1, -(-n_rows // n_chunks))


def rows_in_cache(n_rows: int, vocab_size: int, device: str) -> int:
    """Return how many of a chunk's rows become probabilities at a time; on a GPU, all of them."""
    return max(1, IN_CACHE // vocab_size) if device == "cpu" else n_rows
