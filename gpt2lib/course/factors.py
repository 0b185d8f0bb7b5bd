"""What makes an update fast: one setting after the other, measured on the reader's machine.

How memory is handed out can only be chosen before a process makes its first tensor, so every rung
of the ladder is a process of its own. They take turns, one update at a time: a slow moment of the
machine meets all of them. All train on a CPU.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

RUNGS = (
    "plain: float32",
    "+ bf16 autocast",
    "+ kept memory",
    "+ loss in chunks",
    "+ fused AdamW",
    "+ attention as it reads",
)
"""Each has what those above it have, and one thing more."""


class Rung(NamedTuple):
    """What was measured of a rung.

    Attributes:
        name: of `RUNGS`.
        seconds: of an update, the median.
        live: the most bytes of tensors that lived at once.
        resident: the most bytes that the system counted for the process, less what it counted
            before the model was made; 0 where the system does not say.
    """

    name: str
    seconds: float
    live: int
    resident: int


def measure(
    shape: dict[str, Any],
    batch_size: int,
    *,
    updates: int = 5,
    threads: int = 1,
    rungs: Sequence[str] = RUNGS,
) -> list[Rung]:
    """Train the same model on every rung; return what each took.

    Args:
        shape: fields of a `GPTConfig`.
        batch_size: sequences in an update.
        updates: how many are timed, after two that are not.
        threads: of PyTorch in each process; only one works at a time.
        rungs: which of `RUNGS`.
    """
    with contextlib.ExitStack() as stack:
        workers = []
        for name in rungs:
            spec = {"shape": shape, "batch_size": batch_size, "threads": threads}
            command = [sys.executable, "-m", __name__]
            command.append(json.dumps({**spec, "level": RUNGS.index(name)}))
            worker = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            workers.append(stack.enter_context(worker))
            stack.callback(worker.kill)
        for worker in workers:
            _ask(worker, "ready?")
        turns = [[_ask(worker, "update") for worker in workers] for _ in range(updates + 2)]
        found = []
        for i, (name, worker) in enumerate(zip(rungs, workers, strict=True)):
            resident, live = _ask(worker, "resident"), _ask(worker, "live")
            median = statistics.median(turn[i] for turn in turns[2:])
            found.append(Rung(name, median, int(live), int(resident)))
        return found


def _ask(worker: subprocess.Popen[str], word: str) -> float:
    """Send a word to a worker, and wait for the number it answers."""
    assert worker.stdin and worker.stdout
    worker.stdin.write(word + "\n")
    worker.stdin.flush()
    answer = worker.stdout.readline()
    if not answer:
        raise RuntimeError("a rung's process ended; what it said is on stderr")
    return float(answer)


def make_update(level: int, shape: dict[str, Any], batch_size: int) -> Callable[[], float]:
    """Return a function that makes one update of a new model, and returns its loss.

    The function has the attribute `state`, the tensors that live between two updates. Kept memory
    and the form of attention, which concern a whole process, are chosen in `work`.

    Args:
        level: which of `RUNGS`, from 0.
        shape: fields of a `GPTConfig`.
        batch_size: sequences in an update.
    """
    import torch

    from gpt2lib import GPT, GPTConfig
    from gpt2lib.model.loss import next_token_loss

    torch.manual_seed(0)
    config = GPTConfig.from_dict(shape)
    model = GPT(config)
    fused = level >= RUNGS.index("+ fused AdamW")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)
    idx, targets = torch.randint(config.vocab_size, (2, batch_size, config.block_size))  # (B, T)
    in_bf16 = level >= RUNGS.index("+ bf16 autocast")
    in_chunks = level >= RUNGS.index("+ loss in chunks")

    def update() -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_bf16):
            loss, n = model(idx, targets) if in_chunks else next_token_loss(model(idx), targets)
        (loss / n).backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item() / n.item()

    update()
    of_optimizer = [t for of_one in optimizer.state.values() for t in of_one.values()]
    update.state = [*model.parameters(), *of_optimizer, idx, targets]  # type: ignore[attr-defined]
    return update


def resident_peak() -> int:
    """Return the most bytes that this process ever had in memory; 0 where nobody says."""
    status = Path("/proc/self/status")
    # Not ru_maxrss: on Linux a new process begins with that of the one that started it.
    for line in status.read_text(encoding="utf-8").splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 0


def work(spec: dict[str, Any]) -> None:
    """Answer the questions of `measure`, one line each, until there are no more."""
    import torch

    from gpt2lib.model import attention  # loaded before resident memory is read
    from gpt2lib.training.live_bytes import LiveBytes
    from gpt2lib.utils.process import keep_freed_memory

    torch.set_num_threads(spec["threads"])
    if spec["level"] >= RUNGS.index("+ kept memory"):
        keep_freed_memory()
    if spec["level"] < RUNGS.index("+ attention as it reads"):
        attention.EAGER_UP_TO = 0  # PyTorch's fused attention, whatever the precision
    before, update = resident_peak(), None
    for line in sys.stdin:
        answer, word = 0.0, line.strip()
        started = time.perf_counter()
        if update is None:
            update = make_update(spec["level"], spec["shape"], spec["batch_size"])
        elif word == "update":
            update()
            answer = time.perf_counter() - started
        elif word == "resident":
            answer = max(0, resident_peak() - before)
        elif word == "live":
            with LiveBytes(update.state) as live:  # type: ignore[attr-defined]
                update()
            answer = live.peak
        print(answer, flush=True)


if __name__ == "__main__":
    work(json.loads(sys.argv[1]))
