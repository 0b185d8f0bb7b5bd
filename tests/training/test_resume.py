"""A run that goes on: bitwise as if it had never stopped, or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import MUON, STEPS, config, crash_at, log, same_tensors, stop_after, tensors, verse

from gpt2lib.config import TrainConfig
from gpt2lib.runs import checkpoint
from gpt2lib.runs.checkpoint import checkpoints
from gpt2lib.runs.folder import Run
from gpt2lib.training import evaluation, hardware, memory
from gpt2lib.training.guard import Interrupted
from gpt2lib.training.loop import Trainer, train
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import atomic_folder

pytestmark = pytest.mark.usefixtures("private_cache")

Opened = Callable[[TrainConfig, Path], Trainer]


@pytest.mark.parametrize("optim", [{}, MUON], ids=["adamw", "muon"])
def test_resumed_is_bitwise_the_uninterrupted_run(
    uninterrupted: Path,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    optim: dict[str, Any],
) -> None:
    """With dropout, accumulation, epoch boundaries, and two interruptions."""
    run, settings = tmp_path / "parts", config(text, optim=optim)
    if optim:
        uninterrupted = tmp_path / "whole"
        train(settings, uninterrupted)
    stop_after(monkeypatch, 2, 5)
    for _ in range(2):
        with pytest.raises(Interrupted, match="goes on from there") as stopped:
            train(settings, run)
        assert stopped.value.signum == 15
    train(settings, run)
    expected, got = tensors(uninterrupted), tensors(run)
    kinds = {name.partition("/")[0] for name in expected if name.startswith("optimizer")}
    assert ("optimizer.safetensors:momentum" in kinds) == bool(optim)
    assert expected.keys() == got.keys()
    different = [name for name in expected if not torch.equal(expected[name], got[name])]
    assert not different
    assert any(name.startswith("optimizer") for name in expected)
    assert log(run) == log(uninterrupted)
    assert log(run, "samples.jsonl") == log(uninterrupted, "samples.jsonl")


def test_a_crash_after_a_checkpoint_loses_no_line_and_doubles_none(
    uninterrupted: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "crash"
    with monkeypatch.context() as patch:
        crash_at(patch, 5)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config(text, save_every=2), run)
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 5, "lo')  # torn in the middle of a line
    train(config(text, save_every=2), run)
    assert log(run) == log(uninterrupted)


def test_a_crash_before_the_first_checkpoint_starts_the_logs_anew(
    uninterrupted: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        crash_at(patch, 0)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config(text), tmp_path / "run")
    assert log(tmp_path / "run")
    train(config(text), tmp_path / "run")
    assert log(tmp_path / "run") == log(uninterrupted)
    assert log(tmp_path / "run", "samples.jsonl") == log(uninterrupted, "samples.jsonl")


def test_a_crash_while_completing_doubles_no_line(
    uninterrupted: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(self: Run, result: dict[str, Any]) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "write_result", crash)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config(text), tmp_path / "run")
    train(config(text), tmp_path / "run")
    assert log(tmp_path / "run") == log(uninterrupted)
    assert log(tmp_path / "run", "samples.jsonl") == log(uninterrupted, "samples.jsonl")


def test_a_damaged_newest_checkpoint_is_skipped(
    uninterrupted: Path,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = tmp_path / "damaged"
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(Interrupted):
            train(config(text, save_every=3), run)
    newest = checkpoints(run)[-1]
    assert newest.name == "step-00000005"
    weights = newest / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    train(config(text, save_every=3), run)
    assert "step-00000005" in caplog.text
    assert "altered" in caplog.text
    assert same_tensors(uninterrupted, run)


def test_a_run_with_no_whole_checkpoint_is_not_started_over(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Interrupted):
            train(config(text), run)
    (checkpoints(run)[-1] / "state.json").write_text("{", encoding="utf-8")
    before = log(run)
    with pytest.raises(UserError, match=r"none of the 1 checkpoints .* is whole"):
        train(config(text), run)
    assert log(run) == before


def test_a_run_whose_checkpoints_are_gone_keeps_its_log(text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(config(text, save_every=2), run)
    (run / "result.json").unlink()
    shutil.rmtree(run / "checkpoints")
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"checkpoints of .* are gone, but its log reaches step 8"):
        train(config(text, save_every=2), run)
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"n_head": 4}}, r"model\.n_head 2 → 4"),
        ({"batch_size": 8}, "batch_size 4 → 8"),
        ({"steps": 2}, "steps 8 → 2"),
    ],
)
def test_an_explicit_checkpoint_keeps_its_settings(
    uninterrupted: Path, text: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    last = str(checkpoints(uninterrupted)[-1])
    with pytest.raises(UserError, match=message):
        train(config(text, **changes), tmp_path / "run", resume=last)


def test_a_checkpoint_without_its_run_still_keeps_its_model(
    uninterrupted: Path, text: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "copied" / "checkpoints" / "step-00000008"
    shutil.copytree(checkpoints(uninterrupted)[-1], alone)
    with pytest.raises(
        UserError, match=r"keeps its model, but .* has another: model\.n_head 2 → 4"
    ):
        train(config(text, model={"n_head": 4}), tmp_path / "run", resume=str(alone))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 2}, r"keeps its settings, but .* has others: seed 1337 → 2"),
        ({"steps": 2}, "steps 8 → 2"),
        ({"batch_size": 8}, "batch_size 4 → 8"),
        ({"optim": {"lr": 2e-2}}, "optim.lr 0.01 → 0.02"),
    ],
)
def test_a_checkpoint_without_its_run_still_keeps_its_settings(
    uninterrupted: Path, text: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(checkpoints(uninterrupted)[-1], alone)
    with pytest.raises(UserError, match=message):
        train(config(text, **changes), tmp_path / "run", resume=str(alone))


def test_a_checkpoint_older_than_a_field_had_its_default(
    uninterrupted: Path, text: Path, tmp_path: Path
) -> None:
    """AdamW's moments are none of Muon's, whether or not the checkpoint knows the word."""
    old = checkpoints(uninterrupted)[-1]
    alone = tmp_path / "alone"
    with atomic_folder(alone) as folder:
        shutil.copytree(old, folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        about = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        for name in ("name", "muon_lr", "decay", "decay_share", "embedding_lr"):
            del about["settings"][f"optim.{name}"]
        (folder / "state.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(UserError, match=r"others: optim\.name adamw → muon"):
        train(config(text, optim={"name": "muon"}), tmp_path / "run", resume=str(alone))
    train(config(text), tmp_path / "goes-on", resume=str(alone))


def test_the_word_of_older_checkpoints_for_the_guard_is_kept(
    uninterrupted: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run looked out for is under "health" in state.json, before the class had its name."""
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Interrupted):
            train(config(text), tmp_path / "run")
    (folder,) = checkpoints(tmp_path / "run")
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    assert "guard" not in state and state["health"]["seen"] == 4
    state["health"] |= {"skipped": 2, "spikes": 1}
    with atomic_folder(folder) as changed:
        shutil.copytree(folder, changed, dirs_exist_ok=True)
        (changed / "manifest.json").unlink()
        (changed / "state.json").write_text(json.dumps(state), encoding="utf-8")
    result = train(config(text), tmp_path / "run")
    assert (result["skipped"], result["spikes"]) == (2, 1)
    assert same_tensors(uninterrupted, tmp_path / "run")


def test_a_resumed_run_reads_its_weights_once(
    uninterrupted: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that began with those of another model."""
    tuned = config(text, init_from=str(uninterrupted), sample_tokens=0)
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Interrupted):
            train(tuned, tmp_path / "run")
    read, original = [], checkpoint.load_file
    monkeypatch.setattr(checkpoint, "load_file", lambda path: read.append(path) or original(path))
    train(tuned, tmp_path / "run")
    assert sorted(path.name for path in read) == [
        "model.safetensors",
        "optimizer.safetensors",
        "random.safetensors",
    ]


def test_an_older_checkpoint_is_not_continued_in_its_own_run(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    stop_after(monkeypatch, 6)
    with pytest.raises(Interrupted):
        train(config(text, save_every=3), run)
    with pytest.raises(UserError, match="has gone further than"):
        train(config(text, save_every=3), run, resume=str(checkpoints(run)[0]))


def test_an_explicit_checkpoint_is_continued_in_a_new_folder(
    uninterrupted: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "first"
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Interrupted):
            train(config(text), first)
    train(config(text), tmp_path / "second", resume=str(checkpoints(first)[-1]))
    assert same_tensors(uninterrupted, tmp_path / "second")


def test_a_checkpoint_of_another_text_is_refused(
    uninterrupted: Path, text: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text(verse(40, "ships sail on seas of salt", seed=1), encoding="utf-8")
    alone = tmp_path / "copied" / "checkpoints" / "step-00000008"
    shutil.copytree(checkpoints(uninterrupted)[-1], alone)
    with pytest.raises(UserError, match=r"the (tokenizer|source) is not the one of"):
        train(config(other), tmp_path / "run", resume=str(alone))


def test_the_same_text_may_lie_in_another_place(
    uninterrupted: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "elsewhere" / text.name
    moved.parent.mkdir()
    shutil.copy(text, moved)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Interrupted):
            train(config(text), tmp_path / "run")
    train(config(moved), tmp_path / "run")
    assert log(tmp_path / "run") == log(uninterrupted)
    moved.write_text(verse(40, "ships sail on seas of salt", seed=1), encoding="utf-8")
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(UserError, match="use the same text and tokenizer"):
        train(config(moved), tmp_path / "run")


def test_resuming_says_whether_it_is_still_bitwise(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="gpt2lib")
    with monkeypatch.context() as patch:
        stop_after(patch, 2, 4)
        with pytest.raises(Interrupted):
            train(config(text), tmp_path / "run")
        with pytest.raises(Interrupted):
            train(config(text), tmp_path / "run")
    assert "bitwise" not in caplog.text and "resumed from" in caplog.text
    train(config(text, micro_batch=4), tmp_path / "run")
    assert "micro_batch 2 → 4: the order of the data and the batch of 4 sequences" in caplog.text
    assert "dropout draws other numbers" in caplog.text and "not bitwise" in caplog.text


def test_what_changes_no_number_may_change(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(monkeypatch, 2)
    with pytest.raises(Interrupted):
        train(config(text), tmp_path / "run")
    assert train(config(text, eval_every=5, keep=1), tmp_path / "run")["steps"] == STEPS


def test_a_run_that_stopped_before_its_first_checkpoint_keeps_what_auto_became(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"fp32": 1.0, "bf16": 2.0}
    monkeypatch.setattr(hardware, "time_precisions", lambda *_: seconds)
    with monkeypatch.context() as patch:
        crash_at(patch, 2)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config(text, precision="auto"), tmp_path / "run")
    assert not checkpoints(tmp_path / "run")
    seconds["bf16"] = 0.5  # another moment, another winner
    assert train(config(text, precision="auto"), tmp_path / "run")["precision"] == "fp32"


def test_micro_batch_auto_is_chosen_once_and_kept(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda device: 10**9)
    automatic = config(text, micro_batch="auto")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Interrupted):
            train(automatic, tmp_path / "run")
    state = 16 * train(config(text, micro_batch=4), tmp_path / "whole")["parameters"]
    monkeypatch.setattr(memory, "available_memory", lambda device: state + 1)
    train(automatic, tmp_path / "run")
    assert log(tmp_path / "run") == log(tmp_path / "whole")
    with pytest.raises(UserError, match="even micro_batch 1 needs"):
        train(automatic, tmp_path / "none")


def test_the_best_checkpoint_is_kept_beside_the_newest(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([5.0, 4.0, 2.0, 3.0, 3.5, 3.6, 3.7, 3.8, 3.9, 4.0])
    scores = {"perplexity": 1.0, "bits_per_byte": 1.0, "tokens": 1}
    monkeypatch.setattr(evaluation, "score", lambda *_, **__: {"loss": next(losses), **scores})
    run = tmp_path / "run"
    result = train(config(text, eval_every=1, save_every=1, keep=2, sample_tokens=0), run)
    assert [p.name for p in checkpoints(run)] == ["step-00000002", "step-00000007", "step-00000008"]
    assert result["best"] == {"step": 2, "val_loss": 2.0, "checkpoint": "step-00000002"}
    without = config(text, eval_every=1, save_every=1, keep=2, sample_tokens=0, keep_best=False)
    losses = iter([5.0, 4.0, 2.0, 3.0, 3.5, 3.6, 3.7, 3.8, 3.9, 4.0])
    train(without, tmp_path / "newest")
    assert [p.name for p in checkpoints(tmp_path / "newest")] == ["step-00000007", "step-00000008"]


def test_weights_that_are_no_numbers_take_no_checkpoints_place(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Trainer.update

    def update(self: Trainer) -> bool:
        stop = original(self)
        if self.step == 4:  # as an update that overflows would leave them
            next(self.raw_model.parameters()).data.fill_(float("inf"))
        return stop

    monkeypatch.setattr(Trainer, "update", update)
    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"weights are not finite at step 4 .1 tensors, the first"):
        train(config(text, save_every=2, keep=1), run)
    assert [folder.name for folder in checkpoints(run)] == ["step-00000002"]
