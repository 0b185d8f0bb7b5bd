"""What a run tells: lines, a progress bar and trackers, from the main process alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpt2lib.runs import log as logs
from gpt2lib.runs.log import RunLog, flush_logs


class Told:
    """Takes what trackers get."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.finished = 0

    def log(self, step: int, **values: Any) -> None:
        self.lines.append({"step": step, **values})

    def finish(self) -> None:
        self.finished += 1


def spent() -> dict[str, float]:
    return dict.fromkeys(("update", "evaluate", "save"), 0.0)


def write_all(log: RunLog) -> None:
    """Write one line of each kind."""
    with log:
        with log.timed("update"):
            pass
        log.update(1, 100, False, loss=3.0, lr=0.1)
        log.update(2, 100, True, loss=9.0, lr=0.1)
        log.skipped(3, "loss nan", 1)
        log.evaluation(3, {"loss": 2.0, "bits_per_byte": 1.0, "sample": "thee"}, complete=True)


def test_lines_are_written_and_trackers_told_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told, passed = Told(), spent()
    write_all(RunLog(tmp_path, 5, 0, passed, lambda speed: {"mfu": speed}, told))  # type: ignore[arg-type]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    first, second, skipped, held_out = lines
    speed = 100 / passed["update"]
    assert list(first) == ["step", "loss", "lr", "tokens_per_second", "seconds", "mfu"]
    assert (first["mfu"], first["tokens_per_second"]) == (speed, round(speed, 1))
    assert first["seconds"] == round(passed["update"], 3)
    assert second["spike"] is True and "spike" not in first
    assert skipped == {"step": 3, "skipped": "loss nan", "in_a_row": 1}
    assert held_out == {"step": 3, "val_loss": 2.0, "val_bits_per_byte": 1.0, "complete": True}
    (sample,) = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert told.lines == [*lines, json.loads(sample)] and told.finished == 1
    assert "step 3: skipped, loss nan (1 in a row)" in capsys.readouterr().err


def test_who_watches_gets_every_line_once_it_is_written_and_may_end_the_run(
    tmp_path: Path,
) -> None:
    seen: list[dict[str, Any]] = []

    def watch(line: dict[str, Any]) -> None:
        written = (tmp_path / ("samples" if "text" in line else "metrics")).with_suffix(".jsonl")
        assert json.loads(written.read_text().splitlines()[-1]) == line
        seen.append(line)
        if "skipped" in line:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        write_all(RunLog(tmp_path, 5, 0, spent(), lambda speed: {}, watch=watch))
    assert [line["step"] for line in seen] == [1, 2, 3]


def test_the_other_processes_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_all(RunLog(tmp_path, 5, 0, spent(), None))
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().err == ""


def test_time_is_kept_by_what_it_was_spent_on(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 5, 0, {**spent(), "save": 10.0}, None)
    with log.timed("save"):
        pass
    assert 0 < log.seconds < 1 and log.spent["save"] == 10.0 + log.seconds
    with pytest.raises(RuntimeError), log.timed("save"):
        raise RuntimeError
    assert log.spent["save"] == 10.0 + log.seconds  # what failed was not done


def test_lines_are_on_the_disk_before_a_checkpoint_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(logs, "flush", lambda path: flushed.append(path.name))
    for name in ("metrics.jsonl", "samples.jsonl", "config.yaml"):
        (tmp_path / name).touch()
    flush_logs(tmp_path)
    assert flushed == ["metrics.jsonl", "samples.jsonl"]
