"""Several runs in one figure, and in one table.

Curves differ in colour and in dash, so that they can be told apart without colour vision and in
print. Held-out points have the colour of their run.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt2lib.runs.plots import DASHES, PALETTE, read_metrics, save_figure, smooth, tokens_per_step
from gpt2lib.utils.errors import UserError

X_LABELS = {
    "step": "update (step)",
    "tokens": "tokens trained on (millions)",
    "seconds": "time in updates (seconds)",
}
Y_LABELS = {
    "loss": "loss (nats per token)",
    "val_loss": "held-out loss (nats per token)",
    "bits_per_byte": "held-out bits per byte",
    "lr": "learning rate",
    "grad_norm": "norm of the gradient",
    "tokens_per_second": "speed (tokens per second)",
    "mfu": "share of the peak FLOP/s (MFU)",
    "memory": "memory (GB)",
}
KEYS = {"bits_per_byte": "val_bits_per_byte"}
"""What a line of metrics.jsonl calls it, where that is another name."""

UNITS = {"memory": 1e-9}
HELD_OUT = ("val_loss", "bits_per_byte")


def points(run: Path, metrics: list[dict[str, Any]], x: str, y: str) -> list[tuple[float, float]]:
    """Return the finite values of a metric, by step, tokens or seconds.

    Args:
        run: the run's folder; its configuration says how many tokens an update takes.
        metrics: its lines.
        x: a key of `X_LABELS`.
        y: a key of `Y_LABELS`.

    Raises:
        UserError: if the run does not say how many tokens its updates take.
    """
    scale = 1.0
    if x == "tokens":
        per_step = tokens_per_step(run)
        if per_step is None:
            raise UserError(f"{run} has no config.yaml that says its tokens per step; use --x step")
        scale = per_step / 1e6
    key, found, seconds = KEYS.get(y, y), [], 0.0
    for line in metrics:
        seconds = line.get("seconds", seconds)  # an evaluation has the time of the update before
        value = line.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            place = seconds if x == "seconds" else line["step"] * scale
            found.append((float(place), float(value) * UNITS.get(y, 1)))
    return found


def labels(runs: Sequence[Path]) -> list[str]:
    """Return the shortest names that tell runs apart: paths without the folders they share."""
    paths = [run.resolve() for run in runs]
    if len(set(paths)) == 1:
        return [path.name for path in paths]
    shared = Path(os.path.commonpath([path.parent for path in paths]))
    return [path.relative_to(shared).as_posix() for path in paths]


def draw_runs(
    runs: Sequence[str | Path],
    out: str | Path,
    x: str = "step",
    y: str = "loss",
    width: int | None = None,
) -> Path:
    """Draw one metric of several runs into a figure.

    Args:
        runs: folders of runs.
        out: the file to write; its ending says which kind.
        x: a key of `X_LABELS`.
        y: a key of `Y_LABELS`. With the training loss, held-out losses are drawn as points.
        width: updates that the curve is smoothed over; None takes a 25th of them. Held-out
            points are never smoothed.

    Raises:
        UserError: if a folder is no run, or lacks the metric; what it has is listed.
    """
    folders = [Path(run) for run in runs]
    read = [read_metrics(run) for run in folders]
    for run, metrics in zip(folders, read, strict=True):
        _require(run, metrics, y)

    def draw(axes: Any) -> None:
        named = zip(labels(folders), folders, read, strict=True)
        for number, (name, run, metrics) in enumerate(named):
            style = {
                "color": PALETTE[number % len(PALETTE)],
                "linestyle": DASHES[number % len(DASHES)],
            }
            _draw_run(axes, points(run, metrics, x, y), name, y, width, style)
            held_out = points(run, metrics, x, "val_loss") if y == "loss" else []
            if held_out:
                label = f"{name}, held out"
                axes.plot(*zip(*held_out, strict=True), color=style["color"], linestyle="none",
                          marker="o", markersize=5, label=label)  # fmt: skip
        axes.set(xlabel=X_LABELS[x], ylabel=Y_LABELS[y])
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)

    return save_figure(Path(out), draw)


def _draw_run(
    axes: Any,
    found: list[tuple[float, float]],
    name: str,
    y: str,
    width: int | None,
    style: dict[str, Any],
) -> None:
    """Draw one run's curve: smoothed, or the points of its evaluations."""
    places, values = zip(*found, strict=True)
    if y in HELD_OUT:
        axes.plot(places, values, label=name, linewidth=2, marker="o", markersize=4, **style)
        return
    width = width or max(1, len(values) // 25)
    if width > 1:
        axes.plot(places, values, color=style["color"], alpha=0.2, linewidth=1)
    axes.plot(places, smooth(values, width), label=name, linewidth=2, **style)


def _require(run: Path, metrics: list[dict[str, Any]], y: str) -> None:
    """Refuse a run in which there is nothing to draw of a metric."""
    if points(run, metrics, "step", y):
        return
    there = [name for name in Y_LABELS if points(run, metrics, "step", name)]
    if not there:
        raise UserError(f"{run} has no update yet, so there is nothing to draw")
    raise UserError(f"{run} has no {y} in its metrics.jsonl; it has {', '.join(there)}")


def table(runs: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Return what is to be known of each run, None where it has none of it.

    Returns:
        For each run `run` (its name), `steps`, `loss` (the last), `val_loss` (the lowest) and
        `at_step`, `tokens_per_second` (median), `skipped` and `spikes`.

    Raises:
        UserError: if a folder is no run.
    """
    rows = []
    folders = [Path(run) for run in runs]
    for name, run in zip(labels(folders), folders, strict=True):
        metrics = read_metrics(run)
        losses = points(run, metrics, "step", "loss")
        speeds = [value for _, value in points(run, metrics, "step", "tokens_per_second")]
        # The last evaluation is on all held-out text, the others on part of it.
        partly = [m for m in metrics if not m.get("complete")]
        held_out = points(run, partly or metrics, "step", "val_loss")
        best = min(held_out, key=lambda point: point[1], default=(None, None))
        rows.append(
            {
                "run": name,
                "steps": max((int(line["step"]) for line in metrics), default=0),
                "loss": losses[-1][1] if losses else None,
                "val_loss": best[1],
                "at_step": None if best[0] is None else int(best[0]),
                "tokens_per_second": statistics.median(speeds) if speeds else None,
                "skipped": sum("skipped" in line for line in metrics),
                "spikes": sum(bool(line.get("spike")) for line in metrics),
            }
        )
    return rows
