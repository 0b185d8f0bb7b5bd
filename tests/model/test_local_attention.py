"""Windowed attention in blocks: the numbers of the dense form, at a cost that grows with T."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers_twin import randomise

from gpt2lib.config import GPTConfig
from gpt2lib.model import attention
from gpt2lib.model.attention import CausalSelfAttention, eager
from gpt2lib.model.gpt import GPT
from gpt2lib.model.kernels import window as local_attention
from gpt2lib.model.kernels.window import chunked, local_pattern
from gpt2lib.model.masks import Causal, GlobalTokens, Mask, SlidingWindow
from gpt2lib.model.positions import RotaryPositions, identity


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a short text have many blocks."""
    monkeypatch.setattr(local_attention, "SMALLEST_BLOCK", 4)


def causal(window: int, dilation: tuple[int, ...] = (1,), positions: tuple[int, ...] = ()) -> Mask:
    near: Mask = SlidingWindow(window, dilation)
    return Causal() & (near | GlobalTokens(positions) if positions else near)


def qkv(
    T: int, n_head: int = 2, n_kv_head: int = 2, hs: int = 4, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(T)
    heads = (n_head, n_kv_head, n_kv_head)
    return [torch.randn(2, n, T, hs, generator=generator, dtype=dtype) for n in heads]


Form = Callable[[Tensor, Tensor, Tensor, Mask], Tensor]


def results(form: Form, inputs: list[Tensor], mask: Mask) -> list[Tensor]:
    """Return the output, and the gradients of queries, keys and values."""
    leaves = [part.clone().requires_grad_() for part in inputs]
    y = form(*leaves, mask)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(7)).bfloat16()
    return [y, *torch.autograd.grad(y, leaves, upstream.to(y.dtype))]


# ── the same numbers as the dense form ──────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Case:
    """One way to look through a window."""

    T: int
    window: int
    dilation: tuple[int, ...] = (1,)
    positions: tuple[int, ...] = ()
    n_head: int = 4
    n_kv_head: int = 4
    block: int = 4
    rotated: bool = False

    @property
    def mask(self) -> Mask:
        return causal(self.window, self.dilation, self.positions)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n_kv_head = draw(st.sampled_from([1, 2, 4]))
    n_dilations = draw(st.sampled_from([1, 4]))
    dilation = draw(st.lists(st.integers(1, 5), min_size=n_dilations, max_size=n_dilations))
    return Case(
        T=draw(st.integers(1, 45)),
        window=draw(st.integers(1, 12)),
        dilation=tuple(dilation),
        positions=tuple(draw(st.lists(st.integers(0, 50), max_size=4))),
        n_kv_head=n_kv_head,
        block=draw(st.integers(1, 8)),
        rotated=draw(st.booleans()),
    )


@settings(deadline=None, max_examples=70)
@given(case=cases())
@example(case=Case(T=1, window=1))
@example(case=Case(T=1, window=9, positions=(0,)))
@example(case=Case(T=5, window=9, dilation=(3,)))  # T below the window
@example(case=Case(T=17, window=8, positions=(0, 16)))  # T no multiple of the window
@example(case=Case(T=16, window=8, dilation=(2,), positions=(3, 8)))
@example(case=Case(T=23, window=3, dilation=(1, 2, 2, 5), n_kv_head=2))  # runs that cut groups
@example(case=Case(T=23, window=3, dilation=(1, 2, 1, 2), positions=(7, 2, 7), n_kv_head=1))
@example(case=Case(T=9, window=3, dilation=(1, 1, 1, 1, 2, 2), n_head=6, n_kv_head=2))
@example(case=Case(T=9, window=1, dilation=(5,), positions=(4, 60)))
def test_equals_the_dense_form_in_output_and_gradients(case: Case) -> None:
    inputs = qkv(case.T, case.n_head, case.n_kv_head)
    if case.rotated:
        config = GPTConfig(n_embd=16, n_head=4, position="rope")
        rotate = RotaryPositions(config).rotation(torch.arange(case.T, dtype=torch.float64))
        inputs[:2] = [rotate(part) for part in inputs[:2]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_attention, "SMALLEST_BLOCK", case.block)
        ours = results(chunked, inputs, case.mask)
    torch.testing.assert_close(ours, results(eager, inputs, case.mask), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
def test_equals_the_dense_form_in_the_precisions_of_training(
    dtype: torch.dtype, near: float
) -> None:
    mask = causal(6, (1, 1, 3, 3), (0, 20))
    inputs = qkv(50, 4, 2, dtype=dtype)
    ours = results(chunked, inputs, mask)
    assert {part.dtype for part in ours} == {dtype}
    wanted = results(eager, [part.double() for part in inputs], mask)
    torch.testing.assert_close([part.double() for part in ours], wanted, atol=near, rtol=near)


def test_equals_the_dense_form_in_blocks_of_the_true_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert local_attention.SMALLEST_BLOCK > 100
    mask, inputs = causal(40, (1, 2), (5, 300)), qkv(601)
    ours, wanted = results(chunked, inputs, mask), results(eager, inputs, mask)
    torch.testing.assert_close(ours, wanted, atol=1e-10, rtol=1e-10)


def test_dropout_drops_weights_and_scales_the_rest() -> None:
    T, mask = 64, causal(8, (1, 2), (0, 30))
    q, k, _ = qkv(T)
    v = torch.eye(T, dtype=torch.float64).expand(2, 2, T, T)  # so that the output is the weights
    whole = chunked(q, k, v, mask)
    torch.manual_seed(0)
    thinned = chunked(q, k, v, mask, 0.25)
    kept = thinned != 0
    torch.testing.assert_close(thinned[kept], whole[kept] / 0.75)
    for rows in ([0, 30], [i for i in range(T) if i not in (0, 30)]):  # global queries too
        share = float(kept[:, :, rows].sum() / (whole[:, :, rows] != 0).sum())
        assert 0.6 < share < 0.9


def step_of(config: GPTConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss and the weights after one step of training."""
    model = GPT(config)
    randomise(model, embedding_std=0.5)
    model.double()
    idx = torch.randint(50, (2, 38), generator=torch.Generator().manual_seed(0))
    loss, count = model(idx[:, :-1], idx[:, 1:])
    (loss / count).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    return loss.detach(), model.state_dict()


@pytest.mark.parametrize(
    "fields",
    [
        {"window": (3, 9), "position": "none"},
        {"window": 5, "dilation": ((1,), (1, 2)), "n_kv_head": 1},
        {"window": 4, "global_tokens": (0, 11), "position": "rope", "n_kv_head": 2},
    ],
)
def test_a_model_trains_by_blocks_as_by_the_dense_form(
    fields: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = GPTConfig(50, 40, n_layer=2, n_head=4, n_embd=16).replace(**fields)
    used: list[Mask] = []
    monkeypatch.setattr(
        local_attention, "chunked", lambda *args: used.append(args[3]) or chunked(*args)
    )
    in_blocks = step_of(config)
    assert len(used) == 2
    monkeypatch.setattr(attention, "kernel_for", lambda q, mask, dropout: eager)
    # Queries and keys are rotated in float64, but by float32 angles.
    torch.testing.assert_close(in_blocks, step_of(config), atol=1e-9, rtol=1e-9)
    assert len(used) == 2


# ── who is seen ─────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=15)
@given(case=cases())
def test_keys_and_values_out_of_sight_get_no_gradient(case: Case) -> None:
    inputs = [part.requires_grad_() for part in qkv(case.T, 4, 4)]
    y = chunked(*inputs, case.mask)
    seen = eager(*(part.detach() for part in inputs[:2]), _eye(case.T), case.mask) > 0
    for t in {0, case.T // 2, case.T - 1}:
        grads = torch.autograd.grad(y[:, :, t].sum(), inputs[1:], retain_graph=True)
        for gradient in grads:
            touched = gradient.abs().sum(-1) > 0  # (B, nh, T)
            assert not bool((touched & ~seen[:, :, t]).any())
        assert torch.equal(grads[1].abs().sum(-1) > 0, seen[:, :, t])


def _eye(T: int) -> Tensor:
    return torch.eye(T, dtype=torch.float64).expand(2, 4, T, T)


@pytest.mark.parametrize("dilation", [1, ((1,), (1, 3))])
@pytest.mark.parametrize("positions", [(0,), (9,), (0, 3, 9, 14)])
def test_no_future_leaks_through_global_tokens(
    dilation: int | tuple[tuple[int, ...], ...], positions: tuple[int, ...]
) -> None:
    """A global token that read on would tell what it saw in the next layer."""
    config = GPTConfig(50, 20, n_layer=2, n_head=2, n_embd=8, window=3, position="none")
    model = GPT(config.replace(dilation=dilation, global_tokens=positions)).eval()
    randomise(model, embedding_std=1.0)
    model.double()
    leaves: list[Tensor] = []

    def keep(_: object, __: object, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    model.transformer.wte.register_forward_hook(keep)
    logits = model(torch.randint(50, (1, 20), generator=torch.Generator().manual_seed(0)))
    for t in range(20):
        (gradient,) = torch.autograd.grad(logits[0, t].square().sum(), leaves[0], retain_graph=True)
        sizes = gradient[0].abs().sum(-1)
        assert bool((sizes[t + 1 :] == 0).all())
        assert bool((sizes[[p for p in positions if p <= t]] > 0).all())


# ── the cost ────────────────────────────────────────────────────────────────────────────────────


class Sizes(TorchDispatchMode):
    """Notes how large every tensor is that an operation makes, in numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[int] = []

    @staticmethod
    def storages(tree: object) -> list[tuple[int, int]]:
        found = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
        return [(x.untyped_storage().data_ptr(), x.numel()) for x in found]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        before = {storage for storage, _ in self.storages((args, kwargs))}
        after = dict(self.storages(out))  # a view has the storage of what it was made from
        self.made += [numbers for storage, numbers in after.items() if storage not in before]
        return out


def cost(form: Form, T: int, mask: Mask) -> tuple[int, int]:
    """Return the largest tensor that forward and backward make, and the sum of all."""
    inputs = [part.requires_grad_() for part in qkv(T, dtype=torch.float32)]
    with Sizes() as sizes:
        form(*inputs, mask).sum().backward()
    return max(sizes.made), sum(sizes.made)


MASKS = [causal(32), causal(32, (1, 2)), causal(32, (1,), (0, 100))]


@pytest.mark.parametrize("mask", MASKS)
def test_what_is_made_grows_with_t_and_not_with_its_square(
    mask: Mask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_attention, "SMALLEST_BLOCK", 32)
    largest, total = cost(chunked, 2048, mask)
    assert largest <= 2 * 2 * 2048 * 8  # as queries, keys or values, (2, 2, T, 4), or twice that
    assert total <= 2.1 * cost(chunked, 1024, mask)[1]


def test_the_dense_form_does_make_a_mask_of_t_by_t() -> None:
    assert cost(eager, 256, MASKS[0])[0] >= 256 * 256
    assert cost(eager, 256, MASKS[0])[1] > 3 * cost(eager, 128, MASKS[0])[1]


@pytest.fixture
def materialised(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Note the shapes of the masks that are materialised."""
    shapes: list[tuple[int, ...]] = []
    materialise = local_attention.materialise

    def noted(*args: Tensor) -> Tensor:
        out = materialise(*args)  # type: ignore[arg-type]
        shapes.append(tuple(out.shape))
        return out

    monkeypatch.setattr(local_attention, "materialise", noted)
    yield shapes


@pytest.mark.parametrize("window", [1, 4, 10])
@pytest.mark.parametrize("dilation", [1, 3])
def test_masks_are_as_large_as_a_block_and_few(
    window: int, dilation: int, materialised: list[tuple[int, ...]]
) -> None:
    block, positions = max(window, 4), (0, 17, 90)
    for T in (300, 601):
        chunked(*qkv(T), causal(window, (dilation,), positions))
    in_blocks = [shape for shape in materialised if shape[0] != len(positions)]
    for n_query, n_key in in_blocks:
        assert n_query <= block
        assert n_key <= block + window - 1 + len(positions)
    assert [shape for shape in materialised if shape[0] == len(positions)] == 2 * [(3, 91)]
    # Blocks alike share a mask: a strand has one at its start, one at its end, and some where
    # global tokens stand, and no more of them where the text is twice as long.
    assert len(in_blocks) <= 2 * dilation * (3 + 2 * 3 * len(positions))


def test_blocks_alike_ask_once(materialised: list[tuple[int, ...]]) -> None:
    chunked(*qkv(400), causal(4))
    assert materialised == [(4, 4), (4, 7)]


# ── which masks it takes ────────────────────────────────────────────────────────────────────────


def test_the_pattern_of_a_mask() -> None:
    near = SlidingWindow(3, (1, 2))
    assert local_pattern(Causal() & near) == (near, ())
    assert local_pattern(Causal() & (near | GlobalTokens((4, 0)))) == (near, (4, 0))
    others = [
        Causal(),
        near,
        near | GlobalTokens((0,)),
        Causal() | near,
        Causal() & GlobalTokens(()),
    ]
    for other in others:
        assert local_pattern(other) is None
        with pytest.raises(ValueError, match="causal sliding window"):
            chunked(*qkv(3), other)


def test_a_module_uses_blocks_once_the_text_is_longer_than_two_windows(
    materialised: list[tuple[int, ...]],
) -> None:
    layer = CausalSelfAttention(GPTConfig(n_embd=8, n_head=2, window=4, n_kv_head=1))
    for T, in_blocks in ((8, False), (9, True)):
        layer(torch.randn(1, T, 8), identity)
        assert bool(materialised) == in_blocks
