"""Learned positions: one vector a place, added once, and nothing else."""

from __future__ import annotations

import pytest
import torch

from gpt2lib.config import GPTConfig
from gpt2lib.positions import LearnedPositions


@pytest.fixture
def positions() -> LearnedPositions:
    torch.manual_seed(0)
    return LearnedPositions(GPTConfig(block_size=10, n_embd=4, n_head=1))


def test_embed_adds_the_vector_of_each_place(positions: LearnedPositions) -> None:
    x = torch.randn(3, 7, 4)
    y = positions.embed(x, torch.arange(x.size(1)))
    for t in range(7):
        for b in range(3):
            torch.testing.assert_close(y[b, t], x[b, t] + positions.weight[t], atol=0, rtol=0)


def test_start_shifts_the_places(positions: LearnedPositions) -> None:
    x = torch.randn(2, 9, 4)
    whole = positions.embed(x, torch.arange(x.size(1)))
    rest = positions.embed(x[:, 6:], torch.arange(6, 9))
    torch.testing.assert_close(rest, whole[:, 6:], atol=0, rtol=0)


def test_only_the_used_places_get_a_gradient(positions: LearnedPositions) -> None:
    positions.embed(torch.zeros(2, 3, 4), torch.arange(4, 7)).sum().backward()
    assert positions.weight.grad is not None
    used = positions.weight.grad.abs().sum(-1) > 0
    assert used.tolist() == [4 <= place < 7 for place in range(10)]


def test_queries_and_keys_do_not_turn(positions: LearnedPositions) -> None:
    q = torch.randn(2, 2, 5, 3)
    assert positions.turn(torch.arange(3, 8))(q) is q
