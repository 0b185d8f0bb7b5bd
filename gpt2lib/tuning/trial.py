"""One trial: the runs of its seeds, what is reported of them, and what becomes of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna import TrialPruned
from optuna.exceptions import OptunaError
from optuna.trial import Trial, TrialState

from gpt2lib.config import TrainConfig
from gpt2lib.data import Prepared, prepare
from gpt2lib.hub import tokenizer_folder
from gpt2lib.runs.plots import read_metrics
from gpt2lib.training.loop import train
from gpt2lib.tuning.config import StudyConfig
from gpt2lib.tuning.results import CONFIRMS
from gpt2lib.tuning.space import Invalid, plan, settings
from gpt2lib.tuning.speed import speed_of
from gpt2lib.utils.errors import UserError

SAVES = 10
"""Checkpoints of a run: what a kill costs at most is a tenth of it."""


class TrialRun:
    """A trial that was drawn, and perhaps run in part.

    What `alive` raises, which is called at every line of a run, leaves the trial to go on later.
    """

    def __init__(
        self,
        study: StudyConfig,
        base: TrainConfig,
        trial: Trial,
        folder: Path,
        alive: Callable[[], None],
    ) -> None:
        self.study, self.base, self.trial, self.folder = study, base, trial, folder
        self.alive = alive
        self.confirms = CONFIRMS in trial.user_attrs
        self.judged = study.pruner != "none" and not self.confirms

    def run(self) -> None:
        """Run the trial to its end, or go on with it, and tell the study what came of it.

        Raises:
            UserError: if the disk refuses; the trial can go on later.
        """
        value, trial = None, self.trial
        try:
            value = statistics.fmean(self._run_seeds(self._planned()))
            state = TrialState.COMPLETE
        except TrialPruned:
            state = TrialState.PRUNED
        except Invalid as error:  # pruned: samplers learn from that, and nothing from a failure
            trial.set_user_attr("invalid", True)
            trial.set_user_attr("reason", str(error))
            state = TrialState.PRUNED
        except (UserError, RuntimeError, MemoryError) as error:
            if isinstance(error.__cause__, OSError) or isinstance(error, OptunaError):
                raise
            trial.set_user_attr("reason", " ".join(str(error).split()) or type(error).__name__)
            state = TrialState.FAIL
        trial.study.tell(trial, value, state=state)

    def _planned(self) -> TrainConfig:
        """Return the trial's run; its steps are decided once and kept in the trial."""
        study, base, trial = self.study, self.base, self.trial
        if "steps" in trial.user_attrs:
            return settings(study, base, trial.params, trial.user_attrs["steps"])

        def speed(config: TrainConfig) -> float:
            known = self.folder.parent.parent / "speeds.json"
            found = speed_of(quiet(config, base), known, self.folder / "probe", self.alive)
            trial.set_user_attr("measured_tokens_per_second", round(found, 1))
            return found

        config = plan(study, base, trial.params, speed, lambda c: len(_prepared(c).train))
        trial.set_user_attr("steps", config.steps)
        return config

    def _run_seeds(self, config: TrainConfig) -> list[float]:
        """Train with each seed; return what each came to.

        Raises:
            TrialPruned: by what the first seed's run reported.
        """
        study, trial = self.study, self.trial
        on_val = self.judged and study.prune_on == "val"
        config = quiet(config, self.base, study.prune_checks if on_val else 1)
        first = self.base.seed + (study.seeds if self.confirms else 0)
        seeds = study.confirm_seeds if self.confirms else study.seeds
        values, seconds = [], 0.0
        for seed in range(first, first + seeds):
            result = self._run(config.replace(seed=seed), judged=self.judged and seed == first)
            if "loss" not in result:
                raise UserError("a study needs held-out text, and there is none")
            value = float(result["bits_per_byte"])
            values.append(value if math.isfinite(value) else math.inf)
            seconds += result.get("train_seconds", 0.0)
        trial.set_user_attr("values", values)
        trial.set_user_attr("train_seconds", round(seconds, 1))
        if not all(map(math.isfinite, values)):
            trial.set_user_attr("reason", "it diverged: loss or gradient is not finite")
            trial.set_user_attr("diverged", True)
        elif len(values) > 1:
            trial.set_user_attr("spread", statistics.stdev(values))
        return values

    def _run(self, config: TrainConfig, judged: bool) -> dict[str, Any]:
        """Train, or go on with a run; return its result, which is infinite if it diverged."""
        run = self.folder / f"seed-{config.seed}"

        def watch(line: dict[str, Any]) -> None:
            self.alive()
            if judged:
                self.judge(line, run, config.steps)

        try:
            return train(config, run, watch=watch)
        except UserError:
            if not _diverged(run, config):
                raise
            return {"loss": math.inf, "bits_per_byte": math.inf}

    def judge(self, line: dict[str, Any], run: Path, steps: int) -> None:
        """Report a run at the end of each part of it, and ask the pruner.

        Raises:
            TrialPruned: if the trial is to end.
        """
        every = max(1, steps // self.study.prune_checks)
        step, (part, beyond) = line["step"], divmod(line["step"], every)
        if part == 0 or beyond or step >= steps:
            return
        if self.study.prune_on == "val":
            value = line.get("val_bits_per_byte")
        else:
            metrics = read_metrics(run) if "loss" in line else []
            losses = [m["loss"] for m in metrics if "loss" in m and step - m["step"] < every]
            value = statistics.fmean(losses) if losses else None
        if value is None:
            return
        self.trial.report(value, part)  # Optuna keeps what was reported before a kill
        if self.trial.should_prune():
            raise TrialPruned


def quiet(config: TrainConfig, base: TrainConfig, checks: int = 1) -> TrainConfig:
    """Return a trial's run as a study has it, evaluated so often; its mathematics stay.

    The base says how much text an evaluation has, whatever the batch.
    """
    text = base.eval_batches * base.batch_size * base.model.block_size
    return config.replace(
        eval_every=max(1, config.steps // checks),
        eval_batches=max(1, round(text / config.batch_size / config.model.block_size)),
        save_every=max(1, config.steps // SAVES),
        keep=1,
        keep_best=False,
        sample_tokens=0,
        trackers=(),
    )


def _prepared(config: TrainConfig) -> Prepared:
    """Return the text of a run, as the run itself will have it."""
    data = config.data
    if config.init_from is not None and data.tokenizer == "auto":
        data = data.replace(tokenizer=str(tokenizer_folder(config.init_from)))
    return prepare(data)


def _diverged(run: Path, config: TrainConfig) -> bool:
    """Whether a run that was refused had too many updates in a row that could not be made."""
    if not (run / "metrics.jsonl").exists():
        return False
    lines = read_metrics(run)
    return bool(lines) and lines[-1].get("in_a_row", 0) > config.max_skipped
