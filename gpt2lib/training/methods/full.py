"""Fine-tuning in full: every parameter trains."""

from __future__ import annotations

from gpt2lib.config import MethodConfig
from gpt2lib.model.gpt import GPT


def full(model: GPT, config: MethodConfig) -> None:
    """Let all parameters train."""
    model.requires_grad_(True)
