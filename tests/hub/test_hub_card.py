"""The model card says what the files of a run say, and nothing else."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_helpers import refused
from huggingface_hub import ModelCard
from transformers_twin import CHARACTERS, TINY

from gpt2lib.config import DataConfig, TrainConfig
from gpt2lib.data import prepare
from gpt2lib.hub import export
from gpt2lib.hub.saving import save_model
from gpt2lib.model.gpt import GPT


def run(folder: Path, source: str = "plays", step: int = 200, **changes: Any) -> Path:
    """Write a run with one checkpoint and the logs that a run has."""
    save_model(GPT(TINY), CHARACTERS, folder / "checkpoints" / f"step-{step:08d}")
    data = DataConfig(source=source, tokenizer="char")
    config = TrainConfig(model=TINY, data=data, steps=200, batch_size=8).replace(**changes)
    text = yaml.safe_dump(config.to_dict())
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    lines = [
        {"step": 100, "loss": 3.0},
        {"step": 100, "val_loss": 2.75, "val_bits_per_byte": 3.5},
        {"step": 150, "loss": 2.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 15'
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    result = {"steps": 200, "loss": 1.51234, "bits_per_byte": 2.18181}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return folder


def card(source: Path, folder: Path, **options: Any) -> str:
    return (export(source, folder, **options) / "README.md").read_text(encoding="utf-8")


def test_the_card_of_a_run(tmp_path: Path) -> None:
    text = card(run(tmp_path / "run"), tmp_path / "my-model", licence="MIT")
    front = ModelCard(text).data
    assert (front.library_name, front.pipeline_tag) == ("transformers", "text-generation")
    assert front.license == "mit" and front.datasets is None
    assert "# my-model\n" in text and "`GPT2LMHeadModel`" in text and "`mit`" in text
    assert f"{GPT(TINY).num_parameters():,} parameters" in text
    for name, value in (("n_layer", 2), ("n_embd", 32), ("block_size", 24), ("n_kv_head", 4)):
        assert f"| {name} | {value} |" in text
    assert "| data | plays: the plays of Shakespeare" in text
    assert "| licence of the data | text: public domain" in text
    assert "| updates | 200 |" in text
    assert f"| tokens seen | {200 * 8 * 24:,} |" in text
    assert "| held-out loss | 1.5123 nats per token |" in text
    assert "| held-out bits per byte | 2.1818 |" in text
    assert "from transformers import pipeline" in text
    assert "started from" not in text


def test_an_earlier_checkpoint_has_its_own_loss_or_none(tmp_path: Path) -> None:
    text = card(run(tmp_path / "a", step=100) / "checkpoints" / "step-00000100", tmp_path / "hf-a")
    assert "| updates | 100 |" in text and f"| tokens seen | {100 * 8 * 24:,} |" in text
    assert "loss | 2.7500 nats per token, on a part of the held-out text |" in text
    text = card(run(tmp_path / "b", step=150), tmp_path / "hf-b")
    assert "| held-out loss | not known |" in text and "1.51" not in text and "2.75" not in text


def test_without_a_run_nothing_is_said_about_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = save_model(GPT(TINY), CHARACTERS, tmp_path / "ours")
    broken = run(tmp_path / "broken")
    (broken / "config.yaml").write_text("[", encoding="utf-8")
    sources = [ours, export(ours, tmp_path / "first"), broken]
    for i, source in enumerate(sources):
        text = card(source, tmp_path / f"hf-{i}")
        assert "is not known" in text and "updates" not in text and "data |" not in text
        assert "terms for the weights were not stated" in text
        assert ModelCard(text).data.license == "unknown"
    with caplog.at_level(logging.WARNING):
        card(broken, tmp_path / "again")
    assert "says nothing about the run" in caplog.text


def test_only_the_last_part_of_a_path_is_told(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    text = card(
        run(tmp_path / "run", str(secret / "my|notes.txt"), init_from=str(secret / "base")),
        tmp_path / "hf",
    )
    assert "| data | my\\|notes.txt |" in text
    assert "| licence of the data | not known |" in text
    assert "| started from the weights of | base |" in text
    assert "secret" not in text and str(tmp_path) not in text


def test_sources_of_the_hub_and_prepared_ones(tmp_path: Path) -> None:
    source = run(tmp_path / "a", "hf:someone/their-data", init_from="someone/their-gpt2")
    text = card(source, tmp_path / "hf-a")
    assert ModelCard(text).data.datasets == ["someone/their-data"]
    assert "someone/their-data, a dataset of the Hugging Face hub" in text
    assert "| started from the weights of | someone/their-gpt2 |" in text
    text = card(run(tmp_path / "t", "tinyshakespeare"), tmp_path / "hf-t")
    assert "| licence of the data | public domain |" in text
    notes = tmp_path / "notes.txt"
    notes.write_text("to be or not to be. " * 40, encoding="utf-8")
    made = prepare(DataConfig(source=str(notes), tokenizer="char"), out=tmp_path / "prepared")
    text = card(run(tmp_path / "b", str(made.folder)), tmp_path / "hf-b")
    assert "| data | notes.txt |" in text and "the user's own text" in text


def test_what_is_no_licence_is_refused(tmp_path: Path) -> None:
    ours = save_model(GPT(TINY), CHARACTERS, tmp_path / "ours")
    for licence in ("MIT License", "", "a: b", "mit\nx: y"):
        refused("no identifier", export, ours, tmp_path / "hf", licence=licence)
    assert not (tmp_path / "hf").exists()
