"""LoRA: thin matrices beside the linear layers."""

from __future__ import annotations

from gpt2lib.config import MethodConfig
from gpt2lib.model.gpt import GPT
from gpt2lib.model.lora import add_lora


def lora(model: GPT, config: MethodConfig) -> None:
    """Freeze the model, and let LoRA's matrices train beside it; errors as in `add_lora`."""
    add_lora(model, config)
