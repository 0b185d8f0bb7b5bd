"""How the `cpu` preset was chosen: trials over shape, learning rate, batch size and epochs.

    python benchmarks/studies/cpu_preset.py         # all trials; those in the CSV are not run again
    python benchmarks/studies/cpu_preset.py --list     # only say what would run

Every trial trains on the bundled plays and scores all held-out text. The rows go to
`gpt2lib/course/results/cpu_trials.csv`. `train_seconds` depends on the machine and on what else it
does; `cpu_seconds` (processor time of the trial's process) much less.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from pathlib import Path

from gpt2lib.course import kept_results

CSV = kept_results("cpu_trials.csv")
TOKENS = {1024: 1_874_921, 2048: 1_617_958, 4096: 1_435_545}
"""The training tokens of the plays for a vocabulary, to turn epochs into steps."""

BASE = {
    "vocab_size": 2048,
    "n_layer": 4,
    "n_head": 4,
    "n_embd": 192,
    "block_size": 128,
    "batch_size": 16,
    "lr": 3e-3,
    "epochs": 1.0,
    "dropout": 0.0,
    "weight_decay": 0.1,
}
TRIALS: dict[str, dict[str, float]] = {
    # shape, at about equal processor time
    "shape-1": {"vocab_size": 1024, "n_embd": 128, "epochs": 1.35},
    "shape-2": {"vocab_size": 2048, "n_embd": 128, "epochs": 1.5},
    "shape-3": {},
    "shape-4": {"n_embd": 256, "epochs": 0.6},
    # learning rate
    "lr-1": {"lr": 1e-3},
    "lr-2": {"lr": 2e-3},
    "lr-3": {"lr": 5e-3},
    # batch size, with the rate moved along
    "batch-1": {"batch_size": 8, "lr": 2e-3},
    "batch-2": {"batch_size": 8, "lr": 3e-3},
    "batch-3": {"batch_size": 32, "lr": 5e-3},
    # epochs; 4 is about the whole budget of the preset
    "epochs-1": {"epochs": 2.0},
    "epochs-2": {"epochs": 4.0},
}
COLUMNS = ["trial", *BASE, "steps", "parameters", "loss", "bits_per_byte"]
COLUMNS += ["train_seconds", "cpu_seconds", "threads"]


def run_trial(name: str, settings: dict[str, float]) -> dict[str, object]:
    """Train once and return the row."""
    from gpt2lib import TrainConfig, train

    s = {**BASE, **settings}
    steps = round(s["epochs"] * TOKENS[int(s["vocab_size"])] / (s["batch_size"] * s["block_size"]))
    shape = {key: s[key] for key in ("n_layer", "n_head", "n_embd", "block_size", "dropout")}
    config = TrainConfig.from_dict(
        {
            "model": shape,
            "data": {"source": "plays", "tokenizer": "bpe", "vocab_size": s["vocab_size"]},
            "optim": {"lr": s["lr"], "warmup_steps": 100, "weight_decay": s["weight_decay"]},
            "steps": steps,
            "batch_size": s["batch_size"],
            "precision": "bf16",
            "eval_every": 10**9,
            "eval_batches": 1,
            "save_every": 10**9,
            "sample_tokens": 0,
        }
    )
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        result = train(config, Path(folder) / name)
    result |= {"cpu_seconds": round(time.process_time() - started)}
    row = {"trial": name, **s, "steps": steps, "threads": os.environ.get("OMP_NUM_THREADS", "all")}
    row |= {key: result[key] for key in ("parameters", "train_seconds", "cpu_seconds")}
    row |= {key: round(result[key], 4) for key in ("loss", "bits_per_byte")}
    return row


def main() -> None:
    """Run the trials that the CSV does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trial", nargs="*", help="names of trials; all of them by default")
    parser.add_argument("--list", action="store_true", help="only say what would run")
    arguments = parser.parse_args()
    done = set()
    if CSV.exists():
        with CSV.open(encoding="utf-8", newline="") as file:
            done = {row["trial"] for row in csv.DictReader(file)}
    wanted = arguments.trial or list(TRIALS)
    to_do = {name: TRIALS[name] for name in wanted if name not in done}
    if arguments.list:
        print("\n".join(f"{name}: {settings}" for name, settings in to_do.items()))
        return
    from gpt2lib.training.hardware import prepare_process

    prepare_process()
    for name, settings in to_do.items():
        row = run_trial(name, settings)
        new = not CSV.exists()
        with CSV.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(f"{name}: {row['bits_per_byte']} bits per byte in {row['train_seconds']} s")


if __name__ == "__main__":
    main()
