"""Muon: a step of the same size in every direction of a matrix.

A gradient has a few large singular values and many small ones, so a step along it moves the matrix
in few directions. Muon gives all directions of the averaged gradient one size: for G = U·S·Vᵀ it
steps along U·Vᵀ. A decomposition would be slow. Newton and Schulz's iteration needs products of
matrices alone: a polynomial of odd powers in X acts on the singular values and leaves U and V.

What is no matrix between two activations, or none with a gradient in all its rows, stays with
AdamW: embeddings, the output head, biases and gains. Muon needs one moment, AdamW two.

Reference: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Bernstein
and Newhouse 2024, section 4 (why U·Vᵀ); Liu et al. 2025, section 2 (weight decay).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gpt2lib.utils.process import like, whole

STEPS = 5
"""Iterations; Jordan's coefficients bring singular values from about 0.01 on near 1 in five."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of x, x³ and x⁵. They grow small values fast, and leave all between about 0.7 and 1.2."""
AT_ONCE = 1 << 21
"""Numbers in matrices that are made orthogonal at once. Small ones are many calls to PyTorch if
each is alone; large ones would need much memory together."""


def orthogonalise(matrices: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Bring all singular values of each matrix near 1, and leave its singular vectors.

    Args:
        matrices: (..., rows, columns).
        dtype: of the products and the result, which is needed to two digits: bf16 will do.

    Returns:
        (..., rows, columns); zeros stay zeros.

    Reference: Jordan et al. 2024, section "Newton-Schulz"; `torch.optim.Muon`, matrix by matrix.
    """
    *_, rows, columns = matrices.shape
    # No singular value is above the root of the sum of all squares.
    norm = matrices.reshape(-1, rows * columns).norm(dim=1).clamp(min=1e-7)
    x = matrices.reshape(-1, rows, columns).to(dtype) * (1 / norm).to(dtype).view(-1, 1, 1)
    tall = rows > columns
    x = x.mT.contiguous() if tall else x  # (n, short, long)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        square = x @ x.mT  # (n, short, short)
        factor = torch.baddbmm(square, square, square, beta=b, alpha=c)  # b·X·Xᵀ + c·(X·Xᵀ)²
        x = torch.baddbmm(x, factor, x, beta=a)  # a·X + b·X·Xᵀ·X + c·(X·Xᵀ)²·X
    found: Tensor = x.mT if tall else x
    return found.reshape(matrices.shape)


def direction(matrices: Tensor, rows: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return the direction of Muon's step for matrices of one shape.

    A matrix that lengthens its input, with more rows than columns, gets a step longer by the root
    of their ratio: its rows are then changed as much as those of a square one.

    Args:
        matrices: (n, rows, columns), averaged gradients.
        rows: how many rows belong together: queries, keys and values come of one product, but are
            three matrices.
        dtype: of the products.
    """
    if len(set(rows)) > 1:
        each = [direction(m, (m.size(1),), dtype) for m in torch.split(matrices, list(rows), 1)]
        return torch.cat(each, 1)
    n, _, columns = matrices.shape
    parts = matrices.view(n, len(rows), rows[0], columns)
    longer = math.sqrt(max(1.0, rows[0] / columns))
    return orthogonalise(parts, dtype).mul_(longer).flatten(1, 2)


def muon_groups(
    named: dict[str, nn.Parameter], weight_decay: float, scale: float
) -> list[dict[str, object]]:
    """Take the matrices of the blocks out of a GPT's parameters, as groups for `MuonAdamW`.

    Args:
        named: parameters by name; the matrices of the blocks are taken out.
        weight_decay, scale: of each group; its rate is the scale times AdamW's.
    """
    groups: dict[tuple[int, ...], list[nn.Parameter]] = {}
    for name in [n for n, p in named.items() if n.startswith("transformer.h.") and p.dim() == 2]:
        p = named.pop(name)
        kv = (p.size(0) - p.size(1)) // 2  # of c_attn: queries, keys and values are three
        rows = (p.size(1), kv, kv) if name.endswith("attn.c_attn.weight") else ()
        groups.setdefault(rows, []).append(p)
    common = {"muon": True, "weight_decay": weight_decay, "scale": scale}
    return [{"params": groups[rows], "rows": rows, **common} for rows in sorted(groups)]


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the parameter groups that say `muon`, AdamW for the others, as one optimiser.

    Weight decay is AdamW's in both: the weight shrinks by `lr * weight_decay`.

    Args:
        groups: parameter groups. One with `muon` holds matrices, and its `rows` says which rows of
            each belong together, () for all.
        lr, betas, eps: of AdamW, where a group does not say otherwise.
        momentum: decay of Muon's mean of the gradients.
        dtype: of Muon's products.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        momentum: float,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        common = {"lr": lr, "betas": betas, "eps": eps, "momentum": momentum, "weight_decay": 0.0}
        # `fused` tells `load_state_dict` that the count of steps lies beside the weight.
        super().__init__(groups, {**common, "muon": False, "rows": (), "fused": True})
        self.dtype = dtype
        # An optimiser is not made of nothing; where Muon steps all, AdamW's groups go below.
        groups = self._others() or [{"params": [torch.zeros(0)]}]
        self.adamw = torch.optim.AdamW(groups, lr, betas, eps, fused=True)

    def _others(self) -> list[dict[str, Any]]:
        """Return the groups that AdamW steps."""
        return [group for group in self.param_groups if not group["muon"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make one update; a parameter without gradient stays as it is."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["muon"]:
                for batch in _batches([p for p in group["params"] if p.grad is not None]):
                    self._muon(batch, group)
        # Both keep one state and one set of groups, which loading a state replaces.
        self.adamw.state, self.adamw.param_groups = self.state, self._others()
        self.adamw.step()
        return loss

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Step matrices of one shape."""
        momentum, lr = group["momentum"], group["lr"]
        averaged = torch.stack([self._averaged(p, momentum) for p in parameters])
        rows = group["rows"] or (parameters[0].size(0),)
        steps = direction(averaged, rows, self.dtype)  # (n, rows, columns)
        for p, step in zip(parameters, steps, strict=True):
            p.mul_(1 - lr * group["weight_decay"])
            p.add_(like(step.to(p.dtype), p), alpha=-lr)

    def _averaged(self, p: Tensor, momentum: float) -> Tensor:
        """Take a matrix's gradient into its mean; return where the mean is about to go."""
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        mean = state["momentum"].lerp_(p.grad, 1 - momentum)
        # Nesterov's form: the mean as the same gradient, once more, would leave it.
        return whole(p.grad.lerp(mean, momentum))


def _batches(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Yield matrices of the same shape together, as many as `AT_ONCE` allows."""
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for p in parameters:
        by_shape.setdefault(p.shape, []).append(p)
    for shape, alike in by_shape.items():
        size = max(1, AT_ONCE // shape.numel())
        for start in range(0, len(alike), size):
            yield alike[start : start + size]
