"""`gpt2lib doctor`: what this machine lacks, and how long runs take on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpt2lib.cli.terminal import Options, print_json, print_table


@dataclass(frozen=True)
class Doctor(Options):
    """Check what gpt2lib needs on this machine, and time it for five seconds.

    It says how long presets and notebooks will take. The exit code is 1 if there is a problem.

    Attributes:
        json: print JSON and nothing else.
        runs: where runs are kept.
        device: what is timed: cpu, cuda, mps, or auto.
    """

    usage = "[--json]"

    json: bool = False
    runs: str = "runs"
    device: str = "auto"


def doctor(argv: list[str]) -> int:
    """Run `gpt2lib doctor [--json]`: check this machine, and say how long runs take on it."""
    options, _ = Doctor.read(argv)
    from gpt2lib.cli import checks, forecast
    from gpt2lib.training.hardware import prepare_process

    prepare_process()
    findings = checks.examine(options.runs)
    test = forecast.speed_test(options.device)
    on_cpu = test if test["device"] == "cpu" else forecast.speed_test("cpu")
    presets, notebooks = forecast.preset_minutes(test), forecast.notebook_minutes(on_cpu)
    problems = sum(finding.status == "problem" for finding in findings)
    if options.json:
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
