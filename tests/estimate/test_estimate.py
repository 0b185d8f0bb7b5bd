"""The estimates, against real models, files and counted operations."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gpt2lib.config import SIZES, DataConfig, GPTConfig, OptimConfig, TrainConfig, load_config
from gpt2lib.estimate import (
    count_parameters,
    forward_flops,
    memory,
    parameter_parts,
    training_flops,
)
from gpt2lib.model.gpt import GPT
from gpt2lib.model.weights import model_tensors, optimizer_tensors
from gpt2lib.runs import checkpoint
from gpt2lib.tokenizer import CharTokenizer
from gpt2lib.training.costs import estimate_run, resolved_model
from gpt2lib.training.optim import make_optimizer
from gpt2lib.utils.errors import UserError

TINY = GPTConfig(vocab_size=300, block_size=16, n_layer=3, n_head=2, n_embd=24)
PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
}


@pytest.mark.parametrize("name", SIZES)
def test_the_four_sizes_have_the_published_parameters(name: str) -> None:
    config = GPTConfig.preset(name)
    with torch.device("meta"):
        real = GPT(config).num_parameters()
    assert count_parameters(config) == real == PUBLISHED[name]
    V, T, L, d = config.vocab_size, config.block_size, config.n_layer, config.n_embd
    assert real == V * d + T * d + L * (12 * d**2 + 13 * d) + 2 * d


VARIANTS = pytest.mark.parametrize(
    "changes",
    [
        {"position": "rope", "n_kv_head": 1},
        {"position": "none", "window": 3},
        {"n_layer": 0},
        {"without": ("mlp",)},
        {"without": ("layer_norm", "residual")},
        {"without": ("mlp", "residual", "layer_norm")},
    ],
    ids=lambda changes: " ".join(f"{k}={v}" for k, v in changes.items()),
)


@VARIANTS
@pytest.mark.parametrize("bias", [True, False])
def test_every_part_of_a_variant_is_counted(changes: dict[str, Any], bias: bool) -> None:
    check_parts(TINY.replace(bias=bias, **changes))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_every_part_is_counted(tied: bool, bias: bool) -> None:
    check_parts(TINY.replace(tie_weights=tied, bias=bias))


def check_parts(config: GPTConfig) -> None:
    counted = dict.fromkeys(parameter_parts(config), 0)
    marks = {"wte": "token embedding", "wpe": "position embedding", "attn": "attention"}
    marks |= {"mlp": "MLP", "ln_": "layer norms", "lm_head": "output head"}
    for name, p in GPT(config).named_parameters():
        counted[next(part for mark, part in marks.items() if mark in name)] += p.numel()
    assert counted == parameter_parts(config)


def test_untied_gpt2_has_the_head_on_top() -> None:
    assert count_parameters(GPTConfig(tie_weights=False)) == 163_037_184


def counted_flops(config: GPTConfig, training: bool, checkpointing: bool = False) -> float:
    """Count the FLOPs of a token in the eager form, which the counter sees operation by operation.

    In bfloat16 on a CPU the model takes that form for contexts this short.
    """
    model = GPT(config).to(torch.bfloat16)
    model.transformer.gradient_checkpointing = checkpointing
    idx = torch.randint(config.vocab_size, (2, config.block_size))
    with FlopCounterMode(display=False) as counter:
        logits = model(idx)
        if training:
            logits.sum().backward()
    return counter.get_total_flops() / idx.numel()


@pytest.mark.parametrize("tied", [True, False])
def test_flops_are_those_that_pytorch_counts(tied: bool) -> None:
    config = TINY.replace(tie_weights=tied)
    assert counted_flops(config, training=False) == sum(forward_flops(config).values())
    assert counted_flops(config, training=True) == training_flops(config)
    for dropout in (0.0, 0.1):
        config = config.replace(dropout=dropout)
        again = training_flops(config, gradient_checkpointing=True)
        assert counted_flops(config, training=True, checkpointing=True) == again


@pytest.mark.parametrize(
    "changes",
    [{"position": "rope", "n_kv_head": 1}, {"n_layer": 0}, {"without": ("mlp",)}],
    ids=["shared heads", "no blocks", "no MLP"],
)
def test_flops_of_a_variant_are_those_that_pytorch_counts(changes: dict[str, Any]) -> None:
    config = TINY.replace(**changes)
    assert counted_flops(config, training=False) == sum(forward_flops(config).values())
    assert counted_flops(config, training=True) == training_flops(config)
    again = training_flops(config, gradient_checkpointing=True)
    assert counted_flops(config, training=True, checkpointing=True) == again


def test_a_window_costs_the_keys_that_it_sees() -> None:
    config = TINY.replace(block_size=64, window=(4, 8, 100), global_tokens=(0, 5))
    keys = (4 + 2) + (8 + 2) + 64
    assert forward_flops(config)["attention, scores and sums"] == 4 * keys * TINY.n_embd


def test_flops_are_about_six_a_parameter() -> None:
    """Kaplan's rule of thumb, with attention on top as in appendix B of PaLM."""
    config = GPTConfig()
    weights = 12 * config.n_layer * config.n_embd**2 + config.vocab_size * config.n_embd
    attention = 12 * config.n_layer * config.n_embd * config.block_size
    assert training_flops(config) == 6 * weights + attention


@pytest.mark.parametrize(
    ("muon", "changes"),
    [(False, {}), (True, {}), (True, {"n_kv_head": 1}), (True, {"without": ("mlp",)})],
)
def test_bytes_are_those_of_real_tensors_and_files(
    tmp_path: Path, muon: bool, changes: dict[str, Any]
) -> None:
    config = TINY.replace(**changes)
    model = GPT(config)
    optimizer = make_optimizer(model, OptimConfig(name="muon" if muon else "adamw"))
    model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
    optimizer.step()
    wanted = memory(config, muon)
    assert wanted["weights"] == sum(p.nbytes for p in model.parameters())
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert wanted["gradients"] == sum(g.nbytes for g in grads)
    moments = optimizer_tensors(model, optimizer)
    assert wanted["optimizer"] == sum(t.nbytes for t in moments.values() if t.dim())
    checkpoint.write_tensors(tmp_path / "model.safetensors", model_tensors(model))
    checkpoint.write_tensors(tmp_path / "optimizer.safetensors", moments)
    payload = 0
    for path in tmp_path.iterdir():
        header = int.from_bytes(path.read_bytes()[:8], "little")
        payload += path.stat().st_size - 8 - header
    step_counters = sum(t.nbytes for t in moments.values() if not t.dim())
    assert wanted["checkpoint"] == payload - step_counters


def test_a_run_is_estimated_as_json() -> None:
    config = load_config("smoke")
    made = estimate_run(config)
    assert json.loads(json.dumps(made)) == made
    shape = config.model.replace(vocab_size=config.data.vocab_size)
    assert made["model"] == shape.to_dict()
    assert made["parameters"]["total"] == GPT(shape).num_parameters()
    tokens = config.steps * config.batch_size * shape.block_size
    assert made["run"]["tokens"] == tokens
    assert made["run"]["flops"] == tokens * made["flops_per_token"]["training"]
    assert made["bytes"]["disk"] == 3 * 12 * made["parameters"]["total"]
    assert sum(made["flops_per_token"]["parts"].values()) == made["flops_per_token"]["forward"]


def run_config(data: dict[str, Any], **fields: Any) -> TrainConfig:
    return TrainConfig(model=TINY, data=DataConfig(**data), **fields)


def test_the_vocabulary_is_the_tokenizers(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcdefgh" * 9 + "xyz", encoding="utf-8")
    CharTokenizer.train(["wörld"]).save(tmp_path / "five")
    for data, wanted in (
        ({}, 1024),
        ({"tokenizer": "bpe", "vocab_size": 700}, 700),
        ({"tokenizer": "gpt2"}, 50257),
        ({"tokenizer": str(tmp_path / "five")}, 5),
        ({"tokenizer": "char", "source": str(tmp_path / "a.txt")}, 11),
    ):
        assert resolved_model(run_config(data)).vocab_size == wanted


def test_the_shape_to_start_from_is_read(tmp_path: Path) -> None:
    made = resolved_model(run_config({}, init_from="gpt2-medium"))
    assert made == GPTConfig.preset("gpt2-medium", block_size=16)
    checkpoint.write_model_config(tmp_path, TINY.replace(n_layer=5, block_size=99))
    with pytest.raises(UserError, match=r"manifest.json is missing"):
        resolved_model(run_config({}, init_from=str(tmp_path)))


def test_torch_is_not_imported() -> None:
    """Neither by the arithmetic, nor by the estimate of a run on a GPU."""
    code = (
        "import sys, gpt2lib.estimate, gpt2lib.estimate.budget, gpt2lib.estimate.update\n"
        "assert not [name for name in sys.modules if name.startswith('gpt2lib.training')]\n"
        "from gpt2lib.training.costs import estimate_run; from gpt2lib.config import load_config\n"
        "estimate_run(load_config('smoke').replace(device='cuda'), 10**9)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
