"""Sampling: tokens as another implementation draws them, repeatable, and bad input refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers_twin import randomise, twins

from gpt2lib.config import GPTConfig
from gpt2lib.generation.generator import generate, left_pad, stream
from gpt2lib.model.gpt import GPT
from gpt2lib.utils.errors import UserError

# An untied head: a tied one mostly repeats the last token, and then a wrong crop changes nothing.
TINY = GPTConfig(vocab_size=30, block_size=12, n_layer=2, n_head=2, n_embd=16, tie_weights=False)


@pytest.fixture
def model() -> GPT:
    made = GPT(TINY).eval()
    randomise(made, embedding_std=0.5)
    return made


def prompt(B: int = 1, T: int = 4) -> Tensor:
    return torch.randint(30, (B, T), generator=torch.Generator().manual_seed(1))


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


@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_greedy_tokens_of_a_padded_batch_are_those_of_transformers(penalty: float) -> None:
    prompts = [[3, 8, 1, 20, 11], [7], [9, 9, 25]]
    for seed in range(3):
        ours, theirs = twins(TINY.replace(block_size=32), seed, embedding_std=0.5)
        idx, pad = left_pad(prompts)
        for row, n in enumerate(pad):
            idx[row, :n] = idx[row, n]  # theirs penalises the filling, too: a token of the row
        seen = torch.arange(5) >= torch.tensor(pad)[:, None]
        wanted = theirs.generate(
            idx,
            attention_mask=seen.long(),
            max_new_tokens=20,
            do_sample=False,
            repetition_penalty=penalty,
            pad_token_id=0,
        )
        got = generate(ours, idx, 20, temperature=0, pad=pad, repetition_penalty=penalty)
        assert torch.equal(got, wanted)


def test_the_repetition_penalty_counts_the_prompt_and_what_was_drawn(model: GPT) -> None:
    prompts = [[1, 2, 3, 4], [5]]
    idx, pad = left_pad(prompts, fill=7)
    got = generate(model, idx, 8, temperature=0, pad=pad, repetition_penalty=3.0)
    for row, tokens in enumerate(prompts):
        for _ in range(8):
            with torch.no_grad():
                logits = model(torch.tensor([tokens]))[0, -1].tolist()
            for token in set(tokens):
                logits[token] = logits[token] * (3.0 if logits[token] < 0 else 1 / 3)
            tokens = [*tokens, max(range(30), key=logits.__getitem__)]
        assert got[row, pad[row] :].tolist() == tokens
    assert not torch.equal(got, generate(model, idx, 8, temperature=0, pad=pad))


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


def test_each_row_of_a_padded_batch_ends_at_its_own_stop_token(model: GPT) -> None:
    idx, pad = left_pad([[1, 2, 3], [4]])
    free = generate(model, idx, 12, seed=4, pad=pad)
    new = free[:, 3:].tolist()
    stop = {new[0][3], new[1][7]}
    ends = [next(i for i, token in enumerate(row) if token in stop) for row in new]
    got = generate(model, idx, 12, seed=4, pad=pad, stop=stop)[:, 3:].tolist()
    assert len(got[0]) == max(ends) + 1
    for before, after, end in zip(new, got, ends, strict=True):
        assert after == [*before[: end + 1], *[before[end]] * (max(ends) - end)]


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


def test_an_error_in_the_model_puts_its_mode_back(model: GPT) -> None:
    model.train()
    calls: list[bool] = []

    def fail(module: torch.nn.Module, *_: Any) -> None:
        calls.append(module.training)
        if len(calls) == 3:
            raise RuntimeError("broken")

    handle = model.transformer.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="broken"):
        generate(model, prompt(), 5)
    assert calls == [False] * 3
    assert model.training
    handle.remove()
    assert torch.is_grad_enabled()


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
        ({"top_k": 0}, "top_k .* not 0"),
        ({"temperature": 0, "top_p": 0.5}, r"top_p 0\.5 would do nothing"),
        ({"repetition_penalty": 0.0}, "repetition_penalty .* above 0"),
        ({"seed": -1}, r"seed must be from 0 to 2\*\*63 - 1, not -1"),
        ({"seed": 2**64}, "seed must be .* not 18446744073709551616"),
        ({"past_block": "crop"}, "past_block must be reread or refuse, not 'crop'"),
        ({"pad": [0, 0]}, r"pad must be 1 numbers from 0 to 3, not \[0, 0\]"),
        ({"pad": [4]}, r"from 0 to 3, not \[4\]"),
        ({"pad": [-1]}, r"from 0 to 3, not \[-1\]"),
    ],
)
def test_bad_options_are_refused_in_one_line_before_anything_is_computed(
    model: GPT, options: dict[str, Any], message: str
) -> None:
    model.transformer.register_forward_hook(lambda *_: pytest.fail("it was computed"))
    with pytest.raises(UserError, match=message) as refused:
        generate(model, prompt(), 1, **options)
    assert "\n" not in str(refused.value)


def test_past_block_refuse_refuses_before_anything_is_drawn(model: GPT) -> None:
    whole = generate(model, prompt(T=5), 8, past_block="refuse", seed=1)  # the last is not read
    assert torch.equal(whole, generate(model, prompt(T=5), 8, seed=1))
    model.transformer.register_forward_hook(lambda *_: pytest.fail("it was computed"))
    message = "5 tokens and 9 new ones do not fit block_size 12; draw at most 8, or set past_block"
    with pytest.raises(UserError, match=message):
        generate(model, prompt(T=5), 9, past_block="refuse")
    with pytest.raises(UserError, match="prompt of 4 tokens and 10 new"):  # the longest row counts
        generate(model, prompt(B=2, T=5), 10, pad=[2, 1], past_block="refuse")


def test_prompts_are_filled_up_on_the_left() -> None:
    idx, pad = left_pad([[1, 2, 3], [4]], fill=9)
    assert idx.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert pad == [0, 2]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [([], "there are no prompts"), ([[1], []], "prompt 1 is empty; give at least one token")],
)
def test_no_prompt_and_an_empty_one_are_refused(prompts: list[list[int]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        left_pad(prompts)


def test_a_model_that_has_diverged_is_told(model: GPT) -> None:
    with torch.no_grad():
        model.transformer.ln_f.weight[0] = torch.nan
    for temperature in (0.0, 1.0):
        with pytest.raises(UserError, match="NaN"):
            generate(model, prompt(), 1, temperature=temperature)


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


def test_ids_of_any_whole_type_are_taken_and_others_refused(model: GPT) -> None:
    idx = prompt()
    wanted = generate(model, idx, 3, temperature=0)
    assert torch.equal(generate(model, idx.int(), 3, temperature=0), wanted)
    with pytest.raises(UserError, match=r"whole numbers, not torch\.float32"):
        generate(model, idx.float(), 3)
