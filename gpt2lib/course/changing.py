"""Change what a GPT computes on its way, through plain forward hooks, to see what it is for.

Ablation takes a part's answer away, patching puts another run's answer in its place. Each change
holds inside a `with` block, and the model is as before after it.

Shapes: B batch, T time, C channels, nh heads, hs head size.

Reference: Olsson et al. 2022 (ablation); Wang et al. 2022, section 3 (patching).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gpt2lib.course.inside import removed_afterwards
from gpt2lib.model.gpt import GPT
from gpt2lib.utils.errors import UserError

Head = tuple[int, int]
"""A layer and a head of it, both from 0."""


def without_heads(
    z: Tensor, heads: Collection[int], n_head: int, value: Tensor | None = None
) -> Tensor:
    """Put something in place of what some heads found; return a new tensor.

    Args:
        z: (B, T, C), what the heads of a layer found, side by side.
        heads: which of them.
        n_head: how many there are.
        value: what takes their place, (B, T, C) or what broadcasts to it, such as a mean over many
            texts or another run's; by default 0.
    """
    changed = z.view(*z.shape[:-1], n_head, -1).clone()  # (B, T, nh, hs)
    other = torch.zeros_like(z) if value is None else value.expand_as(z)
    for head in heads:
        changed[..., head, :] = other.reshape(changed.shape)[..., head, :]
    return changed.view(z.shape)  # (B, T, C)


def replaced_heads(
    model: GPT, heads: Collection[Head], values: Mapping[int, Tensor] | None = None
) -> contextlib.AbstractContextManager[None]:
    """Put other values in place of what some heads found, inside a `with` block.

    Args:
        model: whose heads.
        heads: which ones.
        values: by layer what takes their place, as in `without_heads`; by default 0.

    Raises:
        UserError: for a head that the model does not have.
    """
    handles = []
    n_layer, n_head = model.config.n_layer, model.config.n_head
    for layer, head in heads:
        if not (0 <= layer < n_layer and 0 <= head < n_head):
            raise UserError(
                f"there is no head {layer}.{head}: the model has layers 0 to {n_layer - 1} and "
                f"heads 0 to {n_head - 1}"
            )
    for layer in sorted({layer for layer, _ in heads}):
        chosen = [head for at, head in heads if at == layer]
        value = None if values is None else values[layer]

        def replace(_: Any, args: tuple[Tensor], chosen: Any = chosen, value: Any = value) -> Any:
            return (without_heads(args[0], chosen, n_head, value),)

        c_proj: Any = model.transformer.h[layer].attn.c_proj  # type: ignore[union-attr]
        handles.append(c_proj.register_forward_pre_hook(replace))
    return removed_afterwards(handles)


def patched_stream(
    model: GPT, layer: int, position: int, value: Tensor
) -> contextlib.AbstractContextManager[None]:
    """Put another run's residual stream at one position before one block, inside a `with` block.

    Args:
        model: the model to change.
        layer: the block that reads it; n_layer is the last layer norm.
        position: where.
        value: (B, C), or (C,) for every row.
    """

    def replace(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x = args[0].clone()
        x[:, position] = value
        return (x, *args[1:])

    trunk = model.transformer
    reader: nn.Module = trunk.ln_f if layer == len(trunk.h) else trunk.h[layer]
    return removed_afterwards([reader.register_forward_pre_hook(replace)])


def recovered(clean: float, corrupted: float, patched: float) -> float:
    """Return how much of what a corruption took away a patch gives back: 0 nothing, 1 all.

    Reference: Wang et al. 2022, section 3 (path patching); Meng et al. 2022, section 2.
    """
    return (patched - corrupted) / (clean - corrupted)
