"""The loop: what a run leaves, exact accumulation, and the order of what it reads."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import MUON, STEPS, config, log, losses, stop_after, tensors, verse

from gpt2lib.config import IGNORE, TrainConfig
from gpt2lib.data import batch, loader, sample_windows
from gpt2lib.runs import log as logs
from gpt2lib.training.guard import Interrupted
from gpt2lib.training.loop import Trainer, train
from gpt2lib.training.optim import learning_rate
from gpt2lib.training.state import TrainingState
from gpt2lib.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("private_cache")

Opened = Callable[[TrainConfig, Path], Trainer]


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


@pytest.mark.parametrize("micro_batch", [1, 2, None])
def test_accumulation_equals_the_big_batch(
    text: Path, tmp_path: Path, micro_batch: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the pieces have different numbers of targets to score."""
    original = loader.batch

    def with_ignored(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        idx, targets = original(*arguments)
        hidden = (idx.sum(1) % 13).long()  # depends on the sample alone, not on its piece
        for row, n in enumerate(hidden.tolist()):
            targets[row, :n] = IGNORE
        return idx, targets

    monkeypatch.setattr(loader, "batch", with_ignored)
    plain = config(text, model={"dropout": 0.0}, optim={"grad_clip": 0.0}, micro_batch=4)
    for name, size in (("whole", 4), ("pieces", micro_batch)):
        train(plain.replace(micro_batch=size), tmp_path / name)
    pieces, whole = losses(tmp_path / "pieces"), losses(tmp_path / "whole")
    torch.testing.assert_close(pieces, whole, atol=2e-5, rtol=0)
    for name, a in tensors(tmp_path / "whole").items():
        if name.startswith("model"):
            torch.testing.assert_close(tensors(tmp_path / "pieces")[name], a, atol=1e-4, rtol=0)


def test_the_gradient_is_that_of_the_mean_over_scored_tokens(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Opened
) -> None:
    original = loader.batch

    def with_ignored(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        idx, targets = original(*arguments)
        targets[:, :5] = IGNORE
        return idx, targets

    monkeypatch.setattr(loader, "batch", with_ignored)
    wanted = config(text, model={"dropout": 0.0}, optim={"grad_clip": 0.0})
    run = opened(wanted, tmp_path / "run")
    parts = run.loader.micro_batches(0)
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
    torch.testing.assert_close(losses(tmp_path / "run"), losses(uninterrupted), atol=1e-5, rtol=0)


def test_samples_come_in_the_order_of_the_seed_and_no_other(
    text: Path, tmp_path: Path, opened: Opened
) -> None:
    """Accumulation and steps cut one and the same sequence of samples."""
    seen = {}
    for size in (1, 4):
        changed = config(text, micro_batch=size)
        run = opened(changed, tmp_path / f"by-{size}")
        rows = []
        for run.step in range(STEPS):
            rows += [part.idx for part in run.loader.micro_batches(run.step)]
        seen[size] = torch.cat(rows)
    assert torch.equal(seen[1], seen[4])
    tokens = run.data.train
    starts = sample_windows(len(tokens), 16, changed.seed, range(STEPS * 4))
    assert torch.equal(seen[1], batch(tokens, starts, 16)[0])
    assert len(seen[1].unique(dim=0)) > STEPS


def test_masked_documents_train_score_and_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(12):
        lines = verse(3, seed=i)
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
    saved, flush = TrainingState.save, logs.flush
    monkeypatch.setattr(logs, "flush", lambda path: (events.append(path.name), flush(path)))
    monkeypatch.setattr(
        TrainingState, "save", lambda *args: (events.append("checkpoint"), saved(*args))
    )
    train(config(text, save_every=4), tmp_path / "run")
    assert events == ["metrics.jsonl", "samples.jsonl", "checkpoint"] * 2


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
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    torch.testing.assert_close(two, one, atol=1e-4, rtol=0)
    assert len(two) == STEPS


@pytest.mark.parametrize("clip", [0.01, 0.0])
def test_gradients_are_clipped_before_the_step_and_logged_as_they_were(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Opened, clip: float
) -> None:
    run = opened(config(text, optim={"grad_clip": clip}), tmp_path / "run")
    norms: list[float] = []
    gradients = [p for p in run.raw_model.parameters() if p.requires_grad]
    monkeypatch.setattr(
        type(run.optimizer),
        "step",
        lambda _: norms.append(
            float(torch.stack([p.grad.norm() for p in gradients if p.grad is not None]).norm())
        ),
    )
    run.update()
    (line,) = [m for m in log(tmp_path / "run") if "grad_norm" in m]
    assert line["grad_norm"] > 0.1
    assert norms == pytest.approx([clip or line["grad_norm"]], rel=1e-3)
