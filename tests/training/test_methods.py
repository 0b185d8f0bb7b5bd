"""Which parameters train, what they cost, and that each way of fine-tuning goes on bitwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import config, log, losses, same_tensors, stop_after, tensors

from gpt2lib import load_pretrained
from gpt2lib.config import GPTConfig, MethodConfig, TrainConfig
from gpt2lib.model.gpt import GPT
from gpt2lib.model.lora import LoRALinear, has_lora, lora_layers, merge
from gpt2lib.runs.checkpoint import ADAPTER, checkpoints
from gpt2lib.training.guard import Interrupted
from gpt2lib.training.hardware import MfuMeter
from gpt2lib.training.live_bytes import LiveBytes, play
from gpt2lib.training.loop import train
from gpt2lib.training.methods import METHODS, choose_parameters, trained_parameters
from gpt2lib.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("private_cache")

SHAPE = GPTConfig(vocab_size=60, block_size=16, n_layer=3, n_head=2, n_embd=16)
LORA: dict[str, Any] = {"name": "lora", "rank": 3, "alpha": 6.0, "lora_dropout": 0.1}


def trained(method: str, shape: GPTConfig = SHAPE, **fields: Any) -> set[str]:
    """Return the names of the parameters that a method trains."""
    model = GPT(shape)
    choose_parameters(model, MethodConfig.from_dict({"name": method, **fields}))
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_each_method_trains_what_it_says() -> None:
    everything = {name for name, _ in GPT(SHAPE).named_parameters()}
    assert trained("full") == everything
    last = trained("last-k", k=2)
    assert last == {
        n
        for n in everything
        if n.startswith(("transformer.h.1.", "transformer.h.2.")) or "ln_f" in n
    }
    assert trained("head") == {"transformer.wte.weight", *(n for n in everything if "ln_f" in n)}
    assert "lm_head.weight" in trained("head", SHAPE.replace(tie_weights=False))
    assert trained("norms") == {n for n in everything if ".ln_" in n}
    assert len(trained("norms")) == 2 * (2 * 3 + 1)
    assert {name.rpartition(".")[2] for name in trained("lora")} == {"lora_A", "lora_B"}
    assert len(trained("lora")) == 2 * 4 * 3
    assert set(METHODS) == {"full", "last-k", "head", "norms", "lora"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "last-k", "k": 4}, "method.k is 4, but the model has 3 blocks"),
        ({"name": "lora", "rank": 17}, "rank 17 is above 16"),
        ({"name": "lora", "targets": ["lm_head"]}, "tied, it is the token embedding"),
        ({"name": "lora", "targets": ["c_atn"]}, "no block has a linear layer 'c_atn'"),
        ({"name": "lora", "targets": []}, "targets is empty"),
        ({"name": "lora", "rank": 0}, "rank must be at least 1"),
        ({"name": "lora", "alpha": 0}, "alpha must be above 0"),
        ({"name": "lo-ra"}, "name must be one of"),
    ],
)
def test_what_a_method_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose_parameters(GPT(SHAPE), MethodConfig.from_dict(fields))


def test_a_method_that_trains_nothing_is_refused() -> None:
    bare = SHAPE.replace(without=("layer_norm",))
    with pytest.raises(UserError, match="norms trains nothing"):
        choose_parameters(GPT(bare), MethodConfig(name="norms"))


def test_a_part_of_a_model_that_is_new_is_not_trained(text: Path) -> None:
    with pytest.raises(UserError, match="method norms trains a part of a trained model"):
        config(text, method={"name": "norms"})


# LoRA itself


def adapted(**fields: Any) -> GPT:
    """Return a model whose matrices of LoRA are not zero any more."""
    torch.manual_seed(3)
    model = GPT(SHAPE).eval()
    choose_parameters(model, MethodConfig.from_dict({"name": "lora", "rank": 3, **fields}))
    for layer in lora_layers(model).values():
        torch.nn.init.normal_(layer.lora_B, std=0.3)
    return model


def test_lora_begins_as_the_model_was() -> None:
    torch.manual_seed(3)
    model, idx = GPT(SHAPE).eval(), torch.arange(16)[None]
    before = model(idx)
    choose_parameters(model, MethodConfig(name="lora"))
    assert torch.equal(model(idx), before)


def test_lora_computes_the_formula() -> None:
    layer = adapted(alpha=6.0).transformer.h[1].mlp.c_fc
    assert isinstance(layer, LoRALinear)
    x = torch.randn(2, 5, 16)
    moved = layer.weight + 6.0 / 3 * layer.lora_B @ layer.lora_A
    torch.testing.assert_close(layer(x), x @ moved.T + layer.bias, atol=1e-5, rtol=0)


def test_merged_it_computes_the_same_and_only_once() -> None:
    model, idx = adapted(), torch.arange(16)[None]
    before = model(idx)
    merge(model)
    assert not has_lora(model)
    assert model.state_dict().keys() == GPT(SHAPE).state_dict().keys()
    torch.testing.assert_close(model(idx), before, atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="were they merged already"):
        merge(model)


def test_lora_is_not_added_twice() -> None:
    with pytest.raises(UserError, match="has LoRA's matrices already"):
        choose_parameters(adapted(), MethodConfig(name="lora"))


# What is frozen costs nothing


@pytest.mark.parametrize("method", list(METHODS))
def test_only_what_trains_has_gradients_and_they_are_the_right_ones(method: str) -> None:
    """The loss is computed in chunks, whose head may be frozen while what it reads is not."""
    torch.manual_seed(0)
    idx, targets = torch.randint(0, 60, (2, 2, 16))
    whole = GPT(SHAPE)
    whole(idx, targets)[0].backward()
    expected = {name: p.grad for name, p in whole.named_parameters()}
    part = GPT(SHAPE)
    part.load_state_dict(whole.state_dict())
    choose_parameters(part, MethodConfig.from_dict({"name": method}))
    part(idx, targets)[0].backward()
    for name, p in part.named_parameters():
        if not p.requires_grad:
            assert p.grad is None
        elif "lora" not in name:
            torch.testing.assert_close(p.grad, expected[name])
        elif "lora_B" in name:  # ∂/∂B = scale · ∂/∂W · Aᵀ, since B·A is what W moves by
            layer = part.get_submodule(name.rpartition(".")[0])
            of_weight = expected[name.replace("lora_B", "weight")]
            torch.testing.assert_close(p.grad, layer.scale * of_weight @ layer.lora_A.T)


def test_below_what_trains_no_activations_are_kept() -> None:
    idx = torch.zeros(4, 16, dtype=torch.long)
    kept = {}
    for k in (1, 3):
        model = GPT(SHAPE)
        choose_parameters(model, MethodConfig(name="last-k", k=k))
        with LiveBytes(model.parameters()) as live:
            before = live.now
            loss, _ = model(idx, idx)
            kept[k] = live.now - before
        del loss
    assert kept[1] < 0.55 * kept[3]


def test_one_block_of_gpt2_takes_less_than_half_of_the_memory(text: Path) -> None:
    peaks = {}
    gpt2 = {"block_size": 1024, "n_layer": 12, "n_head": 12, "n_embd": 768, "vocab_size": 50257}
    for name in ("full", "last-k"):
        values = config(
            text, model=gpt2 | {"dropout": 0.0}, method={"name": name}, init_from="gpt2"
        )
        moments = play(values, 2, 4, later=True)
        peaks[name] = max(parts.total() for parts in moments.values())
    assert peaks["last-k"] < 0.45 * peaks["full"]


# Runs


def tuned(text: Path, base: Path, method: dict[str, Any], **changes: Any) -> TrainConfig:
    return config(text, init_from=str(base), method=method, **changes)


METHOD_FIELDS = [{"name": "full"}, {"name": "last-k"}, {"name": "head"}, {"name": "norms"}, LORA]


@pytest.mark.parametrize("method", METHOD_FIELDS, ids=lambda fields: fields["name"])
def test_each_method_learns_and_goes_on_bitwise(
    method: dict[str, Any],
    text: Path,
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = tuned(text, uninterrupted, method)
    result = train(wanted, tmp_path / "whole")
    assert losses(tmp_path / "whole")[-1] < losses(tmp_path / "whole")[0]
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Interrupted):
            train(wanted, tmp_path / "parts")
    train(wanted, tmp_path / "parts")
    assert same_tensors(tmp_path / "whole", tmp_path / "parts")
    assert log(tmp_path / "whole") == log(tmp_path / "parts")
    if method["name"] != "full":
        assert result["trained_parameters"] < 0.6 * result["parameters"]
    before, after = load_pretrained(uninterrupted), load_pretrained(tmp_path / "whole")
    changed = {
        n
        for (n, a), b in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(a, b)
    }
    if method["name"] != "lora":
        model = load_pretrained(uninterrupted)
        choose_parameters(model, wanted.method)
        assert changed == {n for n, p in model.named_parameters() if p.requires_grad}


def test_a_checkpoint_of_lora_holds_its_matrices_alone(
    text: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    train(tuned(text, uninterrupted, LORA), tmp_path / "run")
    found = tensors(tmp_path / "run")
    matrices = [name for name in found if name.startswith(ADAPTER)]
    assert len(matrices) == 2 * 4 * 2
    assert not any(name.startswith("model.safetensors") for name in found)
    sizes = [
        sum(f.stat().st_size for f in checkpoints(run)[-1].glob("*.safetensors"))
        for run in (tmp_path / "run", uninterrupted)
    ]
    assert sizes[0] < 0.5 * sizes[1]


def test_lora_on_lora_starts_from_what_was_learned(
    text: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    train(tuned(text, uninterrupted, LORA), tmp_path / "first")
    train(tuned(text, tmp_path / "first", LORA, steps=1), tmp_path / "second")
    start = next(line["val_loss"] for line in log(tmp_path / "second") if "val_loss" in line)
    end = [line["val_loss"] for line in log(tmp_path / "first") if "val_loss" in line]
    untrained = [line["val_loss"] for line in log(uninterrupted) if "val_loss" in line][-1]
    assert start == pytest.approx(end[-1], abs=0.02)
    assert start != pytest.approx(untrained, abs=1e-4)


def test_lora_goes_on_beside_the_very_weights_it_began_with(
    text: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run under it may have been trained on, or its weights changed."""
    import shutil

    base = tmp_path / "base"
    shutil.copytree(uninterrupted, base)
    wanted = tuned(text, base, LORA)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Interrupted):
            train(wanted, tmp_path / "run")
    newer = base / "checkpoints" / "step-00000009"
    shutil.copytree(checkpoints(uninterrupted)[-1], newer)
    train(wanted, tmp_path / "run")
    assert (newer.name) not in (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8")
    shutil.rmtree(base)
    with pytest.raises(UserError, match="is an adapter, of no use without the model"):
        load_pretrained(tmp_path / "run")


# Patience


def test_a_run_ends_when_the_held_out_loss_has_not_fallen_for_so_long(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    values = {"optim": {"lr": 0.3, "warmup_steps": 0}, "eval_every": 1, "save_every": 1, "keep": 99}
    wanted = config(text, steps=60, patience=3, **values)
    result = train(wanted, tmp_path / "run")
    held_out = {m["step"]: m["val_loss"] for m in log(tmp_path / "run") if "val_loss" in m}
    lowest = min(held_out, key=lambda step: held_out[step])
    assert result["steps"] == lowest + 3 < 60
    assert f"the held-out loss was lowest at step {lowest} " in caplog.text
    assert caplog.text.count("overfitting") == 1
    with monkeypatch.context() as patch:
        stop_after(patch, lowest + 2)
        with pytest.raises(Interrupted):
            train(wanted, tmp_path / "parts")
    again = train(wanted, tmp_path / "parts")
    assert again["steps"] == result["steps"]
    assert log(tmp_path / "run") == log(tmp_path / "parts")


@pytest.mark.parametrize(("name", "known"), [("full", True), ("norms", False)])
def test_the_share_of_the_peak_is_told_where_all_flops_are_made(
    name: str, known: bool, text: Path
) -> None:
    wanted = config(text, init_from="gpt2", method={"name": name})
    assert ("mfu" in MfuMeter(wanted, "cpu", 1)(1000.0)) == known


def test_trained_parameters_are_counted_without_the_model() -> None:
    from gpt2lib.estimate.counts import count_trained

    for shape in (
        SHAPE,
        SHAPE.replace(tie_weights=False, bias=False, position="rope", n_kv_head=1),
    ):
        for fields in METHOD_FIELDS:
            method = MethodConfig.from_dict(fields)
            model = GPT(shape)
            choose_parameters(model, method)
            assert count_trained(shape, method) == trained_parameters(model), fields
