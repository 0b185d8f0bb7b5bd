"""Run the notebooks as tests: on copies, in closed kernels, without the network.

    python tools/run_notebooks.py --fast        every notebook with its small numbers
    python tools/run_notebooks.py --full 04     those whose name begins with 04, in full

Each notebook is a pytest process of its own (nbmake), as many at once as there are cores, up to
two. The repository's notebooks are not written to.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from common import NOTEBOOKS, closed_room, copy_for_run, find_notebooks

CELL_SECONDS = {"fast": 600, "full": 3600}


def run_one(notebook: Path, *, fast: bool, threads: int) -> tuple[Path, bool, float, str]:
    """Run a notebook; return it, whether it passed, the seconds it took, and what pytest said."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpt2lib-notebook-") as room:
        folder = Path(room)
        copy = copy_for_run(notebook, folder)
        limit = CELL_SECONDS["fast" if fast else "full"]
        environment = closed_room(folder, fast=fast)
        environment["OMP_NUM_THREADS"] = str(threads)
        options = ["--nbmake", "--nbmake-kernel=python3", f"--nbmake-timeout={limit}"]
        quiet = ["-q", "--no-header", "-p", "no:cacheprovider", "--rootdir", room, "-c", os.devnull]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *quiet, str(copy)],
            cwd=folder,
            env=environment,
            text=True,
            encoding="utf-8",
            errors="replace",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        said = done.stdout.replace(room + os.sep, "")
    return notebook, done.returncode == 0, time.monotonic() - start, said


def main(argv: list[str] | None = None) -> int:
    """Run the notebooks and print one line for each; the whole report only of those that fail."""
    parser = argparse.ArgumentParser(description="Run the notebooks as tests.")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--fast", action="store_true", help="small numbers (GPT2LIB_FAST=1)")
    mode.add_argument("--full", action="store_true", help="the numbers of the text")
    parser.add_argument("notebook", nargs="?", default="", help="beginning of a name, such as 04")
    parser.add_argument("--folder", type=Path, default=NOTEBOOKS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)

    notebooks = find_notebooks(args.notebook, args.folder)
    cores = os.cpu_count() or 1
    # In full mode timing counts, so one at a time on all cores. In fast mode two at once, each on
    # one thread: the models are so small that threads waiting for each other cost three times more.
    at_once, threads = (min(2, cores, len(notebooks)), 1) if args.fast else (1, cores)
    failed = 0
    with ThreadPoolExecutor(at_once) as pool:
        jobs = [pool.submit(run_one, n, fast=args.fast, threads=threads) for n in notebooks[::-1]]
        for job in as_completed(jobs):  # the last notebooks are the longest, so they go first
            notebook, passed, seconds, said = job.result()
            print(
                f"{'passed' if passed else 'FAILED'}  {notebook.name}  {seconds:.0f} s", flush=True
            )
            if not passed:
                failed += 1
                print(said, flush=True)
    print(f"{len(notebooks) - failed} of {len(notebooks)} notebooks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
