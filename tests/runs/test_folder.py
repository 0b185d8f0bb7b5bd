"""The folder of a run: its states, who may write there, and what is never overwritten."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import config, log

from gpt2lib.config import TrainConfig
from gpt2lib.runs import folder as runs
from gpt2lib.runs.checkpoint import checkpoints
from gpt2lib.runs.folder import forget_after, open_run
from gpt2lib.runs.log import write_line
from gpt2lib.runs.resume import named_checkpoint
from gpt2lib.training.loop import Trainer, train
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import atomic_folder

pytestmark = pytest.mark.usefixtures("private_cache")

Opened = Callable[[TrainConfig, Path], Trainer]


def test_two_processes_never_train_in_one_folder(text: Path, tmp_path: Path) -> None:
    first = open_run(tmp_path / "run", config(text))
    with first, pytest.raises(UserError, match="another process is training"):
        train(config(text), tmp_path / "run")
    train(config(text, steps=1), tmp_path / "run")  # let go of


def test_a_run_that_went_on_elsewhere_is_looked_at_again(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking at the folder and locking it, another process may have finished the run."""
    before = runs.file_lock

    def slow_lock(*arguments: Any) -> Any:
        monkeypatch.setattr(runs, "file_lock", before)
        train(config(text), tmp_path / "run")
        return before(*arguments)

    monkeypatch.setattr(runs, "file_lock", slow_lock)
    assert train(config(text), tmp_path / "run")["already_complete"]


def test_a_complete_run_says_so_and_is_left_alone(uninterrupted: Path, text: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*")}
    result = train(config(text), uninterrupted)
    assert result["already_complete"]
    assert result["bits_per_byte"] > 0
    assert before == {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*")}


@pytest.mark.parametrize(
    ("changes", "resume", "message"),
    [
        ({"optim": {"lr": 3e-3}}, "auto", r"optim\.lr 0\.01 → 0\.003.*choose another --out"),
        ({"seed": 3}, "auto", "seed 1337 → 3"),
        ({}, "never", "holds an earlier run"),
        ({}, "nowhere", "no such checkpoint"),
    ],
)
def test_an_earlier_run_is_never_overwritten(
    uninterrupted: Path, text: Path, changes: dict[str, Any], resume: str, message: str
) -> None:
    before = {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*")}
    with pytest.raises(UserError, match=message):
        train(config(text, **changes), uninterrupted, resume)
    assert before == {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*")}


def test_a_checkpoint_is_found_by_its_bare_name(
    uninterrupted: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = checkpoints(uninterrupted)[-1]
    monkeypatch.chdir(last.parent)
    with open_run(tmp_path / "run", config(text), last.name) as run:
        assert run.checkpoint == last.resolve()
    refused = open_run(tmp_path / "other", config(text, seed=2), last.name)
    with pytest.raises(UserError, match=r"seed 1337 → 2"), refused:
        pass
    assert not (tmp_path / "other").exists()


def test_a_run_in_place_of_a_checkpoint_is_explained(
    uninterrupted: Path, text: Path, tmp_path: Path
) -> None:
    run = open_run(tmp_path / "run", config(text), str(uninterrupted))
    says = r"is a run, not a checkpoint; give one of .*step-00000008"
    with pytest.raises(UserError, match=says), run:
        pass
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["requested.yaml", "config.yaml"])
@pytest.mark.parametrize("content", ["", "- 1\n", "a: [\n", "\0"])
def test_damaged_settings_of_a_run_are_one_line(
    uninterrupted: Path, text: Path, tmp_path: Path, name: str, content: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    (run / "result.json").unlink()
    (run / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=rf"{name} is damaged"):
        train(config(text), run)


def test_a_run_may_go_on_with_another_cache(uninterrupted: Path, text: Path) -> None:
    with open_run(uninterrupted, config(text, data={"cache": "elsewhere"})) as run:
        assert run.state == "complete"


def test_files_of_the_user_are_left_alone(text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in (".notes.old-2024", ".x.tmp-1"):
        (run / name).write_text("mine", encoding="utf-8")
    train(config(text), run)
    assert (run / ".notes.old-2024").read_text(encoding="utf-8") == "mine"
    assert (run / ".x.tmp-1").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "requested.yaml").write_text("holidays: 3\n", encoding="utf-8")
    with pytest.raises(UserError, match="is not a run"):
        train(config(text), other)
    assert (other / "requested.yaml").read_text(encoding="utf-8") == "holidays: 3\n"


def test_run_forgets_only_later_lines(tmp_path: Path) -> None:
    for step in range(5):
        write_line(tmp_path / "metrics.jsonl", {"step": step})
    forget_after(tmp_path, 2)
    assert [m["step"] for m in log(tmp_path)] == [0, 1, 2]


def test_a_damaged_line_takes_no_other_with_it(tmp_path: Path) -> None:
    for step in range(3):
        write_line(tmp_path / "metrics.jsonl", {"step": step})
        with (tmp_path / "metrics.jsonl").open("ab") as file:
            file.write(b'{"step": 1, "lo\xff\n[1]\n')
    forget_after(tmp_path, 2)
    assert [m["step"] for m in log(tmp_path)] == [0, 1, 2]


def test_a_damaged_checkpoint_is_not_resumed_by_its_path(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "step-00000004") as folder:
        (folder / "model.safetensors").write_bytes(bytes(8))
    path = str(tmp_path / "step-00000004")
    assert named_checkpoint(path, TrainConfig()) == Path(path).resolve()
    (Path(path) / "model.safetensors").write_bytes(bytes(7) + b"x")
    with pytest.raises(UserError, match="was altered: its sha256"):
        named_checkpoint(path, TrainConfig())
