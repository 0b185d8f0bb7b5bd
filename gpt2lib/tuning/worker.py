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

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage, fail_stale_trials
from optuna.storages._heartbeat import get_heartbeat_thread
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from gpt2lib.config import load_config
from gpt2lib.training.guard import Interrupted
from gpt2lib.training.hardware import prepare_process
from gpt2lib.tuning.config import load_study
from gpt2lib.tuning.results import CONFIRMS, best_trials, enough
from gpt2lib.tuning.samplers import draw
from gpt2lib.tuning.space import distributions
from gpt2lib.tuning.storage import GRACE, make_storage, open_study
from gpt2lib.tuning.trial import TrialRun
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import file_lock

logger = logging.getLogger(__name__)

FAILURES, INVALID = 3, 200
"""Trials in a row that failed, or whose values do not go together, after which a study stops."""


Claim = tuple[Trial, Path, FileLock]
"""A trial that this process runs, its folder, and the lock that says so."""


class Worker:
    """One worker of the study in a folder; it ends when the process that started it is gone."""

    def __init__(self, folder: Path, parent: int) -> None:
        self.folder, self.parent = folder, parent
        self.config = load_study(folder / "study.yaml")
        self.base = load_config(self.config.base)
        self.storage = make_storage(self.config.storage, folder)
        self.study = open_study(self.config, self.base, self.storage)
        self.shared = heart(self.storage)
        self.drawn = distributions(self.config)

    def work(self) -> None:
        """Run trials until the study has enough.

        Raises:
            UserError: if no trial can be run, or the disk refuses.
            Interrupted: if the process was asked to stop; its trial goes on later.
        """
        for known in self.study.get_trials(deepcopy=False):  # who was killed cleared nothing
            place = self.folder / "trials" / _folder(known)
            if known.state.is_finished() and place.exists() and (lock := _locked(place)):
                _clear(place)
                lock.release()
        while (found := self.claim()) is not None:
            self.alive()
            if isinstance(found, float):
                time.sleep(found)
                continue
            trial, place, lock = found
            try:
                self.run(trial, place)
            finally:
                lock.release()

    def run(self, trial: Trial, place: Path) -> None:
        """Run one trial, and clear away what only a trial in progress needs."""
        try:
            with get_heartbeat_thread(trial._trial_id, self.storage):
                TrialRun(self.config, self.base, trial, place, self.alive).run()
        except UpdateFinishedTrialError:
            logger.warning("trial %d was taken for dead, and is run elsewhere", trial.number)
            return
        _clear(place)
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
            if self.shared is not None:
                _fail_lost(self.study)
            for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if (found := self._adopt(frozen)) is not None:
                    return found
            trials = self.study.get_trials(deepcopy=False)
            waiting = any(t.state == TrialState.WAITING for t in trials)
            if not waiting and enough(self.config, trials):
                running = (t for t in trials if t.state == TrialState.RUNNING)
                if self.config.confirm and any(CONFIRMS not in t.user_attrs for t in running):
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
        if self.shared is not None:
            self.shared.record_heartbeat(trial._trial_id)
        trial.set_user_attr("folder", name)
        return trial, self.folder / "trials" / name, lock

    def _adopt(self, frozen: FrozenTrial) -> Claim | None:
        """Take over a running trial if who ran it is gone."""
        name = _folder(frozen)
        place = self.folder / "trials" / name
        here = place.exists() and frozen.user_attrs.get("machine") == platform.node()
        if self.shared is not None and not here:
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
        best = best_trials(trials)[: self.config.confirm]
        missing = [trial for trial in best if trial.number not in repeated]
        for trial in missing:
            self.study.enqueue_trial(trial.params, user_attrs={CONFIRMS: trial.number})
        return bool(missing)


def heart(storage: BaseStorage) -> RDBStorage | None:
    """Return the storage if it is a database that machines share: no lock is seen by all of them.

    There, Optuna's own thread gives signs of life of a trial.
    """
    if isinstance(storage, RDBStorage) and storage.get_heartbeat_interval() is not None:
        return storage
    return None


def _fail_lost(study: Study) -> None:
    """Queue the trials anew whose heartbeat ended, and drop those that never had one."""
    fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        begun = trial.datetime_start.timestamp() if trial.datetime_start else time.time()
        if "folder" not in trial.user_attrs and time.time() - begun > GRACE:
            study.tell(trial.number, state=TrialState.FAIL)


def _refuse_to_go_on_failing(study: Study) -> None:
    """Stop a study whose last trials all failed, or had values that do not go together."""
    ended = [t for t in study.get_trials(deepcopy=False) if "reason" in t.user_attrs or t.values]
    failed = [t.state == TrialState.FAIL for t in ended]
    invalid = ["invalid" in t.user_attrs for t in ended]
    for n, bad in ((FAILURES, failed), (INVALID, invalid)):
        if len(ended) >= n and all(bad[-n:]):
            reason = ended[-1].user_attrs["reason"]
            raise UserError(f"{n} trials in a row could not be run; the last: {reason}")


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
