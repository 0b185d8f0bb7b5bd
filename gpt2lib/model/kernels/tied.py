"""One matrix at both ends of a model: its rows are looked up, and the head compares with all.

Shapes: B batch, T time, C channels, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def look_up(weight: Tensor, idx: Tensor) -> tuple[Tensor, Tensor]:
    """Look tokens up in a matrix that the head uses too.

    The gradient of a lookup is zero but for the rows that were looked up, a thousand of GPT-2's
    50,257. Left alone, autograd makes a whole matrix of it and adds that to the head's gradient.
    Here the few rows are added to the head's gradient, in its place.

    Args:
        weight: (V, C), of the token embedding and of the head.
        idx: (B, T), token ids.

    Returns:
        The rows, (B, T, C), and the matrix, (V, C), for the head to use instead of `weight`.

    Raises:
        IndexError: for an id outside of the vocabulary.

    Reference: Press and Wolf 2017, section 3 (the two gradients of the tied matrix).
    """
    return _LookUp.apply(weight, idx)  # type: ignore[no-any-return, no-untyped-call]


class _LookUp(torch.autograd.Function):
    """Rows and the matrix itself, because then their gradients arrive together."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, idx: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(idx)
        ctx.set_materialize_grads(False)
        ctx.shape = weight.shape
        return F.embedding(idx, weight), weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, rows: Tensor | None, matrix: Tensor | None
    ) -> tuple[Tensor | None, None]:
        (idx,) = ctx.saved_tensors
        if rows is None:
            return matrix, None
        if matrix is None:
            matrix = rows.new_zeros(ctx.shape)
        rows, idx = rows.reshape(-1, rows.size(-1)), idx.flatten()  # (B·T, C), (B·T,)
        if rows.device.type == "cpu":
            return matrix.index_add_(0, idx, rows), None
        # Elsewhere `index_add_` adds in any order, and the sum's last digits change with it.
        return matrix.index_put_((idx,), rows, accumulate=True), None
