"""The families of transformers models that can be read and written, and the choice among them.

| our model | class of transformers |
| --- | --- |
| learned positions or none, every head its own keys and values | `GPT2LMHeadModel` |
| the same with one key/value head | `GPTBigCodeForCausalLM` |
| the same with several shared ones | `GPT2LMHeadModel`, the shared heads repeated |
| RoPE, any number of key/value heads, at most one window for all layers | `Starcoder2ForCausalLM` |
"""

from __future__ import annotations

import logging

from gpt2lib.config import GPTConfig
from gpt2lib.hub.bigcode import BIGCODE
from gpt2lib.hub.family import Family
from gpt2lib.hub.gpt2 import GPT2
from gpt2lib.hub.starcoder2 import STARCODER2
from gpt2lib.utils.errors import UserError

logger = logging.getLogger(__name__)

FAMILIES: dict[str, Family] = {"gpt2": GPT2, "gpt_bigcode": BIGCODE, "starcoder2": STARCODER2}
"""By `model_type`, as `config.json` names it."""

WINDOWED = "position rope with one window for all layers (starcoder2)"


def choose(config: GPTConfig) -> str:
    """Return the family in which a model of ours computes the same.

    Where that costs something, a warning says what.

    Raises:
        UserError: if there is none; it says why, and what there would be one for.
    """
    window = _one_window(config)
    if config.position == "rope":
        return "starcoder2"
    if window is not None:
        raise UserError(
            f"window {window} with position {config.position} has no class in transformers that "
            f"computes it; it can export {WINDOWED}, or no window"
        )
    if config.kv_heads == config.n_head:
        return "gpt2"
    if config.kv_heads == 1:
        return "gpt_bigcode"
    logger.warning(
        "n_kv_head %d with position %s has no class of its own: the key and value heads are "
        "repeated for all %d heads of a GPT-2. It computes the same, but its key/value cache is "
        "%d times as large",
        config.kv_heads,
        config.position,
        config.n_head,
        config.n_head // config.kv_heads,
    )
    return "gpt2"


def _one_window(config: GPTConfig) -> int | None:
    """Return the window that all layers have; one that is as wide as the block is none.

    Raises:
        UserError: for what no class has, and for a model without blocks.
    """
    if config.n_layer == 0:
        raise UserError("n_layer 0 leaves no block to export; it can export n_layer 1 or more")
    if config.without:
        what, instead = f"a model without {' and '.join(config.without)}", "whole blocks"
    elif any(step > 1 for layer in config.dilations for step in layer):
        what, instead = f"dilation {config.dilation}", f"dilation 1: {WINDOWED}"
    else:
        wide = config.block_size
        windows = {None if w is None or w >= wide else w for w in config.windows}
        if windows != {None} and config.global_tokens:
            what, instead = f"global_tokens {config.global_tokens}", f"none of them: {WINDOWED}"
        elif len(windows) > 1:
            what, instead = f"window {config.window}, which differs by layer,", WINDOWED
        else:
            return windows.pop()
    raise UserError(
        f"{what} has no class in transformers that computes it; it can export {instead}"
    )
