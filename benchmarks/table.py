"""From samples to tables: medians, ratios within a round, goals."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from workloads import Goal

Round = dict[str, dict[str, Any]]
"""What every worker of a group answered in one round, by name."""

OURS = "gpt2lib"


def seconds(answer: dict[str, Any]) -> float:
    """Return the median seconds of the updates in one turn."""
    return median(answer["seconds"])


def ratios(rounds: Sequence[Round], name: str) -> list[float]:
    """Return, for each round, how many times as fast as `name` ours was in that same round."""
    return [seconds(one[name]) / seconds(one[OURS]) for one in rounds if name in one]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Write a median with the smallest and the largest value: "2.10 (1.95 to 2.30)"."""
    middle, low, high = median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def summary(
    rounds: Sequence[Round],
    about: dict[str, dict[str, Any]],
    peaks: dict[str, float],
    tokens: int,
    flops: float,
) -> dict[str, dict[str, Any]]:
    """Sum up each worker.

    Args:
        rounds: the answers.
        about: what each worker said of itself.
        peaks: FLOP/s of a product in fp32 and in bf16.
        tokens: in an update.
        flops: of one token in an update.

    Returns:
        By name, ours first: `ms`, `tokens_per_second`, `ratios`, `mfu`, `memory` (bytes), and
        `memory_share`, ours by its.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in about:
        turns = [one[name] for one in rounds if name in one]
        if not turns:
            continue
        took = median(seconds(turn) for turn in turns)
        speed = tokens / took
        found[name] = {
            "ms": 1000 * took,
            "tokens_per_second": speed,
            "ratios": ratios(rounds, name),
            "mfu": speed * flops / peaks["bf16" if about[name]["bf16"] else "fp32"],
            "memory": max(turn["peak"] for turn in turns),
            "precision": "bf16" if about[name]["bf16"] else "fp32",
            "parameters": about[name]["parameters"],
        }
    for row in found.values():
        row["memory_share"] = found[OURS]["memory"] / row["memory"]
    return found


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def training_table(found: dict[str, dict[str, Any]]) -> str:
    """Write the rows of one workload."""
    head = [
        "",
        "in",
        "ms",
        "tokens/s",
        "ours: times as fast",
        "MFU",
        "peak memory",
        "ours: share of it",
    ]
    rows = []
    for name, row in found.items():
        ours = name == OURS
        rows.append([
            name,
                row["precision"],
            f"{row['ms']:,.0f}" if row["ms"] >= 100 else f"{row['ms']:.1f}",
            f"{row['tokens_per_second']:,.0f}",
            "" if ours else spread(row["ratios"]),
            f"{100 * row['mfu']:.0f} %",
            f"{row['memory'] / 1e6:,.0f} MB",
            "" if ours else f"{row['memory_share']:.2f}",
        ])  # fmt: skip
    return markdown(head, rows)


def goal_row(goal: Goal, results: dict[str, dict[str, dict[str, Any]]]) -> list[str] | None:
    """Write how a goal came out, or nothing where it was not measured."""
    name = OURS if goal.peer == OURS else f"{goal.peer}, {goal.way}"
    row = results.get(goal.workload, {}).get(name)
    if row is None:
        return None
    value, said, now = {
        "speed": (median(row["ratios"]), "times as fast as", spread(row["ratios"])),
        "memory": (row["memory_share"], "of the memory of", f"{row['memory_share']:.2f}"),
        "mfu": (row["mfu"], "MFU of", f"{row['mfu']:.2f}"),
    }[goal.of]
    most = goal.of == "memory"
    good = value <= goal.value if most else value >= goal.value
    words = f"({goal.workload}) {'at most' if most else 'at least'} {goal.value:g} {said} {name}"
    return [words, now, "met" if good else "missed"]
