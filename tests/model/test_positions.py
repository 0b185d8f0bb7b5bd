"""Positions: vectors added once, rotations of queries and keys, or nothing."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from gpt2lib.config import GPTConfig
from gpt2lib.model.gpt import GPT
from gpt2lib.model.masks import Mask
from gpt2lib.model.positions import (
    POSITIONS,
    LearnedPositions,
    NoPositions,
    RotaryPositions,
    Rotation,
    ntk_base,
)


@pytest.fixture
def positions() -> LearnedPositions:
    torch.manual_seed(0)
    return LearnedPositions(GPTConfig(block_size=10, n_embd=4, n_head=1))


def rope(hs: int = 8, base: float = 10000.0, scale: float = 1.0) -> RotaryPositions:
    return RotaryPositions(
        GPTConfig(n_embd=2 * hs, n_head=2, position="rope", rope_base=base, rope_scale=scale)
    )


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rotated(x: Tensor, positions: Tensor, **options: float) -> Tensor:
    return rope(x.size(-1), **options).rotation(positions)(x)


def angle(scheme: RotaryPositions, pair: int, position: float = 1.0) -> float:
    """Return how far a pair is rotated, read off from a unit vector."""
    hs = scheme.head_size
    unit = torch.zeros(1, 1, 1, hs, dtype=torch.float64)
    unit[..., pair] = 1.0
    y = scheme.rotation(torch.tensor([position], dtype=torch.float64))(unit)[0, 0, 0]
    return math.atan2(float(y[pair + hs // 2]), float(y[pair])) % math.tau


# ── learned ─────────────────────────────────────────────────────────────────────────────────────


def test_embed_adds_the_vector_of_each_position(positions: LearnedPositions) -> None:
    x = torch.randn(3, 7, 4)
    y = positions.embed(x, torch.arange(x.size(1)))
    for t in range(7):
        for b in range(3):
            torch.testing.assert_close(y[b, t], x[b, t] + positions.weight[t], atol=0, rtol=0)


def test_start_shifts_the_positions(positions: LearnedPositions) -> None:
    x = torch.randn(2, 9, 4)
    whole = positions.embed(x, torch.arange(x.size(1)))
    rest = positions.embed(x[:, 6:], torch.arange(6, 9))
    torch.testing.assert_close(rest, whole[:, 6:], atol=0, rtol=0)


def test_only_the_used_positions_get_a_gradient(positions: LearnedPositions) -> None:
    positions.embed(torch.zeros(2, 3, 4), torch.arange(4, 7)).sum().backward()
    assert positions.weight.grad is not None
    used = positions.weight.grad.abs().sum(-1) > 0
    assert used.tolist() == [4 <= position < 7 for position in range(10)]


def test_queries_and_keys_are_not_rotated(positions: LearnedPositions) -> None:
    q = torch.randn(2, 2, 5, 3)
    assert positions.rotation(torch.arange(3, 8))(q) is q
    assert NoPositions(GPTConfig()).rotation(torch.arange(3, 8))(q) is q


@pytest.mark.parametrize("name", POSITIONS)
def test_rows_may_stand_at_different_positions(name: str) -> None:
    torch.manual_seed(0)
    scheme = POSITIONS[name](GPTConfig(block_size=50, n_embd=16, n_head=2))
    positions = torch.tensor([[3, 4, 5], [0, 1, 2], [40, 7, 7]])
    x, q = random(3, 3, 16), random(3, 2, 3, 8)
    embedded, rotated = scheme.embed(x, positions), scheme.rotation(positions)(q)
    for row in range(3):
        own = slice(row, row + 1)
        torch.testing.assert_close(embedded[own], scheme.embed(x[own], positions[row]))
        torch.testing.assert_close(rotated[own], scheme.rotation(positions[row])(q[own]))


@pytest.mark.parametrize(("name", "count"), [("learned", 160), ("rope", 0), ("none", 0)])
def test_only_learned_positions_have_parameters(name: str, count: int) -> None:
    scheme = POSITIONS[name](GPTConfig(block_size=10, n_embd=16, n_head=2))
    assert sum(p.numel() for p in scheme.parameters()) == count
    model = GPT(GPTConfig(60, 10, n_layer=1, n_head=2, n_embd=16, position=name))
    assert ("transformer.wpe.weight" in model.state_dict()) == (name == "learned")
    assert not [key for key in model.state_dict() if "wpe" in key and name != "learned"]


@pytest.mark.parametrize("name", ["rope", "none"])
def test_only_learned_positions_change_the_input(name: str) -> None:
    x = random(2, 3, 16)
    assert POSITIONS[name](GPTConfig(n_embd=16, n_head=2)).embed(x, torch.arange(3)) is x


# ── what is known without positions ─────────────────────────────────────────────────────────────


class Everyone(Mask):
    """No causality: whom one sees says nothing about the order either."""

    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return (q_idx >= 0) & (kv_idx >= 0)


def permuted(position: str, mask: Mask | None) -> tuple[Tensor, Tensor]:
    """Return what a model makes of the tokens in another order, and its old results, reordered."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(60, 20, n_layer=2, n_head=2, n_embd=16, position=position)).double()
    for block in model.transformer.h:
        block.attn.c_attn.weight.data.normal_(std=0.5)
        block.attn.mask = mask or block.attn.mask
    idx = torch.randint(60, (2, 9), generator=torch.Generator().manual_seed(1))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return model(idx[:, order]), model(idx)[:, order]


def test_without_positions_and_mask_the_order_is_unknown() -> None:
    torch.testing.assert_close(*permuted("none", Everyone()), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(
    ("position", "mask"), [("none", None), ("learned", Everyone()), ("rope", Everyone())]
)
def test_a_mask_or_positions_tell_the_order(position: str, mask: Mask | None) -> None:
    new, old = permuted(position, mask)
    assert float((new - old).abs().max()) > 1e-2


# ── RoPE: what defines it ───────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=30)
@given(hs=st.sampled_from([2, 4, 10, 64]), position=st.integers(0, 10**5), seed=st.integers(0, 99))
def test_rotating_keeps_every_pairs_length(hs: int, position: int, seed: int) -> None:
    x = random(1, 1, 1, hs, seed=seed)
    y = rotated(x, torch.tensor([position]))

    def lengths(part: Tensor) -> Tensor:
        first, second = part.chunk(2, dim=-1)  # channel i stands with channel i + hs/2
        return first.square() + second.square()

    torch.testing.assert_close(lengths(y), lengths(x), atol=1e-5, rtol=1e-5)


def test_position_0_is_left_alone_and_position_1_is_not() -> None:
    x = random(1, 2, 2, 8)
    y = rotated(x, torch.arange(2))
    torch.testing.assert_close(y[:, :, 0], x[:, :, 0], atol=0, rtol=0)
    assert float((y[:, :, 1] - x[:, :, 1]).abs().max()) > 0.1


@pytest.mark.parametrize("shift", [1, 17, 1000])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_scores_depend_on_the_distance_only(shift: int, scale: float) -> None:
    q, k = (random(1, 2, 20, 16, seed=seed, dtype=torch.float64) for seed in (0, 1))
    positions = torch.arange(20, dtype=torch.float64)

    def scores(at: Tensor) -> Tensor:
        return rotated(q, at, scale=scale) @ rotated(k, at, scale=scale).transpose(-2, -1)

    torch.testing.assert_close(scores(positions + shift), scores(positions), atol=1e-11, rtol=0)
    spread = scores(2 * positions) - scores(positions)  # another distance is another score
    assert float(spread.abs().max()) > 0.1


def test_scores_depend_on_the_distance_in_float32_too() -> None:
    q, k = (random(1, 2, 20, 16, seed=seed) for seed in (0, 1))
    positions = torch.arange(20)

    def scores(at: Tensor) -> Tensor:
        return rotated(q, at) @ rotated(k, at).transpose(-2, -1)

    torch.testing.assert_close(scores(positions + 1000), scores(positions), atol=3e-3, rtol=0)


def test_equals_the_formula_in_loops() -> None:
    x, hs, base, scale = random(1, 1, 5, 6), 6, 100.0, 3.0
    y = rotated(x, torch.arange(7, 12), base=base, scale=scale)[0, 0]
    for t, position in enumerate(range(7, 12)):
        for i in range(hs // 2):
            phi = position / scale * base ** (-2 * i / hs)
            point = complex(float(x[0, 0, t, i]), float(x[0, 0, t, i + hs // 2]))
            wanted = point * complex(math.cos(phi), math.sin(phi))
            assert abs(complex(float(y[t, i]), float(y[t, i + hs // 2])) - wanted) < 1e-5


def test_the_base_slows_all_pairs_but_the_first() -> None:
    slow, fast = rope(8, base=10**6), rope(8, base=10**2)
    assert angle(slow, 0) == pytest.approx(angle(fast, 0)) == pytest.approx(1.0)
    for pair in (1, 2, 3):
        assert angle(fast, pair) / angle(slow, pair) == pytest.approx(10 ** (4 * 2 * pair / 8))


def test_the_scale_divides_the_positions() -> None:
    x = random(1, 2, 6, 8)
    positions = 4 * torch.arange(6)
    torch.testing.assert_close(rotated(x, positions, scale=4.0), rotated(x, torch.arange(6)))


@pytest.mark.parametrize("hs", [4, 8, 64])
@pytest.mark.parametrize("scale", [2.0, 4.0, 7.5])
def test_ntk_slows_the_last_pair_by_the_scale_and_the_first_not_at_all(
    hs: int, scale: float
) -> None:
    plain, raised = rope(hs), rope(hs, base=ntk_base(10000.0, scale, hs))
    last = hs // 2 - 1
    assert angle(plain, 0) == pytest.approx(angle(raised, 0), rel=1e-9)
    assert angle(plain, last) / angle(raised, last) == pytest.approx(scale, rel=1e-9)
    slower = [angle(plain, pair) / angle(raised, pair) for pair in range(last + 1)]
    assert slower == sorted(slower)


def test_ntk_leaves_a_single_pair_and_a_scale_of_1_as_they_are() -> None:
    assert ntk_base(10000.0, 4.0, 2) == 10000.0
    assert ntk_base(10000.0, 1.0, 64) == 10000.0


# ── RoPE: the same numbers as transformers ──────────────────────────────────────────────────────


def theirs(q: Tensor, positions: Tensor, theta: float, kind: str, factor: float) -> Tensor:
    config = LlamaConfig(
        hidden_size=2 * q.size(-1),
        num_attention_heads=2,
        max_position_embeddings=64,
        rope_parameters={"rope_type": kind, "rope_theta": theta, "factor": factor},
    )
    cos, sin = LlamaRotaryEmbedding(config)(q, positions.expand(q.size(0), -1))
    return apply_rotary_pos_emb(q, q, cos, sin)[0]


@pytest.mark.parametrize("hs", [2, 8, 64])
@pytest.mark.parametrize("start", [0, 30000])
@pytest.mark.parametrize(
    ("theta", "kind", "factor"),
    [
        (10000.0, "default", 1.0),
        (500.0, "default", 1.0),
        (10000.0, "linear", 4.0),
        (10000.0, "linear", 3.0),
        (None, "default", 4.0),  # NTK: no kind of its own, only a larger base
    ],
)
def test_rotations_are_those_of_transformers(
    hs: int, start: int, theta: float | None, kind: str, factor: float
) -> None:
    base = theta or ntk_base(10000.0, factor, hs)
    q, positions = random(2, 2, 40, hs), torch.arange(start, start + 40)
    ours = rotated(q, positions, base=base, scale=factor if kind == "linear" else 1.0)
    torch.testing.assert_close(ours, theirs(q, positions, base, kind, factor), atol=1e-6, rtol=1e-5)


# ── RoPE: precision ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("autocast", [True, False])
def test_rotations_are_float32_whatever_the_model_computes_in(autocast: bool) -> None:
    """Rounded to bf16, most positions past 256 are positions of others."""
    positions = torch.tensor([0, 1, 257, 5003, 30001])
    q = random(1, 2, 5, 16).bfloat16()
    wanted = rotated(q.float(), positions).bfloat16()
    scheme = rope(16) if autocast else rope(16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        rotate = scheme.rotation(positions)
        assert isinstance(rotate, Rotation)
        assert rotate.cos.dtype == rotate.sin.dtype == torch.float32
        ours = rotate(q)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours, wanted, atol=0, rtol=0)
    exact = rotated(q.double(), positions.double())
    torch.testing.assert_close(ours.double(), exact, atol=2e-2, rtol=1e-2)


def test_the_model_hands_float32_angles_to_its_layers() -> None:
    seen: list[torch.dtype] = []
    model = GPT(GPTConfig(60, 20, n_layer=2, n_head=2, n_embd=16, position="rope"))
    for block in model.transformer.h:
        block.attn.register_forward_pre_hook(lambda _, args: seen.append(args[1].cos.dtype))
    idx = torch.zeros(1, 20, dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(idx).dtype == torch.bfloat16
    model.bfloat16()(idx)
    assert seen == 4 * [torch.float32]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_queries_keep_their_dtype(dtype: torch.dtype) -> None:
    x = random(1, 1, 3, 4).to(dtype)
    assert rotated(x, torch.arange(3)).dtype == dtype
    assert rotated(x, torch.arange(3, dtype=torch.float64)).dtype == dtype


def test_float64_queries_and_positions_are_rotated_in_float64() -> None:
    x, position = random(1, 1, 1, 2, dtype=torch.float64), 12345
    y = rotated(x, torch.tensor([position], dtype=torch.float64))[0, 0, 0]
    wanted = complex(*x[0, 0, 0].tolist()) * complex(math.cos(position), math.sin(position))
    assert abs(complex(*y.tolist()) - wanted) < 1e-11


def test_rotations_need_no_numbers_to_know_their_shapes() -> None:
    """Size and cost of a model are counted on the meta device."""
    with torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
        rotate = rope(8).rotation(torch.arange(5))
        assert rotate(torch.zeros(2, 2, 5, 8)).shape == (2, 2, 5, 8)
