"""A process that has imported everything, and forks one that trains for each line it is sent.

Importing torch takes seconds, a tiny run a fraction of one: so hundreds of real processes can be
killed in a minute. The server itself computes nothing and starts no thread, so its forks are as
good as new processes. Started by `kill_runs.Server`, never by hand.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

NEEDED_LATER = (
    "gpt2lib.training.loop",
    "gpt2lib.cli.train",
    "gpt2lib.runs.plots",
    "accelerate",
    "datasets",
    "tokenizers",
    "filelock",
    "yaml",
    "torch._dynamo",
    "kill_points",
)
"""What a run imports while it goes on; imported here, it is there in every fork."""


def child(job: dict[str, Any], rank: int) -> int:
    """Run one job in this forked process; return its exit code."""
    os.environ.update(job["env"])
    if job["env"]:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(job["ranks"]))
    from kill_points import Points, install

    here = job["rank"] in (rank, -1)
    points = Points(job["place"], job["n"], job["what"]) if here else Points()
    install(points)
    for name in job["prepare"]:  # faults: functions of a module that break this process
        module, _, function = name.partition(":")
        getattr(importlib.import_module(module), function)(rank)
    import gpt2lib.runs.plots
    from gpt2lib.cli import main

    gpt2lib.runs.plots.write_report = lambda folder: folder  # drawing the curve takes a second
    code = main([*job["argv"], *(job["more"][rank] if job["more"] else [])])
    if job["counts"] and rank == 0:
        with open(job["counts"], "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump(points.counts, file)
    return code


def serve(child: Callable[[dict[str, Any], int], int], needed_later: Sequence[str]) -> None:
    """Read jobs from stdin; answer each with the numbers of its processes and their exit codes.

    Args:
        child: given a job and which of its processes this is, does its work in a fork.
        needed_later: modules that are imported beforehand.
    """
    import torch

    torch.set_num_threads(1)
    # A shell starts what runs in the background deaf to Ctrl-C, and forks inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in needed_later:
        importlib.import_module(name)
    print("ready", flush=True)
    for line in sys.stdin:
        job, pids = json.loads(line), []
        for rank in range(job["ranks"]):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    _write_into(f"{job['log']}.{rank}")
                    code = child(job, rank)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(code)
            pids.append(pid)
        print(json.dumps(pids), flush=True)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(json.dumps(codes), flush=True)


def _write_into(path: str) -> None:
    """Send what this process writes to a file of its own, so that no line is torn by another's."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)


if __name__ == "__main__":
    serve(child, NEEDED_LATER)
    os._exit(0)  # unloading torch would take seconds
