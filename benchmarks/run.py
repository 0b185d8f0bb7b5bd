"""Training, decoding, attention and preparation against the peers, on this machine.

    make bench                          everything; 15 minutes on two CPU cores
    make bench NANOGPT=~/nanoGPT        with nanoGPT, from a clone of yours
    make bench ARGS="--quick --only a"  a look

Peers and ours take turns (A B C, A B C, …), each in a process of its own and at most three of
them at once. README.md beside this file says what is compared, and how.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measuring import Peers, find_device, measure, say
from pool import ROOT, Failed
from table import goal_row, markdown, summary, training_table
from workloads import CPU, CPU_GOALS, GPU, GPU_GOALS, Workload

from gpt2lib.config import GPTConfig
from gpt2lib.estimate import training_flops
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.formats import write_json

RESULTS = ROOT / "benchmarks" / "results"

SCRIPTS: dict[str, tuple[list[str], list[str]]] = {
    "decode": (["decode.py", "--quick"], []),
    "windows": (
        ["long_context.py", "--lengths", "1024", "4096", "32768", "--repeats", "1"],
        ["--lengths", "1024", "2048"],
    ),
    "preparation": (["preparation.py", "--mb", "40", "--runs", "1"], ["--mb", "5"]),
}
"""Sections that are scripts of their own: the command, and what `--quick` adds to it."""


def run_script(name: str, quick: bool) -> str:
    """Run a section's script; return what it printed.

    Raises:
        Failed: if it does not end well.
    """
    command, smaller = SCRIPTS[name]
    path = ROOT / "benchmarks" / command[0]
    extra = smaller if quick else []
    done = subprocess.run(
        [sys.executable, str(path), *command[1:], *extra],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        },
    )
    if done.returncode:
        raise Failed(f"{path.name} ended with exit code {done.returncode}")
    return done.stdout


def machine() -> dict[str, Any]:
    """Say on what this was measured."""
    cpuinfo = Path("/proc/cpuinfo")
    rows = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [row.partition(":")[2].strip() for row in rows if row.startswith("model name")]
    packages = ("torch", "transformers", "accelerate")
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "commit": commit.stdout.strip(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def place(kept: dict[str, Any], folder: Path) -> Path:
    """Return the path of the JSON.

    Raises:
        UserError: if there cannot be such a folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror or error}") from error
    stamp = kept["machine"]["date"].replace(" ", "-").replace(":", "")
    return folder / f"{stamp}{'-quick' if kept['quick'] else ''}.json"


def options(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    sections = [*CPU, *SCRIPTS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nanogpt", metavar="PATH", help="a clone of nanoGPT, to take part")
    parser.add_argument(
        "--venv",
        type=Path,
        default=ROOT / ".venv-bench",
        help="environment with litgpt and llms-from-scratch; `make bench` makes it",
    )
    parser.add_argument(
        "--only", default=",".join(sections), help=f"separated by commas, of {', '.join(sections)}"
    )
    parser.add_argument("--quick", action="store_true", help="two rounds, small scripts")
    devices = ("auto", "cpu", "cuda")
    parser.add_argument("--device", default="auto", choices=devices, help="auto takes a GPU")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON goes")
    args = parser.parse_args(argv)
    args.only = args.only.split(",")
    if unknown := [name for name in args.only if name not in sections]:
        parser.error(f"no section {unknown[0]!r}; there are {', '.join(sections)}")
    if args.nanogpt and not (Path(args.nanogpt).expanduser() / "model.py").is_file():
        parser.error(f"there is no model.py in {args.nanogpt}; give the folder of nanoGPT's clone")
    return args


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables, and write the JSON, again after every section.

    Returns:
        The exit code: 1 where a section failed, 2 for bad input, 130 after Ctrl-C.
    """
    args = options(argv)
    peers = Peers(args.nanogpt, args.venv)
    for peer, why in peers.missing.items():
        say(f"skipped: {peer}: {why}")
    about = machine()
    kept: dict[str, Any] = {
        "machine": about,
        "quick": args.quick,
        "missing": peers.missing,
        "seconds": {},
        "failed": {},
        "summary": {},
    }
    print(f"{about['cpu']}, {about['cores']} cores; torch {about['versions']['torch']}")
    if about["load"] is not None:
        print(f"Load before the first measurement: {about['load']:.1f} (near 0: a calm machine)")
    print()
    code = 0
    try:
        path = place(kept, args.results)
        sections(args, peers, kept, path)
    except UserError as error:
        say(f"run.py: {error}")
        return 2
    except KeyboardInterrupt:
        say("interrupted; what was measured is kept")
        code = 130
    if kept["seconds"]:
        print(f"All samples: {path}")
    return code or int(bool(kept["failed"]))


def sections(args: argparse.Namespace, peers: Peers, kept: dict[str, Any], path: Path) -> None:
    """Measure the sections asked for, print them, and then the goals.

    Args:
        args: the command line.
        peers: who takes part.
        kept: filled here, and written to `path` after every section.
        path: of the JSON.
    """
    device = find_device(args.device)
    workloads, goals = (GPU, GPU_GOALS) if device == "cuda" else (CPU, CPU_GOALS)
    for name in args.only:
        say(f"{name} …")
        started = time.perf_counter()
        try:
            if name in SCRIPTS:
                kept[name] = run_script(name, args.quick)
                print(f"### {name}\n\n{kept[name]}", flush=True)
            else:
                workload = workloads[name].quick() if args.quick else workloads[name]
                training(workload, name, device, peers, kept)
        except Failed as failure:  # the others go on
            kept["failed"][name] = str(failure)
            say(f"  failed: {failure}")
        kept["seconds"][name] = round(time.perf_counter() - started)
        write_json(path, kept)
        say(f"  {kept['seconds'][name]} s")
    rows = [row for goal in goals if (row := goal_row(goal, kept["summary"]))]
    if rows:
        print(f"### The project's own goals\n\n{markdown(['goal', 'now', ''], rows)}\n")


def training(
    workload: Workload, name: str, device: str, peers: Peers, kept: dict[str, Any]
) -> None:
    """Measure updates of one shape; print the table and keep the samples.

    Raises:
        Failed: if ours does.
    """
    measured = measure(workload, device, peers)
    config = GPTConfig(**workload.shape)
    tokens, flops = workload.batch * config.block_size, training_flops(config)
    kept[name] = measured._asdict()
    kept["summary"][name] = summary(*measured, tokens, flops)
    print(f"### {workload.title}\n\n{training_table(kept['summary'][name])}\n")
    peak = ", ".join(f"{p} {f / 1e9:,.0f}" for p, f in measured.peaks.items())
    print(f"Peak of a matrix product, GFLOP/s: {peak}.\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
