"""The workers of a study on this machine, and how far they are."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2lib.config import load_config
from gpt2lib.tuning.checks import check
from gpt2lib.tuning.config import StudyConfig
from gpt2lib.tuning.results import UNIT, best_trials, winner
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import write_text, writing
from gpt2lib.utils.progress import progress_bar

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

logger = logging.getLogger(__name__)

POLL = 0.5
"""Seconds between two looks at the workers and the trials."""

STARTS = 3
"""Times that each worker may die before the study has finished another trial."""


def open_folder(config: StudyConfig, folder: Path, new: bool = True) -> Study:
    """Check a study, write it into its folder, and open it; make it if it may be `new`.

    Raises:
        UserError: if the study cannot give anything, the folder or storage holds another one, or
            Optuna is missing.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError('gpt2lib tune needs Optuna: pip install "optuna>=5,<6"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    import yaml

    from gpt2lib.tuning.storage import make_storage, open_study

    base = load_config(config.base)
    check(config, base)
    known = folder / "study.yaml"
    if folder.exists() and not known.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} exists and is not a study; choose another --out")
    if not new and not known.exists():
        raise UserError(f"{folder} holds no study yet; run it first, without --report and --preset")
    with writing(f"to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    study = open_study(config, base, make_storage(config.storage, folder), new)
    if new:  # what the workers are to do
        write_text(known, yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True))
    return study


def tune(config: StudyConfig, folder: str | Path) -> Study:
    """Run a study, or go on with it, in worker processes; return it with all its trials.

    Raises:
        UserError: for a study that cannot give anything, or what ended a worker.
        KeyboardInterrupt: after the workers have written their checkpoints.
    """
    folder = Path(folder)
    study = open_folder(config, folder)
    ended = n_ended(study.get_trials(deepcopy=False))
    total = config.trials + config.confirm
    with progress_bar(total, "trial", initial=ended) as bar, Pool(config, folder) as pool:
        running = True
        while running:
            time.sleep(POLL)
            running = pool.look_after(ended)  # first: what they ended with is counted below
            trials = study.get_trials(deepcopy=False)
            if n_ended(trials) > ended:
                if best_trials(trials):
                    best = winner(trials)
                    said = f"best {best.value:.4f} {UNIT} (trial {best.number})"
                    bar.set_postfix_str(said, refresh=False)
                bar.update(n_ended(trials) - ended)
                ended = n_ended(trials)
    return study


def n_ended(trials: Sequence[FrozenTrial]) -> int:
    """Return how many trials are over; those whose values do not go together do not count."""
    return sum(t.state.is_finished() and "invalid" not in t.user_attrs for t in trials)


class Pool:
    """Worker processes, in sessions of their own: this process alone tells them to stop."""

    def __init__(self, config: StudyConfig, folder: Path) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        threads = config.threads or max(1, (cores or 1) // config.workers)
        named = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")}
        self.environment = {**os.environ, **named, "TQDM_MININTERVAL": "60"}
        self.folder, self.n = folder, config.workers
        self.processes: list[subprocess.Popen[bytes]] = []
        self.deaths = self.ended = 0

    def __enter__(self) -> Pool:
        (self.folder / "workers").mkdir(exist_ok=True)
        self.processes = [self.start(number) for number in range(self.n)]
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            with contextlib.suppress(OSError):
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait()

    def log(self, number: int) -> Path:
        """Return the file that holds what a worker says."""
        return self.folder / "workers" / f"{number}.log"

    def start(self, number: int) -> subprocess.Popen[bytes]:
        """Start a worker."""
        module = [sys.executable, "-m", "gpt2lib.tuning.worker", str(self.folder), str(os.getpid())]
        with self.log(number).open("ab") as log:
            return subprocess.Popen(
                module,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    def look_after(self, ended: int) -> bool:
        """Start a worker that was killed again; return whether any still has something to do.

        Raises:
            UserError: with the last line of a worker that cannot go on.
        """
        if ended != self.ended:
            self.ended, self.deaths = ended, 0
        for number, process in enumerate(self.processes):
            code = process.poll()
            if code is None or code == 0:
                continue
            self.deaths += 1
            lines = self.log(number).read_text("utf-8", "replace").strip().splitlines()
            said = lines[-1].removeprefix("gpt2lib: ") if lines else f"it ended with {code}"
            if code == 2:
                raise UserError(said)
            if self.deaths >= STARTS * self.n:
                raise UserError(f"a worker ended {STARTS} times: {said}")
            logger.warning("worker %d ended with %d; its trial goes on in a new one", number, code)
            self.processes[number] = self.start(number)
        return any(process.poll() != 0 for process in self.processes)
