"""Evaluation: what is reported at the limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import config, verse
from torch import Tensor, nn

from gpt2lib.config import IGNORE, DataConfig, GPTConfig, TrainConfig
from gpt2lib.data import TokenFile, document_ids, eval_batches, prepare
from gpt2lib.data.sources import corpus_from_texts
from gpt2lib.model.gpt import GPT
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


@pytest.mark.parametrize("masked", [False, True])
def test_bits_per_byte_without_ends_cost_no_second_pass(
    masked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [verse(2, seed=i) for i in range(6)]
    corpus = corpus_from_texts(texts, val_fraction=0.0)
    data = prepare(DataConfig(vocab_size=270), tmp_path / "t", progress=False, corpus=corpus)
    model = GPT(GPTConfig(vocab_size=270, block_size=8, n_layer=1, n_head=2, n_embd=8))
    eot = data.tokenizer.eot if masked else None
    passes: list[int] = []
    model.transformer.h[0].register_forward_hook(lambda *_: passes.append(1))
    plain = score(model, data.train, 8, eot=eot)
    once, passes[:] = len(passes), []
    both = score(model, data.train, 8, eot=eot, end=data.tokenizer.eot)
    assert len(passes) == once
    without = both.pop("bits_per_byte_without_ends")
    assert both == plain
    # The ends are scored as `GPT.forward` scores them where nothing else is a target.
    nats = 0.0
    for idx, targets in eval_batches(data.train, 8, 16):
        alone = targets.where(targets == data.tokenizer.eot, IGNORE)
        documents = () if eot is None else (document_ids(idx, eot),)
        nats += model.eval()(idx, alone, *documents)[0].item()
    expected = plain["bits_per_byte"] - nats / math.log(2) / data.train.header.n_scored_bytes
    assert 0 < without < plain["bits_per_byte"]
    assert without == pytest.approx(expected, rel=1e-6)


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
