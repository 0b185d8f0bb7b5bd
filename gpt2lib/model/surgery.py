"""A trained model changed into another: a longer context, shared heads, a window.

Each function returns a new model, in evaluation mode, and leaves the old one as it is. What it
returns computes something else than before, so it is trained on for a while: save it with
`gpt2lib.hub.saving.save_model`, and start from it with `gpt2lib train ... --init_from FOLDER`.

Shapes: T places, C channels, nh heads, nkv key/value heads, hs head size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from gpt2lib.config import GPTConfig
from gpt2lib.config.schema import divisors
from gpt2lib.model.gpt import GPT
from gpt2lib.model.init import STD, tie
from gpt2lib.model.positions import ntk_base
from gpt2lib.model.weights import load_weights, model_tensors
from gpt2lib.utils.errors import UserError

Extension = Literal["tile", "linear", "ntk", "none"]
Pooling = Literal["mean", "first", "random"]

EXTENSIONS: dict[str, tuple[Extension, ...]] = {
    "learned": ("tile",),
    "rope": ("linear", "ntk", "none"),
    "none": ("none",),
}
"""By position scheme, how its context can be made longer; the first is the usual one."""


def extend_context(model: GPT, block_size: int, method: Extension | None = None) -> GPT:
    """Return the model with a longer context.

    Args:
        model: the trained model.
        block_size: the new one, above the old one.
        method: "tile" repeats the learned positions from the first on. "linear" makes RoPE count
            in smaller steps, so that the new block spans the angles of the old one. "ntk" raises
            RoPE's base, which slows down the slow pairs and leaves the fast ones. "none" only
            allows more places. By default the first that fits the model's positions.

    Raises:
        UserError: for a shorter block, or a method that the model's positions do not have.

    Reference: Beltagy et al. 2020, section 5 (tile); Chen et al. 2023, section 2.3 (linear);
    Peng et al. 2023, section 3.1 (ntk).
    """
    old = model.config
    possible = EXTENSIONS[old.position]
    method = possible[0] if method is None else method
    if method not in possible:
        raise UserError(
            f"extension {method!r} does not fit position {old.position}; "
            f"it can be {' or '.join(possible)}"
        )
    if block_size <= old.block_size:
        raise UserError(f"block_size {block_size} is not above the {old.block_size} of the model")
    scale = block_size / old.block_size
    changes: dict[str, Tensor] = {}
    config = old.replace(block_size=block_size)
    if method == "tile":
        name = "transformer.wpe.weight"
        learned = model_tensors(model)[name]  # (T, C)
        changes[name] = learned[torch.arange(block_size) % old.block_size]
    elif method == "linear":
        config = config.replace(rope_scale=old.rope_scale * scale)
    elif method == "ntk":
        config = config.replace(rope_base=ntk_base(old.rope_base, scale, old.head_size))
    return _rebuilt(model, config, changes)


def share_heads(model: GPT, n_kv_head: int, method: Pooling = "mean", seed: int = 0) -> GPT:
    """Return the model with fewer key/value heads, each made from a group of neighbouring ones.

    Args:
        model: the trained model.
        n_kv_head: the new number, which must divide the old one.
        method: "mean" averages the group, "first" keeps its first head, "random" draws new ones.
        seed: for "random".

    Raises:
        UserError: for a number that does not divide the model's key/value heads.

    Reference: Ainslie et al. 2023, section 2.1.
    """
    old = model.config
    if n_kv_head < 1 or old.kv_heads % n_kv_head:
        raise UserError(
            f"{old.kv_heads} key/value heads cannot become {n_kv_head}; "
            f"possible are {divisors(old.kv_heads)}"
        )
    if method not in ("mean", "first", "random"):
        raise UserError(f"heads are pooled by mean, first or random, not {method!r}")
    generator = torch.Generator().manual_seed(seed)

    def pooled(part: Tensor) -> Tensor:
        """Pool the rows of the heads: (nkv · hs, ...) to (n_kv_head · hs, ...)."""
        groups = part.view(n_kv_head, -1, old.head_size, *part.shape[1:])
        if method == "random":
            fresh = torch.randn(groups[:, 0].shape, generator=generator) * STD
            return (fresh if part.dim() == 2 else 0 * fresh).flatten(0, 1).to(part)
        return (groups.mean(1) if method == "mean" else groups[:, 0]).flatten(0, 1)

    widths = [old.n_embd, *2 * [old.kv_heads * old.head_size]]
    changes = {}
    for name, weight in model_tensors(model).items():
        if ".c_attn." in name:
            q, k, v = torch.split(weight, widths)
            changes[name] = torch.cat((q, pooled(k), pooled(v)))
    return _rebuilt(model, old.replace(n_kv_head=n_kv_head), changes)


def add_window(
    model: GPT,
    window: int | tuple[int, ...] | None,
    dilation: int | tuple[tuple[int, ...], ...] = 1,
    global_tokens: tuple[int, ...] = (),
) -> GPT:
    """Return the model with a sliding window, or without one; fields as in `GPTConfig`.

    The weights stay as they are: what differs from Longformer is that global tokens have no
    projections of their own.

    Reference: Beltagy et al. 2020, section 5.
    """
    config = model.config.replace(window=window, dilation=dilation, global_tokens=global_tokens)
    return _rebuilt(model, config, {})


def empty_model(config: GPTConfig) -> GPT:
    """Return a model whose weights are not set: drawing them only to lose them takes a while."""
    with torch.device("meta"):
        model = GPT(config)
    model.to_empty(device="cpu")
    if config.tie_weights:  # `to_empty` gives each name a tensor of its own
        tie(model.lm_head, model.transformer.wte)
    return model


def _rebuilt(model: GPT, config: GPTConfig, changes: Mapping[str, Tensor]) -> GPT:
    """Return a model of another shape with the same weights, but for the changed ones."""
    made = empty_model(config)
    weights = {**model_tensors(model), **changes}
    load_weights(made, weights, "the model to convert")
    return made.eval()
