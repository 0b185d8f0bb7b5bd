"""Probabilities: exactly the right tokens are kept, and each with its share."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor

from gpt2lib.generation.sampling import SamplingParams, draw, next_token_probabilities, penalise
from gpt2lib.utils.errors import UserError

weights_of = st.lists(st.integers(1, 1000), min_size=2, max_size=20, unique=True)


def logits_of(weights: list[int]) -> Tensor:
    return torch.tensor([[math.log(w) for w in weights]])


def likeliest_first(weights: list[int]) -> list[int]:
    return sorted(range(len(weights)), key=lambda i: -weights[i])


def assert_shares(probabilities: Tensor, weights: list[int], kept: list[int]) -> None:
    """Assert that exactly the `kept` have a probability, in proportion to their weights."""
    total = sum(weights[i] for i in kept)
    wanted = [weights[i] / total if i in kept else 0.0 for i in range(len(weights))]
    torch.testing.assert_close(probabilities, torch.tensor([wanted]), atol=1e-6, rtol=1e-4)
    assert [i for i, p in enumerate(probabilities[0].tolist()) if p > 0] == sorted(kept)


@given(weights=weights_of, k=st.integers(1, 25))
def test_top_k_keeps_the_k_likeliest(weights: list[int], k: int) -> None:
    kept = likeliest_first(weights)[:k]
    assert_shares(next_token_probabilities(logits_of(weights), top_k=k), weights, kept)


def naive_top_p(weights: list[int], order: list[int], reach: float) -> list[int]:
    kept, reached = [], 0
    for i in order:
        kept.append(i)
        reached += weights[i]
        if reached >= reach:
            break
    return kept


@given(weights=weights_of, data=st.data())
def test_top_p_keeps_the_smallest_set_that_reaches_p(weights: list[int], data: Any) -> None:
    total = sum(weights)
    # Sums of weights are whole numbers; half-way between two there is no rounding to fear.
    reach = data.draw(st.integers(0, total - 1)) + 0.5
    kept = naive_top_p(weights, likeliest_first(weights), reach)
    got = next_token_probabilities(logits_of(weights), top_p=reach / total)
    assert_shares(got, weights, kept)


@given(weights=weights_of, k=st.integers(1, 20), data=st.data())
def test_top_k_comes_before_top_p(weights: list[int], k: int, data: Any) -> None:
    order = likeliest_first(weights)[:k]
    total = sum(weights[i] for i in order)
    reach = data.draw(st.integers(0, total - 1)) + 0.5
    kept = naive_top_p(weights, order, reach)
    got = next_token_probabilities(logits_of(weights), top_k=k, top_p=reach / total)
    assert_shares(got, weights, kept)


@pytest.mark.parametrize(("reach", "left"), [(0.25, 1), (0.5, 2), (0.75, 3), (0.76, 4)])
def test_a_set_that_reaches_p_exactly_is_large_enough(reach: float, left: int) -> None:
    quarters = next_token_probabilities(torch.zeros(1, 4), top_p=reach)
    assert torch.equal(
        quarters.sort(descending=True).values[0, :left], torch.full((left,), 1 / left)
    )
    assert (quarters > 0).sum() == left


def test_equal_logits_do_not_widen_top_k() -> None:
    kept = next_token_probabilities(torch.zeros(1, 6), top_k=2) > 0
    assert int(kept.sum()) == 2


@given(weights=weights_of, temperature=st.floats(0.25, 4))
@settings(max_examples=30, deadline=None)
def test_temperature_is_a_power(weights: list[int], temperature: float) -> None:
    raised = [w ** (1 / temperature) for w in weights]
    wanted = torch.tensor([[r / sum(raised) for r in raised]])
    got = next_token_probabilities(logits_of(weights), temperature)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 1e-50, 1e-38, 1e-6])
def test_at_temperature_zero_only_the_likeliest_is_left(temperature: float) -> None:
    got = next_token_probabilities(torch.tensor([[100.0, 300.0, 200.0]]), temperature)
    assert got.tolist() == [[0.0, 1.0, 0.0]]


def test_rows_are_treated_apart() -> None:
    got = next_token_probabilities(torch.tensor([[0.0, 9.0, 5.0], [7.0, 0.0, 8.0]]), top_k=1)
    assert got.tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


def test_large_and_equal_logits_keep_their_shares() -> None:
    got = next_token_probabilities(torch.tensor([[1e30, 1e30, -1e30]]), temperature=0.01)
    assert got.tolist() == [[0.5, 0.5, 0.0]]


@given(
    logits=st.lists(st.floats(-50, 50, width=32), min_size=6, max_size=6),
    seen=st.lists(st.integers(0, 5), min_size=1, max_size=9),
    penalty=st.floats(0.2, 5),
)
def test_the_repetition_penalty_is_that_of_transformers(
    logits: list[float], seen: list[int], penalty: float
) -> None:
    scores, ids = torch.tensor([logits]), torch.tensor([seen])
    wanted = RepetitionPenaltyLogitsProcessor(penalty)(ids, scores.clone())
    was_seen = torch.zeros(1, 6, dtype=torch.bool).scatter_(1, ids, True)
    torch.testing.assert_close(penalise(scores, was_seen, penalty), wanted, atol=0, rtol=0)


def test_each_row_is_penalised_for_its_own_tokens() -> None:
    seen = torch.tensor([[True, False], [False, True]])
    got = penalise(torch.tensor([[4.0, -4.0], [4.0, -4.0]]), seen, 2.0)
    assert got.tolist() == [[2.0, -4.0], [4.0, -8.0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature .* not -1"),
        ({"temperature": math.nan}, "temperature .* not nan"),
        ({"temperature": math.inf}, "temperature .* not inf"),
        ({"top_k": 0}, "top_k .* not 0"),
        ({"top_p": 0.0}, "top_p .* not 0"),
        ({"top_p": 1.5}, r"top_p .* not 1\.5"),
        ({"top_p": math.nan}, "top_p .* not nan"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty .* above 0.* not 0\.0"),
        ({"repetition_penalty": -2.0}, r"repetition_penalty .* not -2"),
        ({"repetition_penalty": math.inf}, "repetition_penalty .* not inf"),
        ({"temperature": 0.0, "top_k": 5}, "temperature 0 .* top_k 5 would do nothing"),
        ({"temperature": 0.0, "top_p": 0.9}, r"temperature 0 .* top_p 0\.9 would do nothing"),
        ({"temperature": 1e-9, "top_k": 1}, "top_k 1 would do nothing"),
    ],
)
def test_options_that_mean_nothing_or_contradict_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        SamplingParams(**options)
    assert "\n" not in str(refused.value)


def test_options_that_go_together_are_taken() -> None:
    SamplingParams(temperature=0.0, repetition_penalty=1.2)
    SamplingParams(temperature=0.7, top_k=50, top_p=0.9, repetition_penalty=0.5)


def test_draws_follow_the_probabilities_and_never_take_what_has_none() -> None:
    shares_of = torch.tensor([0.0, 0.5, 0.0, 1e-3, 0.3, 0.199, 0.0])
    drawn = draw(shares_of.expand(40_000, -1), torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn, minlength=7) / 40_000
    torch.testing.assert_close(shares, shares_of, atol=0.011, rtol=0)  # over 4 standard deviations
    assert shares[shares_of == 0].sum() == 0 and shares[3] > 0


def test_a_draw_is_the_token_in_whose_share_the_random_number_falls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shares_of = torch.tensor([[0.25, 0.0, 0.5, 0.25, 0.0]])
    below_1 = 1 - 2**-53
    for at, token in ((0.0, 0), (0.2499, 0), (0.25, 2), (0.7499, 2), (0.75, 3), (below_1, 3)):
        found = torch.tensor([[at]], dtype=torch.float64)
        monkeypatch.setattr(torch, "rand", lambda *a, found=found, **k: found)
        assert draw(shares_of).tolist() == [token]
        assert draw(shares_of * 0.37).tolist() == [token]  # the sum need not be 1


def test_a_rare_token_of_a_large_vocabulary_has_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 a running sum near 1 would not grow by a probability of 1e-8."""
    shares_of = torch.full((1, 50_000), 1e-8)
    shares_of[0, 0] = 1.0
    size, total = float(shares_of[0, 1]), float(shares_of.double().sum())
    for token in (1, 2, 7, 40_000, 49_999):
        at = torch.tensor([[(1 + (token - 0.5) * size) / total]], dtype=torch.float64)
        monkeypatch.setattr(torch, "rand", lambda *a, at=at, **k: at.to(k["dtype"]))
        assert draw(shares_of).tolist() == [token]
