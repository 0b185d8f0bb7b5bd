"""`gpt2lib plot` and `gpt2lib doctor`: how runs went, and what this machine is fit for."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2lib.cli.options import Parser
from gpt2lib.cli.output import print_json, print_table, set_up_logging
from gpt2lib.utils.errors import UserError, nearest


def plot(argv: list[str]) -> int:
    """Run `gpt2lib plot RUN [RUN ...]`: draw runs into one figure, and print a table of them."""
    from gpt2lib.runs.plots import X_LABELS, Y_LABELS, draw_runs, write_report

    parser = Parser(
        "plot",
        "RUN [RUN ...] [--x NAME] [--y NAME] [--out FILE.png]",
        "Draw one metric of several runs into one figure, and print a table. One run without "
        "options gets its loss.png drawn anew.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a run")
    parser.add_argument("--x", default=None, help=f"{', '.join(X_LABELS)}; by default step")
    parser.add_argument("--y", default=None, help=f"{', '.join(Y_LABELS)}; by default loss")
    parser.add_argument("--smooth", type=int, default=None, help="updates a curve is averaged over")
    parser.add_argument("--out", default=None, metavar="FILE", help="by default compare-Y.png here")
    values = parser.read(argv)
    for option, valid in (("x", X_LABELS), ("y", Y_LABELS)):
        if values[option] is not None and values[option] not in valid:
            hint = nearest(values[option], valid) or f"; there are {', '.join(valid)}"
            raise UserError(f"--{option} cannot be {values[option]!r}{hint}")
    if values["smooth"] is not None and values["smooth"] < 1:
        raise UserError(f"--smooth must be at least 1, not {values['smooth']}")
    set_up_logging()
    runs = values["runs"]
    if len(runs) == 1 and all(values[name] is None for name in ("x", "y", "smooth", "out")):
        figure = write_report(runs[0])
    else:
        x, y = values["x"] or "step", values["y"] or "loss"
        out = Path(values["out"] or f"compare-{y}.png")
        figure = draw_runs(runs, out, x, y, values["smooth"])
    print("\n".join(aligned(_cells(table(runs)))))
    print(f"\nfigure: {figure}")
    return 0


def table(runs: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Return what is to be known of each run, None where it has none of it.

    Returns:
        For each run `run` (its name), `steps`, `loss` (the last), `val_loss` (the lowest) and
        `at_step`, `tokens_per_second` (median), `skipped` and `spikes`.

    Raises:
        UserError: if a folder is no run.
    """
    from gpt2lib.runs.plots import labels, points, read_metrics

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


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Put cells into columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join(cells))
    return lines


def doctor(argv: list[str]) -> int:
    """Run `gpt2lib doctor [--json]`: check this machine, and say how long runs take on it."""
    parser = Parser(
        "doctor",
        "[--json]",
        "Check what gpt2lib needs on this machine, time it for five seconds, and say how long "
        "presets and notebooks will take. The exit code is 1 if there is a problem.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument("--runs", default="runs", help="where runs are kept")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps, or auto: what is timed")
    values = parser.read(argv)
    set_up_logging()
    from gpt2lib.cli import doctor as checks
    from gpt2lib.cli import forecast
    from gpt2lib.training.hardware import prepare_process

    prepare_process()
    findings = checks.examine(values["runs"])
    test = forecast.speed_test(values["device"])
    on_cpu = test if test["device"] == "cpu" else forecast.speed_test("cpu")
    presets, notebooks = forecast.preset_minutes(test), forecast.notebook_minutes(on_cpu)
    problems = sum(finding.status == "problem" for finding in findings)
    if values["json"]:
        found = [finding._asdict() for finding in findings]
        minutes = {"presets": presets, "notebooks": notebooks}
        print_json({"checks": found, "speed": test, "minutes": minutes, "problems": problems})
        return min(problems, 1)
    print_table({f"{f.status:<8} {f.name}": _said(f.said, f.advice) for f in findings})
    print("\n" + "\n".join(_speed_lines(test)))
    print("\nMinutes of training on this machine, evaluations and samples on top:")
    print_table({f"  {name}": duration(minutes) for name, minutes in presets.items()})
    print("\nTime to run a notebook in full mode:")
    print_table({f"  {number}": duration(minutes) for number, minutes in notebooks.items()})
    print(f"\n{problems} problem{'s' * (problems != 1)}")
    return min(problems, 1)


def _said(said: str, advice: str) -> str:
    return f"{said} → {advice}" if advice else said


def _speed_lines(test: Mapping[str, Any]) -> list[str]:
    """Say what the speed test found."""
    flops = [
        f"{value / 1e9:,.0f} GFLOP/s in {name}" if value else f"peak in {name} unknown"
        for name, value in test["flops"].items()
    ]
    speeds = test["tokens_per_second"]
    return [
        f"matrix products on {test['device']}: {', '.join(flops)}",
        f"training: {speeds['narrow']:,.0f} tokens/s (shape of smoke), "
        f"{speeds['wide']:,.0f} tokens/s (the wide model, in {test['precision']})",
    ]


def duration(minutes: float) -> str:
    """Write a time in the unit that suits it, no more exactly than it is known."""
    for unit, size in (("years", 525_960), ("days", 1440), ("hours", 60), ("minutes", 1)):
        if minutes >= 1.5 * size:
            count = minutes / size
            return f"{count:,.0f} {unit}" if count >= 10 else f"{count:.2g} {unit}"
    seconds = max(1, round(minutes * 60))
    return f"{seconds} second{'s' * (seconds != 1)}"
