"""Look inside a GPT through plain forward hooks: the model's code stays as it is.

A hook is a function that PyTorch calls when a module has run (or is about to), with what went in
and what came out. Whatever it returns takes the place of that. So one hook can record, as those of
this file do, and another can change, as in `changing.py`.

Shapes: B batch, T time, C channels, nh heads, hs head size, V vocabulary.

Reference: Elhage et al. 2021 (what heads add to the stream); nostalgebraist 2020 (logit lens).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gpt2lib.model.attention import CausalSelfAttention
from gpt2lib.model.gpt import GPT
from gpt2lib.model.masks import additive, attention_mask
from gpt2lib.model.positions import Rotate


@dataclass
class Look:
    """What one forward pass computed on its way.

    Attributes:
        logits: (B, T, V).
        streams: the residual stream before each block and after the last one, (B, T, C) each.
        heads: by layer what each head found, (B, T, nh, hs), before `c_proj` mixes them.
        mlps: by layer what the MLP adds, (B, T, C).
        patterns: by layer the attention weights, (B, nh, T, T); each row sums to 1.
    """

    logits: Tensor
    streams: list[Tensor] = field(default_factory=list)
    heads: list[Tensor] = field(default_factory=list)
    mlps: list[Tensor] = field(default_factory=list)
    patterns: list[Tensor] = field(default_factory=list)


@contextlib.contextmanager
def removed_afterwards(handles: Sequence[Any]) -> Iterator[None]:
    """Take hooks away at the end of a `with` block, whatever happens inside of it."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def attention_pattern(attn: CausalSelfAttention, qkv: Tensor, rotate: Rotate) -> Tensor:
    """Compute attention weights anew from what `c_attn` returned; the kernels never keep them.

    Args:
        attn: the attention of one block.
        qkv: (B, T, (nh + 2·nkv)·hs), queries, keys and values side by side.
        rotate: what the positions do to queries and keys.

    Returns:
        (B, nh, T, T), row t: how much position t takes from each position.
    """
    B, T, _ = qkv.shape
    q, k, _ = (
        part.view(B, T, -1, attn.head_size).transpose(1, 2)
        for part in torch.split(qkv, attn.widths, 2)
    )
    q, k = rotate(q), rotate(k)  # (B, nh, T, hs), (B, nkv, T, hs)
    k = k.repeat_interleave(q.size(1) // k.size(1), dim=1)  # (B, nh, T, hs)
    scores = q @ k.mT / attn.head_size**0.5  # (B, nh, T, T)
    seen = attention_mask(attn.mask, q, k)
    if seen is not None:
        scores = scores + additive(seen, scores)  # 0 or -inf
    return torch.softmax(scores, -1)


@torch.no_grad()
def look(model: GPT, idx: Tensor) -> Look:
    """Run a model once on idx, (B, T), and keep what it computes on its way."""
    found = Look(torch.empty(0))
    trunk, handles = model.transformer, []
    rotate = trunk.wpe.rotation(torch.arange(idx.size(1), device=idx.device))
    for block in trunk.h:
        attn: Any = block.attn

        def keep_pattern(_: Any, __: Any, qkv: Tensor, attn: Any = attn) -> None:
            found.patterns.append(attention_pattern(attn, qkv, rotate))

        def keep_heads(_: Any, args: tuple[Tensor], attn: Any = attn) -> None:
            found.heads.append(args[0].view(*args[0].shape[:2], attn.n_head, attn.head_size))

        handles += [
            block.register_forward_pre_hook(lambda _, args: found.streams.append(args[0])),
            attn.c_attn.register_forward_hook(keep_pattern),
            attn.c_proj.register_forward_pre_hook(keep_heads),
        ]
        if hasattr(block, "mlp"):
            mlp: Any = block.mlp
            handles.append(mlp.register_forward_hook(lambda _, __, y: found.mlps.append(y)))
    handles.append(
        trunk.ln_f.register_forward_pre_hook(lambda _, args: found.streams.append(args[0]))
    )
    with removed_afterwards(handles):
        found.logits = model(idx)
    return found


def logit_lens(model: GPT, stream: Tensor) -> Tensor:
    """Read a stream from the middle of the model, (..., C), as if it were the last: (..., V).

    Reference: nostalgebraist 2020.
    """
    logits: Tensor = model.lm_head(model.transformer.ln_f(stream))
    return logits


def contributions(parts: Tensor, gain: Tensor, direction: Tensor, eps: float = 1e-5) -> Tensor:
    """Split a logit into what each part of the stream adds to it.

    The last layer norm takes the mean away and divides by one number for each position. With that
    number held at what the whole stream makes it, the norm is linear, and the parts add up exactly.

    Args:
        parts: (P, C), vectors whose sum is the stream that the last layer norm reads.
        gain: (C,), that layer norm's.
        direction: (C,), a row of the output head, or the difference of two rows.
        eps: the layer norm's.

    Returns:
        (P,), in logits; the layer norm's bias is left out.

    Reference: Elhage et al. 2021, section "The residual stream"; nostalgebraist 2020.
    """
    scale = (parts.sum(0).var(correction=0) + eps).sqrt()  # of the whole stream, for all parts
    centred = parts - parts.mean(-1, keepdim=True)  # (P, C)
    return centred / scale * gain @ direction  # (P,)


@torch.no_grad()
def attribution(model: GPT, seen: Look, direction: Tensor, row: int, t: int) -> dict[str, float]:
    """Split a logit at one position into what every head and MLP adds to it.

    Args:
        model: what was looked at.
        seen: what `look` returned.
        direction: (C,), a row of the output head, or the difference of two rows.
        row: which text of the batch.
        t: the position whose prediction is split.

    Returns:
        By name: "embedding", "0.1" for head 1 of layer 0, "0.mlp", and "biases", which no text
        changes. Their sum is the logit.
    """
    ln_f = model.transformer.ln_f
    parts, biases = {"embedding": seen.streams[0][row, t]}, torch.zeros_like(direction)
    for layer, block in enumerate(model.transformer.h):
        c_proj: Any = block.attn.c_proj  # type: ignore[union-attr]
        columns = c_proj.weight.chunk(model.config.n_head, dim=1)  # (C, hs) each
        for head, z in enumerate(seen.heads[layer][row, t]):  # (hs,) each
            parts[f"{layer}.{head}"] = columns[head] @ z  # (C,)
        biases = biases if c_proj.bias is None else biases + c_proj.bias
        if seen.mlps:
            parts[f"{layer}.mlp"] = seen.mlps[layer][row, t]
    parts["biases"] = biases
    found = contributions(torch.stack([*parts.values()]), ln_f.weight, direction, ln_f.eps)
    split = dict(zip(parts, found.tolist(), strict=True))
    split["biases"] += 0.0 if ln_f.bias is None else float(ln_f.bias @ direction)
    return split
