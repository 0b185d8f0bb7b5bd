"""Decoding: copies with fewer bytes a weight give nearly the same logits, and say where not."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lib.config import GPTConfig
from gpt2lib.generation import cpu_products
from gpt2lib.generation import quantization as decoding
from gpt2lib.generation.cpu_products import int8_linear, packing
from gpt2lib.generation.generator import generate, left_pad, stream
from gpt2lib.generation.quantization import (
    BF16_FROM,
    IMITATED_UP_TO,
    WIDEN_FROM,
    DecodingGPT,
    Int8Linear,
    PackedLinear,
    PlainLinear,
    fastest_weights,
    for_decoding,
    quantize,
    slower_than_fp32,
)
from gpt2lib.model.gpt import GPT
from gpt2lib.model.kernels import chunked_loss
from gpt2lib.utils.errors import UserError

TINY = GPTConfig(vocab_size=96, block_size=32, n_layer=2, n_head=4, n_embd=64)
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "untied": {"tie_weights": False, "bias": False},
    "rope, 2 kv heads": {"position": "rope", "n_kv_head": 2},
    "window and a global token": {"window": 4, "global_tokens": (0,), "n_kv_head": 1},
    "without mlp": {"without": ("mlp",)},
    "odd": {"n_embd": 36, "vocab_size": 97},
}


@pytest.fixture(autouse=True, params=["what this CPU has", "plain"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run everything with the kernels of this CPU, and as on a CPU that has none."""
    if request.param == "plain":
        monkeypatch.setattr(decoding, "packing", lambda dtype: None)
        monkeypatch.setattr(decoding, "int8_linear", lambda: None)
    return str(request.param)


AS_HERE = pytest.mark.parametrize("products", ["what this CPU has"], indirect=True)


def make(config: GPTConfig = TINY, scale: float = 4.0) -> GPT:
    """Return a model with weights larger than at the start, so that every layer matters."""
    torch.manual_seed(0)
    model = GPT(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 2 and name != "transformer.wte.weight":
                p *= scale
            elif name.endswith("bias"):
                p.normal_(std=0.1)
    return model


def rows(n: int, width: int = 64, seed: int = 1) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def trained() -> tuple[GPT, Tensor]:
    """Return a model that has learnt to count in steps of 1 to 4, and sequences it has not seen."""
    torch.manual_seed(0)
    model = GPT(TINY).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    def batch(n: int) -> Tensor:
        start, step = torch.randint(96, (n, 1)), torch.randint(1, 5, (n, 1))
        return (start + step * torch.arange(33)) % 96

    for i in range(220):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - i / 220)
        text = batch(24)
        loss, n = model(text[:, :-1], text[:, 1:])
        optimizer.zero_grad()
        (loss / n).backward()
        optimizer.step()
    return model.eval(), batch(32)


@pytest.mark.parametrize("outlier", [1.0, 1000.0])
def test_int8_weights_are_within_half_a_step_of_their_row(outlier: float) -> None:
    weight = rows(40, 50)
    weight[3, 7] = outlier * 5
    weight[8] = 0
    weight[9] *= 1e-12
    weight[10:] *= torch.linspace(1, 2, 30)[:, None]  # scales rounded up, and down
    q, scale = quantize(weight)
    assert q.dtype == torch.int8 and scale.dtype == torch.bfloat16
    assert int(q.abs().max()) == 127  # -128 and beyond would wrap around
    step, largest = scale.double(), weight.double().abs().amax(1, keepdim=True)
    assert bool(((q * step - weight).abs() <= step / 2 * (1 + 1e-6)).all())
    used = largest[:, 0] > 0
    assert bool((step[used] <= largest[used] / 127 * (1 + 1 / 256)).all())
    assert torch.equal(q[8], torch.zeros(50, dtype=torch.int8))


@pytest.mark.parametrize("n", [1, 3, WIDEN_FROM - 1, WIDEN_FROM, 40])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("width", [64, 36, 7])  # the kernel reads beyond the end of an odd row
def test_an_int8_layer_is_within_its_bound_however_many_rows(
    n: int, biased: bool, width: int
) -> None:
    weight, x = rows(48, width, seed=2), rows(n, width, seed=3).bfloat16()
    bias = rows(1, 48, seed=4)[0].bfloat16() if biased else None
    q, scale = quantize(weight)
    got = Int8Linear(q, scale, bias)(x.view(n, 1, width)).double()[:, 0]
    wanted = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    bound = x.double().abs().sum(1, keepdim=True) * scale.double().T / 2
    size = F.linear(x.double().abs(), weight.double().abs()) + 1
    assert bool(((got - wanted).abs() <= bound + size * 2**-7).all())
    exact = F.linear(x.double(), (q * scale.double()), None if bias is None else bias.double())
    torch.testing.assert_close(got, exact, atol=0.05, rtol=2**-7)


@pytest.mark.parametrize("shape", SHAPES)
def test_fp32_gives_the_same_logits(shape: str) -> None:
    model = make(TINY.replace(**SHAPES[shape]))
    idx = torch.randint(96, (2, 20))
    with torch.no_grad():
        torch.testing.assert_close(for_decoding(model, "fp32")(idx), model(idx))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("weights", "share"), [("bf16", 0.02), ("int8", 0.03)])
def test_the_logits_are_near(shape: str, weights: Any, share: float) -> None:
    model = make(TINY.replace(**SHAPES[shape]))
    idx = torch.randint(96, (3, 24), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        wanted, got = model(idx), for_decoding(model, weights)(idx).float()
        by_torch = GPT.forward(make(model.config).bfloat16(), idx).float()
    error = (got - wanted).square().mean().sqrt() / wanted.std()
    assert 0 < error < share
    if weights == "bf16":  # and no worse than the whole model in bf16
        assert error < 1.3 * (by_torch - wanted).square().mean().sqrt() / wanted.std()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("lengths", [(5,), (5,) * 16, (9, 5, 1)], ids=str)
def test_cached_is_uncached(shape: str, weights: Any, lengths: tuple[int, ...]) -> None:
    model = for_decoding(make(TINY.replace(**SHAPES[shape])), weights)
    g = torch.Generator().manual_seed(0)
    idx, pad = left_pad([torch.randint(96, (n,), generator=g).tolist() for n in lengths])
    seen: list[Tensor] = []
    hook = model.lm_head.register_forward_hook(lambda *a: seen.append(a[2].float()))
    text = generate(model, idx, 12, pad=pad, temperature=0)
    cached = torch.stack(seen)  # (12, B, V)
    hook.remove()
    for row, n in enumerate(pad):
        with torch.no_grad():
            anew = model(text[row : row + 1, n:-1]).float()[0, -12:]  # (12, V)
        near = {"fp32": 1e-4}.get(weights, 0.12)
        torch.testing.assert_close(cached[:, row], anew, atol=near * float(anew.std()), rtol=0)


def test_a_trained_model_writes_the_same(trained: tuple[GPT, Tensor]) -> None:
    model, text = trained
    idx, targets = text[:, :-1], text[:, 1:]
    with torch.no_grad():
        loss, n = model(idx, targets)
        right = model(idx)[:, 3:].argmax(-1)
        assert (right == targets[:, 3:]).float().mean() > 0.95  # it did learn
        for weights, more in (("fp32", 1e-4), ("bf16", 0.01), ("int8", 0.02)):
            made = for_decoding(model, weights)  # type: ignore[arg-type]
            assert (made(idx)[:, 3:].argmax(-1) == right).float().mean() > 0.98
            assert abs(float(made(idx, targets)[0] - loss) / float(n)) < more
            assert int(made(idx, targets)[1]) == int(n)


def test_the_original_stays_as_it_was_and_training_it_changes_no_copy() -> None:
    model = make().train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    idx = torch.randint(96, (1, 8))
    copies = [for_decoding(model, weights) for weights in ("fp32", "bf16", "int8")]
    with torch.no_grad():
        first = [made(idx) for made in copies]
        assert all(made.lm_head is not model.lm_head for made in copies)
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert model.lm_head.weight is model.transformer.wte.weight
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) and p.dtype == torch.float32
    with torch.no_grad():
        for p in model.parameters():
            p += 1
        for made, wanted in zip(copies, first, strict=True):
            assert torch.equal(made(idx), wanted)


def test_the_bytes_are_counted() -> None:
    config = TINY.replace(n_embd=128, vocab_size=512, n_head=4)
    model = make(config)
    made = {w: for_decoding(model, w) for w in ("fp32", "bf16", "int8")}  # type: ignore[arg-type]
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    head = model.lm_head.weight.numel()
    outputs = sum(m.out_features for m in model.modules() if isinstance(m, torch.nn.Linear))
    others = model.num_parameters() - linear  # positions, norms and biases; the head is tied
    assert made["int8"].n_bytes() == linear + 2 * outputs + 2 * others
    if isinstance(made["bf16"].lm_head, PackedLinear):  # its layout is no embedding's
        assert made["bf16"].n_bytes() == 2 * (linear + head + others)
        assert made["fp32"].n_bytes() == 4 * (linear + head + others)
    assert made["int8"].num_parameters() == model.num_parameters()


def test_stream_and_a_penalty_work_on_it() -> None:
    model = for_decoding(make(), "int8")
    idx = torch.tensor([[5, 6, 7]])
    whole = generate(model, idx, 40, seed=3, top_k=20, repetition_penalty=1.3)
    assert list(stream(model, idx, 40, seed=3, top_k=20, repetition_penalty=1.3)) == (
        whole[0, 3:].tolist()
    )


@AS_HERE
@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])
def test_without_kernels_of_this_cpu_it_is_the_same(
    weights: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, idx = make(), torch.randint(96, (2, 9))
    wanted = for_decoding(model, weights)(idx).float()
    monkeypatch.setattr(decoding, "packing", lambda dtype: None)
    monkeypatch.setattr(decoding, "int8_linear", lambda: None)
    plain = for_decoding(model, weights)
    assert not any(isinstance(m, PackedLinear) for m in plain.modules())
    near = {"atol": 1e-5, "rtol": 1e-5} if weights == "fp32" else {"atol": 0.05, "rtol": 0.02}
    torch.testing.assert_close(plain(idx).float(), wanted, **near)


@pytest.mark.parametrize("n", [1, IMITATED_UP_TO, IMITATED_UP_TO + 1, 40])
@pytest.mark.parametrize("biased", [True, False])
def test_a_plain_layer_is_a_linear_layer_however_many_rows(
    n: int, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked_loss, "IN_CACHE", 7 * 64)  # pieces of 7 outputs, and one of 6
    weight, x = rows(48, seed=2).bfloat16(), rows(n, seed=3).bfloat16()
    bias = rows(1, 48, seed=4)[0].bfloat16() if biased else None
    got = PlainLinear(weight, bias)(x.view(n, 1, 64))
    wanted = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    assert got.dtype == torch.bfloat16 and got.shape == (n, 1, 48)
    torch.testing.assert_close(got[:, 0].double(), wanted, atol=0.1, rtol=2**-7)


def test_a_kernel_that_fails_or_is_wrong_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on arm64, which has none, on a CPU that refuses, and where one would compute wrong."""

    def refuses(*args: Any) -> Tensor:
        raise RuntimeError("mkldnn_reorder_linear_weight: bf16 path needs the cpu support")

    def is_wrong(x: Tensor, *args: Any) -> Tensor:
        return x.new_ones(1, cpu_products.TRIED_ON[0])

    for weight_kernel, product in ((None, None), (refuses, is_wrong), (lambda w, n: w, is_wrong)):
        ops: Any = SimpleNamespace(aten=SimpleNamespace(), mkldnn=SimpleNamespace())
        if product is not None:
            ops.mkldnn._reorder_linear_weight = weight_kernel
            ops.mkldnn._linear_pointwise = SimpleNamespace(default=product)
            ops.mkldnn._nbytes = lambda packed: packed.nbytes
            ops.aten._weight_int8pack_mm = SimpleNamespace(default=product)
        monkeypatch.setattr(torch, "ops", ops)
        for dtype in (torch.float32, torch.bfloat16):
            assert packing.__wrapped__(dtype) is None
        assert int8_linear.__wrapped__() is None


def test_one_module_alone_knows_private_operators() -> None:
    private = re.compile(r"torch\.(ops|cpu|_C)\._?|torch\.ops\.\w+\._|mkldnn")
    package = Path(decoding.__file__).parent
    for path in package.rglob("*.py"):
        if path.name != "cpu_products.py":
            assert not private.search(path.read_text(encoding="utf-8")), path


def test_slow_weights_are_named_where_bf16_is_not_computed(
    monkeypatch: pytest.MonkeyPatch, products: str
) -> None:
    model = make()
    if products == "plain":
        assert "does not compute in bf16" in str(slower_than_fp32(model, "bf16", many_rows=True))
        assert f"{model.num_parameters():,} par" in str(slower_than_fp32(model, "int8", False))
        monkeypatch.setattr(GPT, "num_parameters", lambda self: BF16_FROM)
        assert slower_than_fp32(model, "bf16", many_rows=False) is None  # half the bytes to read
        assert slower_than_fp32(model, "int8", many_rows=True) is not None
    monkeypatch.setattr(decoding, "packing", lambda dtype: "something")
    assert slower_than_fp32(model, "bf16", many_rows=True) is None
    assert slower_than_fp32(model, "fp32", many_rows=True) is None


def test_what_it_cannot_do_is_refused() -> None:
    model = make()
    with pytest.raises(UserError, match=r"^weights must be fp32, bf16, int8, not 'int4'$"):
        for_decoding(model, "int4")  # type: ignore[arg-type]
    made = for_decoding(model, "int8")
    with pytest.raises(UserError, match="int8 weights for decoding already"):
        for_decoding(made, "bf16")
    with pytest.raises(UserError, match="int8 weights for decoding does not train"):
        made.train()
    with pytest.raises(UserError, match="stays on cpu with int8 weights"):
        made.to(torch.float64)
    assert made.to("cpu") is made and made.eval() is made
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight[0, 0] = torch.inf
    with pytest.raises(UserError, match="infinite"):
        for_decoding(model, "int8")


def test_an_int8_layer_takes_float32_and_numbers_that_do_not_lie_side_by_side() -> None:
    weight, x = rows(48, seed=2), rows(3, seed=3)
    layer = Int8Linear(*quantize(weight), None)
    assert layer(x).dtype == torch.float32
    torch.testing.assert_close(layer(x), x @ (layer.q * layer.scale.float()[:, None]).T)
    lowered = x.bfloat16()
    assert torch.equal(layer(lowered.T.contiguous().T), layer(lowered))


@AS_HERE
@pytest.mark.skipif(packing(torch.float32) is None, reason="nothing is packed on this CPU")
@pytest.mark.parametrize("use", [GPT.state_dict, copy.deepcopy, pickle.dumps])
def test_packed_weights_are_not_saved_without_a_word(use: Callable[[GPT], Any]) -> None:
    with pytest.raises(UserError, match="copy or save the model that they were made from"):
        use(for_decoding(make(), "fp32"))


def test_auto_is_bf16_for_all_but_small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    monkeypatch.setattr(GPT, "num_parameters", lambda self: BF16_FROM - 1)
    assert fastest_weights(model) == "fp32"
    monkeypatch.setattr(GPT, "num_parameters", lambda self: BF16_FROM)
    assert fastest_weights(model) == "bf16"
    assert fastest_weights(model.to("meta")) == "fp32"


def test_it_is_a_gpt() -> None:
    made = for_decoding(make())
    assert isinstance(made, GPT) and isinstance(made, DecodingGPT) and not made.training
    assert not any(p.requires_grad for p in made.parameters())
