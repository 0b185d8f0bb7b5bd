"""Attention: one formula, two ways to compute it, and no view of the future."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from gpt2lib import attention
from gpt2lib.attention import CausalSelfAttention, attend, eager, fused
from gpt2lib.config import GPTConfig
from gpt2lib.errors import UserError
from gpt2lib.masks import Causal, Mask
from gpt2lib.positions import unturned

FORMS = pytest.mark.parametrize("form", [eager, fused, attend])
Form = Callable[..., Tensor]


@dataclass(frozen=True)
class Everyone(Mask):
    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return (q_idx >= 0) & (kv_idx >= 0)


@dataclass(frozen=True)
class Near(Mask):
    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return (q_idx - kv_idx).abs() <= 1


def qkv(T: int, hs: int = 4, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, T, hs, generator=generator).to(dtype) for _ in range(3)]


def table_of(form: Form, T: int, mask: Mask, dropout: float = 0.0) -> Tensor:
    """Return the weights themselves: with the unit vectors as values, they are the output."""
    q, k, _ = qkv(T, hs=T)
    return form(q, k, torch.eye(T).expand(2, 3, T, T), mask, dropout)


def module(dropout: float = 0.0, n_head: int = 3) -> CausalSelfAttention:
    torch.manual_seed(0)
    return CausalSelfAttention(GPTConfig(n_embd=12, n_head=n_head, dropout=dropout))


@FORMS
def test_equals_the_formula_in_loops(form: Form) -> None:
    q, k, v = qkv(5)
    y = form(q, k, v, Causal())
    for b in range(2):
        for h in range(3):
            for t in range(5):
                scores = [float(q[b, h, t] @ k[b, h, s]) / math.sqrt(4) for s in range(t + 1)]
                total = sum(math.exp(score) for score in scores)
                wanted = sum(math.exp(x) / total * v[b, h, s] for s, x in enumerate(scores))
                torch.testing.assert_close(y[b, h, t], wanted)


@pytest.mark.parametrize("mask", [Causal(), Everyone(), Near()])
@pytest.mark.parametrize("T", [1, 2, 3, 7, 33])
def test_both_forms_agree_in_output_and_gradient(T: int, mask: Mask) -> None:
    outputs, gradients = [], []
    for form in (eager, fused):
        inputs = [part.requires_grad_() for part in qkv(T)]
        y = form(*inputs, mask)
        y.square().sum().backward()
        outputs.append(y)
        gradients.append([part.grad for part in inputs])
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mask", [Causal(), Near()])
def test_both_forms_agree_in_bf16(mask: Mask) -> None:
    exact = eager(*qkv(40), mask)
    for form in (eager, fused):
        inputs = [part.requires_grad_() for part in qkv(40, dtype=torch.bfloat16)]
        y = form(*inputs, mask)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), exact, atol=4e-2, rtol=4e-2)
        y.sum().backward()
        assert all(bool(part.grad.isfinite().all()) for part in inputs)


@FORMS
def test_fewer_queries_than_keys_are_the_last_ones(form: Form) -> None:
    q, k, v = qkv(6)
    whole = form(q, k, v, Causal())
    torch.testing.assert_close(form(q[:, :, 4:], k, v, Causal()), whole[:, :, 4:])


@FORMS
@pytest.mark.parametrize("mask", [Causal(), Near()])
def test_weights_are_shares(form: Form, mask: Mask) -> None:
    weights = table_of(form, 6, mask)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 6))
    seen = weights[0, 0] > 0
    places = torch.arange(6)
    zero = torch.tensor(0)
    assert torch.equal(seen, mask(zero, zero, places[:, None], places[None, :]))
    assert not bool((weights < 0).any())


@FORMS
def test_dropout_drops_weights_and_scales_the_rest(form: Form) -> None:
    torch.manual_seed(0)
    whole, thinned = table_of(form, 8, Causal()), table_of(form, 8, Causal(), dropout=0.25)
    kept = thinned != 0
    torch.testing.assert_close(thinned[kept], whole[kept] / 0.75)
    share = float(kept.sum() / (whole != 0).sum())
    assert 0.6 < share < 0.9  # 216 weights: 0.75, give or take 0.03


@pytest.mark.parametrize("n_head", [1, 3])
def test_module_equals_its_heads_one_by_one(n_head: int) -> None:
    layer, x = module(n_head=n_head), torch.randn(2, 5, 12)
    hs = 12 // n_head
    W, b = layer.c_attn.weight, layer.c_attn.bias
    heads = []
    for h in range(n_head):
        rows = [slice(part * 12 + h * hs, part * 12 + (h + 1) * hs) for part in range(3)]
        q, k, v = (x @ W[r].T + b[r] for r in rows)
        heads.append(eager(q[:, None], k[:, None], v[:, None], Causal())[:, 0])
    wanted = torch.cat(heads, dim=-1) @ layer.c_proj.weight.T + layer.c_proj.bias
    torch.testing.assert_close(layer(x, unturned), wanted, atol=1e-6, rtol=1e-5)


def test_no_place_sees_the_future() -> None:
    layer = module()
    x = torch.randn(1, 7, 12, requires_grad=True)
    y = layer(x, unturned)
    for t in range(7):
        (gradient,) = torch.autograd.grad(y[0, t].sum(), x, retain_graph=True)
        sizes = gradient[0].abs().sum(-1)
        assert bool((sizes[: t + 1] > 0).all())
        assert bool((sizes[t + 1 :] == 0).all())


def test_without_mask_and_positions_order_does_not_matter() -> None:
    layer, x = module(), torch.randn(2, 7, 12)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(3))
    causal = layer(x[:, order], unturned) - layer(x, unturned)[:, order]
    assert float(causal.detach().abs().max()) > 1e-3  # the causal mask does know an order
    layer.mask = Everyone()
    torch.testing.assert_close(layer(x[:, order], unturned), layer(x, unturned)[:, order])


def test_dropout_acts_in_training_only() -> None:
    layer, plain, x = module(dropout=0.5), module(), torch.randn(2, 5, 12)
    wanted = plain(x, unturned)
    assert not torch.allclose(layer(x, unturned), wanted)
    assert not torch.equal(layer(x, unturned), layer(x, unturned))
    torch.testing.assert_close(layer.eval()(x, unturned), wanted, atol=0, rtol=0)


def test_the_module_drops_weights_and_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        attention, "attend", lambda q, k, v, mask, dropout, places: asked.append(dropout) or v
    )
    layer, x = module(dropout=0.5), torch.randn(4, 5, 12)
    thinned = layer(x, unturned)
    layer.eval()(x, unturned)
    assert asked == [0.5, 0.0]
    assert 0.3 < float((thinned == 0).float().mean()) < 0.7


def test_positions_turn_queries_and_keys() -> None:
    def doubled(part: Tensor) -> Tensor:
        assert part.shape == (2, 3, 5, 4)
        return 2 * part

    layer, scaled, x = module(), module(), torch.randn(2, 5, 12)
    with torch.no_grad():
        for weight in (scaled.c_attn.weight, scaled.c_attn.bias):
            weight[:24] *= 2  # queries and keys, not values
    torch.testing.assert_close(layer(x, doubled), scaled(x, unturned))


def test_attend_picks_the_form_by_device_dtype_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("eager", "fused"):
        monkeypatch.setattr(attention, name, lambda *_, name=name: name)

    def choice(dtype: torch.dtype, T: int) -> Tensor:
        return attend(*[torch.zeros(1, 1, T, 1, dtype=dtype)] * 3, Causal())

    limit = attention.EAGER_UP_TO
    assert choice(torch.bfloat16, limit) == "eager"
    assert choice(torch.bfloat16, limit + 1) == "fused"
    assert choice(torch.float32, 1) == "fused"


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(UserError, match=r"n_embd 12 .* n_head 5"):
        GPTConfig(n_embd=12, n_head=5)
