"""Many machines share a study through a database: Debian's PostgreSQL on loopback, two workers.

Two machines are two folders here: each has its own runs, and nothing but the database in common.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kill_runs import free_port
from study_runs import study

from gpt2lib.config import load_config
from gpt2lib.tuning import storage
from gpt2lib.tuning.pool import open_folder
from gpt2lib.tuning.worker import Worker, heart

pytestmark = pytest.mark.slow


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, or None."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which("initdb")
    return Path(found).parent if found else places[-1] if places else None


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """Start a server of its own, and return its URL."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    place = programs()
    if place is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    who: dict[str, Any] = {}
    if os.getuid() == 0:  # it refuses root
        who = {"user": "postgres", "group": "postgres", "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="gpt2lib-pg-", dir="/tmp"))
    if who:
        try:
            shutil.chown(folder, "postgres", "postgres")
        except LookupError:
            pytest.skip("PostgreSQL refuses root, and there is no user postgres")
    port, data = free_port(), folder / "data"

    def call(program: str, *arguments: str) -> None:
        command = [str(place / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **who)

    call("initdb", "-D", str(data), "-A", "trust", "-U", "tuner", "--no-sync")
    options = f"-p {port} -h 127.0.0.1 -k {folder}"
    call("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql://tuner:secret@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gpt2lib.tuning.worker", str(folder), str(os.getpid())]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def test_two_machines_share_a_study_and_one_is_killed(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial of the machine that is gone is queued anew, with its parameters."""
    changes = {"storage": database, "trials": 4, "budget": {"tokens": 40_000}, "sampler": "random"}
    config = study(tmp_path, **changes)
    folders = [tmp_path / "one", tmp_path / "two"]
    opened, _ = [open_folder(config, folder) for folder in folders]
    workers = [start(folder) for folder in folders]
    try:
        end = time.monotonic() + 120
        while not all(list(f.glob("trials/*/seed-*/metrics.jsonl")) for f in folders):
            assert time.monotonic() < end, [(f / "log").read_text("utf-8") for f in folders]
            time.sleep(0.1)
        workers[0].kill()
        workers[0].wait()
        (orphan,) = [t for t in opened.trials if t.state.name == "RUNNING"
                     and (folders[0] / "trials" / t.user_attrs["folder"]).exists()]  # fmt: skip
        assert workers[1].wait(300) == 0, (folders[1] / "log").read_text("utf-8")
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    # What is left is the orphan; a machine that comes later finds it dead.
    monkeypatch.setattr("gpt2lib.tuning.storage.GRACE", 1)
    monkeypatch.setattr("platform.node", lambda: "a third machine")
    time.sleep(3)
    third = tmp_path / "three"
    open_folder(config, third)
    Worker(third, os.getppid()).work()
    trials = opened.trials
    assert trials[orphan.number].state.name == "FAIL"
    (again,) = [t for t in trials if t.system_attrs.get("failed_trial") == orphan.number]
    assert again.params == orphan.params and again.state.name == "COMPLETE"
    assert sum(t.state.name == "COMPLETE" for t in trials) == 4
    values = {str(t.params): t.value for t in trials if t.value is not None}
    assert len(values) == 4 and "secret" not in str([t.user_attrs for t in trials])


def test_a_machine_goes_on_with_its_own_trial_in_place(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = study(tmp_path, storage=database, name="second", trials=2)
    opened = open_folder(config, tmp_path / "out")
    worker = Worker(tmp_path / "out", os.getppid())
    claim = worker.claim()
    assert isinstance(claim, tuple)
    trial, _, lock = claim
    lock.release()  # as the system does for a process that was killed
    elsewhere = tmp_path / "elsewhere"
    open_folder(config, elsewhere)
    other = Worker(elsewhere, os.getppid()).claim()  # not this one: it may be running there
    assert isinstance(other, tuple) and other[0].number == 1
    again = Worker(tmp_path / "out", os.getppid()).claim()
    assert isinstance(again, tuple)
    assert (again[0].number, again[0].params) == (0, trial.params)
    assert [t.state.name for t in opened.trials] == ["RUNNING", "RUNNING"]


def test_a_trial_without_any_sign_of_life_is_dropped(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process ended between asking for it and writing down where it runs."""
    monkeypatch.setattr("gpt2lib.tuning.worker.GRACE", 0)
    config = study(tmp_path, storage=database, name="third", trials=1)
    opened = open_folder(config, tmp_path / "out")
    opened.ask()
    time.sleep(0.1)
    Worker(tmp_path / "out", os.getppid()).work()
    assert [t.state.name for t in opened.trials] == ["FAIL", "COMPLETE"]


def test_a_file_has_no_heart_and_a_database_has(database: str, tmp_path: Path) -> None:
    assert heart(storage.make_storage("sqlite", tmp_path)) is None
    assert heart(storage.make_storage("journal", tmp_path)) is None
    assert heart(storage.make_storage(database, tmp_path)) is not None
    config = study(tmp_path, storage=database, name="fourth")
    with pytest.raises(Exception, match=r"no study 'fourth' in postgresql.*://tuner:\*\*\*@"):
        storage.open_study(config, load_config("smoke"),
                           storage.make_storage(database, tmp_path), new=False)  # fmt: skip
