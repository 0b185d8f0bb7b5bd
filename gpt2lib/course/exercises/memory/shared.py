"""What several exercises of notebook 09 use."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import lazy

config: Any = lazy("gpt2lib.config")


def small_config(**changes: Any) -> Any:
    small = {"vocab_size": 19, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 8}
    return config.GPTConfig(**{**small, **changes})
