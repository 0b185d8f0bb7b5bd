"""What a run leaves for the eye: its metrics as a list, and its loss curve as a PNG.

matplotlib is imported only when something is drawn, and its global state is left alone.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpt2lib.utils.errors import UserError

logger = logging.getLogger(__name__)

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Colours that no common colour blindness confuses (Okabe and Ito 2008), without the yellow, which
vanishes on white."""

DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)))
BLUE, ORANGE = PALETTE[:2]

KINDS: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""Kinds of files, and what is left out of them so that the same figure is the same file."""


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """Read a run's `metrics.jsonl`, also while the run is still writing it.

    Args:
        run: the run's folder.

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
    lines = path.read_bytes().split(b"\n")  # bytes: the last line may end within a character
    metrics: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            if not isinstance(values, dict):
                raise ValueError("not an object")
            if not isinstance(values.get("step"), int):
                raise ValueError("it has no step")
        except ValueError as error:
            if number == len(lines):  # no newline after it: it is still being written
                break
            raise UserError(f"{path}, line {number} is damaged: {error}") from error
        metrics.append(values)
    return metrics


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Return the mean of each value with its neighbours, up to `width` values in all.

    The window is centred, so the curve is not shifted. It shrinks evenly at the beginning, where
    a loss falls steeply; at the end, where noise is all there is, only its right half shrinks.

    Args:
        values: the series.
        width: the largest window, at least 1.
    """
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    smoothed = []
    for i in range(len(values)):
        left = min((width - 1) // 2, i)
        right = min(left, len(values) - 1 - i)
        smoothed.append((sums[i + right + 1] - sums[i - left]) / (left + right + 1))
    return smoothed


def write_report(run: str | Path) -> Path:
    """Draw a run's training and held-out loss by step into its `loss.png`.

    Args:
        run: the run's folder.

    Returns:
        The path of the PNG.

    Raises:
        UserError: if there is nothing to draw, or the disk refuses.
    """
    run = Path(run)
    metrics = read_metrics(run)
    if not any("loss" in m or "val_loss" in m for m in metrics):
        raise UserError(f"{run} has no update yet, so there is no loss curve to draw")
    return save_figure(run / "loss.png", lambda axes: _draw(axes, metrics, run))


def save_figure(path: Path, draw: Callable[[Any], None]) -> Path:
    """Make a figure of one pair of axes, let `draw` fill them, and write it.

    Args:
        path: the file; its ending says which kind.
        draw: gets the axes; the grid and the legend are added afterwards.

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
    draw(axes)
    axes.grid(color="#dddddd")
    axes.set_axisbelow(True)
    axes.legend(frameon=False)
    try:
        figure.savefig(path, facecolor="white", format=kind, metadata=KINDS[kind])
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    logger.debug("wrote %s", path)
    return path


def _draw(axes: Any, metrics: list[dict[str, Any]], run: Path) -> None:
    """Draw the curves, the axes with their units, and the legend."""
    trained = [(m["step"], m["loss"]) for m in metrics if math.isfinite(m.get("loss", math.nan))]
    held_out = [m for m in metrics if math.isfinite(m.get("val_loss", math.nan))]
    if trained:
        steps, losses = zip(*trained, strict=True)
        width = max(1, len(losses) // 50)
        axes.plot(steps, losses, color=BLUE, alpha=0.3, linewidth=1, label="training, each update")
        axes.plot(
            steps,
            smooth(losses, 2 * width + 1),
            color=BLUE,
            linewidth=2,
            label="training, smoothed",
        )
    if held_out:
        axes.plot(
            [m["step"] for m in held_out],
            [m["val_loss"] for m in held_out],
            color=ORANGE,
            linestyle="--",
            marker="o",
            markersize=4,
            label="held out",
        )
        last = held_out[-1]
        text = f"{last['val_loss']:.3f}"
        if "val_bits_per_byte" in last:
            text += f"\n{last['val_bits_per_byte']:.3f} bits per byte"
        axes.annotate(
            text,
            (last["step"], last["val_loss"]),
            xytext=(0, 14),
            textcoords="offset points",
            ha="right",
            va="bottom",
            color=ORANGE,
        )
    axes.set(xlabel="update (step)", ylabel="loss (nats per token)", title=run.resolve().name)
    axes.spines["right"].set_visible(False)
    per_step = tokens_per_step(run)
    if per_step is None:
        axes.spines["top"].set_visible(False)
        return
    million = per_step / 1e6
    above = axes.secondary_xaxis("top", functions=(lambda x: x * million, lambda x: x / million))
    above.set_xlabel("tokens trained on (millions)")


def tokens_per_step(run: Path) -> int | None:
    """Return how many tokens one update takes, or None if the run's configuration is not there."""
    import yaml

    path = run / "config.yaml"
    if not path.is_file():
        return None
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    return int(values["batch_size"]) * int(values["model"]["block_size"])
