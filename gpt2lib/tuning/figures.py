"""Figures of a study. Light background, colours that need no colour vision, noise on every one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from gpt2lib.runs.plots import BLUE, ORANGE, save_figure
from gpt2lib.tuning.results import UNIT, Importance, Noise, in_memory, value_of
from gpt2lib.utils.files import writing

COLOURS = "cividis"
"""Ordered by lightness, and nearly the same to the colour-blind."""

WIDTH = 0.12
"""Of the bell that a heat map averages trials with, as a share of an axis."""

BLANK_BELOW = 0.3
"""Weight of trials below which a heat map says nothing: there are none near."""

LINES = 8
"""Lines of equal loss in a heat map, at most."""


class Axis:
    """A parameter as an axis: numbers, their logarithms, or the places of choices.

    Args:
        name: of the parameter.
        trials: of one study.
    """

    def __init__(self, name: str, trials: Sequence[FrozenTrial]) -> None:
        drawn: Any = trials[0].distributions[name]
        self.name, self.log = name, getattr(drawn, "log", False)
        self.choices = getattr(drawn, "choices", None)
        self.positions = np.array([self.position(trial.params[name]) for trial in trials])
        edge = 0.1 * np.ptp(self.positions)
        self.ends = self.positions.min() - edge, self.positions.max() + edge

    def position(self, value: Any) -> float:
        """Return where a value lies on the axis."""
        if self.choices is not None:
            return float(self.choices.index(value))
        return math.log10(value) if self.log else float(value)

    def mark(self, axis: Any) -> None:
        """Write the values and the name on an axis of matplotlib."""
        axis.set_label_text(f"{self.name} (log)" if self.log else self.name)
        if self.choices is not None:
            axis.set_ticks(range(len(self.choices)), [str(choice) for choice in self.choices])
        elif self.log:
            axis.set_major_formatter(lambda position, _: f"{10**position:.2g}")


def draw_importances(path: Path, found: Sequence[Importance], noted: str, n: int) -> Path:
    """Draw how much each parameter decides, with its bootstrap interval."""

    def fill(axes: Any) -> None:
        rows = list(reversed(found))
        heights, values = range(len(rows)), [row.value for row in rows]
        axes.hlines(heights, [row.low for row in rows], [row.high for row in rows], color=BLUE)
        axes.plot(values, heights, "o", color=ORANGE)
        axes.set_yticks(heights, [row.name for row in rows])
        axes.set_xlim(left=0)
        axes.set(xlabel="share of what decides whether a trial is among the best (PED-ANOVA)")
        axes.set_title(f"lines: 90 % of bootstrap samples of {n} trials\n{noted}", fontsize=9)

    return save_figure(path, fill)


def draw_parallel(path: Path, names: list[str], trials: Sequence[FrozenTrial], noted: str) -> Path:
    """Have Optuna draw a line for each trial through its parameters, the best ones the darkest."""
    import matplotlib.pyplot as plt
    from optuna.visualization.matplotlib import plot_parallel_coordinate

    with warnings.catch_warnings(), plt.style.context("default"):
        warnings.simplefilter("ignore")  # it is experimental
        axes = plot_parallel_coordinate(in_memory(trials), names, target_name=UNIT)
    axes.set_title(noted, fontsize=9)
    figure: Any = axes.figure
    figure.set_size_inches(8, 4.5)
    with writing(path):
        figure.savefig(path, dpi=120, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return path


def draw_heat(
    path: Path,
    across: Axis,
    up: Axis,
    trials: Sequence[FrozenTrial],
    noise: Noise | None,
    noted: str,
) -> Path:
    """Draw the mean of the trials near each point of two parameters, with lines of equal loss.

    Lines that lie closer than the noise of a seed would tell nothing, so they are as far apart as
    that at least. The other parameters differ between the trials; the map averages over them.
    """
    z = np.array([value_of(trial) for trial in trials])
    z = np.minimum(z, np.quantile(z, 0.9))  # a few very bad ones would be all that shows
    x, y = across.positions, up.positions
    columns, rows = np.linspace(*across.ends, 80), np.linspace(*up.ends, 80)
    to_left = (columns[None, :, None] - x) / np.ptp(x)
    below = (rows[:, None, None] - y) / np.ptp(y)
    weights = np.exp(-(to_left**2 + below**2) / (2 * WIDTH**2))  # (80, 80, trials)
    total = weights.sum(-1)
    mean = np.where(total > BLANK_BELOW, (weights @ z) / np.maximum(total, 1e-9), np.nan)
    lowest, highest = np.nanmin(mean), np.nanmax(mean)
    apart = max((highest - lowest) / LINES, noise.deviation if noise else 0.0, 1e-6)
    levels = lowest + apart * np.arange(1, LINES + 1)

    def fill(axes: Any) -> None:
        image = axes.pcolormesh(columns, rows, np.ma.masked_invalid(mean), cmap=COLOURS)
        if levels[0] < highest:
            lines = axes.contour(columns, rows, mean, levels=levels, colors="white", linewidths=1)
            axes.clabel(lines, fontsize=7, fmt="%.4g")
        axes.plot(x, y, "o", color="white", markeredgecolor="black", markersize=4)
        axes.plot(x[0], y[0], "*", color=ORANGE, markeredgecolor="black", markersize=14)
        across.mark(axes.xaxis)
        up.mark(axes.yaxis)
        marks = "circles: trials; star: the best"
        axes.set_title(f"{marks}; lines of equal loss {apart:.3g} apart\n{noted}", fontsize=9)
        axes.figure.colorbar(image, ax=axes, label=f"{UNIT}, mean of the trials near")

    return save_figure(path, fill)
