"""The lecture's ladder and the baselines: what a rung lacks, what counting and compressing cost."""

from __future__ import annotations

import logging
import math
import zlib
from collections import Counter
from pathlib import Path

import pytest
import torch

from gpt2lib import GPT, UserError
from gpt2lib.config import load_config
from gpt2lib.course import ladder
from gpt2lib.course.baselines import (
    bigram_counts,
    bigram_probabilities,
    compressed_bits_per_byte,
    entropy,
    ngram_loss,
    table_loss,
)
from gpt2lib.course.ladder import RUNGS, choose_source, climb, ladder_figure, rung_config
from gpt2lib.data.sources.named import CORPORA

V = 7
PRESETS = [rung.preset for rung in RUNGS]


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(0, V - 1, (200,), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def verse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "verse.txt"
    path.write_text("the king and the queen\nof night do love thee\n" * 40, encoding="utf-8")
    return str(path)


def rung_model(preset: str) -> GPT:
    torch.manual_seed(0)
    return GPT(load_config(preset).model.replace(vocab_size=V)).eval()


def tiny(**changes: object) -> dict[str, object]:
    return {"steps": 3, "batch_size": 2, "eval_batches": 2, "sample_tokens": 0, **changes}


def test_each_rung_adds_what_it_says() -> None:
    shapes = {preset: load_config(preset).model for preset in PRESETS}
    assert [set(shapes[p].without) for p in PRESETS[1:6]] == [
        {"mlp", "residual", "layer_norm"},
        {"mlp", "residual", "layer_norm"},
        {"residual", "layer_norm"},
        {"layer_norm"},
        set(),
    ]
    assert [shapes[p].n_head for p in PRESETS[1:6]] == [1, 4, 4, 4, 4]
    assert [shapes[p].n_layer for p in PRESETS[:6]] == [0, 1, 1, 1, 3, 3]
    assert {shapes[p].block_size for p in PRESETS[:6]} == {8}
    for name in (*PRESETS, "ladder-gpu"):
        config = load_config(name)
        assert config.data.source == ladder.LECTURE_TEXT and config.data.tokenizer == "char"


def test_all_small_rungs_have_the_lectures_budget() -> None:
    for preset in PRESETS[:6]:
        config = load_config(preset)
        assert (config.steps, config.batch_size) == (5000, 32)
    gpu = load_config("ladder-gpu")
    shape = gpu.model
    assert (shape.n_layer, shape.n_head, shape.n_embd, shape.block_size) == (6, 6, 384, 256)
    assert (shape.dropout, gpu.batch_size, gpu.steps, gpu.optim.lr) == (0.2, 64, 5000, 3e-4)


@pytest.mark.parametrize("preset", PRESETS)
def test_only_the_bigram_sees_nothing_before_the_present_token(preset: str) -> None:
    model = rung_model(preset)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("weight") and weight.dim() > 1:
                weight *= 20  # GPT-2's first weights hardly look back
    first, second = torch.tensor([[0, 1, 2, 3]]), torch.tensor([[4, 5, 6, 3]])
    same = torch.equal(model(first)[0, -1], model(second)[0, -1])
    assert same == (preset == "ladder-bigram")


def test_the_bigram_can_be_any_table_of_the_lectures_text() -> None:
    # 65 characters; a softmax does not see a constant of a whole row, so rank 64 is enough.
    model = rung_model("ladder-bigram")
    assert model.config.n_embd >= 64 and not model.config.tie_weights
    wanted = torch.randn(V, V).log_softmax(-1)
    model.transformer.wte.weight.data.zero_()
    model.transformer.wte.weight.data[:, :V] = wanted
    model.lm_head.weight.data.copy_(torch.eye(V, model.config.n_embd))
    torch.testing.assert_close(model(torch.arange(V)[:, None])[:, 0], wanted)


def test_rungs_are_trained_once_and_in_order(verse: str, tmp_path: Path) -> None:
    wanted = (RUNGS[0], RUNGS[3])
    first = climb(tmp_path / "runs", verse, wanted, **tiny())
    assert list(first) == ["bigram", "+ MLP"]
    assert all(result["steps"] == 3 and result["loss"] > 0 for result in first.values())
    again = climb(tmp_path / "runs", verse, wanted, **tiny())
    assert all(result["already_complete"] for result in again.values())


def test_warm_up_never_takes_more_than_a_tenth(verse: str) -> None:
    assert rung_config(RUNGS[1], verse, steps=50).optim.warmup_steps == 5
    assert rung_config(RUNGS[1], verse).optim.warmup_steps == 100
    assert rung_config(RUNGS[1], verse, seed=7).seed == 7


def test_without_the_lectures_text_the_plays_are_climbed_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def absent() -> None:
        raise UserError("tinyshakespeare is not on this machine")

    monkeypatch.setitem(CORPORA, "tinyshakespeare", absent)
    with caplog.at_level(logging.WARNING):
        assert choose_source() == "plays"
    (line,) = caplog.messages
    assert "losses do not apply" in line and "not on this machine" in line


def test_a_text_that_is_there_is_taken_silently(
    verse: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert choose_source(verse) == verse
    assert not caplog.messages


def texts_of(figure: object) -> str:
    (axes,) = figure.axes  # type: ignore[attr-defined]
    return " ".join(text.get_text() for text in axes.texts)


def test_the_figure_shows_the_lecture_only_where_it_applies() -> None:
    losses = {"bigram": [2.61, 2.63], "one head": [2.5]}
    assert "2.62" in texts_of(ladder_figure(losses)) and "2.49" in texts_of(ladder_figure(losses))
    without = texts_of(ladder_figure(losses, lecture=False))
    assert "2.62" in without and "2.49" not in without


def test_entropy_of_equal_tokens_is_ln_v_and_of_one_token_nothing() -> None:
    assert entropy(torch.full((V,), 3)) == pytest.approx(math.log(V))
    assert entropy(torch.tensor([0, 9, 0])) == 0
    assert entropy(torch.tensor([4, 2, 1, 1])) == pytest.approx(1.75 * math.log(2))


def test_bigram_counts_are_those_of_a_loop(ids: torch.Tensor) -> None:
    counts = bigram_counts(ids, V)
    pairs = Counter(zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True))
    for i in range(V):
        assert counts[i].tolist() == [pairs[i, j] for j in range(V)]


def test_bigram_probabilities_are_smoothed_shares(ids: torch.Tensor) -> None:
    table = bigram_probabilities(ids, V, 0.5)
    torch.testing.assert_close(table.sum(dim=1), torch.ones(V, dtype=torch.float64))
    assert table[V - 1].tolist() == [1 / V] * V  # never seen: all alike
    after = [b for a, b in zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True) if a == 2]
    assert table[2, 3].item() == pytest.approx((after.count(3) + 0.5) / (len(after) + 0.5 * V))


@pytest.mark.parametrize("smoothing", [0.0, -1.0, math.inf, math.nan])
def test_smoothing_must_be_positive(ids: torch.Tensor, smoothing: float) -> None:
    with pytest.raises(UserError, match="smoothing must be above 0"):
        bigram_probabilities(ids, V, smoothing)
    with pytest.raises(UserError, match="smoothing must be above 0"):
        ngram_loss(ids, ids, 2, V, smoothing)


def test_a_longer_context_is_scored_as_a_loop_would(ids: torch.Tensor) -> None:
    train, held, n, k = ids[:150].tolist(), ids[150:].tolist(), 3, 0.1
    seen = Counter(tuple(train[i : i + n]) for i in range(len(train) - n + 1))
    contexts = Counter()
    for group, count in seen.items():
        contexts[group[:-1]] += count
    groups = [tuple(held[i : i + n]) for i in range(len(held) - n + 1)]
    nats = [-math.log((seen[g] + k) / (contexts[g[:-1]] + k * V)) for g in groups]
    loss, unseen = ngram_loss(ids[:150], ids[150:], n, V, k)
    assert loss == pytest.approx(sum(nats) / len(nats))
    assert unseen == pytest.approx(sum(contexts[g[:-1]] == 0 for g in groups) / len(groups))


def test_two_ways_to_score_pairs_agree(ids: torch.Tensor) -> None:
    table = bigram_probabilities(ids[:150], V, 1.0)
    # The last token of the text has none after it: as a context it is in no pair.
    assert ngram_loss(ids[:150], ids[150:], 2, V, 1.0)[0] == pytest.approx(
        table_loss(table, ids[150:])
    )


@pytest.mark.parametrize("n", [0, 40])
def test_groups_that_cannot_be_numbered_are_refused(ids: torch.Tensor, n: int) -> None:
    with pytest.raises(UserError, match=f"n is {n}, vocab_size 7"):
        ngram_loss(ids, ids, n, V, 1.0)


def test_compressed_size_is_in_bits_a_byte_and_leaves_out_what_was_read() -> None:
    data, before = b"to be or not to be, that is the question " * 3, b"to be or not to be " * 20
    alone = compressed_bits_per_byte(data, "zlib")
    assert alone == 8 * len(zlib.compress(data, 9)) / len(data)
    both = len(zlib.compress(before + data, 9)) - len(zlib.compress(before, 9))
    assert compressed_bits_per_byte(data, "zlib", before) == 8 * both / len(data) < alone


def test_compressors_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="no compressor 'gzip'; there are zlib, bz2, lzma"):
        compressed_bits_per_byte(b"x", "gzip")
    with pytest.raises(UserError, match="at least 1 byte"):
        compressed_bits_per_byte(b"", "bz2")


@pytest.mark.slow
@pytest.mark.parametrize("rung", [r for r in RUNGS if r.same_size], ids=lambda r: r.preset)
def test_a_rung_reaches_the_lectures_loss(rung: ladder.Rung, tmp_path: Path) -> None:
    if choose_source() != ladder.LECTURE_TEXT:
        pytest.skip("Tiny Shakespeare is not on this machine; set $GPT2LIB_DATA")
    result = climb(tmp_path, ladder.LECTURE_TEXT, [rung], sample_tokens=0)[rung.name]
    assert abs(result["loss"] - rung.lecture) < 0.06
