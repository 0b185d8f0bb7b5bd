"""How cost grows: time and memory of an update against context, width, depth, batch and threads.

    python benchmarks/studies/scaling.py     # 2 threads and 1, about five minutes
    python benchmarks/studies/scaling.py --rounds 2 --threads 1 --cpu-time --small  # a busy machine

Every point is a model that is trained on random tokens as the trainer does it. All points take
turns, one update each, so that a slow minute of the machine hits all of them; milliseconds are
medians over the rounds. MFU is tokens/s times FLOPs per token over the FLOP/s that a matrix product
reached in this same run with as many threads. Memory is the peak of live tensor bytes in one more
update, beside the same update played with empty tensors.

An exponent is the slope of log(cost) over log(size), by least squares: 1 is proportional, 2 is
quadratic. The predicted one is the same slope through FLOPs (time, if every FLOP took as long) or
through estimated bytes. It is fitted over all points and over the upper half of them, where what
does not grow weighs less. Tables in Markdown; everything goes into benchmarks/results/scaling.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from exponents import exponents, report

from gpt2lib.config import GPTConfig, OptimConfig, TrainConfig
from gpt2lib.estimate import count_parameters, forward_flops, training_flops
from gpt2lib.model.gpt import GPT
from gpt2lib.training.hardware import matmul_flops, prepare_process
from gpt2lib.training.live_bytes import LiveBytes
from gpt2lib.training.memory import update_memory
from gpt2lib.training.optim import make_optimizer

sys.path.insert(0, str(Path(__file__).parents[1]))
from arguments import positive

OUT = Path(__file__).parents[1] / "results" / "scaling.json"
BASE = {"vocab_size": 4096, "block_size": 256, "n_layer": 4, "n_embd": 256}
HEAD = 64
"""Channels of an attention head, in every width."""
SMALL = {"vocab_size": 512, "block_size": 32, "n_embd": 256}
BATCH = 8

Point = tuple[str, int, GPTConfig, int]
"""Name of the sweep, where it is, the shape, and sequences in an update."""


def points(small: bool) -> list[Point]:
    """Return the points of every sweep around the base shape; small ones are for a busy machine."""
    base = {**BASE, **SMALL} if small else BASE
    T, d, batch = base["block_size"], base["n_embd"], BATCH

    def at(**changes: int) -> GPTConfig:
        shape = {**base, **changes}
        return GPTConfig(n_head=shape["n_embd"] // HEAD, **shape)

    lengths = [T // 4, T // 2, T, 2 * T, 4 * T]
    batches = [1, 2, 4, 8, 16] if small else [1, 2, 4, 8, 16, 32]
    return [
        *(("T, same tokens", n, at(block_size=n), batch * T // n) for n in lengths),
        *(("T, same batch", n, at(block_size=n), batch) for n in lengths),
        *(("width", n, at(n_embd=n), batch) for n in (d // 4, d // 2, d, 2 * d)),
        *(("depth", n, at(n_layer=n), batch) for n in (1, 2, 4, 8, 16)),
        *(("batch", n, at(), n) for n in batches),
    ]


def trainer_of(config: GPTConfig, batch: int, precision: str) -> tuple[Callable[[], None], list]:
    """Return a function that makes one update, and the tensors that live between updates."""
    torch.manual_seed(0)
    model = GPT(config).train()
    optimizer = make_optimizer(model, OptimConfig())
    idx, targets = torch.randint(config.vocab_size, (2, batch, config.block_size))  # (B, T) each

    def update() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss, n_tokens = model(idx, targets)
        (loss / n_tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    update()  # brings the moments
    moments = [t for state in optimizer.state.values() for t in state.values()]
    return update, [*model.parameters(), *moments, idx, targets]


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train every point in turns, and return a row for each."""
    now = time.process_time if args.cpu_time else time.perf_counter
    sweeps = points(args.small)
    torch.set_num_threads(max(args.threads))
    shapes = {(config, batch): [] for _, _, config, batch in sweeps}  # the base is in every sweep
    runs = {key: trainer_of(*key, args.precision) for key in shapes}
    peaks: dict[int, list[float]] = {n: [] for n in args.threads}
    taken: dict[Any, list[float]] = {}
    for turn in range(args.rounds + 1):
        for n in args.threads:
            torch.set_num_threads(n)
            peaks[n].append(matmul_flops(args.precision, 0.2))
            for key, (update, _) in runs.items():
                started = now()
                update()
                if turn:  # the first is not counted
                    taken.setdefault((key, n), []).append(now() - started)
    live = {}
    for key, (update, held) in runs.items():
        with LiveBytes(held) as measured:
            update()
        live[key] = measured.peak
    rows = []
    for sweep, size, config, batch in sweeps:
        key, tokens = (config, batch), batch * config.block_size
        ms = {n: 1000 * median(taken[key, n]) for n in args.threads}
        flops = tokens * training_flops(config)
        rows.append(
            {
                "sweep": sweep,
                "size": size,
                "tokens": tokens,
                "flops": flops,
                "parameters": count_parameters(config),
                "ms": ms,
                "samples": {n: taken[key, n] for n in args.threads},
                "tokens_per_second": {n: 1000 * tokens / ms[n] for n in ms},
                "mfu": {n: 1000 * flops / ms[n] / max(peaks[n]) for n in ms},
                "bytes": live[key],
                "estimated_bytes": update_memory(
                    TrainConfig(model=config, precision=args.precision, device="cpu"), batch
                ).peak(batch),
                "shares": {
                    k: v / sum(forward_flops(config).values())
                    for k, v in forward_flops(config).items()
                },
            }
        )
    return rows


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=positive, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=positive, default=9, help="timed updates of every point")
    parser.add_argument("--precision", default="bf16", choices=("fp32", "bf16"))
    parser.add_argument("--cpu-time", action="store_true", help="count processor time (1 thread)")
    parser.add_argument("--small", action="store_true", help="small shapes, to try it out")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args()


def main() -> None:
    args = options()
    prepare_process()
    started = time.perf_counter()
    rows = measure(args)
    fits = exponents(rows, args.threads)
    seconds = time.perf_counter() - started
    print(f"torch {torch.__version__}, {args.precision}, {args.rounds} rounds, {seconds:.0f} s\n")
    report(rows, fits, args.threads)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    settings = {**vars(args), "out": str(args.out), "torch": torch.__version__, "seconds": seconds}
    text = json.dumps({"settings": settings, "rows": rows, "exponents": fits}, indent=1)
    args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
