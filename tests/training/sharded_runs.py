"""Runs with sharded weights on the CPU; started by test_sharding.py in two processes.

    torchrun --nproc_per_node 2 tests/sharded_runs.py FOLDER

Accelerate turns FSDP on for GPUs only. Here its state is told that FSDP2 was asked for, as it would
be there, and from then on everything is its own code and PyTorch's, with gloo.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import accelerate
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from gpt2lib.config import OptimConfig, TrainConfig
from gpt2lib.data import loader
from gpt2lib.training import setup
from gpt2lib.training.guard import Interrupted
from gpt2lib.training.loop import Trainer, train

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "studies"))

import split
from split import Case

RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"micro_batch": 1},
    "checkpointed": {"micro_batch": 2, "gradient_checkpointing": True},
    "compiled": {"compile": True},
    "bf16": {"precision": "bf16"},
    "muon": {"optim": OptimConfig(name="muon", lr=1e-2, warmup_steps=2)},
}
"""What is run with shards: each against the same without, in one process."""

STOP = 3


def config(text: Path, **changes: Any) -> TrainConfig:
    """Return the settings of benchmarks/studies/split.py, with samples."""
    return split.config(Case(2, 1, False), text).replace(sample_tokens=4, **changes)


@contextmanager
def sharded(**options: Any) -> Iterator[None]:
    """Let the trainer's Accelerator be one that was configured for FSDP2, as on GPUs."""

    def accelerator(**settings: Any) -> accelerate.Accelerator:
        made = accelerate.Accelerator(**settings)
        # What `accelerate config` proposes; it would untie the embedding, and is overruled.
        asked = {"fsdp_version": 2, "cpu_ram_efficient_loading": True, **options}
        plugin = FullyShardedDataParallelPlugin(**asked)
        if made.mixed_precision != "no":  # as AcceleratorState does
            plugin.set_mixed_precision(made.mixed_precision)
        made.state.distributed_type, made.state.fsdp_plugin = DistributedType.FSDP, plugin
        return made

    with mock.patch.object(setup, "Accelerator", accelerator):
        yield


@contextmanager
def stopping(step: int) -> Iterator[None]:
    """Ask the run to stop after that many updates, as a signal would."""
    original = Trainer.update

    def update(self: Trainer) -> bool:
        self.stop.signum = 15 if self.step + 1 == step else 0
        return original(self)

    with mock.patch.object(Trainer, "update", update):
        yield


def train_until(step: int, settings: TrainConfig, folder: Path) -> None:
    """Train the first updates of a run, which writes a checkpoint."""
    with stopping(step):
        try:
            train(settings, folder)
        except Interrupted:
            return
    raise AssertionError("the run was not stopped")


def main(folder: Path) -> None:
    """Make every run with shards, and those that begin or end with them."""
    text = folder / "verse.txt"
    with mock.patch.object(loader, "batch", split.uneven):
        with sharded():
            for name, changes in RUNS.items():
                train(config(text, **changes), folder / f"sharded-{name}")
            train_until(STOP, config(text), folder / "sharded-twice")
            train(config(text), folder / "sharded-twice")
            train_until(STOP, config(text), folder / "sharded-then-one")
            train(config(text), folder / "one-then-sharded")
        train_until(STOP, config(text), folder / "two-then-sharded")
        with sharded():
            train(config(text), folder / "two-then-sharded")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
