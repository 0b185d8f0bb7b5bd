"""Matrix products that PyTorch keeps for some CPUs: asked for, never taken for granted.

Which of them exist, and for which dtype, differs between CPUs, builds of PyTorch and versions of
it, and their names are private. So each is tried once on a tiny product, and where the answer is
an error or a wrong number, the caller takes its plain form. No other module knows these names.

Shapes: N outputs and K inputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]

TRIED_ON = (64, 64)
"""N and K of the tiny product."""


class Packing(NamedTuple):
    """A layout of weights in memory that a kernel reads faster than rows.

    Attributes:
        pack: (N, K) → the same weight in that layout, readable by `linear` alone.
        linear: x (..., K), a packed weight and a bias, (N,) or None → (..., N).
        n_bytes: the bytes of a packed weight.
    """

    pack: Callable[[Tensor], Tensor]
    linear: Product
    n_bytes: Callable[[Tensor], int]


@cache
def packing(dtype: torch.dtype) -> Packing | None:
    """Return oneDNN's layout for weights of `dtype`, or None if it does not work here.

    PyTorch's builds for arm64 lack it; for bf16 it needs AVX-512 or newer, too.
    """
    ops = torch.ops.mkldnn

    def linear(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
        return ops._linear_pointwise.default(  # type: ignore[no-any-return]
            x, packed, bias, "none", [], ""
        )

    found = Packing(
        pack=lambda weight: ops._reorder_linear_weight(weight, 1),
        linear=linear,
        n_bytes=lambda packed: int(ops._nbytes(packed)),
    )

    def product(x: Tensor, weight: Tensor) -> Tensor:
        packed = found.pack(weight)
        return linear(x, packed, None) if found.n_bytes(packed) >= weight.nbytes else x[:0]

    weight, x = _example(dtype)
    return found if _works(product, x, weight, wanted=x.float() @ weight.float().T) else None


@cache
def int8_linear() -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
    """Return the kernel that multiplies bf16 by int8 weights, or None if it does not work here.

    It takes x, (rows, K) bf16, weights (N, K) int8 and one scale a row, (N,) bf16, and returns
    (rows, N) bf16.
    """
    weight, x = _example(torch.bfloat16)
    q, scale = (weight * 20).to(torch.int8), torch.full(TRIED_ON[:1], 0.05, dtype=torch.bfloat16)

    def product(x: Tensor, q: Tensor, scale: Tensor) -> Tensor:
        found: Tensor = torch.ops.aten._weight_int8pack_mm.default(x, q, scale)
        return found

    wanted = x.float() @ (q * scale[:, None].float()).T
    return product if _works(lambda x, q: product(x, q, scale), x, q, wanted) else None


def _example(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return a weight and one row of input, different in every place."""
    n, k = TRIED_ON
    weight = torch.linspace(-3, 3, n * k).view(n, k)
    return weight.to(dtype), torch.linspace(-1, 2, k).view(1, k).to(dtype)


def _works(
    product: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, wanted: Tensor
) -> bool:
    """Return whether a product can be made, and is right."""
    try:
        with torch.no_grad():
            got = product(x, weight).float()
    except (RuntimeError, AttributeError, NotImplementedError):  # what it says differs by CPU
        return False
    return got.shape == wanted.shape and torch.allclose(
        got, wanted, atol=0.02 * float(wanted.std())
    )
