"""Optuna's samplers and pruners, as a study names them.

Optuna keeps trials, but not the random state of a sampler. So a sampler is made anew for every
draw, with a seed that is a function of the study's seed, the trial's number and the parameter:
with one worker, a study that was killed draws what it would have drawn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from optuna import pruners, samplers
from optuna.distributions import BaseDistribution
from optuna.trial import Trial

from gpt2lib.tuning.config import StudyConfig


def make_sampler(config: StudyConfig, *drawn: Any) -> samplers.BaseSampler:
    """Return a sampler whose seed is a function of the study's and of what is `drawn` with it."""
    digest = hashlib.sha256(json.dumps([config.seed, *drawn]).encode()).digest()
    kinds: dict[str, Callable[..., samplers.BaseSampler]] = {
        "tpe": samplers.TPESampler,
        "gp": samplers.GPSampler,
        "random": samplers.RandomSampler,
    }
    return kinds[config.sampler](seed=int.from_bytes(digest[:4], "big"))


def draw(trial: Trial, config: StudyConfig, space: Mapping[str, BaseDistribution]) -> None:
    """Draw the parameters that a trial does not have yet: a kill may have come between two."""
    trial.study.sampler = make_sampler(config, trial.number)
    _ = trial.relative_params  # those that a sampler draws together, it draws when asked for one
    for name, of in space.items():
        trial.study.sampler = make_sampler(config, trial.number, name)
        trial._suggest(name, of)  # what `Study.ask` does for a new trial


def make_pruner(config: StudyConfig) -> pruners.BasePruner:
    """Return the pruner; it counts in parts of the run, so that batch sizes compare."""
    match config.pruner:
        case "median":
            return pruners.MedianPruner(config.prune_after)
        case "halving":
            return pruners.SuccessiveHalvingPruner(min_resource=1)
        case "hyperband":
            return pruners.HyperbandPruner(min_resource=1, max_resource=config.prune_checks)
    return pruners.NopPruner()
