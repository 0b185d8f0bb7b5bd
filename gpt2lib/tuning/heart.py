"""Signs of life in a database that machines share: there is no lock that all of them see."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from optuna.storages import BaseStorage, RDBStorage, fail_stale_trials
from optuna.study import Study
from optuna.trial import Trial, TrialState

from gpt2lib.tuning.storage import GRACE, HEARTBEAT


def heart(storage: BaseStorage) -> RDBStorage | None:
    """Return the storage if it is a database with heartbeats, that machines may share."""
    if isinstance(storage, RDBStorage) and storage.get_heartbeat_interval() is not None:
        return storage
    return None


@contextmanager
def heartbeat(storage: BaseStorage, trial: Trial) -> Iterator[None]:
    """Give signs of life of a trial while the block runs, where the storage keeps them."""
    shared, over = heart(storage), threading.Event()
    if shared is None:
        yield
        return

    def beat() -> None:
        while not over.wait(HEARTBEAT):
            shared.record_heartbeat(trial._trial_id)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def fail_lost(study: Study) -> None:
    """Queue the trials anew whose heartbeat ended, and drop those that never had one."""
    fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        begun = trial.datetime_start.timestamp() if trial.datetime_start else time.time()
        if "folder" not in trial.user_attrs and time.time() - begun > GRACE:
            study.tell(trial.number, state=TrialState.FAIL)
