"""How many kills a run survives: SIGKILL everywhere, resumed, and every hash compared.

    python benchmarks/kill.py --kills 200
    python benchmarks/kill.py --kills 20 --processes 2

Prints the kills by phase, and the hash of each part of the run as it ended, killed or not.
tests/test_kill.py says what is compared.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "kill"))

from kill_points import PHASES, phase
from kill_runs import Lab, Server


def main() -> int:
    """Kill, resume, compare, and print; return 1 if anything differed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="about how many")
    parser.add_argument("--seed", type=int, default=1, help="decides where")
    parser.add_argument("--processes", type=int, default=1, help="that train together (gloo)")
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder) / "server") as server:
        lab = Lab(server, Path(folder) / "lab", ranks=options.processes)
        seed = options.seed
        while len(lab.kills) < options.kills:  # some kills come too late to happen
            for kills in lab.plan(options.kills - len(lab.kills), seed):
                lab.chain(kills)
            seed += 1
    report(lab, time.perf_counter() - started)
    return bool(lab.broken)


def report(lab: Lab, seconds: float) -> None:
    """Print the tables."""
    by_phase = Counter(phase(kill.place) for kill in lab.kills)
    places = {kill.place for kill in lab.kills}
    print(f"{'phase':<24}{'kills':>6}{'places':>8}")
    for name in PHASES:
        print(f"{name:<24}{by_phase[name]:>6}{sum(phase(p) == name for p in places):>8}")
    print(f"{'all':<24}{len(lab.kills):>6}{len(places):>8}")
    print(f"\n{lab.runs} runs were killed, resumed and compared with one that was not:\n")
    for name, value in sorted(lab.expected.items()):
        wrong = sum(name in line for line in lab.broken)
        print(f"{name:<26}{value[:16]}  equal in {lab.runs - wrong} of {lab.runs}")
    print("\n" + ("\n".join(lab.broken) or "all hashes equal") + f" ({seconds:.0f} s)")


if __name__ == "__main__":
    sys.exit(main())
