"""The last blocks: early ones see the letters of a language, which a new text shares."""

from __future__ import annotations

from gpt2lib.config import MethodConfig
from gpt2lib.model.gpt import GPT
from gpt2lib.utils.errors import UserError


def last_k(model: GPT, config: MethodConfig) -> None:
    """Let the last k blocks and the last layer norm train.

    Raises:
        UserError: if the model has fewer blocks.
    """
    if config.k > len(model.transformer.h):
        raise UserError(
            f"method.k is {config.k}, but the model has {len(model.transformer.h)} blocks"
        )
    model.requires_grad_(False)
    for part in (*model.transformer.h[-config.k :], model.transformer.ln_f):
        part.requires_grad_(True)
