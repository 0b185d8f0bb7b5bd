"""What several exercises of notebook 12 use."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import lazy

torch: Any = lazy("torch")


def draw(*shape: int, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
