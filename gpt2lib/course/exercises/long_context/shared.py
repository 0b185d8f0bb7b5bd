"""What several exercises of notebook 13 use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpt2lib.course.exercise import Seen, lazy

torch: Any = lazy("torch")


def draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Any]:
    """Return a float tensor of each shape, the same ones every time."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def distances(T: int) -> Any:
    """Return how far each query (row) stands behind each key (column), (T, T)."""
    places = torch.arange(T)
    return places[:, None] - places[None, :]


def sees(seen: Seen, why: str) -> str:
    i, j = seen.index
    return f"place {i} {'can' if bool(seen.got[i, j]) else 'cannot'} see place {j}: {why}"


def says_of_mask(why: str) -> Callable[[Seen], str]:
    return lambda seen: sees(seen, why)
