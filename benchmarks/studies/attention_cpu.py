"""Eager against fused attention on a CPU: one forward and backward pass, at the same B·T.

    python benchmarks/studies/attention_cpu.py [--threads 2] [--repeats 15] [--cpu-time]

The two forms take turns, so that a machine whose speed drifts favours neither; the times are
medians. bf16 runs under autocast and with the memory settings of the trainer, as in training. A
ratio above 1 means that the eager form is the faster one. `gpt2lib.model.attention.EAGER_UP_TO`
follows the bf16 ratios. On a busy machine `--threads 1 --cpu-time` counts the time that the
processor gave to this process instead of the time on the clock.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch

from gpt2lib.model.attention import eager, fused
from gpt2lib.model.masks import Causal
from gpt2lib.training.hardware import prepare_process

TOKENS = 2048
"""B·T of every row of the table."""
FORMS = {"eager": eager, "fused": fused}


def measure(
    T: int, n_head: int, hs: int, dtype: torch.dtype, repeats: int, now: Callable[[], float]
) -> dict[str, float]:
    """Return the median milliseconds of each form for q, k, v of (TOKENS / T, n_head, T, hs)."""
    shape = (TOKENS // T, n_head, T, hs)
    q, k, v = (torch.randn(shape).to(dtype).requires_grad_() for _ in range(3))
    upstream = torch.randn(shape).to(dtype)
    taken: dict[str, list[float]] = {name: [] for name in FORMS}
    for _ in range(repeats + 2):
        for name, form in FORMS.items():
            in_bf16 = torch.autocast("cpu", dtype=torch.bfloat16)
            started = now()
            with in_bf16 if dtype == torch.bfloat16 else nullcontext():
                y = form(q, k, v, Causal())
            y.backward(upstream)
            taken[name].append((now() - started) * 1000)
            q.grad = k.grad = v.grad = None
    return {name: statistics.median(times[2:]) for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15, help="timed passes of each form")
    parser.add_argument("--cpu-time", action="store_true", help="count processor time")
    args = parser.parse_args()
    now = time.process_time if args.cpu_time else time.perf_counter
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    prepare_process()
    print(f"torch {torch.__version__}, {args.threads} threads, B·T = {TOKENS}, median of ", end="")
    print(f"{args.repeats} passes, {'processor' if args.cpu_time else 'wall-clock'} time\n")
    print("| dtype | heads × size |    T |    B | eager ms | fused ms | fused / eager |")
    print("| ----- | ------------ | ---- | ---- | -------- | -------- | ------------- |")
    for dtype in (torch.bfloat16, torch.float32):
        for n_head, hs in ((4, 32), (6, 64)):
            for T in (32, 64, 128, 256, 512, 1024):
                ms = measure(T, n_head, hs, dtype, args.repeats, now)
                name = "bf16" if dtype == torch.bfloat16 else "fp32"
                print(
                    f"| {name}  | {n_head} × {hs:<8} | {T:>4} | {TOKENS // T:>4} "
                    f"| {ms['eager']:8.2f} | {ms['fused']:8.2f} "
                    f"| {ms['fused'] / ms['eager']:13.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
