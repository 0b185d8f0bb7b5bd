"""A run that is killed with SIGKILL anywhere, and resumed, ends as if it had never been killed.

Real processes (`kill_server`) run `gpt2lib train` on a tiny model with dropout, accumulation and
several epochs. They are killed by another process at random times, or kill themselves at exact
places (`kill_points`): between two micro-batches, in an evaluation, in the middle of a file or a
line, before and after every flush and rename, with a folder half deleted. The same command then
goes on, perhaps to be killed again. In the end everything the run's folder holds is compared by
hash with an uninterrupted run: weights, optimiser, random state, position, losses, samples,
result, settings, and the names of all files, so that nothing is left lying.

What SIGKILL cannot show is the order in which data reaches the disk, since the system still
writes what a dead process handed it: that order is checked in test_files.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kill_points import PHASES, phase
from kill_runs import RANDOM, Kill, Lab, Server, digest, lines_of

from gpt2lib.runs.checkpoint import checkpoints

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its processes")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def lab(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(server, tmp_path_factory.mktemp("lab"))


def test_killed_between_micro_batches_then_while_saving_then_in_rotation(lab: Lab) -> None:
    kills = [
        Kill("between forward and backward", 10),
        Kill("half of optimizer.safetensors", 2),
        Kill("within a removal", 3),
    ]
    assert lab.chain(kills), lab.broken
    assert lab.kills[-3:] == kills


def test_an_uninterrupted_run_passes_places_of_every_phase(lab: Lab) -> None:
    assert {phase(place) for place in [*lab.counts, RANDOM]} == set(PHASES)


@pytest.mark.slow
def test_killed_everywhere(lab: Lab) -> None:
    """Every place that a run passes, once, and random times in between."""
    before = len(lab.kills)
    for kills in lab.plan(round(1.6 * len(lab.counts)), seed=20):
        lab.chain(kills)
    assert not lab.broken, "\n".join(lab.broken)
    happened = lab.kills[before:]
    assert len(happened) > 60
    assert {phase(kill.place) for kill in happened} == set(PHASES)
    print(f"{len(happened)} kills in {lab.runs} runs, all hashes equal")


@pytest.mark.slow
def test_killed_after_going_on_from_the_checkpoint_of_another_run(lab: Lab, server: Server) -> None:
    """Until the new folder has a checkpoint of its own, it remembers whose it began with."""
    first = lab.folder / "run-first"
    lab.start(first, Kill("before save", 5))
    (last,) = (p for p in checkpoints(first) if p.name == "step-00000008")
    new = lab.folder / "run-second"
    kills = [
        Kill("before rename of temporary requested.yaml to requested.yaml", 1),
        Kill("before a micro-batch", 2),
        Kill("after update", 2),
        Kill("before fsync of temporary result.json", 1),
    ]
    for kill in kills:
        assert lab.start(new, kill, resume=str(last)).killed
    assert lab.start(new, None).codes == [0]  # without --resume as well
    found, expected = (
        {k: v for k, v in d.items() if k.startswith("step-") or k == "result"}
        for d in (digest(new), lab.expected)
    )
    assert found == expected
    lines = lines_of(new / "metrics.jsonl")
    assert lines == lines_of(lab.folder / "whole" / "metrics.jsonl")[-len(lines) :]


@pytest.mark.slow
def test_killed_on_two_processes(server: Server, tmp_path: Path) -> None:
    """One rank is killed, and the other ends by itself with one line; or both are."""
    lab = Lab(server, tmp_path / "lab", ranks=2)
    chains = [
        [Kill("between forward and backward", 7, rank=1), Kill("half of model.safetensors", 2)],
        [Kill("within an evaluation", 5, rank=1), Kill("after save", 2, rank=1)],
        [Kill("after rename of checkpoint's tmp folder to checkpoint", 3), Kill("before save", 1)],
        [Kill("within a removal", 12), Kill("half of temporary result.json", 1)],
        [Kill(RANDOM, 700, rank=-1), Kill(RANDOM, 1100, rank=-1), Kill(RANDOM, 900, rank=1)],
    ]
    for kills in chains:
        lab.chain(kills)
    assert not lab.broken, "\n".join(lab.broken)
    assert len(lab.kills) >= 8
    ended = lab.start(lab.folder / "alone", Kill("after update", 3, rank=1))
    assert ended.codes == [2, -9]
    (line,) = (line for line in ended.lines if line.startswith("gpt2lib: "))
    assert "another process of this run has ended" in line and ended.seconds < 30


@pytest.mark.slow
def test_killed_with_compiled_layers(server: Server, tmp_path: Path) -> None:
    lab = Lab(server, tmp_path / "lab", compile=True, steps=6)
    for kills in ([Kill("before a micro-batch", 7)], [Kill("half of temporary state.json", 2)]):
        lab.chain(kills)
    assert not lab.broken, "\n".join(lab.broken)
    assert len(lab.kills) == 2


@pytest.mark.slow
def test_the_benchmark_prints_the_table() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "kill.py"
    done = subprocess.run(
        [sys.executable, script, "--kills", "3"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "all hashes equal" in done.stdout
