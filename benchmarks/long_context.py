"""Time and memory of attention against the length of the text: full, dense mask, chunked window.

    python benchmarks/long_context.py                    # T = 1k to 32k, about five minutes
    python benchmarks/long_context.py --lengths 1024 4096 --repeats 1

Every cell is a process of its own, forward and backward of one attention call (batch 1, 4 heads
of 64, float32, 2 threads); the cells take turns, so that a slow minute of the machine hits all
forms. "full" is causal SDPA without a window. "dense" is the windowed mask as a table of T by T,
given to SDPA. "chunked" is what the library uses. A process takes the fastest of up to three
calls; seconds are the median over the processes. Memory is the highest resident size during the
first call above the one before it. The slope is that of log(seconds), or of log(memory), over
log(T), fitted to all lengths: 1 is linear growth, 2 is quadratic.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import threading
import time
from statistics import median

FORMS = ("chunked", "dense", "full")


def measure(form: str, T: int, window: int) -> dict[str, float]:
    """Run one call forward and backward in this process; return its seconds and MiB."""
    import psutil
    import torch

    from gpt2lib.model.attention import fused
    from gpt2lib.model.kernels.window import chunked
    from gpt2lib.model.masks import Causal, SlidingWindow
    from gpt2lib.training.hardware import prepare_process

    prepare_process()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    windowed = Causal() & SlidingWindow(window)
    call, mask = {
        "chunked": (chunked, windowed),
        "dense": (fused, windowed),
        "full": (fused, Causal()),
    }[form]

    def once(T: int) -> float:
        q, k, v = (torch.randn(1, 4, T, 64, requires_grad=True) for _ in range(3))
        start = time.perf_counter()
        call(q, k, v, mask).sum().backward()
        return time.perf_counter() - start

    once(256)  # loads the kernels
    process, peak, done = psutil.Process(), [0], threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], process.memory_info().rss)
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    first = once(T)
    done.set()
    watcher.join()
    best = min([first] + [once(T) for _ in range(2 if first < 5 else 0)])
    return {"seconds": best, "mib": (peak[0] - before) / 2**20}


def slope(points: dict[int, float]) -> float:
    """Return the slope of the line through log(T), log(value)."""
    xs, ys = [math.log(T) for T in points], [math.log(max(v, 1e-9)) for v in points.values()]
    mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mx) ** 2 for x in xs)
    return sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True)) / spread


def main() -> None:
    """Measure every form at every length, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    lengths = [1024 * 2**i for i in range(6)]
    parser.add_argument("--lengths", type=int, nargs="+", default=lengths)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--most-dense", type=int, default=16384, help="longest dense mask")
    parser.add_argument("--one", nargs=2, metavar=("FORM", "T"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]), args.window)))
        return
    found: dict[str, dict[int, list[dict[str, float]]]] = {form: {} for form in FORMS}
    for T in args.lengths:
        for _ in range(args.repeats):
            for form in FORMS:
                if form == "dense" and args.most_dense < T:
                    continue
                command = [sys.executable, __file__, "--one", form, str(T)]
                command += ["--window", str(args.window)]
                out = subprocess.run(command, capture_output=True, text=True, check=True)
                found[form].setdefault(T, []).append(json.loads(out.stdout))
    report(found, args.lengths)


def report(found: dict[str, dict[int, list[dict[str, float]]]], lengths: list[int]) -> None:
    """Print seconds and MiB for every length and form, then the slopes."""
    value = {
        (form, what): {T: median(cell[what] for cell in cells) for T, cells in by_T.items()}
        for form, by_T in found.items()
        for what in ("seconds", "mib")
    }
    print("| T | " + " | ".join(f"{f}, s | {f}, MiB" for f in FORMS) + " |")
    print("|" + "---|" * (1 + 2 * len(FORMS)))
    for T in lengths:
        cells = []
        for form in FORMS:
            for what, digits in (("seconds", 3), ("mib", 0)):
                got = value[form, what].get(T)
                cells.append("" if got is None else f"{got:.{digits}f}")
        print(f"| {T} | " + " | ".join(cells) + " |")
    slopes = [f"{slope(value[f, w]):.2f}" for f in FORMS for w in ("seconds", "mib")]
    print("| slope | " + " | ".join(slopes) + " |")
    last = lengths[-1]
    print(
        f"\nchunked is {value['full', 'seconds'][last] / value['chunked', 'seconds'][last]:.1f} "
        f"times as fast as full at T={last}"
    )
    dense = value["dense", "mib"]
    if dense:
        T = max(dense)
        ratio = dense[T] / value["chunked", "mib"][T]
        print(f"the dense mask takes {ratio:.1f} times the memory of chunked at T={T}")


if __name__ == "__main__":
    main()
