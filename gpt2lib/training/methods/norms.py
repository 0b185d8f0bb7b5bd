"""The layer norms: one gain and one bias a channel, a few thousandths of the parameters."""

from __future__ import annotations

from torch import nn

from gpt2lib.config import MethodConfig
from gpt2lib.model.gpt import GPT
from gpt2lib.utils.errors import UserError


def norms(model: GPT, config: MethodConfig) -> None:
    """Let the gains and biases of all layer norms train.

    Raises:
        UserError: if the model has no layer norms.
    """
    found = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    if not found:
        raise UserError("method norms trains nothing: the model has no layer norms")
    model.requires_grad_(False)
    for norm in found:
        norm.requires_grad_(True)
