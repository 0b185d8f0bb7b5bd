"""A tiny run, the text that it learns, and what is read back of it: shared by many tests."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2lib.config import TrainConfig
from gpt2lib.runs.checkpoint import read_tensors
from gpt2lib.training.loop import Trainer

STEPS = 8
WORDS = "the king and queen of night do love thee"
MUON = {"name": "muon", "embedding_lr": 0.02, "decay": "linear", "decay_share": 0.5}
TIMINGS = {"seconds", "tokens_per_second", "mfu", "memory"}
"""What differs between two runs of the same numbers, in a line of metrics."""


def verse(n_lines: int, words: str = WORDS, seed: int = 0) -> str:
    """Return lines drawn from a few words: something a tiny model can learn."""
    draw = random.Random(seed)
    return "".join(" ".join(draw.choices(words.split(), k=6)) + "\n" for _ in range(n_lines))


def config(text: Path, **changes: Any) -> TrainConfig:
    """Return the settings of a run of a second, with dropout, accumulation and several epochs."""
    values: dict[str, Any] = {
        "model": {"block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 16, "dropout": 0.2},
        "data": {"source": str(text), "vocab_size": 280},
        "optim": {"lr": 1e-2, "warmup_steps": 2},
        "steps": STEPS,
        "batch_size": 4,
        "micro_batch": 2,
        "precision": "fp32",
        "device": "cpu",
        "eval_every": 3,
        "eval_batches": 2,
        "save_every": 100,
        "sample_tokens": 3,
    }
    for name, value in changes.items():
        values[name] = {**values.get(name, {}), **value} if isinstance(value, dict) else value
    return TrainConfig.from_dict(values)


def tensors(run: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    """Return everything a checkpoint holds, as named tensors."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    files = sorted(folder.glob("*.safetensors"))
    return {f"{f.name}:{name}": t for f in files for name, t in read_tensors(f).items()}


def same_tensors(a: Path, b: Path) -> bool:
    """Whether the last checkpoints of two runs hold the same, bitwise."""
    left, right = tensors(a), tensors(b)
    assert left.keys() == right.keys()
    return all(torch.equal(left[name], right[name]) for name in left)


def log(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """Read a `.jsonl` file of a run without its timings."""
    lines = (run / name).read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]


def losses(run: Path) -> torch.Tensor:
    """Return the loss of every update that was made."""
    return torch.tensor([line["loss"] for line in log(run) if "loss" in line])


def stop_after(patch: pytest.MonkeyPatch, *steps: int) -> None:
    """Ask the run to stop when it has made that many updates, as a signal would."""
    original = Trainer.update

    def update(self: Trainer) -> bool:
        self.stop.signum = 15 if self.step + 1 in steps else 0
        return original(self)

    patch.setattr(Trainer, "update", update)


def crash_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """Let the update after `step` end in an error that nobody foresaw."""
    original = Trainer.update

    def update(self: Trainer) -> bool:
        if self.step == step:
            raise RuntimeError("power cut")
        return original(self)

    patch.setattr(Trainer, "update", update)
