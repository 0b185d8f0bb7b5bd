"""Attention masks: which keys a query sees."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gpt2lib.config import GPTConfig
from gpt2lib.model.masks import (
    Both,
    Causal,
    Either,
    GlobalTokens,
    Mask,
    SlidingWindow,
    dense,
    layer_mask,
    materialise,
)

DILATIONS = st.lists(st.integers(1, 4), min_size=3, max_size=3).map(tuple)


def rows(seen: Tensor) -> list[str]:
    """Return a boolean mask as one line a query: x where it sees the key."""
    return ["".join("x" if one else "." for one in row) for row in seen.tolist()]


# ── the kinds of mask ───────────────────────────────────────────────────────────────────────────


def test_causal_sees_itself_and_the_past() -> None:
    seen = dense(Causal(), 4, 4)
    assert seen.dtype == torch.bool
    assert rows(seen) == ["x...", "xx..", "xxx.", "xxxx"]


@pytest.mark.parametrize("window", [1, 2, 3, 8])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_a_window_counts_the_query_itself(window: int, dilation: int) -> None:
    seen = dense(Causal() & SlidingWindow(window, (dilation,)), 30, 30)
    for t in range(30):
        wanted = [t - i * dilation for i in range(window) if t >= i * dilation]
        assert seen[t].nonzero().flatten().tolist() == sorted(wanted)


def test_a_window_looks_both_ways_without_causality() -> None:
    assert rows(dense(SlidingWindow(2), 4, 4)) == ["xx..", "xxx.", ".xxx", "..xx"]
    assert rows(dense(SlidingWindow(2, (2,)), 4, 4)) == ["x.x.", ".x.x", "x.x.", ".x.x"]


def test_each_head_has_its_own_dilation() -> None:
    seen = dense(Causal() & SlidingWindow(2, (1, 3)), 4, 4, n_head=2)
    assert rows(seen[0]) == ["x...", "xx..", ".xx.", "..xx"]
    assert rows(seen[1]) == ["x...", ".x..", "..x.", "x..x"]


def test_global_tokens_look_at_all_and_all_look_at_them() -> None:
    assert rows(dense(GlobalTokens((1,)), 4, 4)) == [".x..", "xxxx", ".x..", ".x.."]
    assert rows(dense(GlobalTokens((0, 3)), 4, 4)) == ["xxxx", "x..x", "x..x", "xxxx"]
    assert rows(dense(GlobalTokens(()), 2, 3)) == ["...", "..."]


def test_causality_holds_for_global_tokens_too() -> None:
    mask = Causal() & (SlidingWindow(1) | GlobalTokens((1,)))
    assert rows(dense(mask, 4, 4)) == ["x...", "xx..", ".xx.", ".x.x"]


def test_masks_are_values() -> None:
    made = [
        lambda: Causal(),
        lambda: SlidingWindow(3, (1, 2)),
        lambda: GlobalTokens((0, 2)),
        lambda: Causal() & (SlidingWindow(3) | GlobalTokens((0,))),
    ]
    for make in made:
        assert make() == make()
        assert hash(make()) == hash(make())
    assert SlidingWindow(3) != SlidingWindow(4)
    assert Causal() & Causal() != Causal() | Causal()
    with pytest.raises(dataclasses.FrozenInstanceError):
        SlidingWindow(3).window = 4  # type: ignore[misc]


# ── composition ─────────────────────────────────────────────────────────────────────────────────


def sees(mask: Mask, h: int, q: int, k: int) -> bool:
    """Say the same in plain Python, from the words of the definitions."""
    match mask:
        case Causal():
            return k <= q
        case SlidingWindow(window, dilation):
            step = dilation[h] if len(dilation) > 1 else dilation[0]
            return any(k in (q - i * step, q + i * step) for i in range(window))
        case GlobalTokens(positions):
            return q in positions or k in positions
        case Both(first, second):
            return sees(first, h, q, k) and sees(second, h, q, k)
        case Either(first, second):
            return sees(first, h, q, k) or sees(second, h, q, k)
    raise AssertionError(mask)


SIMPLE = st.one_of(
    st.just(Causal()),
    st.builds(SlidingWindow, st.integers(1, 4), DILATIONS | st.integers(1, 3).map(lambda d: (d,))),
    st.builds(GlobalTokens, st.lists(st.integers(0, 9), max_size=2).map(tuple)),
)
MASKS = st.recursive(
    SIMPLE, lambda m: st.builds(Mask.__and__, m, m) | st.builds(Mask.__or__, m, m), max_leaves=4
)


@settings(deadline=None, max_examples=60)
@given(mask=MASKS, n_key=st.integers(1, 9), data=st.data())
def test_boolean_masks_equal_those_made_in_loops(
    mask: Mask, n_key: int, data: st.DataObject
) -> None:
    n_query = data.draw(st.integers(1, n_key))
    seen = dense(mask, n_query, n_key, n_head=3).expand(3, n_query, n_key)
    for h in range(3):
        for i in range(n_query):
            position = n_key - n_query + i  # the queries are the last of the keys
            assert seen[h, i].tolist() == [sees(mask, h, position, k) for k in range(n_key)]


# ── materialised masks ──────────────────────────────────────────────────────────────────────────


def test_dense_asks_any_mask() -> None:
    class EverySecond(Mask):
        def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
            return (q_idx - kv_idx) % 2 == 0

    assert rows(dense(EverySecond(), 3, 3)) == ["x.x", ".x.", "x.x"]


def test_dense_makes_its_mask_on_the_device() -> None:
    mask = Causal() & (SlidingWindow(2, (1, 2)) | GlobalTokens((0,)))
    assert dense(mask, 2, 2, torch.device("meta"), n_head=2).device.type == "meta"


def test_heads_alike_share_one_mask() -> None:
    assert dense(Causal(), 4, 4, n_head=3).shape == (4, 4)
    assert dense(Causal() & SlidingWindow(2), 4, 4, n_head=3).shape == (4, 4)
    assert dense(Causal() & SlidingWindow(2, (1, 2, 3)), 4, 4, n_head=3).shape == (3, 4, 4)


POSITIONS = st.lists(
    st.lists(st.integers(-1, 9), min_size=4, max_size=4, unique=True), min_size=2, max_size=2
)


@settings(deadline=None, max_examples=60)
@given(mask=MASKS, keys=POSITIONS, queries=st.lists(st.integers(0, 9), min_size=2, max_size=2))
def test_rows_have_their_own_positions_and_empty_ones_are_seen_by_none(
    mask: Mask, keys: list[list[int]], queries: list[int]
) -> None:
    q_idx, kv_idx = torch.tensor(queries)[:, None], torch.tensor(keys)
    seen = materialise(mask, q_idx, kv_idx, n_head=3)  # (2, 1 or 3, 1, 4)
    assert seen.dim() == 4
    seen = seen.expand(2, 3, 1, 4)
    for b in range(2):
        for h in range(3):
            wanted = [position >= 0 and sees(mask, h, queries[b], position) for position in keys[b]]
            assert seen[b, h, 0].tolist() == wanted


def test_an_empty_position_is_seen_by_none_in_a_shared_mask_too() -> None:
    seen = materialise(Causal(), torch.tensor([2]), torch.tensor([-1, 0, 2, 3]))
    assert rows(seen) == [".xx."]


def test_rows_may_share_their_keys() -> None:
    seen = materialise(Causal(), torch.tensor([[1], [2]]), torch.arange(4))
    assert [rows(row) for row in seen[:, 0]] == [["xx.."], ["xxx."]]


# ── the mask of a layer ─────────────────────────────────────────────────────────────────────────


def shape(**fields: object) -> GPTConfig:
    return GPTConfig(n_layer=4, n_head=2, n_embd=8, block_size=64).replace(**fields)


def test_without_a_window_a_layer_is_causal() -> None:
    assert layer_mask(shape(), 3) == Causal()


def test_one_window_serves_all_layers() -> None:
    for layer in range(4):
        assert layer_mask(shape(window=7), layer) == Causal() & SlidingWindow(7)


def test_a_list_of_windows_is_spread_lowest_layer_first() -> None:
    masks = [layer_mask(shape(window=(2, 8)), layer) for layer in range(4)]
    assert masks == [Causal() & SlidingWindow(w) for w in (2, 2, 8, 8)]


def test_lists_of_dilations_are_spread_over_layers_and_heads() -> None:
    config = shape(n_head=4, window=3, dilation=((1,), (1, 2)))
    masks = [layer_mask(config, layer) for layer in range(4)]
    assert masks[:2] == 2 * [Causal() & SlidingWindow(3)]  # heads alike: one entry
    assert masks[2:] == 2 * [Causal() & SlidingWindow(3, (1, 1, 2, 2))]
    assert layer_mask(shape(window=3, dilation=5), 0) == Causal() & SlidingWindow(3, (5,))


def test_global_tokens_join_the_window_and_stay_causal() -> None:
    mask = layer_mask(shape(window=3, global_tokens=(0, 9)), 1)
    assert mask == Causal() & (SlidingWindow(3) | GlobalTokens((0, 9)))
    assert not bool(dense(mask, 30, 30).triu(1).any())
