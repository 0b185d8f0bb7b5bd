"""A training that ends in so many minutes, and one beside other programs; nothing here is timed."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpt2lib.cli import main, minutes
from gpt2lib.config import TrainConfig, load_config, preset_names
from gpt2lib.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("private_cache")


def chosen(seconds: float, wanted: float, *given: str, **changes: Any) -> TrainConfig:
    config = load_config("cpu", changes)
    return minutes.for_minutes(config, wanted, given, Path("new"), lambda _: seconds)


def test_the_steps_fill_the_minutes_and_all_else_follows_them() -> None:
    preset, config = load_config("cpu"), chosen(0.2, 6)
    forwards = config.steps / config.eval_every * config.eval_batches  # each a third of an update
    assert 0.2 * (config.steps + forwards / 3) == pytest.approx(360, rel=0.01)
    for name in ("eval_every", "save_every"):
        share = getattr(config, name) / config.steps
        assert share == pytest.approx(getattr(preset, name) / preset.steps, rel=0.01)
    assert config.optim.warmup_steps == round(100 * config.steps / preset.steps)
    assert chosen(0.2, 12).steps == pytest.approx(config.steps + 1800, abs=1)
    assert config.model == preset.model and config.optim.lr == preset.optim.lr
    short = chosen(1.0, 0.05)  # of three steps none may become 0
    assert (short.steps, short.save_every, short.optim.warmup_steps) == (2, 1, 1)
    assert short.eval_every > 2  # an evaluation takes more than all there is
    assert (
        minutes.for_minutes(
            load_config("cpu-fast"), 1, (), Path("new"), lambda _: 1.0
        ).optim.warmup_steps
        == 0
    )


def test_what_was_given_stays() -> None:
    given = {"eval_every": 7, "optim.warmup_steps": 3}
    config = chosen(0.2, 6, *given, **given)
    assert (config.eval_every, config.optim.warmup_steps) == (7, 3)
    assert config.steps * (1 + 20 / 3 / 7) == pytest.approx(1800, abs=2)


@pytest.mark.parametrize(
    ("seconds", "wanted", "given", "said"),
    [
        (0.2, 6, ["steps"], "--minutes or --steps, not both"),
        (0.2, 0, [], "must be above 0, not 0"),
        (0.2, float("nan"), [], "must be above 0"),
        (100, 1, [], "takes 100 seconds here, and 1 minutes have no room"),
    ],
)
def test_what_cannot_be_is_refused(
    seconds: float, wanted: float, given: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        chosen(seconds, wanted, *given)


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="one process"):
        chosen(0.2, 6)


def test_a_run_keeps_its_steps_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog.\n" * 60, encoding="utf-8")
    command = ["train", "smoke", "--out", str(tmp_path / "run"), "--minutes", "1"]
    command += ["--data.source", str(text), "--data.vocab_size", "257", "--device", "cpu"]
    monkeypatch.setattr(minutes, "update_seconds", lambda config: 10.0)
    assert main(command) == 0
    kept = yaml.safe_load((tmp_path / "run" / "requested.yaml").read_text(encoding="utf-8"))
    assert kept["steps"] == 4
    assert "an update takes 10 seconds here: 4 steps (the preset has 40)" in capsys.readouterr().err
    monkeypatch.setattr(minutes, "update_seconds", lambda config: 1 / 0)  # is asked no more
    assert main(command) == 0
    assert "is complete already" in capsys.readouterr().out
    assert main([*command, "--steps", "3"]) == 2


def test_an_update_is_really_timed() -> None:
    config = load_config("smoke", {"device": "cpu", "precision": "fp32", "micro_batch": 4})
    assert 0 < minutes.update_seconds(config) < 60


@pytest.mark.parametrize(
    ("busy", "named", "device", "policy"),
    [
        (95.0, {}, "auto", "PASSIVE"),
        (5.0, {}, "auto", None),
        (95.0, {"OMP_NUM_THREADS": "1"}, "auto", None),
        (95.0, {"OMP_WAIT_POLICY": "ACTIVE"}, "auto", "ACTIVE"),
        (95.0, {}, "cuda", None),
    ],
)
def test_threads_sleep_on_a_busy_machine_unless_something_is_set(
    busy: float,
    named: dict[str, str],
    device: str,
    policy: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import psutil

    monkeypatch.setattr(psutil, "cpu_percent", lambda seconds: busy)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    for name in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.INFO):
        minutes.spare_a_busy_machine(load_config("cpu", {"device": device}))
    assert os.environ.get("OMP_WAIT_POLICY") == policy
    assert ("sleep while they wait" in caplog.text) == (policy == "PASSIVE")


def test_every_preset_is_a_run() -> None:
    for name in preset_names():
        assert load_config(name).steps > 0
        assert not load_config(name).unused(), name
