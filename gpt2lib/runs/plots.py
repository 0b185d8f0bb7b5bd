"""What a run leaves for the eye: its metrics as a list, and their curves, of one run or of several.

Curves differ in colour and in dash, so that they can be told apart without colour vision and in
print. matplotlib is imported only when something is drawn, and its global state is left alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import printable, writing
from gpt2lib.utils.formats import read_jsonl, read_yaml

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Colours that no common colour blindness confuses (Okabe and Ito 2008), without the yellow, which
vanishes on white."""

DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)))
BLUE, ORANGE = PALETTE[:2]
ALONE = {"color": ORANGE, "linestyle": "--"}
"""How held-out losses look beside the training loss of the only run."""

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
HELD_OUT = ("val_loss", "bits_per_byte")

KINDS: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""Kinds of files, and what is left out of them so that the same figure is the same file."""


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """Read the `metrics.jsonl` in a run's folder, also while the run is still writing it.

    Returns:
        One dictionary a line. Training lines have `step`, `loss`, `lr`, `grad_norm`,
        `tokens_per_second` and `seconds`, perhaps `mfu` and `memory` (bytes), and `spike` where
        the loss stood out. An update that was not made has `step`, `skipped` (why) and
        `in_a_row`. Evaluations have `step`, `val_loss` and `val_bits_per_byte`. A last line that
        is not complete yet is left out.

    Raises:
        UserError: if the folder has none, or a line before the last is damaged.
    """
    path = Path(run) / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"{run} has no metrics.jsonl; it is not the folder of a run")
    return read_jsonl(path, "step", strict=True)


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
    key, unit = ("val_" if y == "bits_per_byte" else "") + y, 1e-9 if y == "memory" else 1.0
    found, seconds = [], 0.0
    for line in metrics:
        seconds = line.get("seconds", seconds)  # an evaluation has the time of the update before
        value = line.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            position = seconds if x == "seconds" else line["step"] * scale
            found.append((float(position), value * unit))
    return found


def tokens_per_step(run: Path) -> int | None:
    """Return how many tokens one update takes, or None if the run's configuration is not there."""
    path = run / "config.yaml"
    if not path.is_file():
        return None
    values = read_yaml(path)
    return int(values["batch_size"]) * int(values["model"]["block_size"])


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Return the mean of each value with its neighbours, up to `width` values in all.

    The window is centred, so the curve is not shifted. It shrinks evenly at the beginning, where
    a loss falls steeply; at the end, where noise is all there is, only its right half shrinks.

    """
    sums = list(accumulate(values, initial=0.0))
    smoothed = []
    for i in range(len(values)):
        left = min((width - 1) // 2, i)
        right = min(left, len(values) - 1 - i)
        smoothed.append((sums[i + right + 1] - sums[i - left]) / (left + right + 1))
    return smoothed


def draw(
    axes: Any,
    runs: Mapping[str, str | Path],
    x: str = "step",
    y: str = "loss",
    width: int | None = None,
) -> None:
    """Draw one metric of runs: what updates log as a smoothed curve, evaluations as points.

    With the training loss, held-out losses are drawn too.

    Args:
        axes: of matplotlib.
        runs: labels to folders; a run that needs no name has the label "".
        x: a key of `X_LABELS`, y: of `Y_LABELS`.
        width: updates that a curve is smoothed over; None takes a 25th of them.

    Raises:
        UserError: if a folder is no run, or lacks the metric; what it has is listed.
    """
    for number, (label, folder) in enumerate(runs.items()):
        run, metrics = Path(folder), read_metrics(folder)
        found = points(run, metrics, x, y)
        evaluated = "val_loss" if y == "loss" else y if y in HELD_OUT else None
        if not found and not (evaluated and points(run, metrics, x, evaluated)):
            raise _nothing_to_draw(run, metrics, y, "nothing" if label else "no loss curve")
        style: dict[str, Any] = {"color": PALETTE[number % len(PALETTE)]}
        style["linestyle"] = DASHES[number % len(DASHES)]
        if found and y not in HELD_OUT:  # faintly as it is, and above it the smoothed curve
            positions, values = zip(*found, strict=True)
            wide = width or 2 * max(1, len(values) // 50) + 1
            if wide > 1:
                each = None if label else "training, each update"
                axes.plot(positions, values, color=style["color"], linestyle="-", linewidth=1,
                          alpha=0.3, label=each)  # fmt: skip
            axes.plot(positions, smooth(values, wide), linewidth=2,
                      label=label or "training, smoothed", **style)  # fmt: skip
        if evaluated:
            name = label if y in HELD_OUT and label else f"{label}, held out".removeprefix(", ")
            if y == "loss":
                style = {**style, "linestyle": "none"} if label else ALONE
            _draw_evaluations(axes, run, metrics, (x, evaluated), name, style)
    axes.set(xlabel=X_LABELS[x], ylabel=Y_LABELS[y])


def _draw_evaluations(
    axes: Any,
    run: Path,
    metrics: list[dict[str, Any]],
    what: tuple[str, str],
    label: str,
    style: Mapping[str, Any],
) -> None:
    """Draw evaluations on a part of the held-out text as a line; that on all of it stands apart."""
    partly = points(run, [m for m in metrics if not m.get("complete")], *what)
    whole = points(run, [m for m in metrics if m.get("complete")], *what)
    if partly:
        axes.plot(*zip(*partly, strict=True), marker="o", markersize=4, label=label, **style)
    if whole:
        label = f"{label}, all of the text" if partly else label
        apart = {**style, "linestyle": "none"}
        axes.plot(*zip(*whole, strict=True), marker="D", markersize=6, label=label, **apart)


def _nothing_to_draw(run: Path, metrics: list[dict[str, Any]], y: str, what: str) -> UserError:
    there = [name for name in Y_LABELS if points(run, metrics, "step", name)]
    if not there:
        return UserError(f"{run} has no update yet, so there is {what} to draw")
    return UserError(f"{run} has no {y} in its metrics.jsonl; it has {', '.join(there)}")


def write_report(run: str | Path) -> Path:
    """Draw a run's training and held-out loss by step into its `loss.png`; return its path.

    Raises:
        UserError: if there is nothing to draw, or the disk refuses.
    """
    run = Path(run)
    return save_figure(run / "loss.png", lambda axes: draw_report(axes, run))


def draw_report(axes: Any, run: Path) -> None:
    """Draw a run's losses, with the last held-out loss in numbers, and an axis in tokens."""
    draw(axes, {"": run})
    axes.set_title(printable(run.resolve().name))
    evaluated = [m for m in read_metrics(run) if math.isfinite(m.get("val_loss", math.nan))]
    if evaluated:
        last = evaluated[-1]
        text = f"{last['val_loss']:.3f}"
        if "val_bits_per_byte" in last:
            text += f"\n{last['val_bits_per_byte']:.3f} bits per byte"
        axes.annotate(text, (last["step"], last["val_loss"]), xytext=(0, 14), color=ORANGE,
                      textcoords="offset points", ha="right", va="bottom")  # fmt: skip
    if per_step := tokens_per_step(run):
        million = per_step / 1e6
        to_tokens = (lambda x: x * million, lambda x: x / million)
        axes.secondary_xaxis("top", functions=to_tokens).set_xlabel(X_LABELS["tokens"])


def draw_runs(
    runs: Sequence[str | Path],
    out: str | Path,
    x: str = "step",
    y: str = "loss",
    width: int | None = None,
) -> Path:
    """Draw one metric of several runs into a figure; arguments and errors as of `draw`.

    Returns:
        `out`, the file; its ending says which kind.
    """
    named = dict(zip(labels(runs), runs, strict=True))
    return save_figure(Path(out), lambda axes: draw(axes, named, x, y, width))


def save_figure(path: Path, fill: Callable[[Any], None]) -> Path:
    """Make a figure of one pair of axes, let `fill` draw into them, and write it.

    Args:
        path: the file; its ending says which kind.
        fill: gets the axes; the grid and a legend of what has a label are added afterwards.

    Raises:
        UserError: if the ending is none that matplotlib writes, or the disk refuses.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kind = path.suffix[1:].lower()
    if kind not in KINDS:
        raise UserError(f"{path} must end in {' or '.join('.' + k for k in KINDS)}")
    figure = Figure(figsize=(8, 4.5), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    fill(axes)
    axes.grid(color="#dddddd")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    with writing(path):
        figure.savefig(path, facecolor="white", format=kind, metadata=KINDS[kind])
    return path


def labels(runs: Sequence[str | Path]) -> list[str]:
    """Return the shortest names that tell runs apart: paths without the folders they share."""
    paths = [Path(run).resolve() for run in runs]
    if len(set(paths)) == 1:
        return [printable(path.name) for path in paths]
    shared = Path(os.path.commonpath([path.parent for path in paths]))
    return [printable(path.relative_to(shared).as_posix()) for path in paths]
