"""One workload: who takes part here, and their turns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from pool import Failed, Worker, take_turns
from table import OURS, Round
from workloads import AGAIN, TUNED, Workload, ways

ELSEWHERE = {"litgpt": "litgpt", "llms-from-scratch": "llms_from_scratch"}
"""Peers of the other environment, and the package each must have there."""


class Peers:
    """Where the peers are.

    Attributes:
        nanogpt: the folder of a clone, if one was given.
        python: that of the other environment.
        missing: those that cannot be measured here, and why, in a line each.
    """

    def __init__(self, nanogpt: str | None, venv: Path) -> None:
        self.nanogpt = nanogpt and str(Path(nanogpt).expanduser().resolve())
        self.python = venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        self.missing: dict[str, str] = {}
        if not nanogpt:
            self.missing["nanoGPT"] = "no path was given; clone it and say: make bench NANOGPT=PATH"
        elif not (Path(nanogpt).expanduser() / "model.py").is_file():
            self.missing["nanoGPT"] = f"there is no model.py in {nanogpt}"
        for peer, package in ELSEWHERE.items():
            if not self.python.exists():
                self.missing[peer] = f"there is no {venv.name}; `make bench` makes it"
            elif not any(venv.glob(f"[Ll]ib/**/site-packages/{package}")):
                self.missing[peer] = f"{package} is not installed in {venv.name}; make it anew"

    def worker(self, peer: str, spec: dict[str, Any]) -> Worker:
        """Start a worker in the environment that has this peer."""
        python = self.python if peer in ELSEWHERE else sys.executable
        return Worker({**spec, "peer": peer, "path": self.nanogpt}, python)


def say(line: str) -> None:
    """Tell on stderr what goes on."""
    print(line, file=sys.stderr, flush=True)


def find_device(wanted: str) -> str:
    """Return cpu or cuda; for auto a GPU, if there is one. This process stays without torch."""
    if wanted != "auto":
        return wanted
    code = "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def ask_peaks(worker: Worker) -> dict[str, float]:
    """Return the FLOP/s that a matrix product reaches, in fp32 and in bf16."""
    return {name: worker.ask(f"flops {name}")["flops"] for name in ("fp32", "bf16")}


class Measured(NamedTuple):
    """What came of a workload: answers, what workers said of themselves, and peaks in FLOP/s."""

    rounds: list[Round]
    about: dict[str, dict[str, Any]]
    peaks: dict[str, float]


def measure(workload: Workload, device: str, peers: Peers) -> Measured:
    """Measure one workload, peer by peer; ours stays, and takes turns with each.

    At most three workers are alive at once. A peer that fails is named and left out.

    Raises:
        Failed: if ours does.
    """
    spec = {"shape": workload.shape, "batch": workload.batch, "device": device, "tuned": False}
    ours = peers.worker(OURS, {**spec, "checkpointing": workload.checkpointing})
    peaks = ask_peaks(ours)
    ours.ask(f"step {workload.warm_up}")
    about, rounds = {OURS: ours.about}, []
    for peer in [peer for peer in workload.peers if peer not in peers.missing]:
        others: dict[str, Worker] = {}
        try:
            for way in ways(workload, peer, device):
                its = {**spec, "tuned": way == TUNED, "checkpointing": way == AGAIN}
                others[f"{peer}, {way}"] = peers.worker(peer, its)
            for name, worker in others.items():
                say(f"  {name}")
                worker.ask(f"step {workload.warm_up}")
            turns = workload.rounds_with(peer)
            rounds += take_turns({OURS: ours, **others}, turns, workload.steps)
            about |= {name: worker.about for name, worker in others.items()}
        except Failed as failure:
            if ours.ended():
                raise
            say(f"  skipped: {peer}: {failure}")
        for worker in others.values():
            worker.close()
    if not rounds:
        rounds = take_turns({OURS: ours}, workload.rounds, workload.steps)
    peaks = {name: max(after, peaks[name]) for name, after in ask_peaks(ours).items()}
    ours.close()
    return Measured(rounds, about, peaks)
