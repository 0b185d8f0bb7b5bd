"""The small GPT-2 that the course ships, which notebook 12 opens where there is no network.

    python benchmarks/studies/course_model.py [--run FOLDER]

It is trained on the bundled plays and written as a transformers folder, in float16, to
`gpt2lib/course/models/plays`. Half an hour on one busy core without fast bf16.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from gpt2lib.config import DataConfig, GPTConfig, OptimConfig, TrainConfig
from gpt2lib.course.shipped import PLAYS
from gpt2lib.hub import export
from gpt2lib.hub.find import WEIGHTS
from gpt2lib.runs.checkpoint import read_tensors, write_tensors
from gpt2lib.training.loop import train

RUN = TrainConfig(
    model=GPTConfig(block_size=128, n_layer=4, n_head=4, n_embd=96),
    data=DataConfig(source="plays", vocab_size=1024),
    optim=OptimConfig(name="muon", lr=3e-3, warmup_steps=30, decay="linear", decay_share=0.7),
    steps=1600,
    batch_size=12,
    precision="fp32",
    eval_every=200,
    eval_batches=10,
    save_every=200,
    sample_prompt="ROMEO:\n",
)


def ship(run: Path, folder: Path) -> None:
    """Export a run and round its weights to float16."""
    export(run, folder, overwrite=True, licence="mit")
    tensors = read_tensors(folder / WEIGHTS)
    write_tensors(folder / WEIGHTS, {name: t.to(torch.float16) for name, t in tensors.items()})


def main() -> None:
    """Train, and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="keep the run in this folder; one there goes on")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = args.run or Path(folder) / "run"
        print(train(RUN, run))
        ship(run, PLAYS)


if __name__ == "__main__":
    main()
