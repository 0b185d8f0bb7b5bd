"""What someone waits for: the first line of help, an import, a notebook's first figure.

    python benchmarks/studies/feel.py [--full] [--only 04]

Help and import run in processes of their own, five times each; the table shows the median. For
a notebook the clock starts with its kernel, as Run All does in a closed notebook, and stops at
the first figure; the rest is not run. Notebooks take their small numbers, or with `--full` those
of the text. They run one at a time on copies, without the network.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from common import closed_room, copy_for_run, find_notebooks  # noqa: E402

LIMITS = {"help": 1.0, "import": 0.3, "figure": 10.0}
"""The project's own goals, in seconds."""

COMMANDS = {
    "help": ("`gpt2lib --help`", ["-m", "gpt2lib", "--help"]),
    "import": ("`import gpt2lib`", ["-c", "import gpt2lib"]),
}


def seconds(arguments: list[str], repeats: int = 5) -> float:
    """Return the median seconds of a Python process, its start included."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
        taken.append(time.perf_counter() - started)
    return median(taken)


def imports_torch(arguments: list[str]) -> bool:
    """Whether such a process imports torch."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True
    )
    return any(row.split("|")[-1].strip() == "torch" for row in done.stderr.splitlines())


def first_figure(path: Path) -> float | None:
    """Run a notebook until it shows a figure; return the seconds, or None if it shows none."""
    import nbformat
    from nbclient import NotebookClient

    class Shown(Exception):
        pass

    class Watched(NotebookClient):  # type: ignore[misc]
        shown: float | None = None

        def output(self, outs: Any, msg: Any, display_id: str, cell_index: int) -> Any:
            made = super().output(outs, msg, display_id, cell_index)
            if "image/png" in msg["content"].get("data", {}):
                self.shown = time.perf_counter()
                raise Shown
            return made

    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    client = Watched(notebook, timeout=1200, kernel_name="python3", resources=where)
    started = time.perf_counter()
    with suppress(Shown):
        client.execute()
    return None if client.shown is None else client.shown - started


def wait_for_figure(notebook: Path, *, fast: bool) -> float | None:
    """Do so on a copy, in an environment that reaches no network.

    Raises:
        RuntimeError: if the notebook fails before its first figure.
    """
    with tempfile.TemporaryDirectory(prefix="gpt2lib-feel-") as room:
        environment = closed_room(Path(room), fast=fast)
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(copy_for_run(notebook, Path(room)))],
            env=environment,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stderr)  # IPython colours its tracebacks
        said = [line.strip() for line in plain.splitlines() if line.strip()]
        raise RuntimeError(said[-1] if said else f"exit code {done.returncode}")
    found: float | None = json.loads(done.stdout.splitlines()[-1])
    return found


def row(name: str, took: float, limit: float, more: str = "") -> str:
    """Write one line of the table."""
    verdict = "met" if took <= limit else "missed"
    return f"| {name} | {took:.2f} s{more} | at most {limit:g} s | {verdict} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="notebooks with the text's numbers")
    parser.add_argument("--only", help="notebooks whose name begins so")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(first_figure(args.one)))
        return
    print("|  | takes | goal |  |\n| --- | --- | --- | --- |")
    for kind, (name, arguments) in COMMANDS.items():
        more = ", imports torch" if imports_torch(arguments) else ", without torch"
        print(row(name, seconds(arguments), LIMITS[kind], more), flush=True)
    for notebook in find_notebooks(args.only or ""):
        name = f"first figure of {notebook.stem}"
        try:
            took = wait_for_figure(notebook, fast=not args.full)
        except RuntimeError as error:
            print(f"| {name} | it fails: {error} |  |  |", flush=True)
            continue
        if took is None:
            print(f"| {name} | it shows none |  |  |", flush=True)
        else:
            print(row(name, took, LIMITS["figure"]), flush=True)


if __name__ == "__main__":
    main()
