"""Masks: who may look at whom."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gpt2lib.masks import Causal, Mask, dense


def test_causal_sees_itself_and_the_past() -> None:
    table = dense(Causal(), 4, 4)
    assert table.dtype == torch.bool
    assert table.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


@given(n_key=st.integers(1, 12), data=st.data())
def test_dense_places_the_queries_at_the_end(n_key: int, data: st.DataObject) -> None:
    n_query = data.draw(st.integers(1, n_key))
    table = dense(Causal(), n_query, n_key)
    assert table.shape == (n_query, n_key)
    for i in range(n_query):
        place = n_key - n_query + i
        assert table[i].tolist() == [key <= place for key in range(n_key)]


def test_dense_asks_any_mask() -> None:
    class EverySecond(Mask):
        def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
            return (q_idx - kv_idx) % 2 == 0

    table = dense(EverySecond(), 3, 3)
    assert table.int().tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_dense_makes_its_table_on_the_device() -> None:
    assert dense(Causal(), 2, 2, torch.device("meta")).device.type == "meta"


def test_masks_are_values() -> None:
    assert Causal() == Causal()
    assert hash(Causal()) == hash(Causal())
    with pytest.raises(dataclasses.FrozenInstanceError):
        Causal().window = 3  # type: ignore[attr-defined]
