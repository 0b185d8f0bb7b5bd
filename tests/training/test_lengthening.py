"""A short model made long, in stages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gpt2lib.config import TrainConfig
from gpt2lib.hub import load_pretrained
from gpt2lib.training.lengthening import lengthen, plan
from gpt2lib.training.loop import train
from gpt2lib.utils.errors import UserError

SHORT = {
    "model": {"vocab_size": 300, "block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 16},
    "data": {"tokenizer": "char"},
    "optim": {"lr": 1e-2, "warmup_steps": 50},
    "steps": 6,
    "batch_size": 8,
    "precision": "fp32",
    "device": "cpu",
    "sample_tokens": 0,
    "eval_batches": 2,
}


def test_each_stage_doubles_block_and_window_and_halves_batch_and_rate() -> None:
    config = TrainConfig.from_dict({**SHORT, "micro_batch": 4})
    made = plan(config, stages=3, steps=100)
    assert [c.model.block_size for c in made] == [32, 64, 128]
    assert [c.model.window for c in made] == [16, 32, 64]  # at first the whole old block
    assert [c.optim.lr for c in made] == [5e-3, 2.5e-3, 1.25e-3]
    assert [(c.batch_size, c.micro_batch) for c in made] == [(4, 2), (2, 1), (1, 1)]
    tokens = {c.batch_size * c.model.block_size for c in made}
    assert tokens == {config.batch_size * config.model.block_size}
    assert [c.steps for c in made] == [100] * 3
    assert {c.optim.warmup_steps for c in made} == {10}


def test_a_micro_batch_that_is_found_out_is_found_out_in_each_stage() -> None:
    config = TrainConfig.from_dict({**SHORT, "micro_batch": "auto"})
    made = plan(config, stages=3, steps=100)
    assert {stage.micro_batch for stage in made} == {"auto"}


def test_every_rate_is_halved_and_one_that_is_not_set_stays_so() -> None:
    optim = {**SHORT["optim"], "name": "muon", "muon_lr": 0.04, "embedding_lr": 0.2}
    first, second = plan(TrainConfig.from_dict({**SHORT, "optim": optim}), stages=2, steps=100)
    rates = [(c.optim.muon_lr, c.optim.embedding_lr, c.optim.head_lr) for c in (first, second)]
    assert rates == [(0.02, 0.1, None), (0.01, 0.05, None)]


def test_a_window_that_is_there_is_doubled() -> None:
    config = TrainConfig.from_dict(SHORT)
    for window, wanted in ((4, [8, 16]), ((2, 8), [(4, 16), (8, 32)])):
        windowed = config.replace(model=config.model.replace(window=window))
        assert [c.model.window for c in plan(windowed, 2, 10)] == wanted


@pytest.mark.parametrize(
    ("stages", "message"),
    [(0, "at least 1, not 0"), (4, "batch_size 8 .* 4 times.* multiple of 16")],
)
def test_plans_that_do_not_work_out(stages: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan(TrainConfig.from_dict(SHORT), stages, 10)


@pytest.mark.parametrize("position", ["learned", "rope"])
def test_the_recipe_runs_and_goes_on(position: str, tmp_path: Path) -> None:
    text = "".join(chr(97 + i * i % 7) for i in range(4000))
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    config = TrainConfig.from_dict(
        {
            **SHORT,
            "model": {**SHORT["model"], "position": position},  # type: ignore[dict-item]
            "data": {"tokenizer": "char", "source": str(tmp_path / "text.txt")},
        }
    )
    train(config, tmp_path / "short")
    last = lengthen(tmp_path / "short", tmp_path / "long", stages=2, steps=4)
    assert last == tmp_path / "long" / "stage-2"
    model = load_pretrained(last)
    assert (model.config.block_size, model.config.window) == (64, 32)
    assert model.config.rope_scale == (4 if position == "rope" else 1)
    assert model(torch.zeros(1, 64, dtype=torch.long)).isfinite().all()
    first = load_pretrained(tmp_path / "long" / "start-1")
    short = load_pretrained(tmp_path / "short")
    for name, weight in first.named_parameters():
        if "wpe" not in name:
            assert torch.equal(weight, dict(short.named_parameters())[name])
    before = (last / "metrics.jsonl").read_text(encoding="utf-8")
    written = (tmp_path / "long" / "start-2" / "manifest.json").stat().st_mtime_ns
    assert lengthen(tmp_path / "short", tmp_path / "long", stages=2, steps=4) == last
    assert (last / "metrics.jsonl").read_text(encoding="utf-8") == before  # nothing done again
    assert (tmp_path / "long" / "start-2" / "manifest.json").stat().st_mtime_ns == written


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no run: config\.yaml is missing"):
        lengthen(tmp_path, tmp_path / "long")


def test_stages_of_another_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("abcdefg" * 600, encoding="utf-8")
    data = {"tokenizer": "char", "source": str(tmp_path / "text.txt")}
    for name, steps in (("one", 2), ("two", 3)):
        train(TrainConfig.from_dict({**SHORT, "data": data, "steps": steps}), tmp_path / name)
    lengthen(tmp_path / "one", tmp_path / "long", stages=1, steps=2)
    with pytest.raises(UserError, match="stages of another model"):
        lengthen(tmp_path / "two", tmp_path / "long", stages=1, steps=2)


def test_an_odd_block_is_the_first_window_too() -> None:
    for block_size in (1, 33):
        config = TrainConfig.from_dict(SHORT)
        config = config.replace(model=config.model.replace(block_size=block_size))
        assert plan(config, 1, 10)[0].model.window == block_size
