"""A worker: takes one trial after the other until the study has enough.

`python -m gpt2lib.tuning.worker FOLDER PARENT` is one, for the study written down in FOLDER.

A trial belongs to the process that holds the lock of its folder. A lock ends with its process, so
a trial that is marked as running and whose lock is free was killed: the next worker goes on with
it, in place, from its parameters and its runs' checkpoints. In a database that machines share,
trials of a machine that is gone are found by Optuna's heartbeat, and queued anew.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from gpt2lib.config import load_config
from gpt2lib.training.guard import Interrupted
from gpt2lib.training.hardware import prepare_process
from gpt2lib.tuning.config import load_study
from gpt2lib.tuning.heart import fail_lost, heart, heartbeat
from gpt2lib.tuning.results import CONFIRMS, best_trials, enough
from gpt2lib.tuning.samplers import draw
from gpt2lib.tuning.space import distributions
from gpt2lib.tuning.storage import make_storage, open_study
from gpt2lib.tuning.trial import TrialRun
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import file_lock

logger = logging.getLogger(__name__)

FAILURES, INVALID = 3, 200
"""Trials in a row that failed, or whose values do not go together, after which a study stops."""


class Claim(NamedTuple):
    """A trial that this process runs, its folder, and the lock that says so."""

    trial: Trial
    folder: Path
    lock: FileLock


class Worker:
    """One worker of a study.

    Args:
        folder: of the study; `study.yaml` in it says what to do.
        parent: the process that started this one; when it is gone, this one ends, too.

    Raises:
        UserError: if the study cannot be opened.
    """

    def __init__(self, folder: Path, parent: int) -> None:
        self.folder, self.parent = folder, parent
        self.config = load_study(folder / "study.yaml")
        self.base = load_config(self.config.base)
        self.storage = make_storage(self.config.storage, folder)
        self.study = open_study(self.config, self.base, self.storage)
        self.drawn = distributions(self.config)

    def work(self) -> None:
        """Run trials until the study has enough.

        Raises:
            UserError: if no trial can be run, or the disk refuses.
            Interrupted: if the process was asked to stop; its trial goes on later.
        """
        for trial in self.study.get_trials(deepcopy=False):  # who was killed cleared nothing
            place = self.folder / "trials" / _folder(trial)
            if trial.state.is_finished() and place.exists() and (lock := _locked(place)):
                _clear(place)
                lock.release()
        while (found := self.claim()) is not None:
            self.alive()
            if isinstance(found, Claim):
                try:
                    self.run(found)
                finally:
                    found.lock.release()
            else:
                time.sleep(found)

    def run(self, claim: Claim) -> None:
        """Run one trial, and clear away what only a trial in progress needs."""
        trial = TrialRun(self.config, self.base, claim.trial, claim.folder, self.alive)
        try:
            with heartbeat(self.storage, claim.trial):
                trial.run()
        except UpdateFinishedTrialError:
            logger.warning("trial %d was taken for dead, and is run elsewhere", claim.trial.number)
            return
        _clear(claim.folder)
        _refuse_to_go_on_failing(self.study)

    def alive(self) -> None:
        """End this worker if who started it is gone; its trial goes on later.

        Raises:
            SystemExit: then.
        """
        if os.getppid() != self.parent:
            sys.exit("gpt2lib: the command that started this worker is gone")

    def claim(self) -> Claim | float | None:
        """Return a trial to run, seconds to wait for the others, or None if there is enough."""
        with file_lock(self.folder / ".claim.lock"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna's: a heartbeat outside of its own loop
            if heart(self.storage):
                fail_lost(self.study)
            for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if (found := self._adopt(frozen)) is not None:
                    return found
            trials = self.study.get_trials(deepcopy=False)
            waiting = any(t.state == TrialState.WAITING for t in trials)
            if not waiting and enough(self.config, trials):
                if self.config.confirm.best and any(map(_chooses, trials)):
                    return 1.0  # it may be one of the best
                if not self._queue_confirmations(trials):
                    return None
            trial = self.study.ask()
            for name in (trial.user_attrs.get("folder"), f"{trial.number:04d}"):
                if name and (lock := _locked(self.folder / "trials" / name)) is not None:
                    return self._mine(trial, name, lock)
        raise UserError(
            f"{self.folder / 'trials'} is in use by another study; choose another --out"
        )

    def _mine(self, trial: Trial, name: str, lock: FileLock) -> Claim:
        """Draw what is not drawn yet, and write down where the trial is run."""
        draw(trial, self.config, self.drawn)
        trial.set_user_attr("machine", platform.node())
        if (storage := heart(self.storage)) is not None:
            storage.record_heartbeat(trial._trial_id)
        trial.set_user_attr("folder", name)
        return Claim(trial, self.folder / "trials" / name, lock)

    def _adopt(self, frozen: FrozenTrial) -> Claim | None:
        """Take over a running trial if who ran it is gone."""
        name = _folder(frozen)
        place = self.folder / "trials" / name
        here = place.exists() and frozen.user_attrs.get("machine") == platform.node()
        if heart(self.storage) is not None and not here:
            return None
        lock = _locked(place)
        if lock is None:
            return None
        if self.study.get_trials(deepcopy=False)[frozen.number].state != TrialState.RUNNING:
            lock.release()  # it ended in between
            return None
        logger.info("trial %d goes on", frozen.number)
        # What `ask` returns for a new one; Optuna has no name for "the same again".
        return self._mine(Trial(self.study, frozen._trial_id), name, lock)

    def _queue_confirmations(self, trials: list[FrozenTrial]) -> bool:
        """Queue the best trials that are not repeated yet; return whether there were any."""
        repeated = {t.user_attrs.get(CONFIRMS) for t in trials}
        best = best_trials(trials)[: self.config.confirm.best]
        missing = [trial for trial in best if trial.number not in repeated]
        for trial in missing:
            self.study.enqueue_trial(trial.params, user_attrs={CONFIRMS: trial.number})
        return bool(missing)


def _refuse_to_go_on_failing(study: Study) -> None:
    """Stop a study whose last trials all failed, or had values that do not go together."""
    ended = [t for t in study.get_trials(deepcopy=False) if "reason" in t.user_attrs or t.values]
    for n, bad in ((FAILURES, _failed), (INVALID, lambda t: "invalid" in t.user_attrs)):
        if len(ended) >= n and all(bad(trial) for trial in ended[-n:]):
            reason = ended[-1].user_attrs["reason"]
            raise UserError(f"{n} trials in a row could not be run; the last: {reason}")


def _failed(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and "reason" in trial.user_attrs


def _chooses(trial: FrozenTrial) -> bool:
    """Whether a trial is running that may turn out to be one of the best."""
    return trial.state == TrialState.RUNNING and CONFIRMS not in trial.user_attrs


def _folder(trial: FrozenTrial) -> str:
    """Return the name of a trial's folder; a trial that was queued anew has that of the first."""
    return str(trial.user_attrs.get("folder", f"{trial.number:04d}"))


def _clear(place: Path) -> None:
    """Delete the checkpoints of a trial that is over: nothing goes on from them any more."""
    for run in place.glob("seed-*"):
        shutil.rmtree(run / "checkpoints", ignore_errors=True)


def _locked(place: Path) -> FileLock | None:
    """Return the lock of a trial's folder, or None if another process holds it."""
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def main(folder: str, parent: int) -> int:
    """Be a worker; bad input ends in one line and 2, a signal in 128 and its number."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", ExperimentalWarning)
    prepare_process()
    try:
        Worker(Path(folder), parent).work()
    except (UserError, OSError) as error:
        sys.stderr.write(f"gpt2lib: {' '.join(str(error).split())}\n")
        return 2
    except Interrupted as stop:
        return 128 + stop.signum
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
