"""The trainer: exact resume, exact accumulation, refusals, and fine-tuning."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2lib import load_pretrained
from gpt2lib.config import IGNORE, TrainConfig
from gpt2lib.data import batch, sample_windows
from gpt2lib.data import loader as feed
from gpt2lib.hub import export
from gpt2lib.model.gpt import GPT
from gpt2lib.runs import folder as runs
from gpt2lib.runs.checkpoint import checkpoints, read_tensors
from gpt2lib.runs.folder import Run
from gpt2lib.runs.resume import open_run
from gpt2lib.training import hardware, memory
from gpt2lib.training import loop as trainer
from gpt2lib.training.loop import Trainer, train
from gpt2lib.training.optim import learning_rate
from gpt2lib.training.signals import Interrupted
from gpt2lib.training.state import TrainingState
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import atomic_folder

STEPS = 8


def verse(n_lines: int, words: str, seed: int = 0) -> str:
    """Return lines drawn from a few words: something a tiny model can learn."""
    draw = random.Random(seed)
    return "".join(" ".join(draw.choices(words.split(), k=6)) + "\n" for _ in range(n_lines))


@pytest.fixture(scope="module", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPT2LIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "verse.txt"
    # About 420 training tokens: 13 windows of 32, so 8 steps of 4 samples cross epochs.
    path.write_text(verse(40, "the king and queen of night do love thee"), encoding="utf-8")
    return path


def config(text: Path, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "model": {"block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 16, "dropout": 0.2},
        "data": {"source": str(text), "vocab_size": 280},
        "optim": {"lr": 1e-2, "warmup_steps": 2},
        "steps": STEPS,
        "batch_size": 4,
        "micro_batch": 2,
        "precision": "fp32",
        "device": "cpu",
        "eval_every": 3,
        "eval_batches": 2,
        "save_every": 100,
        "sample_tokens": 3,
    }
    for name, value in changes.items():
        values[name] = {**values[name], **value} if isinstance(value, dict) else value
    return TrainConfig.from_dict(values)


def tensors(run: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    """Return everything a checkpoint holds, as named tensors."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    files = sorted(folder.glob("*.safetensors"))
    return {f"{f.name}:{name}": t for f in files for name, t in read_tensors(f).items()}


def log(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    lines = (run / name).read_text(encoding="utf-8").splitlines()
    timing = {"seconds", "tokens_per_second", "mfu", "memory"}
    return [{k: v for k, v in json.loads(line).items() if k not in timing} for line in lines]


def stop_after(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Ask the run to stop when it has made that many updates, as a signal would."""
    original = Trainer.update

    def update(self: Trainer) -> bool:
        self.stop.signum = 15 if self.step + 1 in steps else 0
        return original(self)

    monkeypatch.setattr(Trainer, "update", update)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(config(text), run)
    return run


def test_a_run_leaves_what_it_promises(uninterrupted: Path, text: Path) -> None:
    result = json.loads((uninterrupted / "result.json").read_text(encoding="utf-8"))
    assert result["steps"] == STEPS
    assert result["train_tokens"] == STEPS * 4 * 16
    assert result["precision"] == "fp32"
    updates = [m for m in log(uninterrupted) if "loss" in m]
    assert [m["step"] for m in updates] == list(range(1, STEPS + 1))
    rates = [learning_rate(i, STEPS, config(text).optim) for i in range(STEPS)]
    assert [m["lr"] for m in updates] == rates
    assert [m["step"] for m in log(uninterrupted) if "val_loss" in m] == [0, 3, 6, STEPS]
    assert [s["step"] for s in log(uninterrupted, "samples.jsonl")] == [0, 3, 6, STEPS]
    assert updates[-1]["loss"] < updates[0]["loss"]


MUON = {"name": "muon", "embedding_lr": 0.02, "decay": "linear", "decay_share": 0.5}


@pytest.mark.parametrize(
    ("optim", "names"),
    [
        ({"muon_lr": 0.1}, ["muon_lr"]),
        ({"muon_momentum": 0.3, "muon_lr": 0.1}, ["muon_lr", "muon_momentum"]),
        ({"name": "muon", "muon_lr": 0.1}, []),
        ({}, []),
    ],
)
def test_a_setting_of_muon_without_muon_is_named(
    text: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    optim: dict[str, Any],
    names: list[str],
) -> None:
    train(config(text, optim=optim, steps=1), tmp_path / "run")
    said = [r.getMessage() for r in caplog.records if "nothing reads it" in r.getMessage()]
    assert [line.split()[0] for line in said] == [f"optim.{name}" for name in names]
    assert all("optim.name is adamw" in line for line in said)


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
    original = Trainer.update

    def update(self: Trainer) -> bool:
        if self.step == 5:
            raise RuntimeError("power cut")
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", update)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config(text, save_every=2), run)
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 5, "lo')  # torn in the middle of a line
    train(config(text, save_every=2), run)
    assert log(run) == log(uninterrupted)


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
    assert all(torch.equal(a, b) for a, b in zip_tensors(uninterrupted, run))


def zip_tensors(a: Path, b: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    left, right = tensors(a), tensors(b)
    assert left.keys() == right.keys()
    return [(left[name], right[name]) for name in left]


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


def test_a_crash_before_the_first_checkpoint_starts_the_logs_anew(
    uninterrupted: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(self: Trainer) -> bool:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", crash)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config(text), tmp_path / "run")
    assert log(tmp_path / "run")
    train(config(text), tmp_path / "run")
    assert log(tmp_path / "run") == log(uninterrupted)
    assert log(tmp_path / "run", "samples.jsonl") == log(uninterrupted, "samples.jsonl")


def test_two_processes_never_train_in_one_folder(text: Path, tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", config(text))
    with run.lock(), pytest.raises(UserError, match="another process is training"):
        train(config(text), tmp_path / "run")


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


def test_a_checkpoint_is_found_by_its_bare_name(
    uninterrupted: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = checkpoints(uninterrupted)[-1]
    monkeypatch.chdir(last.parent)
    run = open_run(tmp_path / "run", config(text), last.name)
    assert run.checkpoint == last.resolve()
    with pytest.raises(UserError, match=r"seed 1337 → 2"):
        open_run(tmp_path / "other", config(text, seed=2), last.name)


def test_a_run_in_place_of_a_checkpoint_is_explained(
    uninterrupted: Path, text: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"is a run, not a checkpoint; give one of .*step-00000008"):
        open_run(tmp_path / "run", config(text), str(uninterrupted))


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
    open_run(uninterrupted, config(text, data={"cache": "elsewhere"}))


def test_a_run_that_stopped_before_its_first_checkpoint_keeps_what_auto_became(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"fp32": 1.0, "bf16": 2.0}
    monkeypatch.setattr(hardware, "time_precisions", lambda *_: seconds)
    original = Trainer.update

    def update(self: Trainer) -> bool:
        if self.step == 2:
            raise RuntimeError("power cut")
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", update)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config(text, precision="auto"), tmp_path / "run")
    assert not checkpoints(tmp_path / "run")
    seconds["bf16"] = 0.5  # another moment, another winner
    assert train(config(text, precision="auto"), tmp_path / "run")["precision"] == "fp32"


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
    assert all(torch.equal(a, b) for a, b in zip_tensors(uninterrupted, tmp_path / "second"))


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


def test_the_best_checkpoint_is_kept_beside_the_newest(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([5.0, 4.0, 2.0, 3.0, 3.5, 3.6, 3.7, 3.8, 3.9, 4.0])
    scores = {"perplexity": 1.0, "bits_per_byte": 1.0, "tokens": 1}
    monkeypatch.setattr(trainer, "score", lambda *_, **__: {"loss": next(losses), **scores})
    run = tmp_path / "run"
    result = train(config(text, eval_every=1, save_every=1, keep=2, sample_tokens=0), run)
    assert [p.name for p in checkpoints(run)] == ["step-00000002", "step-00000007", "step-00000008"]
    assert result["best"] == {"step": 2, "val_loss": 2.0, "checkpoint": "step-00000002"}
    without = config(text, eval_every=1, save_every=1, keep=2, sample_tokens=0, keep_best=False)
    losses = iter([5.0, 4.0, 2.0, 3.0, 3.5, 3.6, 3.7, 3.8, 3.9, 4.0])
    train(without, tmp_path / "newest")
    assert [p.name for p in checkpoints(tmp_path / "newest")] == ["step-00000007", "step-00000008"]


def test_a_run_that_went_on_elsewhere_is_looked_at_again(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking at the folder and locking it, another process may have finished the run."""
    before = Run.lock

    def slow_lock(self: Run) -> Any:
        monkeypatch.setattr(Run, "lock", before)
        train(config(text), tmp_path / "run")
        return before(self)

    monkeypatch.setattr(Run, "lock", slow_lock)
    assert train(config(text), tmp_path / "run")["already_complete"]


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


def test_an_evaluation_reads_the_same_text_whatever_the_micro_batch(
    text: Path, tmp_path: Path
) -> None:
    few = config(text, eval_batches=1, data={"val_fraction": 0.5})
    read = []
    for size in (1, 2, 4):
        run = tmp_path / str(size)
        model = few.replace(micro_batch=size)
        read.append(Trainer(model, open_run(run, model)).evaluate())
    assert read[0]["tokens"] == 4 * 16
    assert [r["loss"] for r in read] == pytest.approx([read[0]["loss"]] * 3, abs=1e-5)


def test_masked_documents_train_score_and_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(12):
        lines = verse(3, "the king and queen of night do love thee", seed=i)
        (folder / f"{i}.txt").write_text(lines, encoding="utf-8")
    several = {"val_fraction": 0.4}  # documents held out, so that a window of them has two
    masked = config(folder, data={"mask_documents": True, **several}, eval_batches=99)
    train(masked, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Interrupted):
            train(masked, tmp_path / "run")
    train(masked, tmp_path / "run")
    assert log(tmp_path / "run") == log(tmp_path / "whole")
    train(config(folder, data=several, eval_batches=99), tmp_path / "across")
    assert log(tmp_path / "across")[0]["val_loss"] != log(tmp_path / "whole")[0]["val_loss"]
    with pytest.raises(UserError, match=r"mask_documents needs an end-of-text token"):
        train(config(folder, data={"mask_documents": True, "tokenizer": "char"}), tmp_path / "no")


def test_a_mixture_trains_and_resumes(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.txt"
    other.write_text(verse(40, "ships sail on seas of salt", seed=1), encoding="utf-8")
    mixed = config(text, data={"mixture": {str(text): 3, str(other): 1}})
    train(mixed, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(Interrupted):
            train(mixed, tmp_path / "run")
    train(mixed, tmp_path / "run")
    assert log(tmp_path / "run") == log(tmp_path / "whole")
    changed = config(text, data={"mixture": {str(text): 1, str(other): 1}})
    with pytest.raises(UserError, match=r"3\.0 → 1\.0"):
        train(changed, tmp_path / "run")


def test_the_lines_before_a_checkpoint_are_on_the_disk_before_it(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    saved, flush = TrainingState.save, runs.flush
    monkeypatch.setattr(runs, "flush", lambda path: (events.append(path.name), flush(path)))
    monkeypatch.setattr(
        TrainingState, "save", lambda *args: (events.append("checkpoint"), saved(*args))
    )
    train(config(text, save_every=4), tmp_path / "run")
    assert events == ["metrics.jsonl", "samples.jsonl", "checkpoint"] * 2


def test_a_run_whose_checkpoints_are_gone_keeps_its_log(text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(config(text, save_every=2), run)
    (run / "result.json").unlink()
    shutil.rmtree(run / "checkpoints")
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"checkpoints of .* are gone, but its log reaches step 8"):
        train(config(text, save_every=2), run)
    assert (run / "metrics.jsonl").read_bytes() == before


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


def test_what_changes_no_number_may_change(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(monkeypatch, 2)
    with pytest.raises(Interrupted):
        train(config(text), tmp_path / "run")
    assert train(config(text, eval_every=5, keep=1), tmp_path / "run")["steps"] == STEPS


@pytest.mark.parametrize("micro_batch", [1, 2, None])
def test_accumulation_equals_the_big_batch(
    text: Path, tmp_path: Path, micro_batch: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the pieces have different numbers of targets to score."""
    original = feed.batch

    def with_ignored(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        idx, targets = original(*arguments)
        hidden = (idx.sum(1) % 13).long()  # depends on the sample alone, not on its piece
        for row, n in enumerate(hidden.tolist()):
            targets[row, :n] = IGNORE
        return idx, targets

    monkeypatch.setattr(feed, "batch", with_ignored)
    plain = config(text, model={"dropout": 0.0}, optim={"grad_clip": 0.0}, micro_batch=4)
    losses = {}
    for name, size in (("whole", 4), ("pieces", micro_batch)):
        train(plain.replace(micro_batch=size), tmp_path / name)
        losses[name] = torch.tensor([m["loss"] for m in log(tmp_path / name) if "loss" in m])
    torch.testing.assert_close(losses["pieces"], losses["whole"], atol=2e-5, rtol=0)
    for name, a in tensors(tmp_path / "whole").items():
        if name.startswith("model"):
            torch.testing.assert_close(tensors(tmp_path / "pieces")[name], a, atol=1e-4, rtol=0)


def test_the_gradient_is_that_of_the_mean_over_scored_tokens(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = feed.batch

    def with_ignored(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        idx, targets = original(*arguments)
        targets[:, :5] = IGNORE
        return idx, targets

    monkeypatch.setattr(feed, "batch", with_ignored)
    wanted = config(text, model={"dropout": 0.0}, optim={"grad_clip": 0.0})
    run = Trainer(wanted, open_run(tmp_path / "run", wanted))
    parts = run.feed.micro_batches(0)
    idx, targets = (torch.cat([p[i] for p in parts]) for i in (0, 1))
    loss, count = run.raw_model(idx, targets)
    (loss / count).backward()
    norm = torch.stack([p.grad.norm() for p in run.raw_model.parameters()]).norm().item()
    run.raw_model.zero_grad()
    run.update()
    first = log(tmp_path / "run")[0]
    assert int(count) == 4 * 11
    assert first["loss"] == pytest.approx(loss.item() / 44, rel=1e-5)
    assert first["grad_norm"] == pytest.approx(norm, rel=1e-4)


def test_gradient_checkpointing_changes_no_number(
    uninterrupted: Path, text: Path, tmp_path: Path
) -> None:
    train(config(text, gradient_checkpointing=True), tmp_path / "run")
    losses = [[m["loss"] for m in log(r) if "loss" in m] for r in (uninterrupted, tmp_path / "run")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def poisoned(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Make the loss of some updates, counted from 0, infinite."""
    original = feed.Feed.micro_batches
    forward = GPT.forward
    now = [0]

    def micro_batches(self: feed.Feed, step: int) -> list[feed.MicroBatch]:
        now[0] = step
        return original(self, step)

    def poisonous(self: GPT, *inputs: Any) -> Any:
        out = forward(self, *inputs)
        if self.training and now[0] in steps and isinstance(out, tuple):
            return out[0] * torch.inf, out[1]
        return out

    monkeypatch.setattr(feed.Feed, "micro_batches", micro_batches)
    monkeypatch.setattr(GPT, "forward", poisonous)


def test_a_sick_update_is_skipped_and_counted(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights and moments are those of a run in which the update never was."""
    poisoned(monkeypatch, 3)
    quiet = config(text, sample_tokens=0, save_every=1, keep=9)
    result = train(quiet, tmp_path / "run")
    assert (result["skipped"], result["steps"]) == (1, STEPS)
    before, after = tensors(tmp_path / "run", 3), tensors(tmp_path / "run", 4)
    assert all(torch.equal(before[n], after[n]) for n in before if not n.startswith("random"))
    assert all(t.isfinite().all() for t in tensors(tmp_path / "run").values())
    lines = log(tmp_path / "run")
    assert [m["step"] for m in lines if "loss" in m] == [1, 2, 3, 5, 6, 7, 8]
    (skipped,) = (m for m in lines if "skipped" in m)
    assert skipped == {"step": 4, "skipped": "loss inf, gradient nan", "in_a_row": 1}


def test_a_sick_run_stops_and_keeps_the_batch(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, 2, 3, 4)
    quiet = config(text, sample_tokens=0, save_every=1, max_skipped=2)
    with pytest.raises(UserError, match=r"3 updates in a row .* not changed since step 2"):
        train(quiet, tmp_path / "run")
    (kept,) = (tmp_path / "run" / "sick").iterdir()
    assert kept.name == "step-00000005-0.safetensors"
    saved = read_tensors(kept)
    again = Trainer(quiet, open_run(tmp_path / "again", quiet)).feed
    pieces = [part[:2] for part in again.micro_batches(4)]
    expected = [torch.cat(parts) for parts in zip(*pieces, strict=True)]
    assert torch.equal(saved["idx"], expected[0]) and torch.equal(saved["targets"], expected[1])


def test_updates_skipped_in_a_row_are_counted_across_a_resume(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, 2, 3, 4)
    quiet = config(text, sample_tokens=0, save_every=1, max_skipped=2)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Interrupted):
            train(quiet, tmp_path / "run")
    with pytest.raises(UserError, match=r"3 updates in a row"):
        train(quiet, tmp_path / "run")


def test_a_nan_in_the_weights_stops_the_run(text: Path, tmp_path: Path) -> None:
    quiet = config(text, sample_tokens=0, max_skipped=1)
    sick = Trainer(quiet, open_run(tmp_path / "run", quiet))
    with torch.no_grad():
        sick.raw_model.transformer.h[1].mlp.c_fc.weight[0, 0] = torch.nan
    before = sick.raw_model.lm_head.weight.clone()
    with pytest.raises(UserError, match=r"2 updates in a row"):
        sick.run()
    assert torch.equal(sick.raw_model.lm_head.weight, before)
    assert not checkpoints(tmp_path / "run")


def test_samples_come_in_the_order_of_the_seed_and_no_other(text: Path, tmp_path: Path) -> None:
    """Accumulation and steps cut one and the same sequence of samples."""
    seen = {}
    for size in (1, 4):
        changed = config(text, micro_batch=size)
        run = Trainer(changed, open_run(tmp_path / f"by-{size}", changed))
        rows = []
        for run.step in range(STEPS):
            rows += [part.idx for part in run.feed.micro_batches(run.step)]
        seen[size] = torch.cat(rows)
    assert torch.equal(seen[1], seen[4])
    tokens = run.data.train
    starts = sample_windows(len(tokens), 16, changed.seed, range(STEPS * 4))
    assert torch.equal(seen[1], batch(tokens, starts, 16)[0])
    assert len(seen[1].unique(dim=0)) > STEPS


def test_precision_auto_takes_the_faster_and_keeps_it(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="gpt2lib")
    wanted = config(text, precision="auto")
    monkeypatch.setattr(hardware, "time_precisions", lambda *_: {"fp32": 0.02, "bf16": 0.01})
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Interrupted):
            train(wanted, tmp_path / "run")
    assert "auto → bf16" in caplog.text
    # Resumed where float32 seems faster, it still goes on as it began.
    monkeypatch.setattr(hardware, "time_precisions", lambda *_: {"fp32": 0.01, "bf16": 0.02})
    assert train(wanted, tmp_path / "run")["precision"] == "bf16"
    assert train(wanted, tmp_path / "other")["precision"] == "fp32"


def test_timing_precisions_leaves_no_trace(text: Path, tmp_path: Path) -> None:
    run = Trainer(config(text), open_run(tmp_path / "run", config(text)))
    idx, _ = run.feed.micro_batches(0)[0][:2]
    before = torch.get_rng_state()
    bias = run.raw_model.transformer.ln_f.bias
    bias.grad = torch.arange(float(bias.numel()))  # of a micro-batch before
    seconds = hardware.time_precisions(run.raw_model, idx, repeats=1)
    assert set(seconds) == {"fp32", "bf16"}
    assert min(seconds.values()) > 0
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(bias.grad, torch.arange(float(bias.numel())))
    assert all(p.grad is None for p in run.raw_model.parameters() if p is not bias)


def test_batches_that_do_not_divide_are_refused(text: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"4 .* does not divide by micro_batch 3"):
        train(config(text, micro_batch=3), tmp_path / "run")


def test_launched_by_many_but_alone_is_refused(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `torchrun` on a machine without GPUs does: N single runs, silently."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="2 processes were launched"):
        train(config(text), tmp_path / "run")


# ── fine-tuning ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def transformers_made(tmp_path_factory: pytest.TempPathFactory, uninterrupted: Path) -> Path:
    """A small GPT-2 that transformers initialised and saved, with a tokenizer beside it."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("hf") / "small"
    tokenizer = AutoTokenizer.from_pretrained(checkpoints(uninterrupted)[-1] / "tokenizer")
    shape = {"n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
    eot = tokenizer.eos_token_id
    hf = GPT2Config(vocab_size=len(tokenizer), bos_token_id=eot, eos_token_id=eot, **shape)
    GPT2LMHeadModel(hf).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_fine_tuning_a_transformers_checkpoint(
    transformers_made: Path, text: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    wanted = config(text, model={"dropout": 0.0}, steps=30, init_from=str(transformers_made))
    train(wanted, tmp_path / "tuned")
    held_out = [m["val_loss"] for m in log(tmp_path / "tuned") if "val_loss" in m]
    assert held_out[-1] < held_out[0] - 0.5
    export(tmp_path / "tuned", tmp_path / "exported")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "exported").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    idx = tokenizer("the king and queen", return_tensors="pt").input_ids
    ours = load_pretrained(tmp_path / "tuned")
    torch.testing.assert_close(again(idx).logits, ours(idx), atol=1e-5, rtol=0)


def test_a_sample_prompt_longer_than_the_block_is_refused_at_once(
    text: Path, tmp_path: Path
) -> None:
    wanted = config(text, sample_prompt="the king and queen " * 20)
    with pytest.raises(UserError, match=r"sample_prompt has \d+ tokens, but block_size is 16"):
        train(wanted, tmp_path / "run")
    train(wanted.replace(sample_tokens=0, steps=1), tmp_path / "silent")


def test_fine_tuning_starts_from_the_very_weights(
    uninterrupted: Path, text: Path, tmp_path: Path
) -> None:
    wanted = config(text, init_from=str(uninterrupted))
    run = Trainer(wanted, open_run(tmp_path / "run", wanted))
    for name, p in load_pretrained(uninterrupted).named_parameters():
        assert torch.equal(p, dict(run.raw_model.named_parameters())[name])


def test_fine_tuning_says_where_the_shape_is_not_the_asked_one(
    uninterrupted: Path, text: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="gpt2lib")
    tuned = config(text, model={"n_layer": 3}, init_from=str(uninterrupted), sample_tokens=0)
    Trainer(tuned, open_run(tmp_path / "run", tuned))
    assert f"the model's shape is that of {uninterrupted}: n_layer 2 (not 3)" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"tokenizer": "char"}}, "not the one that .* was trained with"),
        ({"data": {"tokenizer": "bpe", "vocab_size": 270}}, "not the one that .* was trained with"),
        ({"model": {"block_size": 64}}, "64.*32"),
        ({"init_from": "no/such/folder"}, "no/such/folder"),
    ],
)
def test_fine_tuning_refuses_what_does_not_fit(
    transformers_made: Path, text: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(config(text, **{"init_from": str(transformers_made), **changes}), tmp_path / "run")


def test_a_vocabulary_smaller_than_its_tokenizer_is_refused(
    transformers_made: Path, text: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    shape = {"n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
    hf = GPT2Config(vocab_size=200, bos_token_id=0, eos_token_id=0, **shape)
    GPT2LMHeadModel(hf).save_pretrained(tmp_path / "small")
    AutoTokenizer.from_pretrained(transformers_made).save_pretrained(tmp_path / "small")
    with pytest.raises(UserError, match=r"has \d+ tokens, but its model knows 200"):
        train(config(text, init_from=str(tmp_path / "small")), tmp_path / "run")


def test_a_checkpoint_of_another_text_is_refused(
    uninterrupted: Path, text: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text(verse(40, "ships sail on seas of salt", seed=1), encoding="utf-8")
    alone = tmp_path / "copied" / "checkpoints" / "step-00000008"
    shutil.copytree(checkpoints(uninterrupted)[-1], alone)
    with pytest.raises(UserError, match=r"the (tokenizer|source) is not the one of"):
        train(config(other), tmp_path / "run", resume=str(alone))


def test_run_forgets_only_later_lines(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for step in range(5):
        run.log("metrics.jsonl", step=step)
    run.forget_after(2)
    assert [m["step"] for m in log(tmp_path)] == [0, 1, 2]


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


def test_a_damaged_line_takes_no_other_with_it(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for step in range(3):
        run.log("metrics.jsonl", step=step)
        with (tmp_path / "metrics.jsonl").open("ab") as file:
            file.write(b'{"step": 1, "lo\xff\n[1]\n')
    run.forget_after(2)
    assert [m["step"] for m in log(tmp_path)] == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("optim", [{}, MUON], ids=["adamw", "muon"])
def test_two_processes_compute_what_one_does(
    text: Path, tmp_path: Path, optim: dict[str, Any]
) -> None:
    """Two gloo processes, the same global batch: the same losses within float tolerance."""
    wanted = config(text, model={"dropout": 0.0}, optim=optim)
    train(wanted, tmp_path / "one")
    script = tmp_path / "two.py"
    script.write_text(
        "import sys\nfrom gpt2lib import load_config, train\n"
        "train(load_config(sys.argv[1]), sys.argv[2])\n",
        encoding="utf-8",
    )
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(wanted.to_dict()), encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    subprocess.run([*launch, script, settings, tmp_path / "two"], check=True, timeout=300)
    one, two = (
        torch.tensor([m["loss"] for m in log(tmp_path / name) if "loss" in m])
        for name in ("one", "two")
    )
    torch.testing.assert_close(two, one, atol=1e-4, rtol=0)
    assert len(two) == STEPS
