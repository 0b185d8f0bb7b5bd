"""The head and the loss together, a chunk of rows at a time."""

import math

import pytest
import torch
from tensors_made import TensorsMade
from torch.nn import functional as F

from gpt2lib import GPT, GPTConfig
from gpt2lib.config import IGNORE
from gpt2lib.model.kernels import chunked_loss
from gpt2lib.model.kernels.chunked_loss import linear_cross_entropy
from gpt2lib.model.loss import next_token_loss
from gpt2lib.utils.errors import UserError

B, T, C, V = 3, 7, 16, 50


@pytest.fixture(params=[1, 3 * V + 1, 5 * V, 2**25], ids=["row", "3 rows", "5 rows", "whole"])
def chunk(request, monkeypatch):
    """Chunks of one row, of some rows with a shorter last one, and of all rows."""
    monkeypatch.setattr(chunked_loss, "CHUNK", request.param)
    monkeypatch.setattr(chunked_loss, "IN_CACHE", 2 * V)
    return request.param


def problem(dtype=torch.float32, seed=0):
    """Leaves x (B, T, C) and weight (V, C), and targets (B, T), a whole chunk of them ignored."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(B, T, C, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(V, C, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(V, (B, T), generator=generator)
    targets[0, :6] = targets[2, 5] = IGNORE
    return x, weight, targets


def plain(x, weight, targets):
    """What it must equal."""
    return next_token_loss(F.linear(x, weight), targets)


def gradients(of, x, weight, targets, scale=1.0, autocast=False):
    """Return loss, count and the two gradients."""
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        total, count = of(x, weight, targets)
    return total.detach(), count, *torch.autograd.grad(scale * total, (x, weight))


def off(a, b):
    """The largest difference, as a share of the largest number."""
    return ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()


@pytest.mark.parametrize("scale", [1.0, 0.037])
def test_it_is_the_plain_loss_with_its_gradients(chunk, scale):
    got = gradients(linear_cross_entropy, *problem(), scale)
    expected = gradients(plain, *problem(), scale)
    assert got[1] == expected[1] == B * T - 7
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        assert off(a, b) < 1e-6


def test_in_bf16_it_is_no_further_from_the_truth_than_autocast(chunk):
    errors = torch.zeros(2, 3, dtype=torch.float64)  # squared, of ours and of autocast's
    for seed in range(20):  # of one problem either may be nearer
        x, weight, targets = problem(seed=seed)
        exact, _, *truth = gradients(plain, x, weight, targets)
        for i, of in enumerate((linear_cross_entropy, plain)):
            total, _, *got = gradients(of, x, weight, targets, autocast=True)
            assert got[0].dtype == got[1].dtype == torch.float32
            for j, (a, b) in enumerate(zip((total, *got), (exact, *truth), strict=True)):
                errors[i, j] += (a - b).double().square().sum()
    assert (errors[0] <= 1.02 * errors[1]).all()


def test_nothing_larger_than_a_chunk_of_logits_ever_exists(monkeypatch):
    monkeypatch.setattr(chunked_loss, "CHUNK", 4 * V)
    x, weight, targets = problem()
    with TensorsMade() as made:
        linear_cross_entropy(x, weight, targets)[0].backward()
    rows = [math.prod(one.shape) // V for one in made.found if one.shape[-1:] == (V,)]
    assert rows
    assert max(row for row in rows if row != C) <= 4  # (C, V) is a gradient's transpose


def test_everything_ignored_is_0_of_0_with_gradients_of_0(chunk):
    x, weight, targets = problem()
    got = gradients(linear_cross_entropy, x, weight, torch.full_like(targets, IGNORE))
    assert [t.abs().max().item() for t in got] == [0, 0, 0, 0]


def test_a_target_whose_probability_is_0_in_float32_has_its_loss(chunk):
    x, weight, targets = problem()
    x.data *= 40
    expected = gradients(plain, x, weight, targets)
    assert F.linear(x, weight).softmax(-1).min() == 0
    for a, b in zip(gradients(linear_cross_entropy, x, weight, targets), expected, strict=True):
        assert off(a, b) < 2e-5  # of logits of several hundred


def test_without_gradients_the_loss_is_the_same(chunk):
    x, weight, targets = problem()
    with torch.no_grad():
        total, _ = linear_cross_entropy(x, weight, targets)
    assert not total.requires_grad
    assert off(total, plain(x, weight, targets)[0]) < 1e-6


def test_a_frozen_head_is_left_alone(chunk):
    x, weight, targets = problem()
    weight.requires_grad_(False)
    linear_cross_entropy(x, weight, targets)[0].backward()
    assert weight.grad is None
    again, w, _ = problem()
    plain(again, w, targets)[0].backward()
    assert off(x.grad, again.grad) < 1e-6


def test_a_second_backward_pass_is_refused():
    total, _ = linear_cross_entropy(*problem())
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="taken already"):
        total.backward()


@pytest.mark.parametrize("bad", [V, -2])
def test_a_target_outside_the_vocabulary_is_refused(bad):
    x, weight, targets = problem()
    targets[1, 1] = bad
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        linear_cross_entropy(x, weight, targets)


def test_no_lowered_copy_of_the_whole_head_is_made(monkeypatch):
    monkeypatch.setattr(chunked_loss, "IN_CACHE", 5 * C)
    x, weight, targets = problem()
    with TensorsMade() as made, torch.autocast("cpu", torch.bfloat16):
        linear_cross_entropy(x[:, :2], weight, targets[:, :2])[0].backward()
    lowered = [one.shape for one in made.found if one.dtype == torch.bfloat16]
    sizes = [math.prod(shape) for shape in lowered if len(shape) == 2 and C in shape]
    assert max(sizes) == max(5, B * 2) * C < V * C


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("checkpointing", [0, 1, 2])
def test_a_model_has_the_gradients_of_the_plain_loss(chunk, tie, checkpointing):
    torch.manual_seed(0)
    config = GPTConfig(block_size=T, n_layer=2, n_head=2, n_embd=C, vocab_size=V, tie_weights=tie)
    model = GPT(config)
    model.transformer.gradient_checkpointing = checkpointing
    _, _, targets = problem()
    idx = targets.clamp(min=0)
    next_token_loss(model(idx), targets)[0].backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for row in range(B):  # accumulated over micro-batches
        model(idx[row : row + 1], targets[row : row + 1])[0].backward()
    for name, p in model.named_parameters():
        assert off(p.grad, expected[name]) < 2e-6, name


@pytest.mark.slow
def test_compiled_it_is_the_same():
    torch.manual_seed(0)
    model = GPT(GPTConfig(block_size=T, n_layer=1, n_head=2, n_embd=C, vocab_size=V))
    _, _, targets = problem()
    idx = targets.clamp(min=0)
    model(idx, targets)[0].backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.compile()
    model(idx, targets)[0].backward()
    for name, p in model.named_parameters():
        assert off(p.grad, expected[name]) < 1e-5, name


def test_second_derivatives_are_refused_and_not_wrong():
    x, weight, targets = problem()
    total, _ = linear_cross_entropy(x, weight, targets)
    with pytest.raises(RuntimeError, match="no second derivatives; take next_token_loss"):
        torch.autograd.grad(total, x, create_graph=True)


def test_with_weights_in_bf16_a_sum_over_many_chunks_keeps_its_digits(monkeypatch):
    monkeypatch.setattr(chunked_loss, "CHUNK", 4 * V)
    torch.manual_seed(0)
    x, weight = torch.randn(1, 512, C), 0.3 * torch.randn(V, C)
    targets = torch.randint(V, (1, 512))
    exact, ours, autograds = (
        gradients(of, *(t.to(dtype).requires_grad_() for t in (x, weight)), targets)[3].double()
        for of, dtype in (
            (plain, torch.float64),
            (linear_cross_entropy, torch.bfloat16),
            (plain, torch.bfloat16),
        )
    )
    assert (ours - exact).norm() < 1.2 * (autograds - exact).norm()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_gradient_is_made_where_none_is_asked_for(mode, monkeypatch):
    monkeypatch.setattr(
        chunked_loss, "_to_inputs", lambda *_, **__: pytest.fail("a gradient was made")
    )
    x, weight, targets = problem()
    with mode():
        total, _ = linear_cross_entropy(x, weight, targets)
    assert off(total, plain(x, weight, targets)[0]) < 1e-6


@pytest.mark.parametrize("n", [T - 1, T + 1])
def test_one_target_for_each_token(n):
    x, weight, _ = problem()
    with pytest.raises(UserError, match=rf"shape \(3, {n}\), but the tokens \(3, 7\)"):
        linear_cross_entropy(x, weight, torch.zeros(B, n, dtype=torch.long))


def test_on_meta_there_are_shapes_alone():
    x, weight, targets = (t.detach().to("meta") for t in problem())
    weight.requires_grad_()
    linear_cross_entropy(x, weight, targets)[0].backward()
    assert weight.grad.shape == (V, C)


class WithMore(torch.nn.Module):
    """A head, or an embedding, that adds what it learns beside the weight."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.more = torch.nn.Parameter(torch.randn(1) + 1)

    @property
    def weight(self):
        return self.layer.weight

    def forward(self, x):
        return self.layer(x) * self.more


def replace(model, name, kind):
    """Put something in the place of the head or of the token embedding."""
    part = model.get_submodule(name)
    if kind == "hook":
        part.register_forward_hook(lambda module, args, out: out.sin())
    elif kind == "pre-hook":
        part.register_forward_pre_hook(lambda module, args: (args[0].flip(-1),))
    elif kind == "bias":
        model.lm_head = torch.nn.Linear(C, V)
    else:
        model.set_submodule(name, WithMore(part))


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lm_head", "bias"),
        *((name, kind) for name in ("lm_head", "transformer.wte")
          for kind in ("hook", "pre-hook", "class")),
    ],
)  # fmt: skip
def test_what_someone_put_in_the_place_of_the_head_or_the_embedding_is_heard(name, kind, tie):
    torch.manual_seed(0)
    config = GPTConfig(block_size=T, n_layer=1, n_head=2, n_embd=C, vocab_size=V, tie_weights=tie)
    model = GPT(config)
    replace(model, name, kind)
    targets = problem()[2]
    idx = targets.clamp(min=0)
    expected, _ = next_token_loss(model(idx), targets)
    wanted = torch.autograd.grad(expected, list(model.parameters()))
    total, _ = model(idx, targets)
    assert off(total, expected) < 1e-6
    for a, b in zip(torch.autograd.grad(total, list(model.parameters())), wanted, strict=True):
        assert off(a, b) < 2e-6
