"""Hooks see what the model computes, change only what they say, and leave no trace."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gpt2lib.config import GPTConfig
from gpt2lib.course import induction
from gpt2lib.course.changing import patched_stream, recovered, replaced_heads, without_heads
from gpt2lib.course.inside import attribution, logit_lens, look
from gpt2lib.model.attention import eager
from gpt2lib.model.gpt import GPT
from gpt2lib.utils.errors import UserError

SHAPE = GPTConfig(vocab_size=31, block_size=12, n_layer=3, n_head=4, n_embd=32)
KINDS = {
    "gpt2": {},
    "no biases, no mlp": {"bias": False, "without": ("mlp",)},
    "rope and shared keys": {"position": "rope", "n_kv_head": 2},
    "window": {"window": (3, None, 5)},
}


@pytest.fixture(params=KINDS, scope="module")
def model(request: pytest.FixtureRequest) -> GPT:
    torch.manual_seed(0)
    made = GPT(SHAPE.replace(**KINDS[request.param]))
    for p in made.parameters():
        nn.init.normal_(p, std=0.3)
    return made.eval()


@pytest.fixture
def idx() -> Tensor:
    return torch.randint(31, (2, 12), generator=torch.Generator().manual_seed(1))


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_what_is_seen_gives_the_models_own_numbers(model: GPT, idx: Tensor) -> None:
    seen = look(model, idx)
    assert hooks_of(model) == 0
    with torch.no_grad():
        assert torch.equal(seen.logits, model(idx))
        torch.testing.assert_close(logit_lens(model, seen.streams[-1]), seen.logits)
        for layer, block in enumerate(model.transformer.h):
            added = block.attn.c_proj(seen.heads[layer].flatten(-2))
            added = added + (seen.mlps[layer] if seen.mlps else 0)
            torch.testing.assert_close(seen.streams[layer] + added, seen.streams[layer + 1])


def test_the_pattern_is_what_the_kernel_multiplied_the_values_with(model: GPT, idx: Tensor) -> None:
    seen = look(model, idx)
    rotate = model.transformer.wpe.rotation(torch.arange(12))
    for layer, block in enumerate(model.transformer.h):
        attn, pattern = block.attn, seen.patterns[layer]
        assert (pattern.triu(1) == 0).all()
        with torch.no_grad():
            qkv = attn.c_attn(block.ln_1(seen.streams[layer]))
        q, k, v = (
            part.view(2, 12, -1, attn.head_size).transpose(1, 2)
            for part in torch.split(qkv, attn.widths, 2)
        )
        ones = eager(rotate(q), rotate(k), torch.eye(12).expand(2, v.size(1), 12, 12), attn.mask)
        torch.testing.assert_close(pattern, ones)  # with one-hot values the answer is the pattern


def test_contributions_add_up_to_the_logit(model: GPT, idx: Tensor) -> None:
    seen = look(model, idx)
    direction = (model.lm_head.weight[3] - model.lm_head.weight[7]).detach()
    split = attribution(model, seen, direction, row=1, t=8)
    assert len(split) == 2 + 3 * (4 + bool(seen.mlps))
    wanted = seen.logits[1, 8, 3] - seen.logits[1, 8, 7]
    torch.testing.assert_close(sum(split.values()), float(wanted), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_replaced_head_is_as_if_its_columns_were_zero(model: GPT, idx: Tensor) -> None:
    before = model(idx)
    with replaced_heads(model, [(1, 2), (2, 0), (1, 3)]):
        changed = model(idx)
    kept = {layer: model.transformer.h[layer].attn.c_proj.weight.clone() for layer in (1, 2)}
    for layer, head in ((1, 2), (1, 3), (2, 0)):
        model.transformer.h[layer].attn.c_proj.weight[:, 8 * head : 8 * head + 8] = 0
    torch.testing.assert_close(changed, model(idx))
    for layer, weight in kept.items():
        model.transformer.h[layer].attn.c_proj.weight.copy_(weight)
    assert torch.equal(model(idx), before)
    assert hooks_of(model) == 0


@torch.no_grad()
def test_every_heads_value_of_another_run_makes_that_run(model: GPT, idx: Tensor) -> None:
    other = idx.flip(1)
    donor = look(model, other)
    # The first stream and every head of the other run: all that attention can see of a text.
    values = {layer: donor.heads[layer].flatten(-2) for layer in range(3)}
    everything = [(layer, head) for layer in range(3) for head in range(4)]
    for t in range(12):
        with (
            patched_stream(model, 0, t, donor.streams[0][:, t]),
            replaced_heads(model, everything, values),
        ):
            torch.testing.assert_close(model(idx)[:, t], donor.logits[:, t])


@torch.no_grad()
@pytest.mark.parametrize("layer", range(4))
def test_a_patch_changes_its_position_and_none_before(model: GPT, idx: Tensor, layer: int) -> None:
    other = torch.cat((idx[:, :5], (idx[:, 5:6] + 1) % 31, idx[:, 6:]), 1)
    clean, corrupted = look(model, idx), look(model, other)
    with patched_stream(model, layer, 5, clean.streams[layer][:, 5]):
        patched = model(other)
    assert torch.equal(patched[:, :5], corrupted.logits[:, :5])
    torch.testing.assert_close(patched[:, 5], clean.logits[:, 5])
    if layer == 0:  # the texts differ there alone
        torch.testing.assert_close(patched, clean.logits)
    assert recovered(2.0, 1.0, 1.0) == 0 and recovered(2.0, 1.0, 2.0) == 1


def test_a_head_that_is_not_there_is_refused_and_no_hook_is_left(model: GPT) -> None:
    with pytest.raises(UserError, match=r"no head 3\.0: the model has layers 0 to 2 and heads 0"):
        replaced_heads(model, [(0, 0), (3, 0)])
    assert hooks_of(model) == 0


def test_hooks_are_gone_after_an_error(model: GPT) -> None:
    with pytest.raises(UserError, match="do not fit"):
        look(model, torch.zeros(1, 13, dtype=torch.long))
    assert hooks_of(model) == 0


def test_repeated_rows_repeat_and_nothing_else_is_known() -> None:
    idx, targets, known = induction.repeated_rows(200, torch.Generator().manual_seed(0))
    assert torch.equal(idx[:, 1:], targets[:, :-1])
    for row, wanted, mask in zip(idx, targets, known, strict=True):
        period = int((~mask).sum())
        assert 8 <= period <= 32 and not mask[:period].any()
        assert torch.equal(wanted[period:], idx.new_tensor(wanted.tolist())[: 64 - period])
        assert torch.equal(row[period:], row[:-period])


def test_silencing_heads_leaves_what_it_was_given() -> None:
    z = torch.ones(1, 2, 6)
    assert without_heads(z, [1], 3).tolist() == [[[1.0, 1.0, 0.0, 0.0, 1.0, 1.0]] * 2]
    assert (z == 1).all()


def test_the_prefix_mask_is_that_of_a_loop() -> None:
    row = [3, 1, 3, 3, 1, 3]  # the last token is the first one, too
    wanted = [[0 < j <= t and row[j - 1] == row[t] for j in range(6)] for t in range(6)]
    assert induction.prefix_mask(torch.tensor([row])).tolist() == [wanted]


def test_a_perfect_copying_head_scores_1_and_a_uniform_one_little() -> None:
    idx, _, known = induction.repeated_rows(50, torch.Generator().manual_seed(0))
    marked = induction.prefix_mask(idx).float()[:, None]
    perfect = marked / marked.sum(-1, keepdim=True).clamp(min=1)
    uniform = torch.ones(64, 64).tril().expand(50, 1, 64, 64) / torch.arange(1, 65)[:, None]
    scores = induction.prefix_matching([perfect, uniform], idx, known)
    assert scores[0, 0] == pytest.approx(1) and 0.03 < scores[1, 0] < 0.1
    assert induction.induction_heads(scores) == [(0, 0)]


def test_the_previous_token_score() -> None:
    behind = torch.eye(64).roll(-1, 1).expand(2, 3, 64, 64)  # query t looks at key t - 1
    ahead = behind.transpose(-1, -2)
    assert induction.previous_token([behind, ahead]).tolist() == [[1.0] * 3, [0.0] * 3]


def test_the_kink_of_a_step_is_in_its_middle() -> None:
    losses = [4.0] * 20 + [1.0] * 20
    step, fall = induction.steepest_fall(range(0, 400, 10), losses, 5)
    assert 150 <= step <= 250 and fall == 3.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_head_is_born_where_there_is_something_to_copy_and_is_the_cause(seed: int) -> None:
    steps = 600
    birth = induction.learn_to_copy(seed, steps)
    found = induction.induction_heads(birth.scores[-1])
    assert found and all(layer == 1 for layer, _ in found)
    rows = induction.held_out_rows()
    assert induction.loss_on(birth.model, *rows) < 1.2
    with replaced_heads(birth.model, found):
        assert induction.loss_on(birth.model, *rows) > 3.0
    control = induction.learn_to_copy(seed, steps, shuffled=True)
    assert induction.induction_heads(control.scores[-1]) == []
    assert induction.steepest_fall(control.steps, control.copy, 5)[1] < 0.1
