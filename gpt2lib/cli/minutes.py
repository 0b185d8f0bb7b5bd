"""A training that ends in so many minutes, and one on a machine that others use too."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from gpt2lib.config import TrainConfig
from gpt2lib.config.schema import flat, with_changes
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.process import rank, world_size

logger = logging.getLogger(__name__)

CHOSEN = ("steps", "eval_every", "save_every", "optim.warmup_steps")
"""Fields that follow from the minutes, in proportion to the steps of the preset."""
PASSES = 3
"""Of the model, in an update: a forward one, and a backward one that is as much as two."""
BUSY = 30
"""Percent of the cores that other programs use, above which threads had better not spin."""


def spare_a_busy_machine(config: TrainConfig) -> None:
    """Let threads sleep while they wait, where other programs use the cores.

    By default OpenMP's threads wait for one another in a loop. Where another program has taken
    the core of one of them, that loop takes the rest: on two cores with one busy program `smoke`
    took 181 s, 44 s with threads that sleep, and 41 s with one thread. The library reads the
    policy when it is loaded, with PyTorch, so this comes first.
    """
    named = {"OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT"} & os.environ.keys()
    if named or "torch" in sys.modules or config.device not in ("auto", "cpu") or world_size() > 1:
        return
    import psutil

    busy = psutil.cpu_percent(0.2)
    if busy > BUSY:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        logger.info(
            "other programs use %.0f %% of the cores: threads sleep while they wait "
            "(OMP_WAIT_POLICY=PASSIVE), and all takes longer than on a calm machine",
            busy,
        )


def for_minutes(
    config: TrainConfig,
    minutes: float,
    given: Collection[str],
    folder: Path,
    measure: Callable[[TrainConfig], float],
    before: str = "the preset has",
) -> TrainConfig:
    """Choose the steps of a run so that it ends in about so many minutes.

    What is counted are the updates and the evaluations on the way; preparing the text comes before
    them, and the evaluation of all held-out text after. A run that is there already keeps its
    steps.

    Args:
        config: the run, without what is chosen here.
        minutes: how long it may take.
        given: the fields that were named on the command line; these stay.
        folder: where the run lies or will lie.
        measure: returns the seconds of an update.
        before: what is said of the steps that the run would have had.

    Raises:
        UserError: if the steps were given as well, or not one step fits.
    """
    if "steps" in given:
        raise UserError("--minutes chooses the steps; give --minutes or --steps, not both")
    if not minutes > 0:
        raise UserError(f"--minutes must be above 0, not {minutes:g}")
    if world_size() > 1:
        raise UserError("--minutes measures one process and cannot speak for several; give --steps")
    if (folder / "requested.yaml").is_file():
        from gpt2lib.runs.resume import settings

        earlier = flat(TrainConfig.from_dict(settings(folder / "requested.yaml")).to_dict())
        return _changed(config, {n: earlier[n] for n in CHOSEN if n not in given})
    seconds = measure(config)
    room, evaluation = minutes * 60 / seconds, config.eval_batches / PASSES  # in updates
    # As many evaluations as the preset has, but no more than fit into a quarter of the time.
    wanted = min(config.steps / config.eval_every, room / (4 * evaluation))
    spent = wanted * evaluation
    if "eval_every" in given:
        spent = room * evaluation / (config.eval_every + evaluation)
    steps = int(room - spent)
    if steps < 1:
        raise UserError(
            f"an update takes {seconds:.3g} seconds here, and {minutes:g} minutes have no room "
            "for one; give more, or a smaller model"
        )
    values, scale = flat(config.to_dict()), steps / config.steps
    changes = {n: max(int(values[n] > 0), round(values[n] * scale)) for n in CHOSEN}
    changes |= {"steps": steps, "eval_every": max(1, round(steps / wanted))}
    changes = {n: value for n, value in changes.items() if n not in given}
    if rank() == 0:
        tokens = steps * config.batch_size * config.model.block_size
        logger.info(
            "an update takes %.3g seconds here: %d steps (%s %d), %s tokens, in about "
            "%g minutes, if the machine stays as busy as it is",
            *(seconds, steps, before, config.steps, f"{tokens:,}", minutes),
        )
    return _changed(config, changes)


def update_seconds(config: TrainConfig, wait: float = 3.0) -> float:
    """Train such a model on random tokens for `wait` seconds; return the seconds of an update."""
    from gpt2lib.cli.forecast import update_seconds as timed
    from gpt2lib.training.costs import resolved_model
    from gpt2lib.training.hardware import resolve_device

    model = resolved_model(config)
    size = config.micro_batch if isinstance(config.micro_batch, int) else config.batch_size
    device = resolve_device(config.device)
    if config.precision != "auto":
        names = [config.precision]
    else:
        names = ["fp32", "bf16"] if device == "cpu" else ["bf16"]
    what = config.optim, config.method
    each = [timed(model, size, name, device, wait / len(names), *what) for name in names]
    return min(each) * config.batch_size / size


def _changed(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    return TrainConfig.from_dict(with_changes(config.to_dict(), changes))
