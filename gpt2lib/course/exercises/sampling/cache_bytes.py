"""Notebook 11: What a cache weighs."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Function, Misconception, case, lazy

config: Any = lazy("gpt2lib.config")


def _wrong_bytes(
    *,
    both: int = 2,
    heads: str = "kv_heads",
    layers: bool = True,
    window: Function = min,
    rows: bool = True,
) -> Function:
    def cache_bytes(shape: Any, tokens: int, batch: int, bytes_per_number: int) -> int:
        kept = sum(tokens if w is None else window(w, tokens) for w in shape.windows)
        if not layers:
            kept //= shape.n_layer
        width = getattr(shape, heads) * shape.head_size
        return int(both * kept * width * (batch if rows else 1) * bytes_per_number)

    return cache_bytes


def _bytes_cases() -> list[Case]:
    small = config.GPTConfig(n_layer=4, n_head=4, n_embd=64, block_size=64)
    shared = small.replace(n_kv_head=1)
    return [
        case(small, 10, 1, 4),
        case(shared, 64, 3, 2),
        case(shared.replace(window=(8, 16)), 12, 2, 2),
        case(small.replace(window=8), 64, 1, 2),
    ]


EXERCISE = Exercise(
    id="cache-bytes",
    notebook="11",
    title="What a cache weighs",
    signature="my_cache_bytes(config, tokens, batch, bytes_per_number)",
    reference="gpt2lib.estimate:kv_cache_bytes",
    cases=_bytes_cases,
    hints=[
        "Count the numbers first: keys and values, in every layer, for each token of a row.",
        "A token has config.kv_heads * config.head_size numbers in its key.",
        "config.windows is a tuple with one entry a layer; None is no window. A layer with a "
        "window of w holds min(w, tokens) tokens.",
    ],
    misconceptions=[
        Misconception(
            "only-keys",
            "half of it: keys and values are both kept",
            wrong=_wrong_bytes(both=1),
        ),
        Misconception(
            "all-heads",
            "with shared heads there are fewer keys than queries: config.kv_heads, not n_head",
            wrong=_wrong_bytes(heads="n_head"),
        ),
        Misconception(
            "one-layer",
            "every layer has keys and values of its own",
            wrong=_wrong_bytes(layers=False),
        ),
        Misconception(
            "no-window",
            "a layer with a window holds no more tokens than the window shows",
            wrong=_wrong_bytes(window=lambda w, tokens: tokens),
        ),
        Misconception(
            "window-always-full",
            "a window wider than the text holds the text only: min(w, tokens)",
            wrong=_wrong_bytes(window=lambda w, tokens: w),
        ),
        Misconception(
            "one-row",
            "each row of the batch has its own keys and values",
            wrong=_wrong_bytes(rows=False),
        ),
    ],
)
