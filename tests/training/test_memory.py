"""Estimated memory against the measured peak of live tensor bytes, and what is made of it."""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gpt2lib.cli import main
from gpt2lib.config import DataConfig, GPTConfig, OptimConfig, TrainConfig
from gpt2lib.estimate import estimate, kernels, update
from gpt2lib.estimate.fit import MARGIN, divisors, largest_that_fits
from gpt2lib.estimate.ledger import Ledger
from gpt2lib.estimate.update import Setting, update_memory
from gpt2lib.model import attention
from gpt2lib.model.gpt import GPT
from gpt2lib.model.kernels import chunked_loss
from gpt2lib.model.kernels import window as local_attention
from gpt2lib.training import memory, muon
from gpt2lib.training.live_bytes import peak_tensor_bytes
from gpt2lib.training.memory import choose_micro_batch, largest_micro_batch, tried
from gpt2lib.training.optim import make_optimizer
from gpt2lib.utils.errors import UserError

BASE = GPTConfig(vocab_size=256, block_size=64, n_layer=4, n_head=4, n_embd=64)


def measured(config: GPTConfig, setting: Setting) -> int:
    """Return the peak of live tensor bytes of a run's second update, as the trainer makes it."""
    torch.manual_seed(0)
    model = GPT(config).train()
    model.transformer.gradient_checkpointing = setting.checkpointing
    optim = OptimConfig(name="muon" if setting.muon else "adamw")
    optimizer = make_optimizer(model, optim, setting.precision)
    shape = (setting.accumulation, setting.micro_batch, config.block_size)
    idx, targets = (torch.randint(config.vocab_size, shape) for _ in range(2))
    documents = torch.zeros(shape[1:], dtype=torch.long) if setting.documents else None
    lower = torch.autocast("cpu", dtype=torch.bfloat16)

    def update() -> None:
        for i in range(setting.accumulation):
            with lower if setting.precision == "bf16" else nullcontext():
                loss, _ = (
                    model(idx[i], targets[i], documents)
                    if setting.documents
                    else model(idx[i], targets[i])
                )
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    update()
    moments = (t for state in optimizer.state.values() for t in state.values())
    with peak_tensor_bytes([*model.parameters(), *moments, idx, targets]) as peak:
        update()
    return peak.bytes


TABLE: list[tuple[str, dict[str, Any], Setting]] = [
    ("plain", {}, Setting(2)),
    ("one row", {}, Setting(1)),
    ("accumulated", {}, Setting(2, accumulation=3)),
    ("accumulated, all blocks again", {}, Setting(1, accumulation=2, checkpointing=1)),
    ("untied", {"tie_weights": False, "n_embd": 128}, Setting(1)),
    ("no biases", {"bias": False}, Setting(4)),
    ("dropout", {"dropout": 0.1}, Setting(4)),
    ("dropout, all blocks again", {"dropout": 0.1}, Setting(8, checkpointing=1)),
    ("RoPE", {"position": "rope"}, Setting(4)),
    ("no positions", {"position": "none"}, Setting(4)),
    ("shared heads", {"n_kv_head": 1}, Setting(4)),
    ("shared heads, dropout", {"n_kv_head": 2, "dropout": 0.1}, Setting(4)),
    ("characters, all blocks again", {"vocab_size": 65}, Setting(8, checkpointing=1)),
    ("every second block again", {"vocab_size": 65}, Setting(8, checkpointing=2)),
    ("every third block again", {"vocab_size": 65, "n_layer": 7}, Setting(8, checkpointing=3)),
    ("large vocabulary", {"vocab_size": 50257, "n_embd": 32}, Setting(1)),
    ("small model, large vocabulary", {"vocab_size": 8000}, Setting(2)),
    ("window", {"window": 16, "block_size": 300}, Setting(2)),
    ("window, dropout", {"window": 16, "block_size": 300, "dropout": 0.1}, Setting(1)),
    ("window of half", {"window": 40}, Setting(4)),
    ("dilated window", {"window": 8, "dilation": 2, "block_size": 400}, Setting(2)),
    ("long", {"block_size": 520, "n_layer": 2}, Setting(2)),
    ("documents", {"block_size": 128}, Setting(4, documents=True)),
    ("documents, window, RoPE", {"window": 16, "position": "rope"}, Setting(4, documents=True)),
    ("documents, all blocks again", {}, Setting(8, documents=True, checkpointing=1)),
    ("no MLP", {"without": ("mlp",)}, Setting(4)),
    ("Muon", {}, Setting(2, muon=True)),
    ("Muon, shared heads", {"n_kv_head": 1, "block_size": 8}, Setting(1, muon=True)),
    ("Muon, no MLP", {"without": ("mlp",), "block_size": 8}, Setting(1, muon=True)),
    ("no residuals", {"without": ("residual", "layer_norm")}, Setting(4)),
]
DEEP = {"n_layer": 8, "n_embd": 256, "n_head": 8, "block_size": 256, "vocab_size": 4096}
MID: list[tuple[str, dict[str, Any], Setting]] = [
    ("mid", DEEP, Setting(4)),
    ("mid, dropout", {**DEEP, "dropout": 0.1}, Setting(2)),
    ("mid, all blocks again", DEEP, Setting(8, checkpointing=1)),
    ("mid, every second block again", DEEP, Setting(8, checkpointing=2)),
    ("mid, RoPE and shared heads", {**DEEP, "position": "rope", "n_kv_head": 2}, Setting(4)),
    ("mid, long window", {**DEEP, "block_size": 1024, "window": 128}, Setting(2)),
]


def check(changes: dict[str, Any], setting: Setting) -> None:
    config = BASE.replace(**changes)
    ratio = update_memory(config, setting).peak / measured(config, setting)
    assert 0.9 < ratio < 1.1, f"estimated is {ratio:.3f} of measured"


BOTH = pytest.mark.parametrize("precision", ["fp32", "bf16"])


@BOTH
@pytest.mark.parametrize(("name", "changes", "setting"), TABLE, ids=[row[0] for row in TABLE])
def test_the_estimate_is_within_a_tenth_of_what_lives(
    name: str, changes: dict[str, Any], setting: Setting, precision: str
) -> None:
    check(changes, replace(setting, precision=precision))


@BOTH
@pytest.mark.parametrize("changes", [{}, {"n_kv_head": 1}, {"n_layer": 40, "n_embd": 32}], ids=str)
def test_the_peak_of_muon_comes_where_it_works_on_copies(
    changes: dict[str, Any], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((update, "MUON_AT_ONCE"), (muon, "AT_ONCE")):
        monkeypatch.setattr(module, name, 1 << 18)
    config = BASE.replace(block_size=4, **changes)
    setting = Setting(1, precision=precision, muon=True)
    estimated = update_memory(config, setting)
    assert estimated.moment == "Muon's step"
    assert estimated.peak == pytest.approx(measured(config, setting), rel=0.05)


@BOTH
@pytest.mark.parametrize("tied", [True, False])
def test_the_gradient_of_the_lookup_is_a_whole_matrix_at_the_end(
    precision: str, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked_loss, "IN_CACHE", 1 << 16)
    config = BASE.replace(vocab_size=9000, block_size=8, tie_weights=tied)
    setting = Setting(1, precision=precision)
    update = update_memory(config, setting)
    assert update.moment == "backward pass of the embeddings"
    assert update.peak == pytest.approx(measured(config, setting), rel=0.01)


@BOTH
@pytest.mark.parametrize("cached", [1 << 17, 1 << 20])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rows", [7, 8], ids=["uneven", "even"])
def test_the_estimate_follows_a_loss_in_many_chunks(
    rows: int, tied: bool, cached: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked_loss, "CHUNK", 1 << 19)
    monkeypatch.setattr(chunked_loss, "IN_CACHE", cached)
    config = BASE.replace(vocab_size=4001, n_layer=1, tie_weights=tied)
    setting = Setting(rows, accumulation=2, precision=precision)
    update = update_memory(config, setting)
    assert update.moment == "loss"
    assert update.peak == pytest.approx(measured(config, setting), rel=0.003)


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize(("name", "changes", "setting"), MID, ids=[row[0] for row in MID])
def test_the_estimate_is_within_a_tenth_for_larger_models(
    name: str, changes: dict[str, Any], setting: Setting, precision: str
) -> None:
    check(changes, replace(setting, precision=precision))


@pytest.mark.slow
def test_the_estimate_is_within_a_tenth_for_gpt2() -> None:
    check(GPTConfig(block_size=256).to_dict(), Setting(1, checkpointing=1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("name", "changes", "setting"), MID, ids=[row[0] for row in MID])
def test_the_estimate_is_within_a_tenth_on_a_gpu(
    name: str, changes: dict[str, Any], setting: Setting
) -> None:
    config, on_gpu = BASE.replace(**changes), replace(setting, precision="bf16", device="cuda")
    model = GPT(config).cuda().train()
    model.transformer.gradient_checkpointing = setting.checkpointing
    optimizer = make_optimizer(model, OptimConfig())
    idx = torch.randint(config.vocab_size, (setting.micro_batch, config.block_size)).cuda()
    for _ in range(2):
        with peak_tensor_bytes(device="cuda") as peak:
            with torch.autocast("cuda", dtype=torch.bfloat16):
                loss, _ = model(idx, idx.clone())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    assert 0.9 < update_memory(config, on_gpu).peak / peak.bytes < 1.1


def test_the_kernel_is_the_one_that_the_model_picks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some constants are written down twice, because the modules they come from import torch."""
    assert kernels.EAGER_UP_TO == attention.EAGER_UP_TO
    assert kernels.SMALLEST_BLOCK == local_attention.SMALLEST_BLOCK
    assert update.MUON_AT_ONCE == muon.AT_ONCE
    names = {attention.eager: "eager", attention.fused: "flash", local_attention.chunked: "chunked"}
    for T in (40, 512, 513):
        for width, dtype in ((4, torch.float32), (2, torch.bfloat16)):
            for window in (None, 16, 256):
                config = BASE.replace(block_size=T, window=window)
                layer = attention.CausalSelfAttention(config)
                q = torch.zeros(1, 4, T, 16, dtype=dtype)
                picked = names[attention.kernel_for(q, layer.mask, 0.0)]
                assert kernels.kernel_of(config, 0, width, "cpu") == picked


# The measure itself


def test_the_measure_counts_every_byte_once() -> None:
    before = torch.zeros(500)
    with peak_tensor_bytes([before, before.view(5, 100)]) as peak:
        x = torch.zeros(1000)
        y = x.view(10, 100)[3:]
        z = x.clone()
        del x, y
        w = torch.zeros(100)
    assert peak.bytes == 2000 + 4000 + 4000
    assert peak.at_end == 2000 + z.nbytes + w.nbytes
    assert peak.resident > peak.bytes


def test_a_tensor_freed_inside_and_made_in_an_earlier_measure_is_not_counted_twice() -> None:
    with peak_tensor_bytes():
        x = torch.zeros(1000)
    with peak_tensor_bytes() as peak:
        del x
        y = torch.zeros(10)
    assert peak.bytes == peak.at_end == y.nbytes


def test_a_ledger_frees_what_nothing_refers_to() -> None:
    ledger = Ledger(grain=512)
    a = ledger.hold(100, 4, "a")
    b = ledger.hold(129, 4, "b")
    assert (ledger.total, ledger.peak_parts) == (512 + 1024, {"a": 512, "b": 1024})
    del a
    c = ledger.hold(1, 4, "a")
    assert (ledger.total, ledger.peak, ledger.most["a"]) == (1536, 1536, 512)
    del b, c
    assert ledger.total == 0 and ledger.peak == 1536


# The parts of an update


def test_the_parts_at_the_peak_add_up() -> None:
    for setting in (Setting(2), Setting(2, precision="bf16", checkpointing=1)):
        update = update_memory(BASE, setting)
        assert sum(update.parts.values()) == update.peak
        assert update.parts["optimizer"] == 2 * update.parts["weights"]


def test_checkpointing_keeps_less_the_more_blocks_it_has() -> None:
    deep = BASE.replace(n_layer=12, vocab_size=65)
    kept = [
        update_memory(deep, Setting(8, checkpointing=k)).most["activations"] for k in (1, 2, 4, 0)
    ]
    assert kept == sorted(kept) and kept[0] < kept[-1] / 3


def test_several_processes_exchange_gradients_through_a_copy() -> None:
    one, two = (update_memory(BASE, Setting(2, processes=n)) for n in (1, 2))
    assert two.peak - one.peak == one.parts["weights"]


# Micro-batches


def run_config(**fields: Any) -> TrainConfig:
    return TrainConfig(model=BASE, data=DataConfig(tokenizer="char"), **fields)


def peak_of(size: int, share: int) -> int:
    return update_memory(BASE, Setting(size, share // size)).peak


@pytest.mark.parametrize("size", [12, 6, 4, 3, 2, 1])
def test_the_largest_divisor_that_fits_is_taken(size: int) -> None:
    just = int(peak_of(size, 12) / (1 - MARGIN)) + 1
    assert largest_micro_batch(run_config(), 12, "cpu", "fp32", just) == size
    smaller = [d for d in divisors(12) if d < size]
    if smaller:
        assert largest_micro_batch(run_config(), 12, "cpu", "fp32", just - 2) == smaller[0]


def test_nothing_fits_and_one_line_says_what_would() -> None:
    with pytest.raises(UserError) as caught:
        largest_micro_batch(run_config(), 12, "cpu", "fp32", 2_000_000)
    line = str(caught.value)
    for part in (f"{peak_of(1, 12) / 1e9:.2f} GB", "0.00 GB free on cpu", "block_size"):
        assert part in line
    assert "\n" not in line
    deep = run_config().replace(model=BASE.replace(n_layer=40))
    with pytest.raises(UserError, match=r"gradient_checkpointing true needs 0\."):
        largest_micro_batch(deep, 12, "cpu", "fp32", 2_000_000)


def test_divisors_are_those() -> None:
    assert divisors(12) == [12, 6, 4, 3, 2, 1] and divisors(7) == [7, 1] and divisors(1) == [1]
    assert largest_that_fits(BASE, Setting(1), 7, 10**10) == 7
    assert largest_that_fits(BASE, Setting(1), 7, 10**3) == 0


class Narrow(GPT):
    """A model that has no room for more than two sequences."""

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:  # type: ignore[override]
        if len(idx) > 2:
            raise torch.OutOfMemoryError("no room")
        return super().forward(idx, targets)


def test_a_trial_goes_down_a_divisor_where_memory_runs_out() -> None:
    model = Narrow(BASE)
    random, weights = torch.random.get_rng_state(), model.lm_head.weight.clone()
    assert tried(model, 6, 12, "cpu", "fp32") == 2
    assert tried(model, 1, 12, "cpu", "bf16") == 1
    assert torch.equal(torch.random.get_rng_state(), random)
    assert torch.equal(model.lm_head.weight, weights) and model.lm_head.weight.grad is None


def test_the_choice_is_logged_and_agreed_upon(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda device: 10**9)
    least = int(peak_of(3, 12) / (1 - MARGIN)) + 1  # another process has less
    with caplog.at_level(logging.INFO, "gpt2lib"):
        size = choose_micro_batch(
            run_config(), GPT(BASE), 12, "cpu", "fp32", agree=lambda n: min(n, least)
        )
    assert size == 3
    (line,) = caplog.messages
    assert "3 of 12 sequences at once, 4 times an update" in line


def test_a_container_with_less_than_the_machine_is_seen(tmp_path: Path) -> None:
    assert memory.cgroup_left(tmp_path) is None
    stat = "anon 5\ninactive_file 40\n"
    files = {"memory.max": "1000\n", "memory.current": "300\n", "memory.stat": stat}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert memory.cgroup_left(tmp_path) == 740
    (tmp_path / "memory.max").write_text("max\n", encoding="utf-8")
    assert memory.cgroup_left(tmp_path) is None
    old = tmp_path / "v1" / "memory"
    old.mkdir(parents=True)
    files = {"memory.limit_in_bytes": "900", "memory.usage_in_bytes": "300"}
    for name, text in {**files, "memory.stat": "total_inactive_file 7\n"}.items():
        (old / name).write_text(text, encoding="utf-8")
    assert memory.cgroup_left(tmp_path / "v1") == 607


def test_processes_of_one_launch_share_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = memory.available_memory("cpu")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory.available_memory("cpu") == pytest.approx(alone / 4, rel=0.2)


# Estimates of a run


def test_the_estimate_of_a_run_has_the_keys_that_it_promises() -> None:
    made = estimate(run_config_of_bpe(batch_size=12, gradient_checkpointing=2), 10**10)
    assert json.loads(json.dumps(made)) == made
    size, about = made["bytes"], made["memory"]
    shape = BASE.replace(vocab_size=1024)
    assert size["peak"] == update_memory(shape, Setting(12, checkpointing=2)).peak
    every, none = "activations_with_checkpointing", "activations_without_checkpointing"
    assert size[every] < size["activations"] < size[none]
    assert sum(about["parts"].values()) == size["peak"]
    assert about["largest_micro_batch"] == about["micro_batch"] == 12
    assert set(estimate.__doc__.split("`")) >= {*size, *about}  # type: ignore[union-attr]


def run_config_of_bpe(**fields: Any) -> TrainConfig:
    return TrainConfig(model=BASE, data=DataConfig(tokenizer="bpe", vocab_size=1024), **fields)


def test_an_automatic_micro_batch_is_the_largest_that_fits() -> None:
    shape = BASE.replace(vocab_size=1024)
    free = int(update_memory(shape, Setting(4, 3)).peak / (1 - MARGIN)) + 1
    made = estimate(run_config_of_bpe(batch_size=12, micro_batch="auto"), free)["memory"]
    assert (made["largest_micro_batch"], made["micro_batch"], made["accumulation"]) == (4, 4, 3)
    made = estimate(run_config_of_bpe(batch_size=12, micro_batch="auto"), 10)["memory"]
    assert (made["largest_micro_batch"], made["micro_batch"]) == (0, 1)


def test_the_command_prints_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "cpu", "--device", "cpu", "--memory", "100MB"]) == 0
    out = capsys.readouterr().out
    assert "fits into 100.0 MB" in out and "with gradient checkpointing" in out
    assert main(["estimate", "cpu", "--memory", "1MB", "--json", "--micro_batch", "auto"]) == 0
    found = json.loads(capsys.readouterr().out)["memory"]
    assert found["available"] == 10**6 and found["largest_micro_batch"] == 0
    assert main(["estimate", "cpu", "--memory", "much"]) == 2
    assert "--memory must be a size such as 24GB" in capsys.readouterr().err


def test_a_model_too_large_for_the_machine_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 4 * 10**9)
    small = GPTConfig()
    memory.require_room(small, "cpu")  # 124,439,808 · 16 bytes are 1.99 GB
    large = GPTConfig.preset("gpt2-medium")
    with pytest.raises(
        UserError, match=r"354,823,168 parameters needs 5\.68 GB .* 4\.00 GB are free"
    ):
        memory.require_room(large, "cpu")
    memory.require_room(large, "cpu", processes=2)


def test_absurd_sizes_end_in_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path / "cache"))
    out = str(tmp_path / "run")
    code = main(["train", "smoke", "--out", out, "--model.n_embd", "1000000"])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2 and "GB for weights, gradients and moments alone" in said
