"""KV cache: what it returns equals computing anew, in every combination, at the size it should."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers_twin import randomise

from gpt2lib.config import GPTConfig
from gpt2lib.estimate import kv_cache_bytes
from gpt2lib.generation.generator import generate, left_pad
from gpt2lib.model.cache import KVCache, slots
from gpt2lib.model.gpt import GPT

# An untied head: a tied one mostly repeats the last token, and then a wrong key changes little.
TINY = GPTConfig(vocab_size=30, block_size=10, n_layer=2, n_head=4, n_embd=16, tie_weights=False)

PATTERNS: dict[str, dict[str, Any]] = {
    "no window": {},
    "window": {"window": 3},
    "window of one": {"window": 1},
    "window per layer": {"window": (2, 5)},
    "dilation": {"window": 3, "dilation": 2},
    "dilation per head": {"window": (2, 3), "dilation": ((1, 1, 2, 3), (1, 2, 3, 3))},
    "global": {"window": 2, "global_tokens": (0, 0)},
    "global that comes next": {"window": 1, "global_tokens": (1,)},
    "globals to come": {"window": 2, "global_tokens": (6, 1, 1, 9)},
    "globals and dilation": {"window": (3, 2), "dilation": ((1, 2),), "global_tokens": (0, 3)},
}
COMBINATIONS = [
    pytest.param(
        TINY.replace(position=position, n_kv_head=kv, **pattern), id=f"{position}-{kv}-{n}"
    )
    for position, kv, (n, pattern) in product(
        ("learned", "rope", "none"), (None, 2, 1), PATTERNS.items()
    )
]


def make(config: GPTConfig) -> GPT:
    model = GPT(config).eval()
    randomise(model, embedding_std=0.5)
    return model


def rows_of(*lengths: int, seed: int = 1) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(30, (n,), generator=generator).tolist() for n in lengths]


@contextmanager
def watched(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a module returns."""
    seen: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, __, out: seen.append(out))
    try:
        yield seen
    finally:
        handle.remove()


def anew(model: GPT, row: list[int], n_prompt: int) -> Iterator[Tensor]:
    """Yield the logits before each token after the prompt: one row alone, without a cache.

    The row is cut where the block is full; each piece is read in one go.
    """
    block, left = model.config.block_size, len(row) - n_prompt
    view, n = row[:n_prompt], n_prompt
    while left:
        here = min(left, block - n + 1)  # tokens predicted before the context is cut
        view = [*view, *row[len(row) - left :][:here]]
        with torch.no_grad():
            yield from model(torch.tensor([view[: n + here - 1]]))[0, n - 1 :]
        left -= here
        view = view[-max(1, block // 2) :]
        n = len(view)


def assert_cached_is_anew(model: GPT, prompts: list[list[int]], n: int) -> None:
    """Assert equal logits at every step, and the same tokens drawn, in a batch with padding."""
    idx, pad = left_pad(prompts)
    with watched(model.lm_head) as logits:
        drawn = generate(model, idx, n, seed=3, pad=pad)
    assert len(logits) == n
    for i, prompt in enumerate(prompts):
        row = drawn[i, pad[i] :].tolist()
        for step, wanted in enumerate(anew(model, row, len(prompt))):
            torch.testing.assert_close(logits[step][i], wanted, atol=1e-5, rtol=1e-5)
    again = generate(model, idx, n, seed=3, pad=pad, use_cache=False)
    assert torch.equal(drawn, again)


@pytest.mark.parametrize("config", COMBINATIONS)
def test_cached_equals_computed_anew_within_the_block_and_after_reading_it_again(
    config: GPTConfig,
) -> None:
    # 6, 1 and 3 tokens, and 12 more: every row outgrows the 10, each at another step.
    assert_cached_is_anew(make(config), rows_of(6, 1, 3), 12)


@st.composite
def shapes(draw: st.DrawFn) -> GPTConfig:
    """Draw any combination of positions, shared heads, windows, dilations and global tokens."""
    n_head = draw(st.sampled_from([1, 2, 4]))
    n_layer = draw(st.integers(1, 3))
    block = draw(st.integers(1, 9))
    pattern: dict[str, Any] = {}
    if draw(st.booleans()):
        step = st.lists(st.integers(1, 4), min_size=n_head, max_size=n_head).map(tuple)
        pattern = {
            "window": draw(st.lists(st.integers(1, 6), min_size=n_layer, max_size=n_layer)),
            "dilation": draw(st.lists(step, min_size=n_layer, max_size=n_layer).map(tuple)),
            "global_tokens": draw(st.lists(st.integers(0, block - 1), max_size=3).map(tuple)),
        }
        pattern["window"] = tuple(pattern["window"])
    return TINY.replace(
        n_head=n_head,
        n_layer=n_layer,
        block_size=block,
        position=draw(st.sampled_from(["learned", "rope", "none"])),
        n_kv_head=draw(st.sampled_from([n for n in (1, 2, 4) if n_head % n == 0])),
        **pattern,
    )


@given(config=shapes(), data=st.data())
@settings(max_examples=40, deadline=None)
def test_cached_equals_computed_anew_for_any_shape(config: GPTConfig, data: Any) -> None:
    lengths = data.draw(st.lists(st.integers(1, config.block_size), min_size=1, max_size=3))
    assert_cached_is_anew(make(config), rows_of(*lengths), 8)


@pytest.mark.parametrize("lengths", [(1,), (1, 1), (1, 2)])
def test_a_global_token_that_comes_after_the_prompt_is_kept(lengths: tuple[int, ...]) -> None:
    """It arrives while the ring still has room, and is asked for when the ring has gone round."""
    model = make(TINY.replace(n_layer=1, block_size=8, window=1, global_tokens=(1, 2)))
    assert_cached_is_anew(model, rows_of(*lengths), 8)


@pytest.mark.parametrize("without", [("mlp",), ("residual", "layer_norm"), ()])
@pytest.mark.parametrize("n_layer", [0, 1])
def test_a_model_with_parts_left_out_can_be_cached(without: tuple[Any, ...], n_layer: int) -> None:
    config = TINY.replace(n_layer=n_layer, without=without, position="none")
    assert_cached_is_anew(make(config), rows_of(2, 3), 18)


@pytest.mark.parametrize("kv", [4, 2, 1])
@pytest.mark.parametrize("position", ["learned", "rope"])
def test_in_bf16_cached_is_near(position: Any, kv: int) -> None:
    config = TINY.replace(position=position, n_kv_head=kv, window=4, global_tokens=(0,))
    model = make(config).bfloat16()
    row = rows_of(5)[0]
    with watched(model.lm_head) as logits:
        drawn = generate(model, torch.tensor([row]), 9, seed=1)[0].tolist()
    for got, wanted in zip(logits, anew(model, drawn, 5), strict=True):
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got[0].float(), wanted.float(), atol=0.1, rtol=0.05)


def test_what_fills_the_padding_does_not_matter_and_each_row_is_as_alone() -> None:
    greedy: dict[str, Any] = {"temperature": 0, "repetition_penalty": 5.0}
    for position in ("learned", "rope"):
        model = make(TINY.replace(position=position, n_kv_head=2))
        prompts = rows_of(3, 9, 1)
        alone = [generate(model, torch.tensor([row]), 15, **greedy)[0].tolist() for row in prompts]
        for fill in (0, 29, -100):
            idx, pad = left_pad(prompts, fill)
            assert pad == [6, 0, 8]
            got = generate(model, idx, 15, pad=pad, **greedy).tolist()
            assert [row[n:] for row, n in zip(got, pad, strict=True)] == alone
        assert any(len(set(row[-15:])) > 5 for row in alone)  # not one token over and over


def widths(model: GPT, *arguments: Any, **options: Any) -> list[int]:
    """Return how many positions the trunk computed at each step."""
    with watched(model.transformer) as out:
        generate(model, *arguments, **options)
    return [x.size(1) for x in out]


def test_a_step_computes_one_position_and_a_full_block_half_a_block() -> None:
    model, prompt = make(TINY), torch.tensor(rows_of(5))
    assert widths(model, prompt, 8) == [5, *[1] * 5, 5, 1]
    assert widths(model, prompt, 8, use_cache=False) == [*range(5, 11), 5, 6]
    # The row of 3 is full two steps later than that of 5; both are read again each time.
    idx, pad = left_pad(rows_of(5, 3))
    assert widths(model, idx, 10, pad=pad) == [5, *[1] * 5, 9, 1, 7, 1]


def filled(config: GPTConfig, lengths: list[int], capacity: int, dtype: torch.dtype) -> KVCache:
    """Read prompts of these lengths, and then one token after the other up to the capacity."""
    model = make(config).to(dtype)
    cache = KVCache(config, torch.tensor(lengths), capacity)
    idx = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    with torch.no_grad():
        model.transformer(idx, cache)
        for _ in range(capacity - max(lengths)):
            model.transformer(idx[:, :1], cache)
    return cache


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv", [None, 2, 1])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_bytes_of_a_cache_are_those_of_the_formula(
    dtype: torch.dtype, kv: int | None, batch: int
) -> None:
    config = TINY.replace(block_size=16, n_kv_head=kv)
    cache = filled(config, [5] * batch, 12, dtype)
    L, n_kv, hs, T = 2, kv or 4, 4, 12
    wanted = 2 * L * n_kv * hs * T * batch * dtype.itemsize
    assert cache.n_bytes() == wanted
    assert kv_cache_bytes(config, T, batch, dtype.itemsize) == wanted


def test_gpt2_small_needs_the_published_bytes() -> None:
    """In fp16 and with 1024 tokens."""
    mib = [kv_cache_bytes(GPTConfig(n_kv_head=kv), 1024) / 2**20 for kv in (None, 4, 1)]
    assert mib == [36, 12, 3]


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ({"window": 3}, [3, 3]),
        ({"window": (2, 20)}, [2, 14]),
        ({"window": 3, "dilation": 4}, [9, 9]),
        ({"window": 3, "dilation": ((1, 2, 3, 4), (1,))}, [9, 3]),
        ({"window": 3, "global_tokens": (0, 4)}, [5, 5]),
        ({"window": 3, "global_tokens": (0, 0, 15)}, [4, 4]),  # named twice, and never reached
        ({"window": 13, "global_tokens": (0, 1)}, [14, 14]),  # never more than all
    ],
    ids=str,
)
@pytest.mark.parametrize("kv", [4, 1])
def test_a_window_keeps_what_a_query_can_reach_and_the_globals(
    pattern: dict[str, Any], kept: list[int], kv: int
) -> None:
    config = TINY.replace(block_size=16, n_kv_head=kv, **pattern)
    cache = filled(config, [5, 6], 14, torch.float32)
    shapes = [layer.k.shape for layer in cache.layers if layer.k is not None]
    assert shapes == [(2, kv, n, 4) for n in kept]
    assert cache.n_bytes() == kv_cache_bytes(config, 14, 2, 4) == 2 * sum(kept) * 2 * kv * 4 * 4


def test_everything_is_kept_until_the_last_global_token_has_been_read() -> None:
    config = TINY.replace(window=2, global_tokens=(0, 9))
    assert slots(config, 0, 16, read=10) == (2, (0, 9))
    assert slots(config, 0, 16, read=9) == (10, (0, 9))


@given(config=shapes(), data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_cache_has_the_estimated_bytes_for_any_shape(config: GPTConfig, data: Any) -> None:
    capacity = data.draw(st.integers(1, config.block_size))
    # The estimate holds once the global tokens lie in the prompt.
    known = [position + 1 for position in config.global_tokens if position < capacity]
    lengths = data.draw(st.lists(st.integers(max([1, *known]), capacity), min_size=1, max_size=3))
    cache = filled(config, lengths, capacity, torch.float32)
    assert cache.n_bytes() == kv_cache_bytes(config, capacity, len(lengths), 4)


def test_generate_makes_room_for_what_will_be_read_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[KVCache] = []

    def make_and_keep(*arguments: Any) -> KVCache:
        made.append(KVCache(*arguments))
        return made[-1]

    monkeypatch.setattr("gpt2lib.generation.generator.KVCache", make_and_keep)
    model, prompt = make(TINY), torch.tensor(rows_of(3))
    for n, read in ((1, 3), (4, 6), (8, 10), (20, 10)):  # the last token is drawn, but not read
        made.clear()
        generate(model, prompt, n)
        assert made[0].n_bytes() == kv_cache_bytes(TINY, read, 1, 4)


def test_before_anything_is_read_a_cache_is_empty() -> None:
    assert KVCache(TINY, torch.tensor([3]), 10).n_bytes() == 0
