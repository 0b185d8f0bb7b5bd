"""Workers: processes that each hold one peer and make updates in turn when they are asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WORKER = ROOT / "benchmarks" / "peers" / "worker.py"


class Failed(Exception):
    """A worker that ended; its last line on stderr."""


class Worker:
    """One process; it starts at once, and several of them get ready at the same time."""

    def __init__(self, spec: dict[str, Any], python: str | Path = sys.executable) -> None:
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [str(python), str(WORKER), json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "TQDM_DISABLE": "1",
                "HF_HUB_OFFLINE": "1",
            },
            text=True,
        )

    @cached_property
    def about(self) -> dict[str, Any]:
        """What it said when it was ready: `parameters`, and whether it computes in `bf16`."""
        return self._read()

    def ask(self, request: str) -> dict[str, Any]:
        """Send a line, and return the answer to it."""
        assert self.about["ready"] and self.process.stdin is not None
        with suppress(BrokenPipeError):  # what it said last is more telling
            print(request, file=self.process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.errors.seek(0)
            said = [row.strip() for row in self.errors if row.strip()]
            raise Failed(said[-1] if said else f"ended with exit code {code}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ended(self) -> bool:
        """Whether the process is no more."""
        return self.process.poll() is not None

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def take_turns(
    workers: dict[str, Worker], rounds: int, steps: int
) -> list[dict[str, dict[str, Any]]]:
    """Let workers make updates one after the other, round after round: A B C, A B C, …

    Args:
        workers: by name, each warmed up.
        rounds: how often each has its turn.
        steps: updates in a turn.

    Returns:
        For each round, the answers by name; `peak` is that of these rounds alone.
    """
    for worker in workers.values():
        worker.ask("reset")
    return [
        {name: worker.ask(f"step {steps}") for name, worker in workers.items()}
        for _ in range(rounds)
    ]
