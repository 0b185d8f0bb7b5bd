"""The ladder of Karpathy's lecture: from a table of pairs to a GPT, one part at a time.

Every rung is a preset, a configuration of the one `GPTConfig`: the bigram has no block at all, the
next ones lack the parts that their `without` names. The lecture's losses hold for Tiny
Shakespeare by characters; without a copy of it the ladder runs on the bundled plays, where only
the order of the rungs can be compared.

Reference: Karpathy, "Let's build GPT: from scratch, in code, spelled out" (2023).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2lib.config import DataConfig, TrainConfig, load_config
from gpt2lib.data.sources import load_corpus
from gpt2lib.runs.plots import BLUE, ORANGE
from gpt2lib.training.loop import train
from gpt2lib.utils.errors import UserError

logger = logging.getLogger(__name__)

LECTURE_TEXT = "tinyshakespeare"


@dataclass(frozen=True)
class Rung:
    """One rung.

    Attributes:
        name: what is new on it.
        preset: the configuration that trains it.
        lecture: held-out loss that a published rerun of the lecture's code reports, in nats a
            character; estimated there on 200 random batches.
        same_size: whether the lecture's model has the size of ours.
    """

    name: str
    preset: str
    lecture: float
    same_size: bool = True


RUNGS = (
    Rung("bigram", "ladder-bigram", 2.49),
    Rung("one head", "ladder-head", 2.40),
    Rung("four heads", "ladder-heads", 2.28),
    Rung("+ MLP", "ladder-mlp", 2.27),
    Rung("+ residual", "ladder-residual", 2.09),
    Rung("+ LayerNorm", "ladder-layernorm", 2.08),
    Rung("scaled", "ladder-scaled", 1.48, same_size=False),
)
"""The rungs, lowest first; the lecture's scaled model is the preset ladder-gpu."""


def choose_source(wanted: str = LECTURE_TEXT) -> str:
    """Return the text to climb on: the one wanted, or the plays if it cannot be had.

    A warning says why it is the plays, and that the lecture's losses do not apply to them.
    """
    try:
        load_corpus(DataConfig(source=wanted))
    except UserError as error:
        logger.warning(
            "the ladder runs on the bundled plays, to which the lecture's losses do not apply: %s",
            error,
        )
        return "plays"
    return wanted


def rung_config(rung: Rung, source: str, **changes: Any) -> TrainConfig:
    """Return the run of a rung on a text.

    Args:
        rung: which one.
        source: as `DataConfig.source`.
        changes: other fields of the run, such as `steps` or `seed`; warm-up never takes more than
            a tenth of the steps.
    """
    config = load_config(rung.preset)
    config = config.replace(data=config.data.replace(source=source), **changes)
    warmup = min(config.optim.warmup_steps, config.steps // 10)
    return config.replace(optim=config.optim.replace(warmup_steps=warmup))


def climb(
    out: str | Path, source: str, rungs: Sequence[Rung] = RUNGS, **changes: Any
) -> dict[str, dict[str, Any]]:
    """Train the rungs, each into its own folder below `out`; rungs trained before are kept.

    Args:
        out: folder of the runs.
        source: the text, see `choose_source`.
        rungs: which rungs.
        changes: fields that all runs share, such as `steps` or `seed`.

    Returns:
        The result of each rung, as `train` returns it, by the rung's name.
    """
    return {
        rung.name: train(rung_config(rung, source, **changes), Path(out) / rung.preset)
        for rung in rungs
    }


def ladder_figure(losses: Mapping[str, Sequence[float]], lecture: bool = True) -> Any:
    """Draw the held-out loss of each rung, with the lecture's beside it.

    Args:
        losses: by a rung's name its losses, one for each seed.
        lecture: whether the lecture's losses apply to this text.

    Returns:
        A matplotlib figure, on a light ground whatever the theme.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.2), facecolor="white", layout="constrained")
    axes = figure.add_subplot(facecolor="white")
    rungs = [rung for rung in RUNGS if rung.name in losses]
    means = [sum(losses[rung.name]) / len(losses[rung.name]) for rung in rungs]
    for place, (rung, mean) in enumerate(zip(rungs, means, strict=True)):
        ours_above = lecture and mean > rung.lecture  # the two labels stand on different sides
        axes.plot([place] * len(losses[rung.name]), losses[rung.name], "o", color=BLUE,
                  markersize=7, label="ours, each seed" if place == 0 else None)  # fmt: skip
        _label(axes, f"{mean:.2f}", (place, mean), BLUE, above=ours_above)
        if lecture:
            size = "" if rung.same_size else "\n(10.8 M)"
            axes.plot([place], [rung.lecture], "_", color=ORANGE, markersize=30,
                      markeredgewidth=3, label="the lecture's" if place == 0 else None)  # fmt: skip
            where = (place, rung.lecture)
            _label(axes, f"{rung.lecture:.2f}{size}", where, ORANGE, above=not ours_above)
    axes.plot(range(len(rungs)), means, "-", color=BLUE, linewidth=1, alpha=0.5)
    axes.set_xticks(range(len(rungs)), [rung.name for rung in rungs])
    axes.set(xlabel="rung", ylabel="held-out loss (nats per character)")
    axes.margins(y=0.25)
    axes.grid(axis="y", color="#dddddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if rungs:
        axes.legend(frameon=False, loc="upper right")
    return figure


def _label(axes: Any, text: str, where: tuple[float, float], colour: str, above: bool) -> None:
    """Write a number above or below its mark."""
    axes.annotate(text, where, xytext=(0, 8 if above else -8), textcoords="offset points",
                  ha="center", va="bottom" if above else "top", color=colour)  # fmt: skip
