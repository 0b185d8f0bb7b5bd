"""Small studies for tests, and a stand-in for training that takes milliseconds."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.study import Study
from sqlalchemy import event
from sqlalchemy.engine import Engine

from gpt2lib.config import TrainConfig
from gpt2lib.tuning import pool
from gpt2lib.tuning.config import StudyConfig, load_study
from gpt2lib.tuning.worker import Worker

optuna.logging.set_verbosity(optuna.logging.WARNING)

TINY: dict[str, Any] = {
    "model.block_size": 16,
    "model.n_embd": 16,
    "model.dropout": 0.1,
    "data.vocab_size": 280,
    "eval_batches": 2,
}
"""What makes the smoke preset tiny."""


@event.listens_for(Engine, "connect")
def _without_waiting_for_the_disk(connection: Any, record: Any) -> None:
    """No test pulls the plug: a database of this process need not wait until its bytes lie safe."""
    if type(connection).__module__.startswith("sqlite3"):
        connection.execute("PRAGMA synchronous=OFF")


def text(folder: Path) -> Path:
    """Write a small text; return its file."""
    draw, path = random.Random(0), folder / "verse.txt"
    words = ["the", "king", "and", "queen", "of", "night", "do", "love", "thee"]
    lines = [" ".join(draw.choices(words, k=6)) + "\n" for _ in range(60)]
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def study_file(folder: Path, **changes: Any) -> Path:
    """Write a study of tiny runs on a small text; return the YAML file."""
    values: dict[str, Any] = {
        "base": "smoke",
        "fixed": {**TINY, "data.source": str(text(folder))},
        "space": {"optim.lr": {"low": 1e-3, "high": 1e-1, "log": True}, "batch_size": [2, 4]},
        "budget": {"tokens": 640},
        "trials": 5,
        "seed": 3,
        "storage": "journal",
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**values, **changes}), encoding="utf-8")
    return path


def study(folder: Path, **changes: Any) -> StudyConfig:
    """Return such a study."""
    return load_study(study_file(folder, **changes))


def run_here(config: StudyConfig, folder: Path) -> Study:
    """Run a study with one worker, in this process."""
    opened = pool.open_folder(config, folder)
    Worker(folder, os.getppid()).work()
    return opened


def bits(config: TrainConfig) -> float:
    """What the stand-in comes to: best at a rate of 1e-2, worse by the seed's noise."""
    noise = random.Random(config.seed).gauss(0, 0.01)
    return 2 + 0.2 * math.log10(config.optim.lr / 1e-2) ** 2 + noise


def fake_train(
    config: TrainConfig, out: Path, watch: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Write the lines of a run, with a loss that falls to `bits`, and return its result."""
    if (out / "result.json").exists():
        return dict(json.loads((out / "result.json").read_text(encoding="utf-8")))
    out.mkdir(parents=True, exist_ok=True)
    with (out / "metrics.jsonl").open("w", encoding="utf-8") as file:

        def write(**line: float) -> None:
            print(json.dumps(line), file=file, flush=True)
            watch(line)

        for step in range(config.steps + 1):
            value = bits(config) + 3 * (1 - step / config.steps)
            if step:
                write(step=step, loss=value, tokens_per_second=1e3, seconds=5 * step)
            if step == 0 or (step % config.eval_every == 0 and step < config.steps):
                write(step=step, val_loss=1.3 * value, val_bits_per_byte=value)
    result = {"loss": 1.3 * bits(config), "bits_per_byte": bits(config), "train_seconds": 2.0}
    (out / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return {**result, "parameters": 1000, "tokens_per_second": 1000.0}
