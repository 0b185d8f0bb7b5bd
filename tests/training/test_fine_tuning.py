"""A run that starts from the weights of another model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import config, log

from gpt2lib import load_pretrained
from gpt2lib.config import TrainConfig
from gpt2lib.hub import export
from gpt2lib.runs.checkpoint import checkpoints
from gpt2lib.training.loop import Trainer, train
from gpt2lib.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("private_cache")

Opened = Callable[[TrainConfig, Path], Trainer]


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


def test_fine_tuning_starts_from_the_very_weights(
    uninterrupted: Path, text: Path, tmp_path: Path, opened: Opened
) -> None:
    wanted = config(text, init_from=str(uninterrupted))
    run = opened(wanted, tmp_path / "run")
    for name, p in load_pretrained(uninterrupted).named_parameters():
        assert torch.equal(p, dict(run.raw_model.named_parameters())[name])


def test_fine_tuning_says_where_the_shape_is_not_the_asked_one(
    uninterrupted: Path,
    text: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    opened: Opened,
) -> None:
    caplog.set_level("INFO", logger="gpt2lib")
    tuned = config(text, model={"n_layer": 3}, init_from=str(uninterrupted), sample_tokens=0)
    opened(tuned, tmp_path / "run")
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
