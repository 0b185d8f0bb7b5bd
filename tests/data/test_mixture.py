"""Mixtures: which sample comes from which source, and that nothing crosses a border."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gpt2lib.config import DataConfig, GPTConfig, TrainConfig
from gpt2lib.data import Joined, Mixture, Prepared, batch, eval_batches, prepare
from gpt2lib.data.order import SHARES, interleave, whole_shares, windows_per_epoch
from gpt2lib.model.gpt import GPT
from gpt2lib.training.costs import resolved_model
from gpt2lib.training.evaluation import score
from gpt2lib.utils.errors import UserError

BLOCK = 8


# ── which source ────────────────────────────────────────────────────────────────────────────────

weights = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(weights)
def test_shares_are_whole_and_true_to_the_weights(given_weights: list[float]) -> None:
    shares = whole_shares(given_weights)
    assert sum(shares) == SHARES and min(shares) >= 1
    for share, weight in zip(shares, given_weights, strict=True):
        assert abs(share - SHARES * weight / sum(given_weights)) <= len(shares)
    assert whole_shares([2 * w for w in given_weights]) == shares


def test_a_tiny_weight_is_still_drawn() -> None:
    assert whole_shares([1e-300, 1e300]) == [1, SHARES - 1]


@settings(max_examples=60, deadline=None)
@given(weights, st.integers(1, 3000))
def test_shares_are_exact_and_every_sample_of_a_source_comes_once_in_order(
    given_weights: list[float], n: int
) -> None:
    source, number = interleave(whole_shares(given_weights), np.arange(n))
    for k, weight in enumerate(given_weights):
        mine = number[source == k]
        assert mine.tolist() == list(range(len(mine)))
        assert abs(len(mine) - n * weight / sum(given_weights)) < len(given_weights)


def test_shares_are_exact_over_a_whole_period() -> None:
    for shares in ([3, 1], [1, 2, 4], [5, 5, 1, 9]):
        source, _ = interleave(shares, np.arange(3 * sum(shares)))
        for period in source.reshape(3, -1):
            assert np.bincount(period).tolist() == shares


def test_a_sample_depends_on_its_number_alone() -> None:
    shares = whole_shares([0.2, 0.5, 0.3])
    all_of_them = np.stack(interleave(shares, np.arange(500)))
    some = np.random.default_rng(0).permutation(500)[:200].reshape(20, 10)
    np.testing.assert_array_equal(np.stack(interleave(shares, some)), all_of_them[:, some])


def test_far_samples_need_no_more_bits_than_there_are() -> None:
    shares, far = whole_shares([1, 2, 4]), 10**15 + np.arange(700)
    source, number = interleave(shares, far)
    for k, share in enumerate(shares):
        mine = number[source == k]
        assert np.all(np.diff(mine) == 1)
        assert abs(int(mine[0]) - 10**15 * share // SHARES) <= 3
        assert len(mine) == pytest.approx(100 * 2**k, abs=3)


# ── the files ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sources of different sizes, each of words that no other has."""
    folder = tmp_path_factory.mktemp("sources")
    for name, size in (("a", 60), ("b", 150), ("c", 400)):
        lines = [" ".join(f"{name}{(7 * i + j) % 10}" for j in range(4)) for i in range(size // 4)]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def config_of(folder: Path, mixture: dict[str, float], **fields: object) -> DataConfig:
    values = {"vocab_size": 270, "val_fraction": 0.2, "cache": str(folder / "cache"), **fields}
    return DataConfig(mixture={str(folder / f"{n}.txt"): w for n, w in mixture.items()}, **values)


def mixed(folder: Path, mixture: dict[str, float], **fields: object) -> Prepared:
    return prepare(config_of(folder, mixture, **fields), progress=False)


@pytest.fixture(scope="module")
def data(folder: Path) -> Prepared:
    return mixed(folder, {"c": 1, "a": 2, "b": 5})


def letters(data: Prepared, ids: Tensor) -> set[str]:
    """Return which sources the text of some ids has words of."""
    return set(data.tokenizer.decode(ids.tolist())) & set("abc")


def test_the_files_are_read_as_one(data: Prepared, folder: Path) -> None:
    assert isinstance(data.train, Mixture) and isinstance(data.val, Joined)
    assert [Path(name).stem for name in data.train.weights] == ["a", "b", "c"]
    for whole in (data.train, data.val):
        joined = np.concatenate([np.asarray(part.tokens) for part in whole.parts])
        np.testing.assert_array_equal(whole.tokens[np.arange(len(whole))], joined)
        assert len(whole) == whole.header.n_tokens == len(joined)
        assert whole.header.n_scored_bytes == sum(p.header.n_scored_bytes for p in whole.parts)
        again = pickle.loads(pickle.dumps(whole))
        assert (again.header, again.name, len(again.parts)) == (whole.header, whole.name, 3)
    texts = [(folder / f"{name}.txt").read_text(encoding="utf-8") for name in "abc"]
    assert data.train.header.n_bytes + data.val.header.n_bytes == sum(map(len, texts))


def test_a_window_never_leaves_its_source(data: Prepared) -> None:
    starts = data.train.windows(BLOCK, 3, np.arange(400))
    idx, targets = batch(data.train, starts, BLOCK)
    seen = [letters(data, torch.cat((i, t))) for i, t in zip(idx, targets, strict=True)]
    assert all(len(one) == 1 for one in seen)
    counts = [sum(one == {name} for one in seen) for name in "abc"]
    assert counts == pytest.approx([100, 250, 50], abs=2)


def test_each_source_keeps_the_order_it_has_alone(data: Prepared) -> None:
    assert isinstance(data.train, Mixture)
    indices = np.arange(300)
    starts = data.train.windows(BLOCK, 3, indices)
    source, _ = interleave(data.train.shares, indices)
    first = 0
    for k, part in enumerate(data.train.parts):
        mine = starts[source == k] - first
        np.testing.assert_array_equal(mine, part.windows(BLOCK, 3, np.arange(len(mine))))
        epoch = windows_per_epoch(len(part), BLOCK)
        assert len(mine) > 2 * epoch or k == 2
        for i in range(len(mine) // epoch):  # every window once an epoch, end to end
            visited = np.sort(mine[i * epoch : (i + 1) * epoch])
            np.testing.assert_array_equal(np.diff(visited), BLOCK)
        first += len(part)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_neither_processes_nor_a_resumption_change_the_order(
    data: Prepared, processes: int
) -> None:
    whole = data.train.windows(BLOCK, 3, np.arange(160))
    share = 16 // processes
    for step in (0, 4, 9):  # any step, without those before it
        read = [
            data.train.windows(BLOCK, 3, range(first, first + share))
            for first in range(step * 16, step * 16 + 16, share)
        ]
        np.testing.assert_array_equal(np.concatenate(read), whole[step * 16 : step * 16 + 16])
    assert not np.array_equal(data.train.windows(BLOCK, 4, np.arange(160)), whole)


def test_the_fingerprint_knows_sources_and_weights_and_not_their_order(
    data: Prepared, folder: Path
) -> None:
    same = mixed(folder, {"a": 4, "b": 10, "c": 2})
    assert same.train.header == data.train.header
    parts = dict(zip(data.train.weights, data.train.parts, strict=True))
    turned = dict(reversed(parts.items()))
    assert Mixture(turned, data.train.weights).header == data.train.header
    others = [mixed(folder, {"a": 2, "b": 5, "c": 2}), mixed(folder, {"a": 2, "b": 5})]
    prints = {one.train.header.source for one in (data, *others)}
    assert len(prints) == 3


def test_other_weights_encode_nothing_again(
    data: Prepared, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt2lib.data import mixture, preparation

    def refuse(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(mixture, "learn_tokenizer", refuse)
    monkeypatch.setattr(preparation, "complete", refuse)
    other = mixed(folder, {"a": 1, "b": 1, "c": 9})
    assert other.tokenizer.fingerprint == data.tokenizer.fingerprint
    with pytest.raises(AssertionError):
        mixed(folder, {"a": 1, "b": 1}, vocab_size=260)


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_the_tokenizer_knows_all_sources(folder: Path, kind: str, tmp_path: Path) -> None:
    both = mixed(folder, {"a": 1, "c": 1}, tokenizer=kind, vocab_size=300)
    alone = prepare(
        DataConfig(
            source=str(folder / "a.txt"), tokenizer=kind, vocab_size=300, cache=str(tmp_path)
        ),
        progress=False,
    )
    text = "c1 c2 c3"
    assert both.tokenizer.decode(both.tokenizer.encode(text)) == text
    if kind == "bpe":
        assert len(both.tokenizer.encode(text)) < len(alone.tokenizer.encode(text))


def test_a_prepared_folder_lends_its_tokenizer(folder: Path, tmp_path: Path) -> None:
    ready = prepare(
        DataConfig(source=str(folder / "a.txt"), vocab_size=265), tmp_path / "ready", progress=False
    )
    mixture = {str(tmp_path / "ready"): 1.0, str(folder / "b.txt"): 1.0}
    config = DataConfig(mixture=mixture, cache=str(tmp_path / "cache"))
    made = prepare(config, progress=False)
    assert made.tokenizer.fingerprint == ready.tokenizer.fingerprint
    assert {len(part) for part in made.train.parts} >= {len(ready.train)}


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_an_estimate_knows_the_vocabulary_of_a_mixture(folder: Path, kind: str) -> None:
    config = config_of(folder, {"a": 1, "c": 1}, tokenizer=kind, vocab_size=258)
    made = prepare(config, progress=False)
    assert resolved_model(TrainConfig(data=config)).vocab_size == made.tokenizer.vocab_size


# ── evaluation ──────────────────────────────────────────────────────────────────────────────────


def test_an_evaluation_reads_each_file_by_itself(data: Prepared) -> None:
    assert data.val is not None
    seen = []
    for idx, targets in eval_batches(data.val, BLOCK, 3):
        for i, t in zip(idx, targets, strict=True):
            kept = t != -1
            assert len(letters(data, torch.cat((i[kept], t[kept])))) <= 1
            seen += t[kept].tolist()
    assert seen == [i for part in data.val.parts for i in part.tokens[1:].tolist()]
    assert len(list(eval_batches(data.val, BLOCK, 3, limit=2))) == 2


class Counting(nn.Module):
    """Loses as many nats on a target as its id says, so that sources differ."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.01))

    def forward(self, idx: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        kept = targets != -1
        return self.scale * targets[kept].sum(), kept.sum()


def test_the_loss_is_the_token_weighted_mean_of_the_sources(data: Prepared) -> None:
    assert data.val is not None
    torch.manual_seed(0)
    tiny = GPTConfig(vocab_size=270, block_size=BLOCK, n_layer=1, n_head=1, n_embd=8)
    for model in (Counting(), GPT(tiny)):
        whole = score(model, data.val, BLOCK)
        parts = [score(model, part, BLOCK) for part in data.val.parts]
        n = sum(part["tokens"] for part in parts)
        assert whole["tokens"] == n == len(data.val) - 3
        mean = sum(part["loss"] * part["tokens"] for part in parts) / n
        assert whole["loss"] == pytest.approx(mean, rel=1e-5)
        n_bytes = sum(part.header.n_scored_bytes for part in data.val.parts)
        assert whole["bits_per_byte"] == pytest.approx(mean * n / math.log(2) / n_bytes, rel=1e-5)


# ── what is refused ─────────────────────────────────────────────────────────────────────────────


def test_what_cannot_work_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    cases = [
        ({"mixture": {"no-such-file.txt": 1.0, "plays": 1.0}}, {}, "no-such-file.txt"),
        ({"mixture": {"playz": 1.0}}, {}, "playz"),
        (
            {"mixture": {str(folder / "a.txt"): 1.0}},
            {"out": tmp_path / "out"},
            "each source by itself",
        ),
    ]
    for fields, arguments, said in cases:
        with pytest.raises(UserError, match=said) as info:
            prepare(DataConfig(cache=str(tmp_path), **fields), progress=False, **arguments)
        assert "\n" not in str(info.value)
    assert not (tmp_path / "out").exists()


def test_a_source_too_short_for_the_block_is_named(data: Prepared) -> None:
    lengths = [len(part) for part in data.train.parts]
    assert lengths[0] < 140 < min(lengths[1:])
    for ask in (data.train.require, lambda block: data.train.windows(block, 0, range(9))):
        with pytest.raises(UserError, match=rf"block_size 140 .* a\.txt has {lengths[0]}"):
            ask(140)


def test_files_of_two_tokenizers_are_not_joined(data: Prepared, folder: Path) -> None:
    other = mixed(folder, {"a": 1, "b": 1}, vocab_size=258)
    with pytest.raises(UserError, match="is not the one"):
        Joined("both", [*data.train.parts, *other.train.parts])
    with pytest.raises(TypeError, match="no order of samples"):
        data.val.windows(BLOCK, 0, range(3))
