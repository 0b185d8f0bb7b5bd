"""What several exercises of notebook 08 use."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import case, lazy

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")
model: Any = lazy("gpt2lib.model.gpt")


def small_gpt(frozen: bool = False, **fields: Any) -> Any:
    shape = {"vocab_size": 11, "block_size": 4, "n_layer": 1, "n_head": 2, "n_embd": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = model.GPT(config.GPTConfig(**{**shape, **fields}))
    if frozen:
        made.transformer.wte.weight.requires_grad_(False)
    return made


def matrices(size: float = 1.0) -> list[Any]:
    """Return calls with a square, a wide and a tall matrix that have one dominant direction."""
    numbers = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Any:
        return torch.randn(*shape, generator=numbers, dtype=torch.float64)

    made = []
    for rows, columns in ((4, 4), (3, 6), (7, 4)):
        gradient = draw(rows, columns) + 3 * draw(rows, 1) * draw(1, columns)
        made.append(case(size * gradient / gradient.norm()))
    return made
