"""The model that comes with the course opens here and in transformers, without a network."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from gpt2lib.course.shipped import PLAYS, model_folder
from gpt2lib.hub import load_pretrained, load_tokenizer_for


def test_the_shipped_model_knows_the_names_of_the_plays_and_is_small() -> None:
    model, tokenizer = load_pretrained(PLAYS), load_tokenizer_for(PLAYS)
    with torch.no_grad():
        for name in ("HAML|ET", "ORL|AND"):
            begun, rest = name.split("|")
            idx = torch.tensor([tokenizer.encode(f"Good morrow, cousin.\n\n{begun}")])
            assert tokenizer.decode([int(model(idx)[0, -1].argmax())]) == rest
    assert sum(file.stat().st_size for file in PLAYS.iterdir()) < 3_000_000


def test_transformers_opens_it_too() -> None:
    idx = torch.arange(64).view(1, 64)
    theirs = AutoModelForCausalLM.from_pretrained(PLAYS, dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            theirs(idx).logits, load_pretrained(PLAYS)(idx), atol=1e-4, rtol=1e-4
        )


def test_what_cannot_be_had_is_said_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert model_folder("nobody/has-this-model") == PLAYS
    assert "its own small model" in caplog.text and "nobody/has-this-model" in caplog.text
    assert model_folder(str(PLAYS)) == PLAYS
