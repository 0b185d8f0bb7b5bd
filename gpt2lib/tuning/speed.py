"""How fast a shape trains on this machine: seconds of a budget become steps by it."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import statistics
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpt2lib.config import OptimConfig, TrainConfig
from gpt2lib.training.loop import train
from gpt2lib.utils.files import file_lock
from gpt2lib.utils.formats import read_json, write_json

WARM_UP, SECONDS, UPDATES = 2, 3.0, 5
"""Updates that a measurement leaves out, and what it needs at least of the others."""


class _Measured(Exception):
    """There are updates enough."""


def speed_of(config: TrainConfig, known: Path, probe: Path, alive: Callable[[], None]) -> float:
    """Return the tokens a second of a run, from the file of `known` speeds if it has its shape.

    Otherwise a few updates are measured in the folder `probe`, which is deleted afterwards.
    """
    shape = config.replace(
        steps=1, seed=0, optim=OptimConfig(name=config.optim.name), eval_batches=1
    ).to_dict()
    shape["model"]["dropout"] = config.model.dropout > 0
    key = hashlib.sha256(json.dumps([platform.node(), shape]).encode()).hexdigest()[:16]
    with file_lock(known.with_name(f"{known.name}.lock")):  # a second worker takes it over
        speeds = read_json(known) if known.exists() else {}
        if key not in speeds:
            shutil.rmtree(probe, ignore_errors=True)
            speeds[key] = measure_speed(config, probe, alive)
            shutil.rmtree(probe, ignore_errors=True)
            write_json(known, speeds)
    return float(speeds[key])


def measure_speed(config: TrainConfig, run: Path, alive: Callable[[], None]) -> float:
    """Return the median of the tokens a second, from a few updates of a run."""
    lines: list[dict[str, Any]] = []

    def watch(line: dict[str, Any]) -> None:
        alive()
        if "tokens_per_second" in line:
            lines.append(line)
        seconds = [line["seconds"] for line in lines[WARM_UP:]]
        if len(seconds) >= UPDATES and seconds[-1] - seconds[0] >= SECONDS:
            raise _Measured

    endless = config.replace(steps=10**9, eval_every=10**9, save_every=10**9)
    with suppress(_Measured):
        train(endless.replace(eval_batches=1), run, watch=watch)
    return statistics.median(float(line["tokens_per_second"]) for line in lines[WARM_UP:])
