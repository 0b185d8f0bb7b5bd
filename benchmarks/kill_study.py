"""How many kills a study survives: SIGKILL everywhere, gone on with, and every trial compared.

    python benchmarks/kill_study.py --kills 100
    python benchmarks/kill_study.py --kills 100 --storage journal

Prints the kills by place, the finished trials that were lost, and how often a trial that ran went
on from a checkpoint. tests/tuning/test_kills.py says what is compared.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "kill"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "tuning"))

from study_lab import Lab, Server

STUDY = ("asking", "telling", "reporting", "judging", "writing", "drawing", "locking", "clearing")
"""What a study does to its storage; the rest happens inside a run."""


def main() -> int:
    """Kill, go on, compare, and print; return 1 if anything was lost or differed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="about how many")
    parser.add_argument("--seed", type=int, default=1, help="decides where")
    parser.add_argument("--storage", choices=("sqlite", "journal"), default="sqlite")
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder) / "server") as server:
        lab = Lab(server, Path(folder) / "lab", storage=options.storage)
        seed = options.seed
        with suppress(KeyboardInterrupt):  # what was found so far is told
            while len(lab.kills) < options.kills:  # some kills come too late to happen
                for kills in lab.plan(options.kills - len(lab.kills), seed):
                    lab.chain(kills)
                seed += 1
    report(lab, time.perf_counter() - started)
    return bool(lab.broken or lab.lost)


def where(place: str) -> str:
    """Say in which part of a study a place lies."""
    if place == "at random":
        return "at random times"
    words = place.split()
    return " ".join(words[1:]) if words[1] in STUDY else "within a run"


def report(lab: Lab, seconds: float) -> None:
    """Print the tables."""
    by_place = Counter(where(kill.place) for kill in lab.kills)
    print(f"{'killed':<26}{'kills':>6}")
    for name, count in by_place.most_common():
        print(f"{name:<26}{count:>6}")
    print(f"{'all':<26}{len(lab.kills):>6}")
    print(f"\nfinished trials lost: {len(lab.lost)}")
    print(f"runs that went on from a checkpoint: {lab.resumed}")
    print(f"studies equal to one without kills: {lab.studies - len(lab.broken)} of {lab.studies}")
    said = "\n".join(lab.lost + lab.broken) or "all trials equal"
    print(f"\n{said} ({seconds:.0f} s, {lab.server.jobs} starts, {lab.config.storage})")


if __name__ == "__main__":
    sys.exit(main())
