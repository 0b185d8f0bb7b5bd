"""The benchmark's harness: workers that take turns, and the arithmetic of its tables."""

from __future__ import annotations

import json
import math
import mmap
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS / "peers")]
import channel  # noqa: E402
import run  # noqa: E402
import worker  # noqa: E402
from measuring import Measured, Peers, measure  # noqa: E402
from pool import Failed, Worker  # noqa: E402
from table import OURS, goal_row, ratios, spread, summary, training_table  # noqa: E402
from workloads import CPU, CPU_GOALS, GPU, GPU_GOALS, TUNED, Goal, Workload, shape, ways  # noqa: E402

PEER = "nanoGPT, as shipped"


def turn(*seconds: float, peak: int = 100) -> dict[str, Any]:
    return {"seconds": seconds, "losses": [0.0] * len(seconds), "peak": peak}


ROUNDS = [
    {OURS: turn(1.0, 1.0, 9.0), PEER: turn(2.0, peak=300)},
    {OURS: turn(2.0), PEER: turn(8.0, peak=400)},
    {OURS: turn(4.0, peak=200), PEER: turn(12.0, peak=200)},
    {OURS: turn(4.0)},
]
ABOUT = {
    OURS: {"bf16": True, "parameters": 7},
    PEER: {"bf16": False, "parameters": 7},
}


# ── arithmetic ──────────────────────────────────────────────────────────────────────────────────


def test_a_ratio_is_formed_within_a_round_of_the_medians_of_its_turns() -> None:
    assert ratios(ROUNDS, PEER) == [2.0, 4.0, 3.0]
    assert spread(ratios(ROUNDS, PEER)) == "3.00 (2.00 to 4.00)"


def test_the_summary_has_speed_mfu_of_its_own_precision_and_memory() -> None:
    found = summary(ROUNDS, ABOUT, {"fp32": 1000.0, "bf16": 4000.0}, tokens=24, flops=100.0)
    assert list(found) == [OURS, PEER]
    assert found[OURS]["ms"] == 3000 and found[PEER]["ms"] == 8000  # of 1, 2, 4, 4 and 2, 8, 12
    assert found[OURS]["tokens_per_second"] == 8 and found[PEER]["tokens_per_second"] == 3
    assert found[OURS]["mfu"] == 8 * 100 / 4000 and found[PEER]["mfu"] == 3 * 100 / 1000
    assert found[OURS]["memory"] == 200 and found[PEER]["memory"] == 400  # the worst turn
    assert found[PEER]["memory_share"] == 0.5
    row = training_table(found).splitlines()[-1]
    assert "| fp32 | 8,000 | 3 | 3.00 (2.00 to 4.00) | 30 % | 0 MB | 0.50 |" in row


@pytest.mark.parametrize(
    ("of", "value", "now", "verdict"),
    [
        ("speed", 3.0, "3.00 (2.00 to 4.00)", "met"),
        ("speed", 3.1, "3.00 (2.00 to 4.00)", "missed"),
        ("memory", 0.5, "0.50", "met"),
        ("memory", 0.45, "0.50", "missed"),
    ],
)
def test_a_goal_is_met_or_missed(of: str, value: float, now: str, verdict: str) -> None:
    found = {"b": summary(ROUNDS, ABOUT, {"fp32": 1000.0, "bf16": 4000.0}, 24, 100.0)}
    row = goal_row(Goal("b", "nanoGPT", "as shipped", of, value), found)
    assert row is not None and row[1:] == [now, verdict]
    assert ("at most" in row[0]) == (of == "memory")
    assert goal_row(Goal("c", "nanoGPT", "as shipped", of, value), found) is None


@pytest.mark.parametrize(("workloads", "goals"), [(CPU, CPU_GOALS), (GPU, GPU_GOALS)])
def test_every_goal_names_something_that_is_measured(
    workloads: dict[str, Workload], goals: tuple[Goal, ...]
) -> None:
    device = "cpu" if workloads is CPU else "cuda"
    for goal in goals:
        workload = workloads[goal.workload]
        if goal.peer != OURS:
            assert goal.peer in workload.peers and goal.way in ways(workload, goal.peer, device)


# ── who takes part ──────────────────────────────────────────────────────────────────────────────


def test_missing_peers_are_named_in_a_line_each(tmp_path: Path) -> None:
    missing = Peers(None, tmp_path / ".venv-bench").missing
    assert set(missing) == {"nanoGPT", "litgpt", "llms-from-scratch"}
    assert "make bench NANOGPT=PATH" in missing["nanoGPT"]
    assert "no .venv-bench" in missing["litgpt"]
    assert all("\n" not in why for why in missing.values())
    there = tmp_path / "venv"
    for folder in ("bin", "lib/python3.11/site-packages/litgpt"):
        (there / folder).mkdir(parents=True)
    (there / "bin" / "python").touch()
    missing = Peers(str(tmp_path), there).missing
    assert set(missing) == {"nanoGPT", "llms-from-scratch"}
    assert "no model.py" in missing["nanoGPT"] and "not installed" in missing["llms-from-scratch"]


@pytest.mark.parametrize(
    ("peer", "device", "tuned", "bf16", "compiled", "keeps"),
    [
        ("nanoGPT", "cpu", False, False, False, False),
        ("nanoGPT", "cpu", True, True, False, True),
        ("nanoGPT", "cuda", False, True, True, False),
        ("transformers", "cuda", False, False, False, False),
        ("transformers", "cuda", True, True, True, True),
        ("litgpt", "cpu", False, True, False, False),
    ],
)
def test_what_as_shipped_means(
    monkeypatch: pytest.MonkeyPatch,
    peer: str, device: str, tuned: bool, bf16: bool, compiled: bool, keeps: bool,
) -> None:  # fmt: skip
    called: list[bool] = []
    monkeypatch.setattr("gpt2lib.utils.process.keep_freed_memory", lambda: called.append(True))
    spec: dict[str, Any] = {"peer": peer, "device": device, "tuned": tuned}
    worker.prepare(spec)
    assert (spec["bf16"], spec["compile"], bool(called)) == (bf16, compiled, keeps)


# ── turns ───────────────────────────────────────────────────────────────────────────────────────


class OneBroken(Peers):
    """Peers of which nanoGPT ends at once."""

    def worker(self, peer: str, spec: dict[str, Any]) -> Worker:
        return Worker(spec, self.python) if peer == "nanoGPT" else super().worker(peer, spec)


def test_workers_make_the_same_updates_in_turn_and_a_broken_peer_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("measuring.ways", lambda *_: [TUNED])
    tiny = Workload(
        "tiny", shape(1, 2, 16, 16, 65), batch=2, peers=("nanoGPT", "transformers"), rounds=2,
        steps=2,
    )  # fmt: skip
    peers = OneBroken(None, tmp_path)
    peers.python, peers.missing = tmp_path / "python", {}
    peers.python.write_text("#!/bin/sh\necho no such clone >&2\nexit 1\n", encoding="utf-8")
    peers.python.chmod(0o755)
    found = measure(tiny, "cpu", peers)
    assert "skipped: nanoGPT: no such clone" in capsys.readouterr().err
    names = [OURS, f"transformers, {TUNED}"]
    assert [list(one) for one in found.rounds] == [names, names]
    assert found.about[names[1]]["bf16"] is True
    assert found.about[OURS]["parameters"] == found.about[names[1]]["parameters"]
    for one in found.rounds:
        for answer in one.values():
            assert len(answer["seconds"]) == len(answer["losses"]) == 2
            assert min(answer["seconds"]) > 0
            # Random tokens cannot be learned, and small weights know nothing yet.
            assert all(abs(loss - math.log(65)) < 0.2 for loss in answer["losses"])
            assert 50e6 < answer["peak"] < 5e9
    assert min(found.peaks.values()) > 1e8


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's proc")
def test_the_peak_is_that_since_the_last_reset() -> None:
    def peak_with(size: int) -> int:
        with mmap.mmap(-1, size) as block:  # not from the allocator, which may keep what is freed
            for start in range(0, size, 4096):
                block[start] = 1
            return channel.peak("cpu")

    assert peak_with(200_000_000) > 200_000_000
    before = channel.reset_peak("cpu")
    assert 40_000_000 < peak_with(50_000_000) - before < 60_000_000


def test_the_command_prints_tables_and_keeps_every_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Measured(ROUNDS, ABOUT, {"fp32": 1e11, "bf16": 3e11})
    monkeypatch.setattr(run, "measure", lambda workload, device, peers: measured)
    code = run.main(["--only", "b", "--device", "cpu", "--results", str(tmp_path)])
    said = capsys.readouterr()
    assert code == 0 and "skipped: nanoGPT: no path was given" in said.err
    assert "(b) at least 3 times as fast as nanoGPT, as shipped | 3.00" in said.out
    (path,) = tmp_path.glob("*.json")
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert kept["b"]["rounds"][1][PEER]["seconds"] == [8.0]
    assert path.name in said.out


@pytest.mark.parametrize(
    ("end", "code"), [(KeyboardInterrupt(), 130), (Failed("no memory"), 1), (SystemExit(9), None)]
)
def test_what_was_measured_is_kept_whatever_comes_after(
    end: BaseException,
    code: int | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = {CPU["b"].title: None, CPU["c"].title: end}

    def measured(workload: Workload, device: str, peers: Peers) -> Measured:
        if ends[workload.title]:
            raise end
        return Measured(ROUNDS, ABOUT, {"fp32": 1e11, "bf16": 3e11})

    monkeypatch.setattr(run, "measure", measured)
    command = ["--only", "b,c", "--device", "cpu", "--results", str(tmp_path / "new")]
    if code is None:  # as a process that is killed
        with pytest.raises(SystemExit):
            run.main(command)
    else:
        assert run.main(command) == code
    (path,) = (tmp_path / "new").iterdir()
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert kept["b"]["rounds"][1][PEER]["seconds"] == [8.0] and "c" not in kept
    assert kept["summary"]["b"][PEER]["ms"] == 8000
    assert kept["failed"] == ({"c": "no memory"} if code == 1 else {})


def test_a_wrong_path_of_nanogpt_is_refused_before_minutes_are_spent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run.options(["--nanogpt", str(tmp_path)])
    assert f"there is no model.py in {tmp_path}" in capsys.readouterr().err


def test_results_that_cannot_be_written_are_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run.main(["--only", "b", "--results", str(tmp_path / "file" / "x")]) == 2
    assert f"cannot make {tmp_path / 'file' / 'x'}" in capsys.readouterr().err


def test_an_unknown_section_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.options(["--only", "a,z"])
    assert "no section 'z'" in capsys.readouterr().err
