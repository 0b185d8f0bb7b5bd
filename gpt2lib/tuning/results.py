"""What a study found: the best trials, the noise of a seed, and what mattered."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gpt2lib.config import TrainConfig
from gpt2lib.config.schema import with_changes
from gpt2lib.tuning.config import StudyConfig
from gpt2lib.tuning.space import FIELDS, at, settings
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import write_text

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

UNIT = "bits per byte"
"""What the value of a trial is measured in."""

CONFIRMS = "confirms"
"""Attribute of a trial that repeats another one with new seeds: that one's number."""

RESAMPLED = 200
"""Bootstrap samples of the trials that an interval comes from."""


def enough(config: StudyConfig, trials: Sequence[FrozenTrial]) -> bool:
    """Whether there are as many trials, running ones among them, as the study wants."""
    own = [t for t in trials if CONFIRMS not in t.user_attrs and "invalid" not in t.user_attrs]
    lost = [t for t in own if t.state.name == "FAIL" and "reason" not in t.user_attrs]
    return len(own) - len(lost) >= config.trials


def best_trials(trials: Sequence[FrozenTrial], confirmed: bool = False) -> list[FrozenTrial]:
    """Return the complete trials with a finite value, the best first.

    Those are meant that chose, or, if `confirmed`, those that repeat others with new seeds.
    """
    found = [
        trial
        for trial in trials
        if trial.state.name == "COMPLETE"
        and math.isfinite(value_of(trial))
        and (CONFIRMS in trial.user_attrs) == confirmed
    ]
    return sorted(found, key=lambda trial: (value_of(trial), trial.number))


def value_of(trial: FrozenTrial) -> float:
    """Return the value of a complete trial."""
    assert trial.value is not None
    return trial.value


def winner(trials: Sequence[FrozenTrial]) -> FrozenTrial:
    """Return the best trial: of those that were repeated with new seeds, if any were.

    Raises:
        UserError: if there is none.
    """
    found = best_trials(trials, confirmed=True) or best_trials(trials)
    if not found:
        raise UserError("the study has no trial yet that was trained to its end")
    return found[0]


class Noise(NamedTuple):
    """The standard deviation between seeds, from the runs of so many trials that have several."""

    deviation: float
    trials: int
    runs: int


def noise(trials: Sequence[FrozenTrial]) -> Noise | None:
    """Return the pooled standard deviation between seeds; None if no trial has two."""
    values = [t.user_attrs.get("values", []) for t in trials if t.state.name == "COMPLETE"]
    several = [v for v in values if len(v) > 1 and all(map(math.isfinite, v))]
    if not several:
        return None
    runs = sum(map(len, several))
    squares = sum(statistics.variance(v) * (len(v) - 1) for v in several)
    return Noise(math.sqrt(squares / (runs - len(several))), len(several), runs)


class Importance(NamedTuple):
    """How much a parameter decides whether a trial is among the best, as a share of 1."""

    name: str
    value: float
    low: float
    high: float


def importances(trials: Sequence[FrozenTrial], seed: int = 0) -> list[Importance]:
    """Return PED-ANOVA's importance of each parameter, with the middle 90 % of a bootstrap.

    The bootstrap draws trials with replacement: what a second study of that size might say.

    Args:
        trials: complete ones, of one study.
        seed: of the bootstrap.

    Raises:
        UserError: if there are fewer than ten trials to judge by.

    Reference: Watanabe et al. 2023, PED-ANOVA.
    """
    import numpy as np
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    if len(trials) < 10:
        raise UserError(f"importance needs at least 10 complete trials; there are {len(trials)}")
    share = max(0.1, 5 / len(trials))  # of fewer than five good ones it could say little

    def judge(of: Sequence[FrozenTrial]) -> dict[str, float]:
        evaluator = PedAnovaImportanceEvaluator(target_quantile=share)
        return get_param_importances(in_memory(of), evaluator=evaluator)

    picks = np.random.default_rng(seed).integers(len(trials), size=(RESAMPLED, len(trials)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that two quantiles of a sample may coincide
        whole = judge(trials)
        samples = [judge([trials[i] for i in pick]) for pick in picks]
    found = []
    for name, value in whole.items():
        low, high = np.quantile([sample[name] for sample in samples], (0.05, 0.95))
        found.append(Importance(name, value, float(low), float(high)))
    return found


def in_memory(trials: Sequence[FrozenTrial]) -> Study:
    """Return a study of nothing but these trials, for what Optuna does with a whole study."""
    import optuna

    study = optuna.create_study()
    study.add_trials(trials)
    return study


def write_preset(path: Path, study: StudyConfig, base: TrainConfig, trial: FrozenTrial) -> None:
    """Write a trial as a YAML file that `gpt2lib train` takes: what differs from the defaults.

    The run is evaluated and saved as often in its course as the base.

    Raises:
        UserError: if there is such a file, or the disk refuses.
    """
    import yaml

    if path.exists():
        raise UserError(f"{path} exists; choose another name for the preset")
    config = settings(study, base, trial.params, trial.user_attrs["steps"])
    scale = config.steps / base.steps
    often = {n: max(1, round(getattr(base, n) * scale)) for n in ("eval_every", "save_every")}
    values, defaults = config.replace(**often).to_dict(), TrainConfig().to_dict()
    changed = {n: at(values, n) for n in FIELDS if at(values, n) != at(defaults, n)}
    spread, n_seeds = trial.user_attrs.get("spread"), len(trial.user_attrs["values"])
    said = f"{trial.value:.4f}" + (f" ± {spread:.4f}" if spread is not None else "")
    header = f"# Trial {trial.number} of the study {study.name!r}: {said} {UNIT}, "
    header += f"{n_seeds} seed{'s' * (n_seeds != 1)}.\n"
    write_text(path, header + yaml.safe_dump(with_changes({}, changed), sort_keys=False))
