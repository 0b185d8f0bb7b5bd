"""FSDP2: the same mathematics and the same checkpoints with weights spread over processes.

What is run is Accelerate's own preparation for FSDP2 and PyTorch's `fully_shard`, on two CPU
processes. Not run: NCCL, GPUs, more than two processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin

from gpt2lib import load_pretrained
from gpt2lib.data import loader
from gpt2lib.model.gpt import GPT
from gpt2lib.runs.checkpoint import checkpoints, read_tensors
from gpt2lib.training.distributed import configure_fsdp
from gpt2lib.training.loop import train
from gpt2lib.utils import process as sharding
from gpt2lib.utils.errors import UserError

sys.path.insert(0, str(Path(__file__).parent))

import sharded_runs
from sharded_runs import RUNS, STOP, config, split, train_until

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs: those with shards, and the same without in one process."""
    folder = tmp_path_factory.mktemp("sharding")
    text = split.write_text(folder)
    with mock.patch.object(loader, "batch", split.uneven):
        for name in ("plain", "bf16", "muon"):
            train(config(text, **RUNS[name]), folder / f"one-{name}")
        train_until(STOP, config(text), folder / "one-then-sharded")
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        script = [sharded_runs.__file__, str(folder)]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*launch, "--nproc_per_node=2", *script], check=True, env=env, timeout=300)
        train(config(text), folder / "sharded-then-one")
    return folder


def lines(run: Path, name: str) -> list[dict[str, Any]]:
    text = (run / name).read_text(encoding="utf-8")
    timing = {"seconds", "tokens_per_second", "mfu", "memory"}
    return [
        {k: v for k, v in json.loads(line).items() if k not in timing} for line in text.splitlines()
    ]


def tensors(run: Path) -> dict[str, torch.Tensor]:
    folder = checkpoints(run)[-1]
    files = ("model.safetensors", "optimizer.safetensors")
    return {
        f"{file}:{name}": t for file in files for name, t in read_tensors(folder / file).items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"sharded-{name}" for name in RUNS if name != "bf16"])
def test_the_same_losses_as_one_process_with_whole_weights(folder: Path, name: str) -> None:
    alone = "one-muon" if name == "sharded-muon" else "one-plain"
    got, wanted = split.outcome(folder / name), split.outcome(folder / alone)
    assert got.processes == 2
    found = split.difference(got, wanted)
    assert found.losses < 5e-6 and found.norms < 5e-6 and found.held_out < 5e-6, found
    assert found.weights < 2e-4, found


@pytest.mark.slow
def test_bf16_is_autocast_as_without_shards(folder: Path) -> None:
    got, wanted = split.outcome(folder / "sharded-bf16"), split.outcome(folder / "one-bf16")
    exact = split.outcome(folder / "one-plain")
    found = split.difference(got, wanted)
    # It differs from float32 by far more than from itself: it is bf16, and the sum is not rounded.
    assert found.losses < 2e-3 and found.held_out < 2e-3, found
    assert split.difference(wanted, exact).losses > 1e-4
    assert split.difference(got, exact).losses > 1e-4


@pytest.mark.slow
def test_the_checkpoint_is_that_of_whole_weights(folder: Path) -> None:
    got, wanted = tensors(folder / "sharded-plain"), tensors(folder / "one-plain")
    assert got.keys() == wanted.keys()
    for name, tensor in got.items():
        assert tensor.shape == wanted[name].shape and tensor.dtype == wanted[name].dtype, name
        torch.testing.assert_close(tensor, wanted[name], atol=2e-4, rtol=1e-3)
    model = load_pretrained(folder / "sharded-plain")
    assert isinstance(model, GPT) and model.lm_head.weight is model.transformer.wte.weight


@pytest.mark.slow
def test_samples_are_drawn_from_the_whole_model(folder: Path) -> None:
    got = lines(folder / "sharded-plain", "samples.jsonl")
    assert got == lines(folder / "one-plain", "samples.jsonl")
    assert [line["step"] for line in got] == [0, 3, 6]


@pytest.mark.slow
def test_resumed_with_shards_is_bitwise_the_uninterrupted_run(folder: Path) -> None:
    once, twice = (folder / f"sharded-{name}" for name in ("plain", "twice"))
    assert lines(once, "metrics.jsonl") == lines(twice, "metrics.jsonl")
    wanted, got = tensors(once), tensors(twice)
    assert wanted.keys() == got.keys()
    assert [name for name in wanted if not torch.equal(wanted[name], got[name])] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sharded-then-one", "one-then-sharded", "two-then-sharded"])
def test_a_run_goes_on_with_shards_or_without(folder: Path, name: str) -> None:
    got, wanted = split.outcome(folder / name), split.outcome(folder / "one-plain")
    assert got.processes == (1 if name == "sharded-then-one" else 2)
    found = split.difference(got, wanted)
    assert found.losses < 5e-6 and found.norms < 5e-6 and found.weights < 2e-4, found


@pytest.mark.parametrize(
    ("options", "precision", "message"),
    [
        ({"fsdp_version": 1}, "no", "fsdp_version is 1; set it to 2"),
        ({"cpu_offload": True}, "no", "fsdp_offload_params is not supported"),
        ({"activation_checkpointing": True}, "no", "use --gradient_checkpointing true"),
        ({}, "fp16", "use bf16 or fp32"),
    ],
)
def test_what_would_not_work_is_refused(
    options: dict[str, Any], precision: str, message: str
) -> None:
    plugin = FullyShardedDataParallelPlugin(**{"fsdp_version": 2, **options})
    accelerator = mock.Mock(mixed_precision=precision)
    accelerator.state.fsdp_plugin = plugin
    with pytest.raises(UserError, match=message):
        configure_fsdp(accelerator, mock.Mock())


def test_whole_tensors_stay_as_they_are() -> None:
    tensors = {"a": torch.ones(2), "b": torch.zeros(3)}
    gathered = sharding.gather(tensors, keep=True)
    assert gathered["a"].data_ptr() == tensors["a"].data_ptr()
    assert sharding.gather(tensors, keep=False) == {}
    assert sharding.like(tensors["a"], tensors["b"]) is tensors["a"]
