"""The same mathematics however the work is split: one table of differences.

    python benchmarks/studies/split.py [--compile]

A global batch of 8 sequences is trained by 1 process and by 2 (gloo, on the CPU), with
accumulation 1, 2 and 4, without gradient checkpointing, with it in every block and in every
second one. The targets are partly ignored, a different number in each sample, so that a mean of
means would be another number. Printed is the largest difference to the run of 1 process without
accumulation and checkpointing: of the losses, of the gradient norms (relative), of the held-out
losses, and of the final weights.

The tests run the same cases.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch

from gpt2lib.config import IGNORE, TrainConfig
from gpt2lib.data import TokenFile, batch, loader
from gpt2lib.runs.checkpoint import MODEL, checkpoints, read_tensors
from gpt2lib.training.loop import train

BATCH, STEPS = 8, 6


class Case(NamedTuple):
    """One way to split the work."""

    processes: int
    accumulation: int
    checkpointing: bool | int
    compile: bool = False

    @property
    def name(self) -> str:
        """What its run's folder is called."""
        return "-".join(str(part) for part in self)


REFERENCE = Case(1, 1, False)


def cases(processes: int, compiled: bool = False) -> list[Case]:
    """List the cases of so many processes."""
    if compiled:
        return [Case(processes, accumulation, False, True) for accumulation in (1, 2)]
    pairs = [(a, c) for a in (1, 2, 4) for c in (False, True, 2)]
    return [Case(processes, accumulation, checkpointing) for accumulation, checkpointing in pairs]


def config(case: Case, text: Path) -> TrainConfig:
    """Return the settings of a case; only what splits the work differs."""
    values: dict[str, Any] = {
        "model": {"block_size": 16, "n_layer": 3, "n_head": 2, "n_embd": 16, "dropout": 0.0},
        "data": {"source": str(text), "vocab_size": 280},
        "optim": {"lr": 1e-2, "warmup_steps": 2, "grad_clip": 1.0},
        "steps": STEPS,
        "batch_size": BATCH,
        "micro_batch": BATCH // case.processes // case.accumulation,
        "gradient_checkpointing": case.checkpointing,
        "compile": case.compile,
        "precision": "fp32",
        "device": "cpu",
        "eval_every": 3,
        "save_every": 100,
        "sample_tokens": 0,
    }
    return TrainConfig.from_dict(values)


def uneven(tokens: TokenFile, starts: Any, block_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Read windows as the trainer does, and ignore the end of each.

    How much is kept, between nothing and all, is decided by where the sample starts, and so is
    the same whoever reads it.
    """
    idx, targets = batch(tokens, starts, block_size)  # (B, T)
    kept = torch.tensor([int(start) * 7 % (block_size + 1) for start in starts])  # (B,)
    ignored = torch.arange(block_size) >= kept[:, None]  # (B, T)
    return idx, targets.masked_fill(ignored, IGNORE)


def write_text(folder: Path) -> Path:
    """Write something that a tiny model can learn; 6 updates pass its end."""
    draw = random.Random(0)
    words = ["the", "king", "and", "queen", "of", "night", "do", "love", "thee"]
    lines = (" ".join(draw.choices(words, k=6)) for _ in range(40))
    path = folder / "verse.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run_all(folder: Path, text: Path, todo: list[Case]) -> None:
    """Train every case in this process, together with the others that were launched."""
    with mock.patch.object(loader, "batch", uneven):
        for case in todo:
            train(config(case, text), folder / case.name)


def launch(folder: Path, processes: int = 2, *more: str) -> None:
    """Run all cases of so many processes with torchrun."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    script = [str(Path(__file__).resolve()), "--into", str(folder), *more]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*run, f"--nproc_per_node={processes}", *script], check=True, env=env)


class Outcome(NamedTuple):
    """What a run computed.

    Attributes:
        losses: (steps,)
        norms: (steps,), of the gradient before clipping.
        held_out: (evaluations,)
        weights: all of them, as one row.
        processes: how many trained.
    """

    losses: torch.Tensor
    norms: torch.Tensor
    held_out: torch.Tensor
    weights: torch.Tensor
    processes: int


def outcome(folder: Path) -> Outcome:
    """Read what a run computed."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    metrics = [json.loads(line) for line in lines]
    columns = [
        torch.tensor([m[name] for m in metrics if name in m], dtype=torch.float64)
        for name in ("loss", "grad_norm", "val_loss")
    ]
    weights = read_tensors(checkpoints(folder)[-1] / MODEL)
    row = torch.cat([weights[name].flatten() for name in sorted(weights)])
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return Outcome(*columns, row, result["processes"])


class Difference(NamedTuple):
    """The largest differences between two runs; that of the norms is relative."""

    losses: float
    norms: float
    held_out: float
    weights: float


def difference(got: Outcome, wanted: Outcome) -> Difference:
    """Compare two runs."""
    return Difference(
        float((got.losses - wanted.losses).abs().max()),
        float((got.norms / wanted.norms - 1).abs().max()),
        float((got.held_out - wanted.held_out).abs().max()),
        float((got.weights - wanted.weights).abs().max()),
    )


def table(folder: Path, compiled: bool) -> list[str]:
    """Write the table's lines from the runs in a folder."""
    lines = ["| processes | accumulation | checkpointing | losses | norms | held out | weights |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    wanted = outcome(folder / REFERENCE.name)
    every = [case for n in (1, 2) for case in cases(n)]
    if compiled:
        every += [case for n in (1, 2) for case in cases(n, compiled=True)]
    for case in every:
        found = difference(outcome(folder / case.name), wanted)
        how = {False: "off", True: "every block", 2: "every 2nd"}[case.checkpointing]
        how += ", compiled" * case.compile
        numbers = " | ".join(f"{value:.1e}" for value in found)
        lines.append(f"| {case.processes} | {case.accumulation} | {how} | {numbers} |")
    return lines


def main() -> None:
    """Run every case and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--compile", action="store_true", help="compiled runs too (minutes)")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)  # this process is one of many
    options = parser.parse_args()
    if options.into is not None:
        todo = cases(int(os.environ["WORLD_SIZE"]), options.compile)
        run_all(options.into, options.into / "verse.txt", todo)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["GPT2LIB_CACHE"] = str(folder / "cache")
        text = write_text(folder)
        for compiled in (False, True)[: 1 + options.compile]:
            run_all(folder, text, cases(1, compiled))
            launch(folder, 2, *["--compile"] * compiled)
        print("\n".join(table(folder, options.compile)))


if __name__ == "__main__":
    main()
