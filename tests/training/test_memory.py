"""What an update takes: measured, played with empty tensors, and what is made of it."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gpt2lib.cli import main
from gpt2lib.config import DataConfig, GPTConfig, OptimConfig, TrainConfig
from gpt2lib.estimate.update import MARGIN, UpdateMemory, divisors, highest
from gpt2lib.model.gpt import GPT
from gpt2lib.model.kernels import chunked_loss
from gpt2lib.runs.folder import open_run
from gpt2lib.training import hardware, live_bytes, memory, muon
from gpt2lib.training.costs import estimate_run
from gpt2lib.training.live_bytes import LiveBytes, empty_tensors, play
from gpt2lib.training.loop import Trainer
from gpt2lib.training.memory import (
    PlayedMemory,
    choose_micro_batch,
    largest_micro_batch,
    tried,
    update_memory,
)
from gpt2lib.training.optim import make_optimizer
from gpt2lib.utils.errors import UserError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from allocator import peak_allocated  # noqa: E402

BASE = GPTConfig(vocab_size=256, block_size=64, n_layer=2, n_head=4, n_embd=64)


def run_config(changes: dict[str, Any] | None = None, **fields: Any) -> TrainConfig:
    """Return a run on the CPU, its precision resolved."""
    fixed = {"device": "cpu", "precision": "fp32", "data": DataConfig(tokenizer="char")}
    return TrainConfig(model=BASE.replace(**(changes or {})), **{**fixed, **fields})


class Training:
    """A run's updates on random tokens, as the trainer makes them; the first is made at once."""

    def __init__(self, config: TrainConfig, size: int, times: int) -> None:
        torch.manual_seed(0)
        self.config = config
        self.model = GPT(config.model).train()
        self.model.transformer.gradient_checkpointing = config.gradient_checkpointing
        self.optimizer = make_optimizer(self.model, config.optim, config.precision)
        shape = (times, size, config.model.block_size)
        self.tokens = [torch.randint(config.model.vocab_size, shape) for _ in range(2)]
        if config.data.mask_documents:
            self.tokens.append(torch.zeros(shape, dtype=torch.long))
        self.update()

    def update(self) -> None:
        lower = torch.autocast("cpu", dtype=torch.bfloat16)
        for micro_batch in zip(*self.tokens, strict=True):
            with lower if self.config.precision == "bf16" else nullcontext():
                loss, n_targets = self.model(*micro_batch)
            (loss / n_targets).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self) -> Iterable[Tensor]:
        moments = (t for state in self.optimizer.state.values() for t in state.values())
        return [*self.model.parameters(), *moments, *self.tokens]

    def peak(self) -> int:
        with LiveBytes(self.state()) as live:
            self.update()
        return live.peak


# The measure


def test_every_byte_is_counted_once() -> None:
    before = torch.zeros(500)
    with LiveBytes([before, before.view(5, 100)]) as live:
        x = torch.zeros(1000)
        y = x.view(10, 100)[3:]
        assert live.now == 2000 + 4000  # a view has the bytes of its tensor
        z = x.clone()
        del x
        assert live.now == 2000 + 4000 + 4000  # which live as long as it does
        del y
        w = torch.zeros(100)
        assert live.now == 2000 + z.nbytes + w.nbytes
    assert live.peak == 2000 + 4000 + 4000
    del z
    assert live.now == 2000 + w.nbytes


def test_the_bytes_of_every_output_count_and_in_place_none() -> None:
    x = torch.arange(12.0)
    with LiveBytes([x]) as live:
        top, where = x.topk(3)
        assert live.now == x.nbytes + top.nbytes + where.nbytes
        parts = x.split(4)
        x.add_(1).mul_(2)
        torch._foreach_add_(list(parts), 1.0)
        assert live.now == live.peak == x.nbytes + top.nbytes + where.nbytes


def test_kinds_are_those_of_the_moment_when_bytes_came_to_life() -> None:
    with LiveBytes() as live:
        live.kind = "a"
        x = torch.zeros(100)
        live.kind = "b"
        y = torch.zeros(10)
        del x
        z = torch.zeros(20)
    assert live.peaks == {"a": {"a": 400}, "b": {"a": 400, "b": 40}}
    assert (live.live["a"], live.live["b"], live.now) == (0, y.nbytes + z.nbytes, 120)


def test_what_only_the_backward_pass_needs_is_counted() -> None:
    weight = torch.randn(64, 64, requires_grad=True)
    with LiveBytes([weight]) as live:
        y = (weight * 2).exp().sum()
        assert live.now == 2 * weight.nbytes + y.nbytes  # the exponential alone is kept
        y.backward()
        del y
        assert live.now == 2 * weight.nbytes


def test_empty_tensors_take_no_memory_and_count_as_others() -> None:
    def run() -> int:
        with LiveBytes() as live:
            x = torch.zeros(300, 300, requires_grad=True)
            (x @ x).tanh().sum().backward()
        return live.peak

    with empty_tensors():
        played = run()
        assert torch.zeros(1 << 20, 1 << 20).nbytes == 1 << 42  # four terabytes
    assert played == run() > 3 * 300 * 300 * 4


ALLOCATED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("plain", {}, {}),
    ("all blocks again, dropout", {"dropout": 0.1}, {"gradient_checkpointing": True}),
    ("Muon", {}, {"optim": OptimConfig(name="muon")}),
    ("RoPE, shared heads, window", {"position": "rope", "n_kv_head": 2, "window": 16}, {}),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("name", "changes", "fields"), ALLOCATED, ids=[r[0] for r in ALLOCATED])
def test_the_allocator_says_the_same(
    name: str, changes: dict[str, Any], fields: dict[str, Any], precision: str
) -> None:
    """But for the scratch space inside of kernels, which only the allocator sees."""
    training = Training(run_config(changes, precision=precision, **fields), 8, 2)
    allocated = peak_allocated(training.update, training.state())
    assert 0.99 < training.peak() / allocated < 1.0001


# The play


ROWS: list[tuple[str, dict[str, Any], int, int, dict[str, Any]]] = [
    ("plain", {}, 2, 1, {}),
    ("one row", {}, 1, 1, {}),
    ("no clipping", {}, 1, 1, {"optim": OptimConfig(grad_clip=0.0)}),
    ("accumulated", {}, 2, 3, {}),
    ("accumulated, all blocks again", {}, 1, 2, {"gradient_checkpointing": 1}),
    ("untied", {"tie_weights": False, "n_embd": 128}, 1, 1, {}),
    ("no biases", {"bias": False}, 4, 1, {}),
    ("dropout", {"dropout": 0.1}, 4, 1, {}),
    ("dropout, all blocks again", {"dropout": 0.1}, 8, 1, {"gradient_checkpointing": 1}),
    ("RoPE", {"position": "rope"}, 4, 1, {}),
    ("no positions", {"position": "none"}, 4, 1, {}),
    ("shared heads", {"n_kv_head": 1}, 4, 1, {}),
    ("shared heads, dropout", {"n_kv_head": 2, "dropout": 0.1}, 4, 1, {}),
    ("characters, all blocks again", {"vocab_size": 65}, 8, 1, {"gradient_checkpointing": 1}),
    (
        "every second block again",
        {"vocab_size": 65, "n_layer": 4},
        8,
        1,
        {"gradient_checkpointing": 2},
    ),
    ("every third again", {"vocab_size": 65, "n_layer": 5}, 8, 1, {"gradient_checkpointing": 3}),
    ("large vocabulary", {"vocab_size": 50257, "n_embd": 32}, 1, 1, {}),
    ("small model, large vocabulary", {"vocab_size": 8000}, 2, 1, {}),
    ("window", {"window": 16, "block_size": 300}, 2, 1, {}),
    ("window, dropout", {"window": 16, "block_size": 300, "dropout": 0.1}, 1, 1, {}),
    ("window of half", {"window": 40}, 4, 1, {}),
    ("dilated window", {"window": 8, "dilation": 2, "block_size": 400}, 2, 1, {}),
    ("global tokens", {"window": 8, "global_tokens": (0, 3), "block_size": 300}, 2, 1, {}),
    (
        "RoPE, shared heads, window, dropout",
        {"position": "rope", "n_kv_head": 2, "window": 16, "block_size": 300, "dropout": 0.1},
        2,
        2,
        {},
    ),
    ("long", {"block_size": 520, "n_layer": 2}, 2, 1, {}),
    ("documents", {"block_size": 128}, 4, 1, {"data": DataConfig(mask_documents=True)}),
    (
        "documents, window, RoPE",
        {"window": 16, "position": "rope"},
        4,
        2,
        {"data": DataConfig(mask_documents=True)},
    ),
    (
        "documents, all blocks again",
        {},
        8,
        1,
        {"data": DataConfig(mask_documents=True), "gradient_checkpointing": 1},
    ),
    ("no MLP", {"without": ("mlp",)}, 4, 1, {}),
    ("no residuals", {"without": ("residual", "layer_norm")}, 4, 1, {}),
    ("no blocks", {"n_layer": 0}, 2, 1, {}),
    ("Muon", {}, 2, 1, {"optim": OptimConfig(name="muon")}),
    ("Muon, accumulated", {"n_kv_head": 1, "block_size": 8}, 1, 2, {"optim": OptimConfig("muon")}),
    ("Muon, no MLP", {"without": ("mlp",)}, 1, 1, {"optim": OptimConfig("muon")}),
]
DEEP = {"n_layer": 8, "n_embd": 256, "n_head": 8, "block_size": 256, "vocab_size": 4096}
MID: list[tuple[str, dict[str, Any], int, int, dict[str, Any]]] = [
    ("mid", DEEP, 4, 1, {}),
    ("mid, dropout", {**DEEP, "dropout": 0.1}, 2, 1, {}),
    ("mid, all blocks again", DEEP, 8, 1, {"gradient_checkpointing": 1}),
    ("mid, every second block again", DEEP, 8, 1, {"gradient_checkpointing": 2}),
    ("mid, RoPE and shared heads", {**DEEP, "position": "rope", "n_kv_head": 2}, 4, 1, {}),
    ("mid, long window", {**DEEP, "block_size": 1024, "window": 128}, 2, 1, {}),
]
BOTH = pytest.mark.parametrize("precision", ["fp32", "bf16"])
COLUMNS = ("name", "changes", "size", "times", "fields")


def check(config: TrainConfig, size: int, times: int) -> None:
    played = update_memory(config, size * times).peak(size)
    assert played == pytest.approx(Training(config, size, times).peak(), rel=1e-3)


@BOTH
@pytest.mark.parametrize(COLUMNS, ROWS, ids=[row[0] for row in ROWS])
def test_the_play_takes_what_an_update_takes(
    name: str,
    changes: dict[str, Any],
    size: int,
    times: int,
    fields: dict[str, Any],
    precision: str,
) -> None:
    check(run_config(changes, precision=precision, **fields), size, times)


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize(COLUMNS, MID, ids=[row[0] for row in MID])
def test_the_play_takes_what_an_update_of_a_larger_model_takes(
    name: str,
    changes: dict[str, Any],
    size: int,
    times: int,
    fields: dict[str, Any],
    precision: str,
) -> None:
    check(run_config(changes, precision=precision, **fields), size, times)


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True])
def test_the_play_takes_what_an_update_of_gpt2_takes(again: bool) -> None:
    shape = GPTConfig(block_size=256).to_dict()
    check(run_config(shape, gradient_checkpointing=again), 1, 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(COLUMNS, MID, ids=[row[0] for row in MID])
def test_the_formula_is_within_a_tenth_on_a_gpu(
    name: str, changes: dict[str, Any], size: int, times: int, fields: dict[str, Any]
) -> None:
    config = run_config(changes, **fields).replace(device="cuda", precision="bf16")
    torch.cuda.reset_peak_memory_stats()
    play(config, size, size, empty=False)
    estimated = UpdateMemory(config, size).peak(size)
    assert 0.9 < estimated / torch.cuda.max_memory_allocated() < 1.1


@pytest.mark.parametrize("micro_batch", [2, 8])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_play_takes_what_the_trainer_takes(tmp_path: Path, micro_batch: int, name: str) -> None:
    (tmp_path / "a.txt").write_text("the cat sat on the mat. " * 200, encoding="utf-8")
    data = DataConfig(source=str(tmp_path / "a.txt"), tokenizer="char", cache=str(tmp_path))
    config = run_config(
        {"dropout": 0.1},
        data=data,
        optim=OptimConfig(name=name),
        batch_size=8,
        micro_batch=micro_batch,
        sample_tokens=0,
        gradient_checkpointing=2,
    )
    with open_run(tmp_path / "run", config) as run:
        trainer = Trainer(config, run)
        trainer.update()
        moments = (t for s in trainer.raw_optimizer.state.values() for t in s.values())
        with LiveBytes([*trainer.raw_model.parameters(), *moments]) as live:
            trainer.update()
    resolved = config.replace(model=trainer.raw_model.config)
    played = update_memory(resolved, 8).peak(micro_batch)
    assert played == pytest.approx(live.peak, rel=1e-3)


@BOTH
@pytest.mark.parametrize("changes", [{}, {"n_kv_head": 1}, {"n_layer": 12, "n_embd": 32}], ids=str)
def test_the_peak_of_muon_comes_where_it_works_on_copies(
    changes: dict[str, Any], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muon, "AT_ONCE", 1 << 15)
    optim = OptimConfig(name="muon")
    config = run_config({"block_size": 4, **changes}, precision=precision, optim=optim)
    moments = update_memory(config, 1).moments(1)
    assert highest(moments)[0] == "Muon's step"
    check(config, 1, 1)


@BOTH
@pytest.mark.parametrize("tied", [True, False])
def test_the_gradient_of_the_lookup_is_a_whole_matrix_at_the_end(
    precision: str, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked_loss, "IN_CACHE", 1 << 16)
    shape = {"vocab_size": 9000, "block_size": 8, "tie_weights": tied}
    config = run_config(shape, precision=precision)
    parts = update_memory(config, 1).moments(1)["backward pass of the embeddings"]
    matrix = 4 * 9000 * config.model.n_embd
    blocks = parts["weights"] - (1 if tied else 2) * matrix
    # The head's, the look-up's and, where both are of one matrix, their sum.
    made = parts["gradients"] + parts["loss"] - blocks
    assert (2 + tied) * matrix <= made < (2 + tied) * matrix + 100_000
    check(config, 1, 1)


@BOTH
@pytest.mark.parametrize("cached", [1 << 17, 1 << 20])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rows", [7, 8], ids=["uneven", "even"])
def test_the_play_follows_a_loss_in_many_chunks(
    rows: int, tied: bool, cached: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked_loss, "CHUNK", 1 << 19)
    monkeypatch.setattr(chunked_loss, "IN_CACHE", cached)
    shape = {"vocab_size": 4001, "n_layer": 1, "tie_weights": tied}
    config = run_config(shape, precision=precision)
    assert highest(update_memory(config, 2 * rows).moments(rows))[0] == "loss"
    check(config, rows, 2)


# The parts of an update


def test_the_parts_are_those_of_the_tensors() -> None:
    model = GPT(BASE)
    weights = sum(p.nbytes for p in model.parameters())
    for fields in ({}, {"gradient_checkpointing": 1, "precision": "bf16"}):
        moments = update_memory(run_config(**fields), 4).moments(2)
        backward = {"backward pass", "backward pass of the embeddings"}
        assert set(moments) == {"forward pass", "loss", *backward, "AdamW's step"}
        for parts in moments.values():
            assert parts["weights"] == weights
            steps = 4 * len(list(model.parameters()))
            assert 2 * weights + steps <= parts["optimizer"] < 2 * weights + 2000
            assert parts["tokens"] == 2 * 4 * BASE.block_size * 8
        assert moments["loss"]["gradients"] == weights  # of the first micro-batch
    assert update_memory(run_config(), 2).moments(2)["loss"]["gradients"] == 0


def test_activations_are_what_lives_after_the_trunk() -> None:
    config = run_config({"tie_weights": False})
    training = Training(config, 2, 1)
    idx = training.tokens[0][0]
    with LiveBytes(training.state()) as live:
        before = live.now
        x = training.model.transformer(idx)  # keeps them alive
        kept = live.now - before
    assert x.shape == (2, 64, 64)
    played = update_memory(config, 2).moments(2)["loss"]["activations"]
    assert played == pytest.approx(kept, rel=0.01)


def test_checkpointing_keeps_less_the_more_blocks_it_has() -> None:
    deep = {"n_layer": 8, "vocab_size": 65}
    kept = [
        update_memory(run_config(deep, gradient_checkpointing=k), 8).moments(8)["loss"]
        for k in (1, 2, 4, 0)
    ]
    activations = [parts["activations"] for parts in kept]
    assert activations == sorted(activations) and activations[0] < activations[-1] / 3


def test_several_processes_exchange_gradients_through_a_copy() -> None:
    one, two = (update_memory(run_config(), 2, n) for n in (1, 2))
    assert two.peak(2) - one.peak(2) == one.moments(2)["loss"]["weights"]


def test_a_play_leaves_random_numbers_and_settings_as_they_were() -> None:
    config = run_config({"dropout": 0.1}, precision="bf16", gradient_checkpointing=True)
    for empty in (True, False):
        before = torch.random.get_rng_state()
        play(config, 1, 2, later=True, empty=empty)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
        assert torch.zeros(2).sum().item() == 0  # a tensor has numbers again


# Micro-batches


@BOTH
def test_memory_is_affine_in_the_micro_batch(precision: str) -> None:
    update = update_memory(run_config(precision=precision), 16)
    for moment in ("forward pass", "loss"):
        a, b, c = (update.moments(n)[moment].total() for n in (2, 4, 8))
        assert c - b == pytest.approx(2 * (b - a), rel=0.01) and b > a
    a, b, c = (update.moments(n)["loss"]["activations"] for n in (2, 4, 8))
    assert c - b == 2 * (b - a) > 0


@BOTH
@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"vocab_size": 4096}, {}),
        ({"vocab_size": 4096, "tie_weights": False}, {"gradient_checkpointing": 1}),
        ({"n_layer": 4}, {"gradient_checkpointing": 2}),
        ({"position": "rope", "n_kv_head": 1, "window": 16}, {"optim": OptimConfig("muon")}),
    ],
    ids=["plain", "all blocks again", "every second again", "window, Muon"],
)
def test_a_large_micro_batch_is_played_in_two_halves(
    changes: dict[str, Any],
    fields: dict[str, Any],
    precision: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They add up to at most 3 %, or a matrix of the vocabulary, more."""
    update = PlayedMemory(run_config(changes, precision=precision, **fields), 24)
    shape = update.config.model
    for module in (memory, chunked_loss):  # a chunk of logits for each sequence
        monkeypatch.setattr(module, "CHUNK", shape.block_size * shape.vocab_size)
    update = PlayedMemory(update.config, 24)
    matrix = 4 * update.config.model.vocab_size * update.config.model.n_embd
    for size in (12, 24):
        as_one = update.peak(size)
        with monkeypatch.context() as patch:
            patch.setattr(memory, "WHOLE", 0)
            assert 0.999 * as_one < update.peak(size) <= as_one + max(0.03 * as_one, matrix)
    played = {size for size, vocab_size, _ in update._played if vocab_size > 1}
    assert played == {12, 24, update._few} and update._few < 6


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("again", [False, True])
def test_two_halves_are_within_half_a_percent_for_gpt2(
    again: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = GPTConfig().to_dict()
    config = run_config(shape, precision=precision, gradient_checkpointing=again)
    update = PlayedMemory(config, 480)
    as_one = update.peak(16)
    monkeypatch.setattr(memory, "WHOLE", 0)
    assert update.peak(16) == pytest.approx(as_one, rel=0.005)


def peak_of(size: int, share: int) -> int:
    return update_memory(run_config(), share).peak(size)


def room_for(size: int, share: int) -> int:
    """Return the fewest bytes into which that micro-batch fits."""
    return math.ceil(peak_of(size, share) / (1 - MARGIN))


@pytest.mark.parametrize("size", [12, 6, 4, 3, 2, 1])
def test_the_largest_divisor_that_fits_is_taken(size: int) -> None:
    update = update_memory(run_config(), 12)
    just = room_for(size, 12)
    assert largest_micro_batch(update, just) == size
    smaller = [d for d in divisors(12) if d < size]
    if smaller:
        assert largest_micro_batch(update, just - 2) == smaller[0]


@pytest.mark.parametrize("longest", [0, 10**9])
@pytest.mark.parametrize("size", [32, 8])
def test_what_is_found_along_a_line_fits_and_the_next_does_not(
    size: int, longest: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With a chunk for each sequence 2 are few already, so most micro-batches are many."""
    for module in (memory, chunked_loss):
        monkeypatch.setattr(module, "CHUNK", BASE.block_size * BASE.vocab_size)
    for name, value in {"SHORT": 0, "WHOLE": longest}.items():
        monkeypatch.setattr(memory, name, value)
    update = PlayedMemory(run_config(), 64)
    just = math.ceil(update.peak(size) / (1 - MARGIN))
    fresh = PlayedMemory(run_config(), 64)
    with caplog.at_level(logging.INFO, "gpt2lib"):
        assert fresh.largest(just) == size
    assert fresh._few == 2
    played = {one for one, *_ in fresh._played}
    assert size in played and 4 * size not in played  # far too much is not played
    assert f"playing an update with empty tensors, {size} sequences at once" in caplog.messages
    assert fresh.fits(size, just) and not fresh.fits(2 * size, just)


def test_nothing_fits_and_one_line_says_what_would() -> None:
    update = update_memory(run_config(), 12)
    with pytest.raises(UserError) as caught:
        largest_micro_batch(update, 2_000_000)
    line = str(caught.value)
    for part in (f"{peak_of(1, 12) / 1e9:.2f} GB", "0.00 GB free on cpu", "block_size"):
        assert part in line
    assert "\n" not in line
    deep = update_memory(run_config({"n_layer": 20}), 12)
    with pytest.raises(UserError, match=r"gradient_checkpointing true needs 0\."):
        largest_micro_batch(deep, 2_000_000)


def test_divisors_are_those() -> None:
    assert divisors(12) == [12, 6, 4, 3, 2, 1] and divisors(7) == [7, 1] and divisors(1) == [1]
    assert update_memory(run_config(), 7).largest(10**10) == 7
    assert update_memory(run_config(), 7).largest(10**3) == 0


def test_what_would_take_long_is_not_played(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound by arithmetic decides before anything is made."""

    def never(*args: Any) -> None:
        raise AssertionError("played")

    monkeypatch.setattr(memory, "play", never)
    wide = run_config({"n_embd": 2**14})
    assert update_memory(wide, 4).largest(10**9) == 0
    for changes in ({"n_layer": 4096}, {"block_size": 10**7}, {"block_size": 10**6, "window": 9}):
        update = update_memory(run_config(changes), 4)
        assert not isinstance(update, PlayedMemory)
        assert update.peak(1) > 10**9
    on_gpu = run_config().replace(device="cuda", precision="bf16")
    assert update_memory(on_gpu, 12).largest(10**9) == 12


class Narrow(GPT):
    """A model that has no room for more than two sequences."""

    def forward(self, idx: Tensor, *rest: Tensor) -> Any:  # type: ignore[override]
        if len(idx) > 2:
            raise torch.OutOfMemoryError("no room")
        return super().forward(idx, *rest)


def test_a_trial_goes_down_a_divisor_where_memory_runs_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_bytes, "GPT", Narrow)
    random = torch.random.get_rng_state()
    update = update_memory(run_config(), 12)
    assert tried(update, 6) == 2
    assert tried(update_memory(run_config(precision="bf16"), 12), 1) == 1
    assert torch.equal(torch.random.get_rng_state(), random)
    with pytest.raises(UserError, match="even micro_batch 1 does not fit on cpu"):
        tried(update, 0)


def test_the_choice_is_logged_and_agreed_upon(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda device: 10**9)
    least = room_for(3, 12)  # another process has less
    with caplog.at_level(logging.INFO, "gpt2lib"):
        size = choose_micro_batch(update_memory(run_config(), 12), lambda n: min(n, least))
    assert size == 3
    (line,) = caplog.messages
    assert "3 of 12 sequences at once, 4 times an update" in line
    assert f"estimated peak {peak_of(3, 12) / 1e9:.2f} GB" in line


# Estimates of a run


def bpe_config(**fields: Any) -> TrainConfig:
    return run_config(data=DataConfig(tokenizer="bpe", vocab_size=1024), **fields)


def test_the_estimate_of_a_run_has_the_keys_that_it_promises() -> None:
    config = bpe_config(batch_size=12, gradient_checkpointing=2)
    made = estimate_run(config, 10**10)
    assert json.loads(json.dumps(made)) == made
    size, about = made["bytes"], made["memory"]
    known = config.replace(model=BASE.replace(vocab_size=1024))
    assert size["peak"] == update_memory(known, 12).peak(12)
    every, none = "activations_with_checkpointing", "activations_without_checkpointing"
    assert size[every] < size["activations"] < size[none]
    plain = update_memory(known.replace(gradient_checkpointing=False), 12).moments(12)
    assert size[none] == plain["loss"]["activations"]
    assert sum(about["parts"].values()) == size["peak"]
    assert about["largest_micro_batch"] == about["micro_batch"] == 12
    assert set(estimate_run.__doc__.split("`")) >= {*size, *about}  # type: ignore[union-attr]


def test_an_automatic_micro_batch_is_the_largest_that_fits() -> None:
    config = bpe_config(batch_size=12, micro_batch="auto")
    known = config.replace(model=BASE.replace(vocab_size=1024))
    free = math.ceil(update_memory(known, 12).peak(4) / (1 - MARGIN))
    made = estimate_run(config, free)["memory"]
    assert (made["largest_micro_batch"], made["micro_batch"], made["accumulation"]) == (4, 4, 3)
    made = estimate_run(config, 10)["memory"]
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
    monkeypatch.setattr(hardware, "available_memory", lambda device: 4 * 10**9)
    small = GPTConfig()
    hardware.require_room(small, "cpu")  # 124,439,808 · 16 bytes are 1.99 GB
    large = GPTConfig.preset("gpt2-medium")
    with pytest.raises(
        UserError, match=r"354,823,168 parameters needs 5\.68 GB .* 4\.00 GB are free"
    ):
        hardware.require_room(large, "cpu")
    hardware.require_room(large, "cpu", processes=2)


@pytest.mark.parametrize("command", ["train", "estimate"])
def test_absurd_sizes_end_in_one_line(capsys, monkeypatch, tmp_path, command):
    text = tmp_path / "a.txt"
    text.write_text("to be or not to be " * 40, encoding="utf-8")
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path / "cache"))
    options = ["--data.source", str(text), "--data.tokenizer", "char"]
    sizes = ["--model.n_embd", "1000000", "--model.n_layer", "4096"]
    if command == "train":
        code = main(["train", "smoke", "--out", str(tmp_path / "run"), *options, *sizes])
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert code == 2 and "GB for weights, gradients and moments alone" in said
    else:
        assert main(["estimate", "smoke", "--device", "cpu", *options, *sizes]) == 0
        assert "not even one sequence at a time" in capsys.readouterr().out
