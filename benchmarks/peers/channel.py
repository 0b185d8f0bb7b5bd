"""How a worker talks with the benchmark: a line in, a line of JSON out.

    step N       make N updates     {"seconds": [...], "losses": [...], "peak": bytes}
    reset        forget the peak    {"peak": bytes}
    flops NAME   time a product     {"flops": FLOP/s in NAME, fp32 or bf16}

The peak is that of resident memory (of a GPU's: of tensors) since the last reset. When stdin
ends, the worker ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Channel:
    """The worker's end. What libraries print to stdout goes to stderr from now on."""

    def __init__(self) -> None:
        self.out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self.device = "cpu"

    def say(self, **values: Any) -> None:
        """Send one line."""
        print(json.dumps(values), file=self.out, flush=True)

    def wait(self) -> int:
        """Answer until updates are asked for; return how many, or 0 at the end."""
        for line in sys.stdin:
            verb, _, argument = line.strip().partition(" ")
            if verb == "step":
                return int(argument)
            if verb == "reset":
                self.say(peak=reset_peak(self.device))
            elif verb == "flops":
                self.say(flops=flops(self.device, argument))
            else:
                raise SystemExit(f"no such request: {line.strip()}")
        return 0

    def answer(self, samples: list[tuple[float, float | None]]) -> None:
        """Send the seconds and losses of updates, and the peak so far."""
        seconds, losses = zip(*samples, strict=True)
        self.say(seconds=seconds, losses=losses, peak=peak(self.device))

    def serve(self, update: Callable[[], float]) -> None:
        """Make updates, each of which returns its loss, as often as is asked."""
        while n := self.wait():
            samples: list[tuple[float, float | None]] = []
            for _ in range(n):
                started = self.now()
                loss = update()
                samples.append((self.now() - started, loss))
            self.answer(samples)

    def now(self) -> float:
        """Read the clock, once a GPU has done what was asked of it."""
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()


def resident(field: str = "VmRSS") -> int:
    """Return a size of this process in bytes: VmRSS is what is resident, VmHWM its peak."""
    status = Path("/proc/self/status")
    if not status.exists():  # elsewhere only the peak since the start is known
        import resource

        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return size if sys.platform == "darwin" else 1024 * size
    rows = dict(row.split(":", 1) for row in status.read_text(encoding="utf-8").splitlines())
    return 1024 * int(rows[field].split()[0])


def peak(device: str) -> int:
    """Return the peak since the last reset."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    return resident("VmHWM")


def reset_peak(device: str) -> int:
    """Let the peak begin anew at what is in use now, and return it."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5", encoding="ascii")  # of Linux's proc(5): sets VmHWM to VmRSS
    return peak(device)


def flops(device: str, precision: str, size: int = 8192) -> float:
    """Return how many FLOP/s a product of matrices reaches: the peak of the MFU."""
    if device == "cpu":
        from gpt2lib.training.hardware import matmul_flops

        return matmul_flops(precision)
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    a = torch.randn(size, size, dtype=dtype, device=device)
    taken = []
    for _ in range(20):
        torch.cuda.synchronize()
        started = time.perf_counter()
        a @ a
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return 2 * size**3 / min(taken)
