"""Figures of a study. Light background, colours that need no colour vision, noise on every one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gpt2lib.runs.plots import BLUE, ORANGE, save_figure
from gpt2lib.tuning.config import StudyConfig
from gpt2lib.tuning.results import Importance, Noise, in_memory, value_of
from gpt2lib.tuning.space import label
from gpt2lib.utils.files import writing

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

COLOURS = "cividis"
"""Ordered by lightness, and nearly the same to the colour-blind."""

WIDTH = 0.12
"""Of the bell that a heat map averages trials with, as a share of an axis."""

BLANK_BELOW = 0.3
"""Weight of trials below which a heat map says nothing: there are none near."""

LINES = 8
"""Lines of equal loss in a heat map, at most."""


class Axis(NamedTuple):
    """A parameter as an axis from 0 to 1.

    Attributes:
        name: of the parameter.
        low: end of a range; log10 of it, if it is logarithmic.
        high: the other end.
        log: whether it is logarithmic.
        choices: in place of a range, spread evenly.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[Any, ...] = ()

    def position(self, value: Any) -> float:
        """Return where a value lies on the axis."""
        if self.choices:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        number = math.log10(value) if self.log else float(value)
        return (number - self.low) / (self.high - self.low)

    def ticks(self) -> dict[float, str]:
        """Return positions and what is written there."""
        if self.choices:
            return {self.position(choice): shown(choice) for choice in self.choices}
        ends = [self.low + (self.high - self.low) * i / 4 for i in range(5)]
        return {i / 4: shown(10**end if self.log else end) for i, end in enumerate(ends)}


def shown(value: Any) -> str:
    """Write a value of a parameter."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def axes_of(config: StudyConfig, trials: Sequence[FrozenTrial]) -> list[Axis]:
    """Return an axis for each parameter that differs between trials."""
    axes = []
    for name, param in config.space.items():
        values = {trial.params[name] for trial in trials if name in trial.params}
        if len(values) < 2:
            continue
        if param.choices:
            axes.append(Axis(name, choices=tuple(map(label, param.choices))))
        elif param.low is not None and param.high is not None:
            low, high = float(param.low), float(param.high)
            ends = (math.log10(low), math.log10(high)) if param.log else (low, high)
            axes.append(Axis(name, *ends, log=param.log))
    return axes


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


def draw_parallel(
    path: Path, names: list[str], trials: Sequence[FrozenTrial], unit: str, noted: str
) -> Path:
    """Have Optuna draw a line for each trial through its parameters, the best ones the darkest."""
    import matplotlib.pyplot as plt
    from optuna.visualization.matplotlib import plot_parallel_coordinate

    with warnings.catch_warnings(), plt.style.context("default"):
        warnings.simplefilter("ignore")  # it is experimental
        axes = plot_parallel_coordinate(in_memory(trials), names, target_name=unit)
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
    unit: str,
    noise: Noise | None,
    noted: str,
) -> Path:
    """Draw the mean of the trials near each point of two parameters, with lines of equal loss.

    Lines that lie closer than the noise of a seed would tell nothing, so they are as far apart as
    that at least. The other parameters differ between the trials; the map averages over them.
    """
    import numpy as np

    x = np.array([across.position(trial.params[across.name]) for trial in trials])
    y = np.array([up.position(trial.params[up.name]) for trial in trials])
    z = np.array([value_of(trial) for trial in trials])
    z = np.minimum(z, np.quantile(z, 0.9))  # a few very bad ones would be all that shows
    grid = np.linspace(0, 1, 80)
    squares = (grid[None, :, None] - x) ** 2 + (grid[:, None, None] - y) ** 2  # (80, 80, trials)
    weights = np.exp(-squares / (2 * WIDTH**2))
    total = weights.sum(-1)
    mean = np.where(total > BLANK_BELOW, (weights @ z) / np.maximum(total, 1e-9), np.nan)
    lowest, highest = np.nanmin(mean), np.nanmax(mean)
    apart = max((highest - lowest) / LINES, noise.deviation if noise else 0.0, 1e-6)
    levels = lowest + apart * np.arange(1, LINES + 1)

    def fill(axes: Any) -> None:
        image = axes.pcolormesh(grid, grid, np.ma.masked_invalid(mean), cmap=COLOURS)
        if levels[0] < highest:
            lines = axes.contour(grid, grid, mean, levels=levels, colors="white", linewidths=1)
            axes.clabel(lines, fontsize=7, fmt="%.4g")
        axes.plot(x, y, "o", color="white", markeredgecolor="black", markersize=4)
        axes.plot(x[0], y[0], "*", color=ORANGE, markeredgecolor="black", markersize=14)
        for axis, ticks in ((axes.xaxis, across.ticks()), (axes.yaxis, up.ticks())):
            axis.set_ticks(list(ticks), list(ticks.values()))
        axes.set(xlabel=_label(across), ylabel=_label(up), xlim=(0, 1), ylim=(0, 1))
        marks = "circles: trials; star: the best"
        axes.set_title(f"{marks}; lines of equal loss {apart:.3g} apart\n{noted}", fontsize=9)
        axes.figure.colorbar(image, ax=axes, label=f"{unit}, mean of the trials near")

    return save_figure(path, fill)


def _label(axis: Axis) -> str:
    return f"{axis.name} (log)" if axis.log else axis.name
