"""What several exercises of notebook 05 use."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Function, lazy

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")


def draw(*shape: int, seed: int = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_rotation(kind: Any, places: Any, head_size: int, base: float, scale: float = 1.0) -> Any:
    """Return the library's turn for heads of this size."""
    shape = config.GPTConfig(
        n_embd=head_size, n_head=1, position="rope", rope_base=base, rope_scale=scale
    )
    return kind(shape).rotation(places)


def wrong_rope(
    *,
    places: Function = lambda T, scale: torch.arange(T) / scale,
    scaled_base: Function = lambda base, scale, hs: base,
    sign: int = 1,
    cross: tuple[int, int] = (-1, 1),
    neighbours: bool = False,
    mixed: bool = False,
    before: Function = lambda x, scale: x,
) -> Function:
    """Return RoPE with one thing changed."""

    def rope(x: Any, base: float, scale: float = 1.0) -> Any:
        T, hs = x.shape
        x = before(x, scale)
        speeds = scaled_base(base, scale, hs) ** (-torch.arange(0, hs, 2) / hs)
        angles = places(T, scale)[:, None] * speeds  # (T, hs/2)
        cos, sin = angles.cos(), angles.sin() * sign
        if neighbours:
            a, b = x[:, ::2], x[:, 1::2]
            return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(1)
        a, b = x.chunk(2, dim=1)
        across = torch.cat((cross[0] * b, cross[1] * a), dim=1)
        wide = [t.repeat_interleave(2, 1) if mixed else t.repeat(1, 2) for t in (cos, sin)]
        return x * wide[0] + across * wide[1]

    return rope
