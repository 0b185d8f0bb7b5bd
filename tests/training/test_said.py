"""What a run says of itself that would else be found out too late, or never."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tiny import config, log, verse

from gpt2lib.config import DataConfig, OptimConfig, TrainConfig
from gpt2lib.data.sources import load_corpus
from gpt2lib.data.sources.files import OURS
from gpt2lib.data.token_files import INFO
from gpt2lib.generation.sampling import next_token_probabilities
from gpt2lib.hub.card import History, training_rows
from gpt2lib.runs.checkpoint import MODEL
from gpt2lib.runs.folder import REQUESTED
from gpt2lib.training.guard import Guard, odd_settings
from gpt2lib.training.loop import train
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.formats import to_json

pytestmark = pytest.mark.usefixtures("private_cache")


def test_a_loss_that_jumps_early_stands_out() -> None:
    guard = Guard()
    losses = [10.8, 9.0, 7.1, 5.8, 823.0, 5.9]
    assert [guard.spike(loss, 6.0) for loss in losses] == [False] * 4 + [True, False]


def test_odd_schedules_are_said() -> None:
    assert odd_settings(TrainConfig(steps=1000)) == []
    (said,) = odd_settings(TrainConfig(steps=20, optim=OptimConfig(lr=1e-3)))
    assert "only rises, up to 0.0002 of 0.001: optim.warmup_steps is 100 of 20 steps" in said
    (said,) = odd_settings(TrainConfig(steps=1000, optim=OptimConfig(min_lr=0.0)))
    assert "the last update changes nothing" in said


def test_a_better_model_that_was_not_saved_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(verse(40), encoding="utf-8")
    rate = {"lr": 2.0, "warmup_steps": 6, "min_lr": 1.0}
    asked = config(text, optim=rate, steps=8, eval_every=2, save_every=8)
    train(asked, tmp_path / "run")
    held_out = [(m["val_loss"], m["step"]) for m in log(tmp_path / "run") if "val_loss" in m]
    loss, step = min(held_out)
    assert step < 8
    assert f"the lowest held-out loss was {loss:.4f} at step {step}, where no" in caplog.text


def test_a_prompt_that_has_no_ids_is_named(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(verse(40), encoding="utf-8")
    with pytest.raises(UserError, match="sample_prompt 'Q'"):
        train(config(text, data={"tokenizer": "char"}, sample_prompt="Q"), tmp_path / "run")


def test_json_has_no_infinity() -> None:
    values = {"perplexity": math.inf, "all": [math.nan, 1.5], "n": 2}
    assert json.loads(to_json(values)) == {"perplexity": None, "all": [None, 1.5], "n": 2}


def test_on_equal_logits_top_k_1_is_temperature_0() -> None:
    logits = torch.zeros(3, 50)
    assert next_token_probabilities(logits, top_k=1).equal(next_token_probabilities(logits, 0.0))


def test_own_output_is_no_source(tmp_path: Path) -> None:
    assert {INFO, REQUESTED, MODEL} <= set(OURS)
    (tmp_path / "text.txt").write_text(verse(40), encoding="utf-8")
    before = load_corpus(DataConfig(str(tmp_path))).fingerprint
    run = tmp_path / "runs" / "first"
    train(config(tmp_path, steps=1), run)
    assert (run / "metrics.jsonl").is_file()
    for source in (tmp_path, tmp_path / "**" / "*.[tj]*"):
        corpus = load_corpus(DataConfig(str(source), val_fraction=0.0))
        assert list(corpus.train()) == [verse(40)]
    assert load_corpus(DataConfig(str(tmp_path))).fingerprint == before
    assert next(load_corpus(DataConfig(str(run / "samples.jsonl"), val_fraction=0.0)).train())


def test_the_card_of_a_mixture_names_its_texts(tmp_path: Path) -> None:
    asked = config(tmp_path / "x").replace(
        data=DataConfig(mixture={"notes.txt": 3.0, "tinyshakespeare": 1.0})
    )
    rows = training_rows(History(asked, 8, {}, False))
    assert rows["data"].startswith("0.75 of the samples: notes.txt; 0.25 of the samples: tiny")
    assert rows["licence of the data"] == "not known; public domain"
