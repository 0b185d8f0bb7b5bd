"""What several exercises of notebook 06 use."""

from typing import Any

from gpt2lib.course.exercise import lazy

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")


def draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for shape in shapes]


def small_config(n_embd: int) -> Any:
    return config.GPTConfig(vocab_size=2, block_size=2, n_layer=1, n_head=1, n_embd=n_embd)
