"""Attention: one formula, two ways to compute it, and no view of the future."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from gpt2lib.config import GPTConfig
from gpt2lib.model import attention
from gpt2lib.model.attention import CausalSelfAttention, attend, eager, fused, kernel_for
from gpt2lib.model.kernels import flex, window
from gpt2lib.model.masks import (
    Causal,
    GlobalTokens,
    Mask,
    SlidingWindow,
    dense,
    layer_mask,
    materialise,
)
from gpt2lib.model.positions import RotaryPositions, identity
from gpt2lib.utils.errors import UserError

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
    positions = torch.arange(6)
    zero = torch.tensor(0)
    assert torch.equal(seen, mask(zero, zero, positions[:, None], positions[None, :]))
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
    torch.testing.assert_close(layer(x, identity), wanted, atol=1e-6, rtol=1e-5)


def test_no_position_sees_the_future() -> None:
    layer = module()
    x = torch.randn(1, 7, 12, requires_grad=True)
    y = layer(x, identity)
    for t in range(7):
        (gradient,) = torch.autograd.grad(y[0, t].sum(), x, retain_graph=True)
        sizes = gradient[0].abs().sum(-1)
        assert bool((sizes[: t + 1] > 0).all())
        assert bool((sizes[t + 1 :] == 0).all())


def test_without_mask_and_positions_order_does_not_matter() -> None:
    layer, x = module(), torch.randn(2, 7, 12)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(3))
    causal = layer(x[:, order], identity) - layer(x, identity)[:, order]
    assert float(causal.detach().abs().max()) > 1e-3  # the causal mask does know an order
    layer.mask = Everyone()
    torch.testing.assert_close(layer(x[:, order], identity), layer(x, identity)[:, order])


def test_dropout_acts_in_training_only() -> None:
    layer, plain, x = module(dropout=0.5), module(), torch.randn(2, 5, 12)
    wanted = plain(x, identity)
    assert not torch.allclose(layer(x, identity), wanted)
    assert not torch.equal(layer(x, identity), layer(x, identity))
    torch.testing.assert_close(layer.eval()(x, identity), wanted, atol=0, rtol=0)


def test_the_module_drops_weights_and_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        attention, "attend", lambda q, k, v, mask, dropout: asked.append(dropout) or v
    )
    layer, x = module(dropout=0.5), torch.randn(4, 5, 12)
    thinned = layer(x, identity)
    layer.eval()(x, identity)
    assert asked == [0.5, 0.0]
    assert 0.3 < float((thinned == 0).float().mean()) < 0.7


def test_positions_rotate_queries_and_keys() -> None:
    def doubled(part: Tensor) -> Tensor:
        assert part.shape == (2, 3, 5, 4)
        return 2 * part

    layer, scaled, x = module(), module(), torch.randn(2, 5, 12)
    with torch.no_grad():
        for weight in (scaled.c_attn.weight, scaled.c_attn.bias):
            weight[:24] *= 2  # queries and keys, not values
    torch.testing.assert_close(layer(x, doubled), scaled(x, identity))


def test_attend_picks_the_form_by_device_dtype_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("eager", "fused"):
        monkeypatch.setattr(attention, name, lambda *_, name=name: name)

    def choice(dtype: torch.dtype, T: int) -> Tensor:
        return attend(*[torch.zeros(1, 1, T, 1, dtype=dtype)] * 3, Causal())

    limit = attention.EAGER_UP_TO
    assert choice(torch.bfloat16, limit) == "eager"
    assert choice(torch.bfloat16, limit + 1) == "fused"
    assert choice(torch.float32, 1) == "fused"


# ── shared keys and values ──────────────────────────────────────────────────────────────────────

SHARED = pytest.mark.parametrize("n_kv_head", [1, 2, 3, 6])
WINDOWS: list[Mask] = [Causal(), Near(), Causal() & SlidingWindow(2, (1, 1, 2, 2, 3, 1))]


def grouped(n_kv_head: int, T: int = 7, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(n_kv_head)
    heads = (6, n_kv_head, n_kv_head)
    return [torch.randn(2, n, T, 4, generator=generator, dtype=dtype) for n in heads]


@FORMS
@SHARED
@pytest.mark.parametrize("mask", WINDOWS)
def test_shared_heads_equal_repeated_ones(form: Form, n_kv_head: int, mask: Mask) -> None:
    """Head h uses key/value head h // group: neighbours share."""
    q, k, v = (part.requires_grad_() for part in grouped(n_kv_head))
    own = torch.tensor([h * n_kv_head // 6 for h in range(6)])
    (eager(q, k[:, own], v[:, own], mask) ** 2).sum().backward()
    wanted = [part.grad for part in (q, k, v)]
    expected = eager(q, k[:, own], v[:, own], mask)
    for part in (q, k, v):
        part.grad = None
    y = form(q, k, v, mask)
    (y**2).sum().backward()
    torch.testing.assert_close(y, expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close([q.grad, k.grad, v.grad], wanted, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("form", [eager, fused])
def test_shared_heads_serve_fewer_queries_and_positions_by_row(form: Form) -> None:
    q, k, v = grouped(2)
    whole = eager(q, k, v, Causal())
    torch.testing.assert_close(form(q[:, :, 4:], k, v, Causal()), whole[:, :, 4:])
    positions = torch.tensor([[6], [3]]), torch.arange(7).expand(2, -1)
    seen = materialise(Causal(), *positions)  # (2, 1, 1, 7)
    rows = torch.stack([q[0, :, 6:], q[1, :, 3:4]])
    y = form(rows, k, v, seen)
    torch.testing.assert_close(y, torch.stack([whole[0, :, 6:], whole[1, :, 3:4]]))


def repeated(shared: CausalSelfAttention, config: GPTConfig) -> CausalSelfAttention:
    """Return the module with one key/value head a head that computes the same."""
    hs, C, kv = config.head_size, config.n_embd, config.kv_heads
    own = [C + h * kv // config.n_head * hs + i for h in range(config.n_head) for i in range(hs)]
    order = torch.tensor([*range(C), *own, *(row + kv * hs for row in own)])
    whole = CausalSelfAttention(config.replace(n_kv_head=None))
    whole.load_state_dict(
        {
            name: value[order] if name.startswith("c_attn") else value
            for name, value in shared.state_dict().items()
        }
    )
    return whole


@SHARED
@pytest.mark.parametrize("position", ["none", "rope"])
def test_a_module_that_shares_equals_one_with_repeated_rows(n_kv_head: int, position: str) -> None:
    config = GPTConfig(n_embd=24, n_head=6, n_kv_head=n_kv_head, position=position)
    torch.manual_seed(0)
    layer = CausalSelfAttention(config)
    assert layer.c_attn.weight.shape == ((6 + 2 * n_kv_head) * 4, 24)
    assert layer.c_attn.bias.shape == ((6 + 2 * n_kv_head) * 4,)
    assert layer.c_proj.weight.shape == (24, 24)
    rotate = RotaryPositions(config).rotation(torch.arange(7)) if position == "rope" else identity
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(layer(x, rotate), repeated(layer, config)(x, rotate))


def memory_taken(layer: CausalSelfAttention, x: Tensor) -> int:
    """Return the bytes of all that a forward pass makes, and check that it repeats nothing."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        layer(x, identity)
    taken = {event.key: event.self_cpu_memory_usage for event in seen.key_averages()}
    assert not [key for key in taken if "repeat" in key]
    return sum(size for size in taken.values() if size > 0)


@pytest.mark.parametrize("mask", [Causal(), Near()])
def test_keys_and_values_are_never_repeated_in_memory(
    mask: Mask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither before the fused kernel nor by it: what is not computed takes no memory."""
    handed: list[tuple[torch.Size, ...]] = []
    sdpa = F.scaled_dot_product_attention

    def spy(q: Tensor, k: Tensor, v: Tensor, **options: object) -> Tensor:
        handed.append((q.shape, k.shape, v.shape))
        return sdpa(q, k, v, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    B, nh, T, hs = 2, 8, 256, 16
    config, x = GPTConfig(n_embd=nh * hs, n_head=nh), torch.randn(B, T, nh * hs)
    whole, shared = (CausalSelfAttention(config.replace(n_kv_head=n)) for n in (nh, 1))
    whole.mask = shared.mask = mask
    saved = 2 * B * (nh - 1) * T * hs * 4  # bytes of keys and values
    memory_taken(whole, x)  # the first call makes more, once
    assert memory_taken(shared, x) <= memory_taken(whole, x) - 0.95 * saved
    assert handed[1] == ((B, nh, T, hs), (B, 1, T, hs), (B, 1, T, hs))


# ── which form is used ──────────────────────────────────────────────────────────────────────────


def heads(T: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    return torch.empty(1, 2, T, 4, dtype=dtype, device=device)


class OnCuda:
    """What `kernel_for` asks of a tensor that lies on a GPU."""

    is_cuda, device, dtype = True, torch.device("cuda"), torch.bfloat16

    def size(self, _: int) -> int:
        return 1000


def test_a_window_in_a_longer_text_is_computed_in_blocks() -> None:
    config = GPTConfig(n_layer=2, window=(4, 400), dilation=((1,), (2,)), global_tokens=(3,))
    low, high = layer_mask(config, 0), layer_mask(config, 1)
    assert kernel_for(heads(1000), low, 0.0) is window.chunked
    assert kernel_for(heads(1000), low, 0.1) is window.chunked
    assert kernel_for(heads(8), low, 0.0) is fused  # all fits two windows
    assert kernel_for(heads(9), low, 0.0) is window.chunked
    assert kernel_for(heads(800), high, 0.0) is fused
    assert kernel_for(heads(801), high, 0.0) is window.chunked
    assert kernel_for(heads(1000, torch.bfloat16), low, 0.0) is window.chunked
    assert kernel_for(heads(1000), Causal(), 0.0) is fused
    assert kernel_for(heads(100, torch.bfloat16), Causal(), 0.0) is eager
    assert kernel_for(heads(1000), SlidingWindow(4), 0.0) is fused  # not causal: no blocks


def test_on_a_gpu_a_window_is_computed_by_flex_unless_there_is_dropout() -> None:
    mask = Causal() & (SlidingWindow(4) | GlobalTokens((0,)))
    q: Tensor = OnCuda()  # type: ignore[assignment]
    assert kernel_for(q, mask, 0.0) is flex.tiled
    assert kernel_for(q, mask, 0.1) is window.chunked
    assert kernel_for(q, Causal(), 0.0) is fused


def test_attend_takes_the_whole_text_to_its_kernel_and_a_cache_to_the_fused_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(window, "chunked", lambda *_: "chunked")
    monkeypatch.setattr(attention, "fused", lambda *_: "fused")
    mask, q, k = Causal() & SlidingWindow(2), heads(1), heads(9)
    assert attend(k, k, k, mask) == "chunked"
    assert attend(q, k, k, mask) == "fused"
    assert attend(k, k, k, dense(mask, 9, 9)) == "fused"


@pytest.mark.parametrize("window", [(1, 3), 2])
def test_each_layer_looks_through_its_own_window(window: int | tuple[int, ...]) -> None:
    config = GPTConfig(n_layer=2, n_embd=12, n_head=3, window=window)
    torch.manual_seed(0)
    x = torch.randn(1, 9, 12, requires_grad=True)
    for layer in range(2):
        y = CausalSelfAttention(config, layer)(x, identity)
        (gradient,) = torch.autograd.grad(y[0, 7].sum(), x)
        seen = (gradient[0].abs().sum(-1) > 0).nonzero().flatten().tolist()
        assert seen == list(range(8 - (config.windows[layer] or 0), 8))


# ── what does not fit ───────────────────────────────────────────────────────────────────────────


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(UserError, match=r"n_embd 12 .* n_head 5"):
        GPTConfig(n_embd=12, n_head=5)
