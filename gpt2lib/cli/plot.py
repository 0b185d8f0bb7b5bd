"""`gpt2lib plot`: how runs went."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2lib.cli.terminal import Options, aligned
from gpt2lib.runs.checkpoint import checkpoints
from gpt2lib.runs.plots import (
    X_LABELS,
    Y_LABELS,
    draw_runs,
    labels,
    points,
    read_metrics,
    write_report,
)
from gpt2lib.utils.errors import UserError, nearest
from gpt2lib.utils.formats import read_json, read_yaml


@dataclass(frozen=True)
class Plot(Options):
    """Draw one metric of several runs into one figure, and print a table.

    One run without options gets its loss.png drawn anew.

    Attributes:
        runs: the folder of a run; several may be given.
        x: step, tokens or seconds; by default step.
        y: the metric; by default loss.
        smooth: updates a curve is averaged over.
        out: the figure's file; by default compare-Y.png here.
    """

    usage = "RUN [RUN ...] [--x NAME] [--y NAME] [--out FILE.png]"
    arguments = ("runs",)
    notes = f"Metrics: {', '.join(Y_LABELS)}."

    runs: tuple[str, ...]
    x: str | None = None
    y: str | None = None
    smooth: int | None = None
    out: str | None = None

    def __post_init__(self) -> None:
        for option, name, valid in (("x", self.x, X_LABELS), ("y", self.y, Y_LABELS)):
            if name is not None and name not in valid:
                hint = nearest(name, valid) or f"; there are {', '.join(valid)}"
                raise UserError(f"--{option} cannot be {name!r}{hint}")
        self.check_at_least_one("smooth")


def plot(argv: list[str]) -> int:
    """Run `gpt2lib plot RUN [RUN ...]`: draw runs into one figure, and print a table of them."""
    options, _ = Plot.read(argv)

    runs = options.runs
    if len(runs) == 1 and options == Plot(runs):
        figure = write_report(runs[0])
    else:
        x, y = options.x or "step", options.y or comparable(runs)
        out = Path(options.out or f"compare-{y}.png")
        figure = draw_runs(runs, out, x, y, options.smooth)
    print("\n".join(aligned(_cells(table(runs)))))
    print(f"\nfigure: {figure}")
    return 0


def comparable(runs: Sequence[str | Path]) -> str:
    """Return the metric that runs are compared by: bits per byte where their tokens differ."""
    made_by = {_tokenizer(Path(run)) for run in runs}
    if len(made_by) > 1:
        print("the runs have different tokenizers, so held-out bits per byte are drawn; --y loss")
        print("draws nats per token, which cannot be compared between them\n")
        return "bits_per_byte"
    return "loss"


def _tokenizer(run: Path) -> str:
    """Return what tells a run's tokenizer: its fingerprint, or what its configuration says."""
    for folder in reversed(checkpoints(run)):
        if (folder / "state.json").is_file():
            return str(read_json(folder / "state.json").get("tokenizer"))
    path = run / "config.yaml"
    return str(read_yaml(path)["model"]["vocab_size"]) if path.is_file() else ""


def table(runs: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Return what is to be known of each run, None where it has none of it.

    Returns:
        For each run `run` (its name), `steps`, `loss` (the last), `val_loss` (the lowest) and
        `at_step`, `tokens_per_second` (median), `skipped` and `spikes`.

    Raises:
        UserError: if a folder is no run.
    """
    rows = []
    for name, run in zip(labels(runs), map(Path, runs), strict=True):
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


def _cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Write a table's numbers as text, under a header."""
    header = ["run", "steps", "last loss", "best held out", "at step", "tokens/s", "skipped"]
    formats = {"loss": "{:.4f}", "val_loss": "{:.4f}", "tokens_per_second": "{:,.0f}"}
    cells = [
        ["–" if value is None else formats.get(name, "{}").format(value)
         for name, value in row.items()]
        for row in rows
    ]  # fmt: skip
    return [[*header, "spikes"], *cells]
