"""flex_attention: the numbers of the formula for every mask, and gradients on a GPU."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention.flex_attention import create_block_mask

from gpt2lib.model.attention import eager
from gpt2lib.model.kernels import flex as room
from gpt2lib.model.kernels.flex import tiled
from gpt2lib.model.masks import Causal, GlobalTokens, Mask, SlidingWindow, materialise

MASKS: list[Mask] = [
    Causal(),
    Causal() & SlidingWindow(9),
    Causal() & SlidingWindow(5, (3,)),
    Causal() & SlidingWindow(5, (1, 2, 1, 7)),  # each head its own mask
    Causal() & (SlidingWindow(9) | GlobalTokens((0, 140))),
    Causal() & (SlidingWindow(3, (1, 1, 2, 50)) | GlobalTokens((77,))),
    SlidingWindow(4) | GlobalTokens((3,)),  # not causal
    SlidingWindow(1000),  # everyone
]
PER_HEAD = [MASKS[3], MASKS[5]]
EVERY_MASK = pytest.mark.parametrize("mask", MASKS)
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    room._tiles.cache_clear()
    yield
    room._tiles.cache_clear()


def qkv(T: int, n_kv_head: int, hs: int = 16, device: str = "cpu") -> list[Tensor]:
    generator = torch.Generator().manual_seed(T)
    shapes = [(2, n, T, hs) for n in (4, n_kv_head, n_kv_head)]
    return [torch.randn(shape, generator=generator).to(device) for shape in shapes]


@EVERY_MASK
@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
@pytest.mark.parametrize("T", [1, 200, 256])  # a tile has 128 rows; 200 ends within one
def test_equals_the_formula(T: int, n_kv_head: int, mask: Mask) -> None:
    inputs = qkv(T, n_kv_head)
    torch.testing.assert_close(tiled(*inputs, mask), eager(*inputs, mask), atol=1e-5, rtol=1e-5)


@EVERY_MASK
@pytest.mark.parametrize("T", [1, 128, 300])
def test_tiles_are_those_of_pytorch(T: int, mask: Mask) -> None:
    device = torch.device("cpu")
    ours, theirs = room._tiles(mask, 4, T, device), create_block_mask(mask, 1, 4, T, T, device)
    n = -(-T // 128)
    for name in ("kv_num_blocks", "full_kv_num_blocks", "kv_indices", "full_kv_indices"):
        own, wanted = getattr(ours, name), getattr(theirs, name)
        assert own.dtype == wanted.dtype
        assert torch.equal(own.expand(wanted.shape), wanted)
    assert ours.kv_num_blocks.shape == (1, 4 if mask in PER_HEAD else 1, n)
    assert (ours.seq_lengths, ours.BLOCK_SIZE) == (theirs.seq_lengths, theirs.BLOCK_SIZE)


def test_tiles_are_found_without_the_whole_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[torch.Size] = []
    monkeypatch.setattr(
        room, "materialise", lambda *args: shapes.append((t := materialise(*args)).shape) or t
    )
    room._tiles(MASKS[4], 4, 1000, torch.device("cpu"))
    assert shapes == [*7 * [(128, 1024)], (104, 1024)]


def test_tiles_in_which_nothing_is_seen_are_skipped() -> None:
    def visited(mask: Mask) -> int:
        tiles = room._tiles(mask, 2, 1024, torch.device("cpu"))
        partly, whole = tiles.kv_num_blocks, tiles.full_kv_num_blocks
        return int(partly.sum() + (0 if whole is None else whole.sum()))

    assert visited(Causal()) == 36  # half of the 8 by 8 tiles, and the diagonal; for all heads
    assert visited(Causal() & SlidingWindow(64)) == 15  # the diagonal and its neighbours
    assert visited(Causal() & SlidingWindow(64, (1, 2))) == 2 * 15  # each head has its own
    assert visited(Causal() & (SlidingWindow(64) | GlobalTokens((0,)))) == 21


def test_tiles_are_found_once_for_a_mask_and_a_length() -> None:
    for _ in range(3):
        tiled(*qkv(40, 4), Causal() & SlidingWindow(3))  # masks are compared by value
    assert room._tiles.cache_info().misses == 1
    tiled(*qkv(41, 4), Causal() & SlidingWindow(3))
    tiled(*qkv(41, 4), Causal() & SlidingWindow(4))
    assert room._tiles.cache_info().misses == 3


def test_dropout_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no dropout.* 0\.1"):
        tiled(*qkv(3, 4), Causal(), 0.1)


@EVERY_MASK
def test_a_mask_is_made_of_indices_alone(mask: Mask) -> None:
    """A compiled kernel has no room for a tensor that a mask would hold or make."""
    graph = make_fx(mask)(*torch.zeros(4, dtype=torch.long).unbind())
    assert not [node for node in graph.graph.nodes if node.op == "get_attr"]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
@EVERY_MASK
def test_a_kernel_compiled_for_a_cpu_equals_the_formula(mask: Mask) -> None:
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = qkv(256, 4)
    tiles = room._tiles(mask, 4, 256, q.device)
    y = torch.compile(flex_attention, dynamic=False)(q, k, v, block_mask=tiles)
    torch.testing.assert_close(y, eager(q, k, v, mask), atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@GPU
@EVERY_MASK
@pytest.mark.parametrize("n_kv_head", [1, 4])
@pytest.mark.parametrize("T", [200, 384])
def test_compiled_equals_the_formula_in_output_and_gradients(
    T: int, n_kv_head: int, mask: Mask
) -> None:
    results = []
    for form in (tiled, eager):
        inputs = [part.requires_grad_() for part in qkv(T, n_kv_head, hs=32, device="cuda")]
        y = form(*inputs, mask)
        upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(7)).to("cuda")
        results.append([y, *torch.autograd.grad(y, inputs, upstream)])
    torch.testing.assert_close(*results, atol=2e-2, rtol=2e-2)  # TF32 products inside the kernel


@pytest.mark.gpu
@GPU
def test_a_model_with_a_window_trains_on_a_gpu_as_by_the_formula(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gpt2lib.config import GPTConfig
    from gpt2lib.model import attention
    from gpt2lib.model.gpt import GPT
    from gpt2lib.model.kernels import window

    config = GPTConfig(50, 300, n_layer=2, n_head=4, n_embd=64, position="rope", n_kv_head=2)
    torch.manual_seed(0)
    model = GPT(config.replace(window=(8, 60), global_tokens=(0,))).cuda()
    idx = torch.randint(50, (2, 301), generator=torch.Generator().manual_seed(0)).cuda()

    def gradients() -> list[Tensor]:
        loss, count = model(idx[:, :-1], idx[:, 1:])
        return list(torch.autograd.grad(loss / count, list(model.parameters())))

    used: list[Mask] = []
    monkeypatch.setattr(window, "tiled", lambda *args: used.append(args[3]) or tiled(*args))
    by_flex = gradients()
    assert len(used) == 2
    monkeypatch.setattr(attention, "kernel_for", lambda q, mask, dropout: eager)
    torch.testing.assert_close(by_flex, gradients(), atol=1e-3, rtol=2e-2)
