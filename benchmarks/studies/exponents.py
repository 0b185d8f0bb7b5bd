"""Exponents of sweeps, and their tables: what `scaling.py` makes of its points."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]

EXPLAINED = """The exponent of the time is that of the FLOPs less that of MFU. Where MFU rises with
size, costs that do not grow (calling small operations) or grow more slowly (AdamW's pass over the
weights, against more tokens) weigh less and less. Where it falls, work that is no product (softmax,
norms, the loss) or the way to memory grows faster. The FLOPs themselves grow more slowly than the
size where a part of them does not depend on it.
"""


def exponent(sizes: list[float], costs: list[float]) -> float:
    """Return the slope of log(cost) over log(size), by least squares.

    Raises:
        ValueError: for fewer than two different sizes.
    """
    x, y = [[math.log(v) for v in values] for values in (sizes, costs)]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mx) ** 2 for a in x)
    if spread == 0:
        raise ValueError("an exponent needs two different sizes")
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / spread


def exponents(rows: list[Row], threads: list[int]) -> dict[str, dict[str, list[float]]]:
    """Fit every sweep; return measured and predicted exponents, over all and the upper half."""
    found: dict[str, dict[str, list[float]]] = {}
    for sweep in dict.fromkeys(row["sweep"] for row in rows):
        of_sweep = [row for row in rows if row["sweep"] == sweep]
        costs: dict[str, Callable[[Row], float]] = {
            **{f"ms, {n} thr.": lambda row, n=n: row["ms"][n] for n in threads},
            "FLOPs": lambda row: row["flops"],
            "bytes": lambda row: row["bytes"],
            "estimated bytes": lambda row: row["estimated_bytes"],
        }
        found[sweep] = {
            name: [
                exponent([row["size"] for row in part], [cost(row) for row in part])
                for part in (of_sweep, of_sweep[len(of_sweep) // 2 :])
            ]
            for name, cost in costs.items()
        }
    return found


def report(rows: list[Row], fits: dict[str, Any], threads: list[int]) -> None:
    """Print the points, the exponents, and what explains the difference."""
    for i, row in enumerate(rows):
        cells = {
            "sweep": row["sweep"],
            "at": row["size"],
            "tokens": row["tokens"],
            "weights": f"{row['parameters'] / 1e6:.2f} M",
            **{f"ms, {n} thr.": f"{row['ms'][n]:.1f}" for n in threads},
            **{f"tokens/s, {n}": f"{row['tokens_per_second'][n]:,.0f}" for n in threads},
            **{f"MFU, {n}": f"{row['mfu'][n]:.0%}" for n in threads},
            "speed-up": f"{row['ms'][min(threads)] / row['ms'][max(threads)]:.2f}",
            "peak": f"{row['bytes'] / 1e6:.1f} MB",
            "estimated": f"{row['estimated_bytes'] / 1e6:.1f} MB",
            "ratio": f"{row['estimated_bytes'] / row['bytes']:.2f}",
        }
        if i == 0:
            line(*cells, head=True)
        line(*cells.values())
    print("\nExponents over all points, and over the upper half:\n")
    line("sweep", *next(iter(fits.values())), head=True)
    for sweep, fit in fits.items():
        line(sweep, *(f"{whole:.2f}, {upper:.2f}" for whole, upper in fit.values()))
    print(f"\n{notes(rows, max(threads))}")


def line(*cells: Any, head: bool = False) -> None:
    """Print a row of a table in Markdown."""
    print("| " + " | ".join(map(str, cells)) + " |")
    if head:
        print("| --- " * len(cells) + "|")


def notes(rows: list[Row], n: int) -> str:
    """Say for every sweep where FLOPs go and how MFU moves: together they make the exponents."""
    said = [EXPLAINED]
    for sweep in dict.fromkeys(row["sweep"] for row in rows):
        first, *_, last = [row for row in rows if row["sweep"] == sweep]
        scores, head = (
            [f"{row['shares'][part]:.0%}" for row in (first, last)]
            for part in ("attention, scores and sums", "output head")
        )
        said.append(
            f"- {sweep}, {first['size']} to {last['size']}: MFU {first['mfu'][n]:.0%} → "
            f"{last['mfu'][n]:.0%}; of the FLOPs, attention's T² part {scores[0]} → {scores[1]}, "
            f"the vocabulary {head[0]} → {head[1]}."
        )
    return "\n".join(said)
