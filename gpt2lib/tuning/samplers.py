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

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import BaseSampler, GPSampler, GridSampler, RandomSampler, TPESampler
from optuna.trial import Trial

from gpt2lib.tuning.config import Pruning, StudyConfig
from gpt2lib.tuning.space import grid


class _Grid(GridSampler):
    """A grid that does not stop Optuna's own loop, which is not the one that runs."""

    def after_trial(self, *trial: Any) -> None:
        """Do nothing."""


def make_sampler(config: StudyConfig, *drawn: Any) -> BaseSampler:
    """Return a sampler whose seed is a function of the study's and of what is `drawn` with it."""
    if config.sampler == "grid":  # the seed shuffles the grid, so it is one for all trials
        return _Grid(grid(config), seed=config.seed)
    digest = hashlib.sha256(json.dumps([config.seed, *drawn]).encode()).digest()
    kinds: dict[str, Callable[..., BaseSampler]] = {
        "tpe": TPESampler,
        "gp": GPSampler,
        "random": RandomSampler,
    }
    return kinds[config.sampler](seed=int.from_bytes(digest[:4], "big"))


def draw(trial: Trial, config: StudyConfig, space: Mapping[str, BaseDistribution]) -> None:
    """Draw the parameters that a trial does not have yet: a kill may have come between two."""
    trial.study.sampler = make_sampler(config, trial.number)
    _ = trial.relative_params  # those that a sampler draws together, it draws when asked for one
    for name, of in space.items():
        trial.study.sampler = make_sampler(config, trial.number, name)
        if isinstance(of, CategoricalDistribution):
            trial.suggest_categorical(name, of.choices)
        elif isinstance(of, IntDistribution):
            trial.suggest_int(name, of.low, of.high, step=of.step, log=of.log)
        elif isinstance(of, FloatDistribution):
            trial.suggest_float(name, of.low, of.high, step=of.step, log=of.log)


def make_pruner(pruning: Pruning) -> BasePruner:
    """Return the pruner; it counts in parts of the run, so that batch sizes compare."""
    match pruning.name:
        case "median":
            return MedianPruner(pruning.startup)
        case "halving":
            return SuccessiveHalvingPruner(min_resource=1)
        case "hyperband":
            return HyperbandPruner(min_resource=1, max_resource=pruning.checks)
    return NopPruner()
