"""Sampling: exactly the right tokens are kept, draws repeat, and bad input is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers_twin import randomise, twins

from gpt2lib.config import GPTConfig
from gpt2lib.errors import UserError
from gpt2lib.model import GPT
from gpt2lib.probabilities import next_token_probabilities
from gpt2lib.sampling import generate, stream

# An untied head: a tied one mostly repeats the last token, and then a wrong crop changes nothing.
TINY = GPTConfig(vocab_size=30, block_size=12, n_layer=2, n_head=2, n_embd=16, tie_weights=False)
weights_of = st.lists(st.integers(1, 1000), min_size=2, max_size=20, unique=True)


@pytest.fixture
def model() -> GPT:
    made = GPT(TINY).eval()
    randomise(made, embedding_std=0.5)
    return made


def prompt(B: int = 1, T: int = 4) -> Tensor:
    return torch.randint(30, (B, T), generator=torch.Generator().manual_seed(1))


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


def test_equal_logits_do_not_widen_top_k() -> None:
    kept = next_token_probabilities(torch.zeros(1, 6), top_k=2) > 0
    assert int(kept.sum()) == 2


@given(weights=weights_of, temperature=st.floats(0.25, 4))
@settings(max_examples=30)
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


def test_draws_follow_the_probabilities(model: GPT) -> None:
    idx = prompt().expand(4000, -1)
    with torch.no_grad():
        wanted = model(prompt())[0, -1].softmax(-1)
    drawn = generate(model, idx, 1, seed=0)[:, -1]
    shares = torch.bincount(drawn, minlength=30) / 4000
    torch.testing.assert_close(shares, wanted, atol=0.03, rtol=0)  # over 4 standard deviations


def test_greedy_is_a_loop_of_argmax_that_goes_on_from_half_a_block(model: GPT) -> None:
    idx = view = prompt(T=5)
    got = generate(model, idx, 20, temperature=0)
    for _ in range(20):
        with torch.no_grad():
            token = model(view)[:, -1].argmax(-1, keepdim=True)
        idx, view = torch.cat((idx, token), dim=1), torch.cat((view, token), dim=1)
        view = view[:, -6:] if view.size(1) > 12 else view
    assert torch.equal(got, idx)
    assert got.shape == (1, 25)
    assert len(set(got[0, 12:].tolist())) > 3  # the tokens differ, so the crop matters


def test_a_prompt_above_block_size_is_refused(model: GPT) -> None:
    with pytest.raises(UserError, match="40 tokens does not fit block_size 12"):
        generate(model, prompt(T=40), 3)


def test_greedy_tokens_are_those_of_transformers() -> None:
    for seed in range(3):
        ours, theirs = twins(TINY.replace(block_size=32), seed, embedding_std=0.5)
        idx = prompt(B=2)
        wanted = theirs.generate(
            idx,
            attention_mask=torch.ones_like(idx),
            max_new_tokens=20,
            do_sample=False,
            pad_token_id=0,
        )
        assert torch.equal(generate(ours, idx, 20, temperature=0), wanted)


def test_rows_of_a_batch_are_independent(model: GPT) -> None:
    batch = prompt(B=3)
    got = generate(model, batch, 15, temperature=0)
    for row in range(3):
        alone = generate(model, batch[row : row + 1], 15, temperature=0)
        assert torch.equal(got[row], alone[0])


def test_a_seed_repeats_and_leaves_the_global_generator_alone(model: GPT) -> None:
    before = torch.get_rng_state()
    first = generate(model, prompt(), 30, seed=7)
    assert torch.equal(first, generate(model, prompt(), 30, seed=7))
    assert not torch.equal(first, generate(model, prompt(), 30, seed=8))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_seed_the_global_generator_decides(model: GPT) -> None:
    torch.manual_seed(3)
    first, second = generate(model, prompt(), 30), generate(model, prompt(), 30)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(first, generate(model, prompt(), 30))


def test_a_row_ends_at_a_stop_token_and_is_filled_up(model: GPT) -> None:
    batch = prompt(B=3)
    free = generate(model, batch, 12, seed=2)
    stop = int(free[0, 6])
    got = generate(model, batch, 12, seed=2, stop=[stop])
    longest = 0
    for row in range(3):
        new = free[row, 4:].tolist()
        end = new.index(stop) + 1 if stop in new else 12
        longest = max(longest, end)
        filled = new[:end] + [stop] * (got.size(1) - 4 - end)
        assert got[row, 4:].tolist() == filled
    assert got.size(1) == 4 + longest


def test_stream_yields_the_tokens_of_generate_as_they_come(model: GPT) -> None:
    whole = generate(model, prompt(), 12, seed=5)[0, 4:].tolist()
    assert list(stream(model, prompt(), 12, seed=5)) == whole
    stop = whole[5]
    cut = whole[: whole.index(stop) + 1]
    assert list(stream(model, prompt(), 12, seed=5, stop={stop})) == cut
    first = next(stream(model, prompt(), 1_000_000_000, seed=5))
    assert first == whole[0]


def test_the_mode_of_the_model_is_put_back_and_dropout_stays_off() -> None:
    model = GPT(TINY.replace(dropout=0.9))
    model.train()
    first = generate(model, prompt(), 10, temperature=0)
    assert model.training
    assert torch.equal(first, generate(model, prompt(), 10, temperature=0))
    tokens = stream(model, prompt(), 10)
    next(tokens)
    tokens.close()
    assert model.training
    generate(model.eval(), prompt(), 1)
    assert not model.training


def test_no_gradients_are_kept_while_sampling(model: GPT) -> None:
    seen: list[bool] = []
    model.lm_head.register_forward_hook(lambda _, __, logits: seen.append(logits.requires_grad))
    tokens = stream(model, prompt(), 3)
    next(tokens)
    assert torch.is_grad_enabled()  # between two tokens the caller's setting holds
    list(tokens)
    assert seen == [False] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature .* not -1"),
        ({"temperature": math.nan}, "temperature .* not nan"),
        ({"top_k": 0}, "top_k .* not 0"),
        ({"top_p": 0.0}, "top_p .* not 0"),
        ({"top_p": 1.5}, r"top_p .* not 1\.5"),
    ],
)
def test_options_without_a_meaning_are_refused(
    model: GPT, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        generate(model, prompt(), 1, **options)


@pytest.mark.parametrize(
    ("idx", "message"),
    [
        (torch.zeros(1, 0, dtype=torch.long), r"at least 1, not \(1, 0\)"),
        (torch.zeros(0, 3, dtype=torch.long), r"not \(0, 3\)"),
        (torch.zeros(3, dtype=torch.long), r"not \(3,\)"),
        (torch.tensor([[1, 30]]), "token id 30 .* vocabulary of 30"),
        (torch.tensor([[-1, 3]]), "token id -1 .* vocabulary of 30"),
    ],
)
def test_bad_prompts_are_refused(model: GPT, idx: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        generate(model, idx, 1)


def test_a_negative_number_of_tokens_is_refused_and_none_is_none(model: GPT) -> None:
    with pytest.raises(UserError, match=r"max_new_tokens .* not -1"):
        generate(model, prompt(), -1)
    assert torch.equal(generate(model, prompt(), 0), prompt())


def test_stream_takes_one_prompt(model: GPT) -> None:
    with pytest.raises(UserError, match="one prompt, not 2"):
        next(stream(model, prompt(B=2), 3))
