"""What several exercises of notebook 04 use."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Seen, lazy

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")


def draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Any]:
    """Return a float tensor of each shape, the same ones every time."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def causal_table(T: int) -> Any:
    return torch.ones(T, T, dtype=torch.bool).tril()


class Watch:
    """What turns nothing, and keeps the queries as the layer split them."""

    def __init__(self) -> None:
        self.seen: list[Any] = []  # queries come first, then keys

    def __call__(self, part: Any) -> Any:
        self.seen.append(part)
        return part


def make_layer(kind: Any, C: int, n_head: int) -> Any:
    return kind(config.GPTConfig(n_embd=C, n_head=n_head))


def sees(seen: Seen, what: str) -> str:
    """Name the first position that sees a later one."""
    ahead = torch.as_tensor(seen.got).ne(0).triu(1).nonzero()
    if not len(ahead):
        return f"something is seen that should not be, {what}"
    i, j = ahead[0].tolist()
    return f"position {i} can see position {j}, {what}"
