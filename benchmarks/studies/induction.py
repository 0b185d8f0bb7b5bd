"""Is an induction head born from every seed, and only where there is something to copy?

    python benchmarks/studies/induction.py

Five seeds, each with its control (targets of another row), one thread. Every tenth step is a row of
`gpt2lib/course/results/induction.csv`; `induction_ablation.csv` beside it has the last loss on
copies without each head. Notebook 12 draws both. Printed is where the loss has its kink, and where
the score passes half of its last value.
"""

from __future__ import annotations

import csv
import datetime
import platform
import time
from pathlib import Path

import torch

from gpt2lib.course import kept_results
from gpt2lib.course.changing import replaced_heads
from gpt2lib.course.induction import (
    Birth,
    held_out_rows,
    induction_heads,
    learn_to_copy,
    loss_on,
    steepest_fall,
)

CSV = kept_results("induction.csv")
SEEDS, STEPS, WIDTH = range(5), 800, 5


def rows_of(seed: int, targets: str, birth: Birth) -> list[list[object]]:
    """Return a row for each measurement."""
    measured = zip(birth.steps, birth.copy, birth.first, birth.scores, strict=True)
    return [
        [seed, targets, step, f"{copy:.4f}", f"{first:.4f}"]
        + [f"{score:.4f}" for score in scores.flatten().tolist()]
        for step, copy, first, scores in measured
    ]


def ablations(seed: int, targets: str, birth: Birth) -> list[list[object]]:
    """Return the loss on copies of the whole model, without each head, and without all found."""
    found = induction_heads(birth.scores[-1])
    ways = {"": []} | {f"{layer}.{h}": [(layer, h)] for layer in range(2) for h in range(2)}
    ways |= {" ".join(f"{layer}.{head}" for layer, head in found): found} if found else {}
    losses = []
    for without, heads in ways.items():
        with replaced_heads(birth.model, heads):
            loss = loss_on(birth.model, *held_out_rows())
        losses.append([seed, targets, without, f"{loss:.4f}"])
    return losses


def summary(seed: int, targets: str, birth: Birth) -> str:
    """Return what is told of a seed."""
    kink, fall = steepest_fall(birth.steps, birth.copy, WIDTH)
    best = [float(scores.max()) for scores in birth.scores]
    half = next(s for s, score in zip(birth.steps, best, strict=True) if score > best[-1] / 2)
    return (
        f"seed {seed}, {targets} targets: kink at {kink} (falls by {fall:.2f}), half of the score "
        f"at {half}, heads {induction_heads(birth.scores[-1])}"
    )


def write(file: Path, header: list[str], rows: list[list[object]], seconds: float) -> None:
    """Write a table that says where it comes from."""
    with file.open("w", encoding="utf-8", newline="") as f:
        f.write(
            "# python benchmarks/studies/induction.py\n"
            f"# {datetime.date.today()}, {platform.machine()}, "
            f"{torch.backends.cpu.get_cpu_capability()}, one thread, torch {torch.__version__}, "
            f"{seconds:.0f} s of processor time a run\n"
        )
        writer = csv.writer(f, lineterminator="\n")
        writer.writerows([header, *rows])


def main() -> None:
    """Train, write the tables, print the summaries."""
    torch.set_num_threads(1)
    table: list[list[object]] = []
    ablated: list[list[object]] = []
    start = time.process_time()
    for seed in SEEDS:
        for targets in ("own", "shuffled"):
            birth = learn_to_copy(seed, STEPS, shuffled=targets == "shuffled")
            table += rows_of(seed, targets, birth)
            ablated += ablations(seed, targets, birth)
            print(summary(seed, targets, birth), flush=True)
    seconds = (time.process_time() - start) / (2 * len(SEEDS))
    heads = [f"head {layer}.{head}" for layer in range(2) for head in range(2)]
    header = ["seed", "targets", "step", "loss on copies", "loss on the first", *heads]
    write(CSV, header, table, seconds)
    header = ["seed", "targets", "without", "loss on copies"]
    write(kept_results("induction_ablation.csv"), header, ablated, seconds)


if __name__ == "__main__":
    main()
