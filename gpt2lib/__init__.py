"""gpt2lib: the code of a GPT-2 course that is also a real trainer.

The public names are looked up when first used, so importing the package is fast and decides
nothing: no device, no dtype, no seed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "GPT": "model.gpt",
    "GPTConfig": "config",
    "TrainConfig": "config",
    "UserError": "utils.errors",
    "export": "hub",
    "for_decoding": "generation.quantization",
    "generate": "generation.generator",
    "left_pad": "generation.generator",
    "load_config": "config",
    "load_pretrained": "hub",
    "load_tokenizer_for": "hub",
    "prepare": "data",
    "stream": "generation.generator",
    "train": "training.loop",
}
__all__ = [
    "GPT",
    "GPTConfig",
    "TrainConfig",
    "UserError",
    "export",
    "for_decoding",
    "generate",
    "left_pad",
    "load_config",
    "load_pretrained",
    "load_tokenizer_for",
    "prepare",
    "stream",
    "train",
]

if TYPE_CHECKING:
    from gpt2lib.config import GPTConfig, TrainConfig, load_config
    from gpt2lib.data import prepare
    from gpt2lib.generation.generator import generate, left_pad, stream
    from gpt2lib.generation.quantization import for_decoding
    from gpt2lib.hub import export, load_pretrained, load_tokenizer_for
    from gpt2lib.model.gpt import GPT
    from gpt2lib.training.loop import train
    from gpt2lib.utils.errors import UserError


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"gpt2lib.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
