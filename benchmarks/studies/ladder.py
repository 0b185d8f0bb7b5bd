"""The lecture's ladder: train every rung, print the table, draw the figure.

    python benchmarks/studies/ladder.py                    # all rungs on Tiny Shakespeare, one seed
    python benchmarks/studies/ladder.py --seeds 1 2 3        # the spread between seeds, too
    python benchmarks/studies/ladder.py --rungs ladder-head --steps 500 --source plays

Runs lie in --out and are kept: asking again goes on where it stopped. Complete ladders on Tiny
Shakespeare with the presets' own steps are written to `gpt2lib/course/results/ladder.csv`; times
depend on the machine and stay in each run's `result.json`. Without a network and a copy of Tiny
Shakespeare the plays are climbed, and a line says so.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from gpt2lib.course import kept_results

CSV = kept_results("ladder.csv")
COLUMNS = ["preset", "seed", "steps", "parameters", "loss", "bits_per_byte"]


def keep(rows: list[dict[str, object]]) -> None:
    """Put rows into the CSV, in the place of older ones of the same preset and seed."""
    from gpt2lib.course.ladder import RUNGS

    table: dict[tuple[str, int], dict[str, object]] = {}
    if CSV.exists():
        with CSV.open(encoding="utf-8", newline="") as file:
            table = {(row["preset"], int(row["seed"])): dict(row) for row in csv.DictReader(file)}
    table |= {(str(row["preset"]), int(str(row["seed"]))): row for row in rows}
    order = [rung.preset for rung in RUNGS]
    with CSV.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table[key] for key in sorted(table, key=lambda k: (order.index(k[0]), k)))


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="tinyshakespeare", help="the text, as in data.source")
    parser.add_argument("--steps", type=int, help="steps of every rung; by default its preset's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1337])
    parser.add_argument("--rungs", nargs="+", help="presets; by default all rungs")
    parser.add_argument("--out", type=Path, default=Path("runs/ladder"))
    return parser.parse_args()


def main() -> None:
    """Train the rungs that are asked for."""
    asked = options()
    from gpt2lib.course.ladder import LECTURE_TEXT, RUNGS, choose_source, climb, ladder_figure
    from gpt2lib.training.hardware import prepare_process

    prepare_process()
    source = choose_source(asked.source)
    names = [rung.preset for rung in RUNGS]
    if unknown := set(asked.rungs or []) - set(names):
        sys.exit(f"no rung {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    rungs = [rung for rung in RUNGS if rung.preset in (asked.rungs or names)]
    changes = {"steps": asked.steps} if asked.steps else {}
    losses: dict[str, list[float]] = {rung.name: [] for rung in rungs}
    for rung in rungs:
        for seed in asked.seeds:
            place = asked.out / source / (f"{asked.steps}-steps" if asked.steps else "full")
            out = place / f"seed-{seed}"
            result = climb(out, source, [rung], seed=seed, **changes)[rung.name]
            losses[rung.name].append(result["loss"])
            lecture = f"; the lecture {rung.lecture}" if source == LECTURE_TEXT else ""
            print(f"{rung.name}, seed {seed}: {result['loss']:.4f} nats a character{lecture}")
            if source == LECTURE_TEXT and not asked.steps:
                row = {"preset": rung.preset, "seed": seed}
                row |= {key: result[key] for key in COLUMNS[2:]}
                row |= {key: round(result[key], 4) for key in ("loss", "bits_per_byte")}
                keep([row])
    figure = ladder_figure(losses, lecture=source == LECTURE_TEXT)
    figure.savefig(asked.out / "ladder.png", dpi=110)
    print(f"figure: {asked.out / 'ladder.png'}")


if __name__ == "__main__":
    main()
