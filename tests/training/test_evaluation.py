"""Evaluation: what is reported at the limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import config
from torch import Tensor, nn

from gpt2lib.config import DataConfig, TrainConfig
from gpt2lib.data import TokenFile, prepare
from gpt2lib.data.sources import corpus_from_texts
from gpt2lib.training.evaluation import score
from gpt2lib.training.loop import Trainer
from gpt2lib.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("private_cache")

Opened = Callable[[TrainConfig, Path], Trainer]


class Constant(nn.Module):
    """Loses the same on every token."""

    def __init__(self, nats: float) -> None:
        super().__init__()
        self.nats = nn.Parameter(torch.tensor(nats))

    def forward(self, idx: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        count = (targets != -1).sum()
        return self.nats * count, count


def characters(text: str, tmp_path: Path) -> TokenFile:
    corpus = corpus_from_texts([text], val_fraction=0.0)
    config = DataConfig(tokenizer="char", val_fraction=0.0)
    return prepare(config, tmp_path / "tokens", progress=False, corpus=corpus).train


@pytest.mark.parametrize(
    ("nats", "perplexity"),
    [(2.0, math.exp(2)), (699.0, math.exp(699)), (720.0, math.inf), (math.inf, math.inf)],
)
def test_a_huge_loss_has_an_infinite_perplexity(
    nats: float, perplexity: float, tmp_path: Path
) -> None:
    scores = score(Constant(nats), characters("to be or not", tmp_path), block_size=4)
    assert scores["tokens"] == 11
    assert scores["loss"] == pytest.approx(nats)
    assert scores["perplexity"] == pytest.approx(perplexity)


def test_a_loss_that_is_no_number_stays_one(tmp_path: Path) -> None:
    scores = score(Constant(math.nan), characters("to be", tmp_path), block_size=4)
    assert math.isnan(scores["loss"]) and math.isnan(scores["perplexity"])


def test_a_single_token_cannot_be_scored(tmp_path: Path) -> None:
    tokens = characters("a", tmp_path)
    assert len(tokens) == 1
    with pytest.raises(UserError, match=r"needs at least 2 tokens; .* has 1"):
        score(Constant(1.0), tokens, block_size=4)


def test_an_evaluation_reads_the_same_text_whatever_the_micro_batch(
    text: Path, tmp_path: Path, opened: Opened
) -> None:
    few = config(text, eval_batches=1, data={"val_fraction": 0.5})
    read = []
    for size in (1, 2, 4):
        run = tmp_path / str(size)
        model = few.replace(micro_batch=size)
        read.append(opened(model, run).evaluator.evaluate(0))
    assert read[0]["tokens"] == 4 * 16
    assert [r["loss"] for r in read] == pytest.approx([read[0]["loss"]] * 3, abs=1e-5)
