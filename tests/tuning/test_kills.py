"""A study that is killed with SIGKILL anywhere, and gone on with, ends as if it never had been.

Real processes run tiny studies. They are killed at random times, or kill themselves at exact
places (`study_server`, `kill_points`): between two draws of one trial, while a value is told, in
the middle of a checkpoint, with one folder half deleted. In the end every trial of the storage
(parameters, values, what was reported of it, its attributes) and the losses of every run are
compared with those of a study that was not killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from study_lab import RANDOM, Kill, Lab, Server
from study_runs import study_file

from gpt2lib.tuning.config import load_study
from gpt2lib.tuning.pool import open_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its processes"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def lab(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(server, tmp_path_factory.mktemp("lab"))


def test_killed_between_draws_then_in_a_checkpoint_then_while_telling(lab: Lab) -> None:
    kills = [
        Kill("after drawing", 1),
        Kill("half of optimizer.safetensors", 4),
        Kill("before telling a value", 2),
        Kill("after telling a value", 1),
        Kill("after asking for a trial", 1),
    ]
    assert lab.chain(kills), lab.broken
    assert lab.kills[-5:] == kills and not lab.lost
    assert lab.resumed >= 1  # from a checkpoint of the killed process


def test_a_study_passes_the_places_that_matter(lab: Lab) -> None:
    places = {place.split(" ", 1)[1] for place in lab.counts if place.startswith("after ")}
    assert {"asking for a trial", "telling a value", "reporting a part", "drawing"} <= places
    assert {"clearing a trial", "locking a trial", "update", "save"} <= places


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_killed_everywhere(server: Server, tmp_path: Path, storage: str) -> None:
    lab = Lab(server, tmp_path / "lab", storage=storage)
    for kills in lab.plan(25, seed=1):
        lab.chain(kills)
    assert not lab.lost and not lab.broken, "\n".join(lab.lost + lab.broken)
    assert len(lab.kills) > 12 and lab.resumed > 3


def test_one_of_two_workers_is_killed_and_its_trial_goes_on(server: Server, tmp_path: Path) -> None:
    """What is drawn must not depend on who is first, so that both orders compare."""
    lab = Lab(server, tmp_path / "lab", workers=2, sampler="random", pruner="none", trials=6)
    for kills in ([Kill("between forward and backward", 30)], [Kill(RANDOM, 2500)]):
        lab.chain(kills)
    assert not lab.lost and not lab.broken, "\n".join(lab.lost + lab.broken)


def test_the_command_survives_a_kill_of_its_worker_and_of_itself(tmp_path: Path) -> None:
    """A killed worker is started again; the workers of a killed command end by themselves."""
    path, out = study_file(tmp_path, trials=3, workers=2, budget={"tokens": 60_000}), tmp_path / "o"
    command = [sys.executable, "-m", "gpt2lib", "tune", str(path), "--out", str(out)]
    environment = {**os.environ, "GPT2LIB_CACHE": str(tmp_path / "cache")}

    def workers() -> list[int]:
        listed = subprocess.run(["ps", "-eww", "-o", "pid,args"], capture_output=True, text=True)
        return [int(line.split()[0]) for line in listed.stdout.splitlines()
                if "gpt2lib.tuning.worker" in line and str(out) in line]  # fmt: skip

    def until(what: object, seconds: float = 90) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if what():  # type: ignore[operator]
                return True
            time.sleep(0.2)
        return False

    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        assert until(lambda: list(out.glob("trials/*/seed-*/checkpoints/step-*")))
        first = workers()
        assert len(first) == 2
        os.kill(first[0], 9)
        assert until(lambda: len(workers()) == 2 and first[0] not in workers())
        assert until(lambda: len(list(out.glob("trials/*/seed-*/checkpoints/step-*"))) >= 2)
        process.kill()
        process.communicate()
    assert until(lambda: not workers())
    trials = open_folder(load_study(path), out).trials
    assert [t.state.name for t in trials if not t.state.is_finished()] == ["RUNNING"] * 2
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    trials = open_folder(load_study(path), out).trials
    assert [t.state.name for t in trials] == ["COMPLETE"] * 3
    said = "".join(p.read_text("utf-8", "replace") for p in (out / "workers").glob("*.log"))
    assert said.count("resumed from") >= 2


def test_the_benchmark_prints_the_table() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "kill_study.py"
    done = subprocess.run(
        [sys.executable, script, "--kills", "3"], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    assert "all trials equal" in done.stdout
