"""What is refused, or said, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import config

from gpt2lib.config import TrainConfig
from gpt2lib.training.loop import Trainer, train
from gpt2lib.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("private_cache")

Opened = Callable[[TrainConfig, Path], Trainer]


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


def test_a_sample_prompt_longer_than_the_block_is_refused_at_once(
    text: Path, tmp_path: Path
) -> None:
    wanted = config(text, sample_prompt="the king and queen " * 20)
    with pytest.raises(UserError, match=r"sample_prompt has \d+ tokens, but block_size is 16"):
        train(wanted, tmp_path / "run")
    train(wanted.replace(sample_tokens=0, steps=1), tmp_path / "silent")


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
