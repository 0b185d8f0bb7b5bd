"""Studies in real processes that are killed and gone on with, and what is compared at the end."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import kill_runs
import optuna
from kill_runs import RANDOM, SPENT, Ended, Kill, lines_of, without
from study_runs import study

from gpt2lib.config import load_config
from gpt2lib.tuning.pool import open_folder
from gpt2lib.tuning.storage import make_storage, open_study

HERE = Path(__file__).parent
TIMED = {"train_seconds", "tokens_per_second", "machine"}
"""Attributes of a trial that may differ between two studies of the same numbers."""


class Server(kill_runs.Server):
    """A warm process that forks workers; see `study_server`."""

    program = HERE / "study_server.py"

    def work(
        self, folder: Path, kill: Kill | None = None, workers: int = 1, counts: Path | None = None
    ) -> Ended:
        """Run workers of a study until they end; kill the first if asked to."""
        at_place = kill is not None and kill.place != RANDOM
        job = {
            "folder": str(folder),
            "ranks": workers,
            "place": kill.place if kill and at_place else None,
            "n": kill.n if kill and at_place else 0,
            "counts": str(counts or ""),
        }

        def shoot(pids: list[int]) -> None:
            if kill is not None and not at_place:
                time.sleep(kill.n / 1000)
                with suppress(ProcessLookupError):  # it has ended already
                    os.kill(pids[0], signal.SIGKILL)

        return self.send(job, shoot)


class Lab:
    """An uninterrupted study, and others that are killed, gone on with, and compared with it.

    Attributes:
        kills: each kill that happened.
        lost: trials that were finished before a kill, and were not, or were others, after it.
        broken: for each study that ended otherwise, what differs.
        resumed: trials that went on from a checkpoint of an earlier process.
    """

    def __init__(
        self,
        server: Server,
        folder: Path,
        storage: str = "sqlite",
        workers: int = 1,
        **changes: Any,
    ) -> None:
        self.server, self.folder, self.workers = server, folder, workers
        self.config = study(folder, storage=storage, **{**SETTINGS, **changes})
        self.kills: list[Kill] = []
        self.lost: list[str] = []
        self.broken: list[str] = []
        self.resumed = self.studies = 0
        self.counts: dict[str, int] = {}
        started = time.perf_counter()
        self.expected = self._whole("whole")
        started = time.perf_counter()
        assert self._whole("again") == self.expected, "two studies without kills differ"
        self.seconds = time.perf_counter() - started

    def _whole(self, name: str) -> list[Any]:
        """Run a study without kills, with one worker; return what it holds."""
        folder, counts = self.folder / name, self.folder / "counts.json"
        open_folder(self.config, folder)
        ended = self.server.work(folder, counts=counts)
        assert ended.codes == [0], _said(ended)
        self.counts = json.loads(counts.read_text(encoding="utf-8"))
        return self.digest(folder)

    def chain(self, kills: list[Kill]) -> bool:
        """Start a study, kill it in turn at each place, go on with it to its end, and compare."""
        self.studies += 1
        folder = self.folder / f"study-{self.studies}"
        open_folder(self.config, folder)
        happened: list[Kill] = []
        for kill in [*kills, None]:
            before = self.finished(folder)
            ended = self.server.work(folder, kill, self.workers)
            self.resumed += _said(ended).count("resumed from")
            after = self.finished(folder)
            gone = [number for number, facts in before.items() if after.get(number) != facts]
            if gone:
                self.lost.append(f"{folder.name}: trials {gone} after {kill}")
            if kill is not None and ended.killed:
                happened.append(kill)
                continue
            break
        self.kills += happened
        different = ""
        if set(ended.codes) != {0}:
            different = f"exit codes {ended.codes}: {_said(ended)[-300:]}"
        elif (found := self.digest(folder)) != self.expected:
            pairs = zip(found, self.expected, strict=False)
            first = next((p for p in pairs if p[0] != p[1]), (len(found), len(self.expected)))
            different = f"{first[0]} instead of {first[1]}"
        if different:
            self.broken.append(f"{folder.name}, {happened}: {different}")
        return not different

    def finished(self, folder: Path) -> dict[int, Any]:
        """Return what the storage holds of each trial that has ended."""
        base, storage = load_config(self.config.base), make_storage(self.config.storage, folder)
        trials = open_study(self.config, base, storage).get_trials(deepcopy=False)
        return {t.number: _facts(t) for t in trials if t.state.is_finished()}

    def digest(self, folder: Path) -> list[Any]:
        """Return everything that a study holds but times: trials, and the lines of every run."""
        found: list[Any] = [facts for _, facts in sorted(self.finished(folder).items())]
        for run in sorted((folder / "trials").glob("*/seed-*")):
            names = sorted(p.relative_to(run).as_posix() for p in run.rglob("*"))
            lines = lines_of(run / "metrics.jsonl")
            result = run / "result.json"
            if result.exists():
                end: Any = without(json.loads(result.read_text(encoding="utf-8")), SPENT)
            else:  # pruned: how far it came in the meantime is a matter of time
                end, lines, names = None, [], []
            found.append([f"{run.parent.name}/{run.name}", lines, end, names])
        return found

    def plan(self, n_kills: int, seed: int) -> list[list[Kill]]:
        """Draw about `n_kills` kills in chains of one to four; every third is at a random time."""
        draw = random.Random(seed)
        chains: list[list[Kill]] = []
        while (missing := n_kills - sum(map(len, chains))) > 0:
            chain = []
            for i in range(min(missing, draw.choice((1, 2, 3, 4)))):
                if draw.random() < 0.34:
                    chain.append(Kill(RANDOM, draw.randrange(1, int(900 * self.seconds))))
                else:
                    place = draw.choice(list(self.counts))
                    n = self.counts[place] if not i else math.ceil(self.counts[place] / 3)
                    chain.append(Kill(place, draw.randint(1, n)))
            chains.append(chain)
        return chains


SETTINGS: dict[str, Any] = {
    "space": {
        "optim.lr": {"low": 1e-3, "high": 1e-1, "log": True},
        "optim.beta2": {"low": 0.9, "high": 0.99},
        "batch_size": [2, 4],
    },
    "trials": 4,
    "seeds": 2,
    "budget": {"tokens": 1280},
    "pruner": "median",
    "prune_checks": 4,
    "prune_after": 2,
}


def _said(ended: Ended) -> str:
    return "\n".join(ended.lines)


def _facts(trial: optuna.trial.FrozenTrial) -> list[Any]:
    return [
        trial.number,
        trial.state.name,
        trial.params,
        trial.values,
        trial.intermediate_values,
        without(trial.user_attrs, TIMED),
    ]
