"""Initial weights and tying."""

import copy
import math

import pytest
import torch
from torch import nn

from gpt2lib.config import GPTConfig, OptimConfig
from gpt2lib.model.gpt import GPT
from gpt2lib.model.init import init_weights, tie
from gpt2lib.model.weights import load_weights, model_tensors
from gpt2lib.runs import checkpoint
from gpt2lib.training.optim import make_optimizer

TINY = GPTConfig(vocab_size=65, block_size=16, n_layer=2, n_head=2, n_embd=16)


def batch(vocab_size: int, b: int = 4, t: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(vocab_size, (b, t + 1), generator=torch.Generator().manual_seed(1))
    return tokens[:, :-1], tokens[:, 1:]


@pytest.mark.parametrize("n_layer", [1, 3])
def test_every_weight_has_the_std_of_the_table(n_layer):
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=500, block_size=128, n_layer=n_layer, n_head=4, n_embd=128,
                          tie_weights=False))  # fmt: skip
    seen = 0
    for name, p in model.named_parameters():
        if p.dim() < 2:
            continue
        residual = name.endswith(("attn.c_proj.weight", "mlp.c_proj.weight"))
        std = 0.02 / math.sqrt(2 * n_layer) if residual else 0.02
        n = p.numel()  # the estimate of a std is off by std / √(2n); allow five times that
        assert p.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * n)), name
        assert abs(p.mean().item()) < 5 * std / math.sqrt(n), name
        beyond = (p.abs() > 2 * std).double().mean().item()  # 4.55 % of a normal, 0 of a uniform
        assert beyond == pytest.approx(0.0455, abs=5 * math.sqrt(0.0455 / n)), name
        seen += 1
    assert seen == 3 + 4 * n_layer  # wte, wpe, lm_head and four matrices a block


def test_biases_are_0_and_gains_are_1_whatever_was_there_before():
    model = GPT(TINY)
    for p in model.parameters():
        nn.init.constant_(p, 7.0)
    init_weights(model, TINY.n_layer)
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert torch.equal(p, torch.zeros_like(p)), name
        elif "ln_" in name:
            assert torch.equal(p, torch.ones_like(p)), name
        else:
            assert not (p == 7).any(), name


def test_without_biases_nothing_is_left_out():
    names = [n for n, _ in GPT(TINY.replace(bias=False)).named_parameters()]
    assert not [n for n in names if n.endswith("bias")]


def test_the_seed_decides_and_no_two_matrices_are_the_same():
    def weights(seed):
        torch.manual_seed(seed)
        return GPT(TINY).state_dict()

    first, again, other = weights(3), weights(3), weights(4)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["transformer.wte.weight"], other["transformer.wte.weight"])
    h0, h1 = (first[f"transformer.h.{i}.mlp.c_fc.weight"] for i in (0, 1))
    assert not torch.equal(h0, h1)


@torch.no_grad()
def stream_size(n_layer: int, scaled: bool) -> float:
    """Root mean square of the residual stream where it enters the last layer norm."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=65, block_size=16, n_layer=n_layer, n_head=4, n_embd=64))
    if not scaled:  # 2 · ½ = 1 block's worth of division: none
        init_weights(model, 0.5)  # type: ignore[arg-type]
    sizes = []
    model.transformer.ln_f.register_forward_pre_hook(
        lambda _, x: sizes.append(x[0].pow(2).mean().sqrt().item())
    )
    model(batch(65)[0])
    return sizes[0]


def test_the_stream_keeps_its_size_at_any_depth_only_with_the_residual_scaling():
    assert stream_size(32, scaled=True) == pytest.approx(stream_size(2, scaled=True), rel=0.1)
    assert stream_size(32, scaled=False) > 2.5 * stream_size(2, scaled=False)


@pytest.mark.parametrize("vocab_size", [65, 5000])
def test_the_loss_at_the_start_is_that_of_a_blind_guess(vocab_size):
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=vocab_size, block_size=16, n_layer=2, n_head=4, n_embd=64))
    loss, n = model(*batch(vocab_size, b=16))
    assert (loss / n).item() == pytest.approx(math.log(vocab_size), abs=0.1)


# ── tying ───────────────────────────────────────────────────────────────────────────────────────


def assert_tied(model: GPT) -> None:
    head, embedding = model.lm_head.weight, model.transformer.wte.weight
    assert head is embedding
    assert head.data_ptr() == embedding.data_ptr()
    names = [n for n, _ in model.named_parameters()]
    assert "transformer.wte.weight" in names and "lm_head.weight" not in names
    with torch.no_grad():
        embedding[0, 0] = 123.0
    assert head[0, 0] == 123.0


def test_tying_is_a_switch():
    assert_tied(GPT(TINY))
    untied = GPT(TINY.replace(tie_weights=False))
    head, embedding = untied.lm_head.weight, untied.transformer.wte.weight
    assert head.data_ptr() != embedding.data_ptr()
    assert not torch.equal(head, embedding)
    tie(untied.lm_head, untied.transformer.wte)
    assert_tied(untied)


@pytest.mark.parametrize(("tied", "count"), [(True, 124_439_808), (False, 163_037_184)])
def test_parameter_counts_of_gpt2_small(tied, count):
    with torch.device("meta"):
        assert GPT(GPTConfig(tie_weights=tied)).num_parameters() == count


def reloaded(model: GPT, tmp_path) -> GPT:
    fresh = GPT(TINY)
    fresh.load_state_dict(model.state_dict())
    return fresh


def saved_and_loaded(model: GPT, tmp_path) -> GPT:
    path = tmp_path / "model.safetensors"
    checkpoint.write_tensors(path, model_tensors(model))
    stored = checkpoint.read_tensors(path)
    assert "lm_head.weight" not in stored  # the shared matrix is in the file once
    fresh = GPT(TINY)
    load_weights(fresh, stored, path)
    return fresh


def stepped(model: GPT, tmp_path) -> GPT:
    optimizer = make_optimizer(model, OptimConfig(lr=0.01))
    model(*batch(65))[0].backward()
    optimizer.step()
    return model


def compiled(model: GPT, tmp_path) -> GPT:
    model.compile(backend="eager")
    model(*batch(65))
    return model


@pytest.mark.parametrize(
    "journey",
    [
        reloaded,
        saved_and_loaded,
        stepped,
        compiled,
        lambda m, _: copy.deepcopy(m),
        lambda m, _: m.to(torch.bfloat16),
        lambda m, _: m.to("cpu", torch.float64).float(),
    ],
    ids=["load_state_dict", "safetensors", "optimizer step", "compile", "deepcopy", "bf16", "to"],
)
def test_the_weights_stay_tied_through(journey, tmp_path):
    torch.manual_seed(0)
    model = GPT(TINY)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    after = journey(model, tmp_path)
    same = torch.equal(after.state_dict()["lm_head.weight"].float(), before["lm_head.weight"])
    rounded = after.lm_head.weight.dtype is torch.bfloat16
    assert same == (journey is not stepped and not rounded)
    assert list(after.state_dict()) == list(before)
    assert_tied(after)


def test_a_tied_weight_gets_the_sum_of_the_gradients_of_both_uses():
    torch.manual_seed(0)
    tied = GPT(TINY)
    untied = GPT(TINY.replace(tie_weights=False))
    untied.load_state_dict(tied.state_dict())  # the same numbers, in two tensors
    for model in (tied, untied):
        model(*batch(65))[0].backward()
    as_input, as_output = untied.transformer.wte.weight.grad, untied.lm_head.weight.grad
    assert as_input is not None and as_output is not None
    assert as_input.abs().max() > 0 and as_output.abs().max() > 0
    torch.testing.assert_close(tied.lm_head.weight.grad, as_input + as_output)
