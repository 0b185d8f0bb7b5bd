"""The formula of an update on a GPU, by hand and against an update played with a GPU's choices."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpt2lib.config import DataConfig, GPTConfig, OptimConfig, TrainConfig
from gpt2lib.estimate import count_parameters, memory
from gpt2lib.estimate.budget import memory_per_gpu
from gpt2lib.estimate.update import CHUNK, MARGIN, MUON_AT_ONCE, UpdateMemory, highest
from gpt2lib.model import attention
from gpt2lib.model.kernels import chunked_loss
from gpt2lib.training import muon
from gpt2lib.training.live_bytes import play

ROOT = Path(__file__).parents[2]
BASE = GPTConfig(vocab_size=1024, block_size=128, n_layer=4, n_head=4, n_embd=128)
SHAPE = GPTConfig(vocab_size=512, block_size=64, n_layer=8, n_head=4, n_embd=256)


def run_config(changes: dict[str, Any] | None = None, **fields: Any) -> TrainConfig:
    """Return a run on a GPU, its precision resolved."""
    shape = BASE.replace(**(changes or {}))
    return TrainConfig(model=shape, **{"device": "cuda", "precision": "bf16", **fields})


def test_constants_are_those_of_the_modules_that_import_torch() -> None:
    assert (CHUNK, MUON_AT_ONCE) == (chunked_loss.CHUNK, muon.AT_ONCE)


@pytest.fixture
def gpu_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the model choose on the CPU what it would choose on a GPU."""
    monkeypatch.setattr(attention, "EAGER_UP_TO", 0)  # the fused kernel, whatever the length
    monkeypatch.setattr(chunked_loss, "IN_CACHE", 1 << 45)  # a chunk of logits in one piece


GRID: list[tuple[dict[str, Any], int, dict[str, Any]]] = [
    ({}, 4, {}),
    ({"n_layer": 1}, 8, {}),
    ({"n_layer": 12}, 2, {}),
    ({"n_embd": 512}, 2, {}),
    ({"n_embd": 64}, 32, {}),
    ({"vocab_size": 50257, "n_layer": 2}, 2, {}),
    ({"vocab_size": 50257, "n_layer": 2, "n_embd": 256}, 8, {}),
    ({"vocab_size": 65, "n_layer": 8}, 16, {}),
    ({"position": "rope"}, 8, {}),
    ({"position": "none", "vocab_size": 300, "block_size": 32}, 4, {}),
    ({"tie_weights": False, "bias": False}, 4, {}),
    ({"block_size": 1024}, 2, {}),
    ({"without": ("mlp",)}, 8, {}),
    ({"block_size": 256}, 4, {"data": DataConfig(mask_documents=True)}),
    ({"n_embd": 256}, 1, {"optim": OptimConfig("muon")}),
]
HOW = [
    {"precision": "fp32"},
    {"precision": "bf16"},
    {"precision": "fp32", "gradient_checkpointing": 1},
    {"precision": "bf16", "gradient_checkpointing": 1},
    {"precision": "fp32", "gradient_checkpointing": 2},
    {"precision": "bf16", "gradient_checkpointing": 2},
]


def check(config: TrainConfig, size: int, later: bool) -> None:
    share = size * (2 if later else 1)
    _, played = highest(play(config.replace(device="cpu"), size, share, later))
    counted = UpdateMemory(config.replace(device="cpu"), share).peak(size)  # no workspace
    assert counted == pytest.approx(played, rel=0.1)


@pytest.mark.usefixtures("gpu_choices")
@pytest.mark.parametrize(("i", "row"), list(enumerate(GRID)), ids=[str(row[0]) for row in GRID])
def test_the_formula_is_within_a_tenth_of_the_play(i: int, row: Any) -> None:
    """Each shape in two ways; all ways are a slow test."""
    changes, size, fields = row
    for how in (HOW[i % 6], HOW[(i + 3) % 6]):
        check(run_config(changes, **fields, **how), size, later=False)


@pytest.mark.slow
@pytest.mark.usefixtures("gpu_choices")
@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("row", GRID, ids=[str(row[0]) for row in GRID])
def test_the_formula_is_within_a_tenth_of_the_play_in_every_way(
    row: Any, how: dict[str, Any]
) -> None:
    changes, size, fields = row
    for later in (False, True):
        check(run_config(changes, **fields, **how), size, later)


@pytest.mark.slow
@pytest.mark.usefixtures("gpu_choices")
@pytest.mark.parametrize("how", HOW, ids=str)
def test_the_formula_is_within_a_tenth_of_the_play_for_gpt2(how: dict[str, Any]) -> None:
    for later in (False, True):
        check(run_config(GPTConfig().to_dict(), **how), 4, later)


@pytest.mark.usefixtures("gpu_choices")
def test_activations_and_loss_are_within_a_tenth_each() -> None:
    """So a wrong half of the formula is not hidden by the states of a large model."""
    for precision in ("fp32", "bf16"):
        config = run_config({"vocab_size": 8192}, precision=precision)
        played = play(config.replace(device="cpu"), 8, 8)["loss"]
        counted = UpdateMemory(config, 8).moments(8)["loss"]
        for kind in ("weights", "tokens", "activations", "loss"):
            assert counted[kind] == pytest.approx(played[kind], rel=0.1), kind


def test_a_small_loss_by_hand() -> None:
    """64 tokens of 1,024 logits: float32 logits and probabilities, and both gradients."""
    parts = UpdateMemory(run_config({"block_size": 64}, precision="fp32"), 1).moments(1)["loss"]
    assert parts["loss"] == 64 * 1024 * 8 + 4 * 64 * 128 + 4 * 1024 * 128
    assert parts["weights"] == 4 * count_parameters(BASE.replace(block_size=64))
    assert parts["optimizer"] == 2 * parts["weights"] and parts["gradients"] == 0
    assert UpdateMemory(run_config(), 2).moments(1)["loss"]["gradients"] > 0  # accumulated


def test_every_sequence_takes_the_same() -> None:
    update = UpdateMemory(run_config({"vocab_size": 50257}), 4096)
    a, b, c = (update.moments(n)["loss"]["activations"] for n in (8, 16, 24))
    assert b - a == c - b > 0


def test_attention_without_a_fused_kernel_keeps_its_weights() -> None:
    table = 4 * 2 * 4 * 128 * 128  # bytes, rows, heads, queries, keys; for each of 4 blocks
    fused = UpdateMemory(run_config(precision="fp32"), 2).moments(2)["loss"]["activations"]
    on_mps = run_config(precision="fp32").replace(device="mps")
    tables = UpdateMemory(on_mps, 2).moments(2)["loss"]["activations"]
    assert tables - fused == 4 * table


def test_several_gpus_exchange_gradients_through_a_copy() -> None:
    one, two = (UpdateMemory(run_config(), 2, n).peak(2) for n in (1, 2))
    assert two - one == memory(BASE)["weights"]


# Weights, gradients and moments that are spread over GPUs


def spread(changes: dict[str, Any], shards: int, share: int = 2, **fields: Any) -> UpdateMemory:
    config = run_config(SHAPE.replace(**changes).to_dict(), precision="fp32", **fields)
    return UpdateMemory(config, share, shards, shards)


def gathered(changes: dict[str, Any], size: int) -> int:
    return spread(changes, 4).moments(size)["loss"]["gathered"]


def test_what_is_gathered_by_hand() -> None:
    d, block = 256, 12 * 256**2 + 13 * 256
    outside = (512 + 64) * d + 2 * d
    assert outside < block
    assert gathered({}, size=1) == 4 * (outside + 3 * block + block)  # accumulated
    assert gathered({}, size=2) == 4 * (outside + 3 * block + 3 * block)
    outside = (50257 + 64) * d + 2 * d
    assert gathered({"vocab_size": 50257, "n_layer": 1}, 1) == 4 * (outside + block + outside)


def test_shares_approach_what_every_process_needs_whole() -> None:
    """With ever more processes only activations and gathered weights are left."""
    peaks = [spread({}, n).peak(2) for n in (2, 4, 8, 1000)]
    assert peaks == sorted(peaks, reverse=True)
    states = 12 * count_parameters(SHAPE)  # weights and two moments
    assert peaks[0] - peaks[-1] >= states * (1 / 2 - 1 / 1000) - 2
    assert peaks[-1] > gathered({}, size=2)


def test_accumulated_gradients_stay_whole() -> None:
    once, twice = (spread({}, 8, share) for share in (2, 4))
    assert twice.peak(2) - once.peak(2) > 0.5 * 4 * count_parameters(SHAPE)


def test_muon_works_on_whole_matrices() -> None:
    few = {"vocab_size": 64, "block_size": 8}
    with_muon, with_adamw = (
        spread(few, 1000, share=1, optim=OptimConfig(name)).peak(1) for name in ("muon", "adamw")
    )
    assert with_muon > with_adamw


def test_a_model_too_large_for_one_gpu_fits_when_spread() -> None:
    config = run_config(GPTConfig.preset("gpt2-xl").to_dict(), batch_size=64)
    found = memory_per_gpu(config, 8, 24 * 10**9)
    assert not found["copies"]["fits"]
    assert found["copies"]["largest_micro_batch"] == 0
    alone = UpdateMemory(config, 8, 8).peak(1)
    assert found["copies"]["peak"] == alone > 24e9
    assert found["shards"]["peak"] < alone


@pytest.mark.parametrize("size", [8, 4, 2, 1])
@pytest.mark.parametrize("shards", [1, 4])
def test_the_largest_micro_batch_fits_and_the_next_does_not(size: int, shards: int) -> None:
    update = spread({}, shards, share=8)
    room = int(update.peak(size) / (1 - MARGIN)) + 1
    assert update.largest(room) == size and update.fits(size, room)
    assert not update.fits(2 * size, room)
    assert update.largest(room - 2) == size // 2
    assert update.largest(10**12) == 8
    assert update.largest(10**3) == 0


@pytest.mark.slow
def test_spread_memory_is_what_is_measured() -> None:
    """FSDP2 on two processes: within an eighth; how fast gradients are sent moves it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    script = ROOT / "tests" / "training" / "sharded_memory.py"
    command += ["--nproc_per_node", "2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(rows) == 4
    for row in rows:
        assert 7 / 8 < row["estimated"] / row["measured"] < 9 / 8, row
