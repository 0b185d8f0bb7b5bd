"""A trained model changed into another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers_twin import randomise

from gpt2lib.config import GPTConfig
from gpt2lib.hub import load_pretrained, load_tokenizer_for
from gpt2lib.hub.saving import save_model
from gpt2lib.model.gpt import GPT
from gpt2lib.model.surgery import add_window, empty_model, extend_context, share_heads
from gpt2lib.tokenizer import CharTokenizer
from gpt2lib.utils.errors import UserError

TINY = GPTConfig(vocab_size=30, block_size=8, n_layer=2, n_head=4, n_embd=16, dropout=0.1)


def model(**changes: Any) -> GPT:
    made = GPT(TINY.replace(**changes))
    randomise(made)
    return made.eval()


def ids(T: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(30, (2, T), generator=torch.Generator().manual_seed(seed))


def test_tiling_repeats_the_learned_positions() -> None:
    old = model()
    new = extend_context(old, 20)
    was, now = old.transformer.wpe.weight, new.transformer.wpe.weight
    assert [int((now[t] == was).all(1).nonzero()) for t in range(20)] == [t % 8 for t in range(20)]
    assert new.config == TINY.replace(block_size=20)
    torch.testing.assert_close(new(ids(8)), old(ids(8)))
    assert new(ids(20)).isfinite().all()


@pytest.mark.parametrize("method", ["linear", "ntk", "none"])
def test_extending_rope_keeps_the_weights(method: Any) -> None:
    old = model(position="rope")
    new = extend_context(old, 24, method)
    assert all(torch.equal(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True))
    assert new.config.block_size == 24
    assert new(ids(24)).isfinite().all()
    same = torch.allclose(new(ids(8)), old(ids(8)), atol=1e-5)
    assert same == (method == "none")


def test_linear_interpolation_puts_every_third_position_where_one_was() -> None:
    old = model(position="rope")
    new = extend_context(old, 24, "linear")
    q = torch.randn(1, 4, 24, 4)
    rotated = new.transformer.wpe.rotation(torch.arange(24))(q)
    before = old.transformer.wpe.rotation(torch.arange(8))(q[:, :, ::3])
    torch.testing.assert_close(rotated[:, :, ::3], before)
    twice = extend_context(new, 48, "linear")
    assert twice.config.rope_scale == 6


def test_ntk_slows_the_slowest_pair_by_the_scale_and_the_fastest_not_at_all() -> None:
    old = model(position="rope", n_head=2)  # heads of 8: four pairs
    new = extend_context(old, 24, "ntk")

    def angles(m: GPT, position: int) -> torch.Tensor:
        rotation = m.transformer.wpe.rotation(torch.tensor([position]))
        return torch.atan2(rotation.sin[0, :4], rotation.cos[0, :4])

    torch.testing.assert_close(angles(new, 3)[0], angles(old, 3)[0])
    torch.testing.assert_close(angles(new, 3)[3], angles(old, 1)[3])


def test_no_positions_only_need_room() -> None:
    old = model(position="none")
    new = extend_context(old, 24)
    torch.testing.assert_close(new(ids(8)), old(ids(8)))
    assert new(ids(24)).shape == (2, 24, 30)


@pytest.mark.parametrize(
    ("position", "block_size", "method", "message"),
    [
        ("learned", 16, "linear", "'linear' does not fit position learned; it can be tile"),
        ("rope", 16, "tile", "'tile' does not fit position rope; it can be linear or ntk or none"),
        ("none", 16, "ntk", "'ntk' does not fit position none"),
        ("rope", 8, "ntk", "block_size 8 is not above the 8 of the model"),
    ],
)
def test_extensions_that_cannot_be(
    position: Any, block_size: int, method: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        extend_context(model(position=position), block_size, method)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("n_kv_head", "method"), [(2, "mean"), (1, "mean"), (2, "first")])
def test_heads_are_pooled_by_group(n_kv_head: int, method: Any, bias: bool) -> None:
    old = model(bias=bias)
    new = share_heads(old, n_kv_head, method)
    assert new.config == old.config.replace(n_kv_head=n_kv_head)
    group = 4 // n_kv_head
    was, now = old.transformer.h[1].attn.c_attn, new.transformer.h[1].attn.c_attn
    for kind in ["weight", *["bias"] * bias]:
        before, after = getattr(was, kind), getattr(now, kind)
        assert torch.equal(after[:16], before[:16])  # queries stay
        for part in (0, 1):  # keys, values
            for head in range(n_kv_head):
                rows = [
                    before[16 + part * 16 + old_head * 4 :][:4]
                    for old_head in range(head * group, (head + 1) * group)
                ]
                wanted = sum(rows) / group if method == "mean" else rows[0]
                got = after[16 + part * 4 * n_kv_head + head * 4 :][:4]
                torch.testing.assert_close(got, wanted)
    assert torch.equal(old.transformer.wte.weight, new.transformer.wte.weight)


def test_pooling_equal_heads_changes_nothing() -> None:
    old = model()
    with torch.no_grad():
        for block in old.transformer.h:
            for tensor in (block.attn.c_attn.weight, block.attn.c_attn.bias):
                groups = tensor[16:].view(2, 2, 2, 4, *tensor.shape[1:])  # k|v, group, head in it
                groups[:, :, 1] = groups[:, :, 0]
    for method in ("mean", "first"):
        torch.testing.assert_close(share_heads(old, 2, method)(ids(8)), old(ids(8)))


def test_random_heads_have_the_initial_size_and_a_seed() -> None:
    old = model(n_embd=64, n_head=4)
    new, again, other = (share_heads(old, 2, "random", seed=seed) for seed in (0, 0, 1))
    drawn = new.transformer.h[0].attn.c_attn.weight[64:]
    assert 0.018 < float(drawn.detach().std()) < 0.022
    assert not new.transformer.h[0].attn.c_attn.bias[64:].any()
    assert torch.equal(drawn, again.transformer.h[0].attn.c_attn.weight[64:])
    assert not torch.equal(drawn, other.transformer.h[0].attn.c_attn.weight[64:])


def test_shared_heads_are_shared_further() -> None:
    once = share_heads(share_heads(model(), 2), 1)
    torch.testing.assert_close(once(ids(8)), share_heads(model(), 1)(ids(8)))


@pytest.mark.parametrize(("n_kv_head", "message"), [(3, "4 .* become 3"), (0, "4 .* become 0")])
def test_heads_that_do_not_divide(n_kv_head: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        share_heads(model(), n_kv_head)
    with pytest.raises(UserError, match="not 'median'"):
        share_heads(model(), 2, "median")  # type: ignore[arg-type]


def test_a_window_hides_what_is_far_and_nothing_else() -> None:
    old = model(n_layer=1)
    new = add_window(old, 3)
    torch.testing.assert_close(new(ids(3)), old(ids(3)))
    assert not torch.allclose(new(ids(8))[:, 7], old(ids(8))[:, 7], atol=1e-3)
    torch.testing.assert_close(add_window(new, None)(ids(8)), old(ids(8)))
    with pytest.raises(UserError, match="global token 8"):
        add_window(old, 3, global_tokens=(8,))


def test_the_old_model_stays_and_the_new_one_is_its_own() -> None:
    old = model()
    before = {name: p.clone() for name, p in old.named_parameters()}
    for new in (extend_context(old, 16), share_heads(old, 2), add_window(old, 4)):
        assert not new.training
        assert new.lm_head.weight is new.transformer.wte.weight
        with torch.no_grad():
            for p in new.parameters():
                p.zero_()
    assert all(torch.equal(p, before[name]) for name, p in old.named_parameters())


def test_nothing_is_drawn_for_an_empty_model() -> None:
    state = torch.get_rng_state()
    empty_model(TINY)
    assert torch.equal(state, torch.get_rng_state())


def test_a_saved_model_is_found_again(tmp_path: Path) -> None:
    tokenizer = CharTokenizer("abcdefghijklmnopqrstuvwxyz .,;")
    new = add_window(share_heads(model(position="rope"), 2), (2, 4), ((1,), (1, 2)), (0,))
    save_model(new, tokenizer, tmp_path / "made")
    again = load_pretrained(tmp_path / "made")
    assert again.config == new.config
    torch.testing.assert_close(again(ids(8)), new(ids(8)), rtol=0, atol=0)
    assert load_tokenizer_for(tmp_path / "made").decode([0, 1, 4, 5]) == " ,ab"
