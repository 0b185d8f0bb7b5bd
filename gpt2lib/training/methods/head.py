"""The head: how tokens are chosen changes, what the trunk makes of a text stays."""

from __future__ import annotations

from gpt2lib.config import MethodConfig
from gpt2lib.model.gpt import GPT


def head(model: GPT, config: MethodConfig) -> None:
    """Let the output head and the last layer norm train.

    A tied head is the token embedding, which then trains at both ends of the model.
    """
    model.requires_grad_(False)
    for part in (model.lm_head, model.transformer.ln_f):
        part.requires_grad_(True)
