"""Data: the order of the samples, token files, batches, and preparation."""

from __future__ import annotations

import dataclasses
import json
import pickle

import numpy as np
import pytest

from gpt2lib import data
from gpt2lib.data.order import ROUNDS, _permute, _word
from gpt2lib.errors import UserError

# --- order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [*range(1, 70), 255, 256, 257, 1000, 4097])
def test_an_epoch_visits_every_window_once(n):
    places = np.arange(n, dtype=np.uint64)
    for key in (0, 1, 2**64 - 1):
        windows = _permute(places, n, np.repeat(_word(key), n))
        assert sorted(windows.tolist()) == list(range(n))


@pytest.mark.parametrize("n_tokens", [9, 16, 17, 18, 25, 400, 401, 407])
def test_the_windows_of_an_epoch_lie_end_to_end_inside_the_file(n_tokens):
    block = 8
    n = data.windows_per_epoch(n_tokens, block)
    assert n == max(1, (n_tokens - 1) // block - 1)
    for epoch in range(20):
        starts = np.sort(data.sample_windows(n_tokens, block, 3, np.arange(n) + epoch * n))
        assert starts[0] >= 0 and starts[-1] + block < n_tokens
        assert (np.diff(starts) == block).all()


def test_over_the_epochs_every_token_is_an_input_and_a_target():
    n_tokens, block = 45, 8
    starts = data.sample_windows(n_tokens, block, 0, np.arange(1000))
    inputs = {int(s) + t for s in starts for t in range(block)}
    assert inputs == set(range(n_tokens - 1))
    shifts = {int(s) % block for s in starts}
    assert shifts == set(range(block))  # so every token is met at every position


def test_order_is_independent_of_how_it_is_asked_for():
    whole = data.sample_windows(10_000, 16, 7, np.arange(2000))
    for size in (1, 3, 64, 700):
        parts = [
            data.sample_windows(10_000, 16, 7, np.arange(i, min(i + size, 2000)))
            for i in range(0, 2000, size)
        ]
        assert np.array_equal(np.concatenate(parts), whole)
    strided = data.sample_windows(10_000, 16, 7, range(1, 2000, 4))
    assert np.array_equal(strided, whole[1::4])
    assert np.array_equal(
        data.sample_windows(10_000, 16, 7, np.arange(6).reshape(2, 3)).ravel(), whole[:6]
    )
    assert data.sample_windows(10_000, 16, 7, 5) == whole[5]
    assert data.sample_windows(10_000, 16, 7, []).shape == (0,)


def slow_start(n_tokens, block, seed, index):
    """The same order in Python's integers, from the description in `order.py`."""

    def mix(word):
        word = (word + 0x9E3779B97F4A7C15) % 2**64
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
        return word ^ (word >> 31)

    assert mix(0) == 0xE220A8397B1DCDAF  # the first number of SplitMix64 from 0, as published
    n = max(1, (n_tokens - 1) // block - 1)
    epoch, window = divmod(index, n)
    key = mix(mix(seed) ^ epoch)
    half = 1
    while 4**half < n:
        half += 1
    while True:
        left, right = divmod(window, 2**half)
        for round_ in range(ROUNDS):
            left, right = right, left ^ (mix(mix(key ^ round_) ^ right) % 2**half)
        window = left * 2**half + right
        if window < n:
            return mix(key) % (n_tokens - n * block) + window * block


@pytest.mark.parametrize(("n_tokens", "block"), [(300, 8), (10_000, 16), (10**12, 1024)])
def test_order_equals_the_description(n_tokens, block):
    for seed in (0, 1337):
        indices = [0, 1, 2, 3, 35, 36, 622, 623, 10**9]
        expected = [slow_start(n_tokens, block, seed, i) for i in indices]
        assert data.sample_windows(n_tokens, block, seed, indices).tolist() == expected


def test_order_is_fixed_for_good():
    # Changing these numbers would break the resuming of every run made before.
    starts = data.sample_windows(10_000, 16, 1337, [0, 1, 2, 622, 623, 10**12])
    assert starts.tolist() == [4723, 2227, 8371, 7091, 3333, 1696]


def test_epochs_and_seeds_differ():
    n = data.windows_per_epoch(10_000, 16)
    first = data.sample_windows(10_000, 16, 1, np.arange(n)) // 16
    second = data.sample_windows(10_000, 16, 1, np.arange(n) + n) // 16
    other = data.sample_windows(10_000, 16, 2, np.arange(n)) // 16
    # Two random permutations of n agree in about one place; in 12 with probability 1e-9.
    assert (first == second).sum() < 12
    assert (first == other).sum() < 12
    assert (np.diff(first) == 1).sum() < 12  # nor is it the order of the file
    huge = data.sample_windows(10_000, 16, 2**80 + 1, np.arange(n)) // 16
    assert huge.shape == (n,)


@pytest.mark.parametrize("n", [5, 16, 50])
def test_each_window_is_equally_likely_at_each_place(n):
    trials = 4000
    key = np.arange(trials, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for place in (0, n - 1):
        windows = _permute(np.full(trials, place, dtype=np.uint64), n, key)
        counts = np.bincount(windows.astype(np.int64), minlength=n)
        chi2 = ((counts - trials / n) ** 2 / (trials / n)).sum()
        # Mean n - 1, deviation sqrt(2 (n - 1)); five deviations.
        assert chi2 < n - 1 + 5 * (2 * (n - 1)) ** 0.5
    assert ROUNDS >= 4


def test_neighbours_are_not_correlated():
    n = 5000
    windows = _permute(np.arange(n, dtype=np.uint64), n, np.repeat(_word(11), n)).astype(float)
    for lag in (1, 2, 64):
        r = np.corrcoef(windows[:-lag], windows[lag:])[0, 1]
        assert abs(r) < 5 / n**0.5


def test_huge_files_need_no_memory():
    starts = data.sample_windows(10**13, 1024, 0, [0, 1, 10**15])
    assert ((starts >= 0) & (starts < 10**13 - 1024)).all()


def test_a_file_shorter_than_the_block_is_refused_with_both_numbers():
    with pytest.raises(
        UserError, match=r"block_size 256 needs at least 257 tokens; notes\.txt has 40"
    ):
        data.sample_windows(40, 256, 0, [0], name="notes.txt")
    assert data.sample_windows(257, 256, 0, [0, 1, 2]).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="from 0"):
        data.sample_windows(400, 8, 0, [-1])


# --- token files ---------------------------------------------------------------------------------


def write(path, ids, vocab_size=300, **facts):
    writer = data.TokenWriter(path, vocab_size)
    for row in ids:
        writer.write(row)
    known = {"name": "notes.txt", "n_documents": 1, "n_bytes": 9, "n_scored_bytes": 9}
    writer.finish(**{**known, "tokenizer": "t" * 64, "source": "s" * 64, **facts})
    return data.TokenFile(path)


@pytest.mark.parametrize(
    ("vocab_size", "dtype"),
    [(65, "uint16"), (65536, "uint16"), (65537, "uint32"), (200_000, "uint32")],
)
def test_the_type_holds_every_id(tmp_path, vocab_size, dtype):
    top = vocab_size - 1
    file = write(tmp_path / "a.tokens", [[0, top], np.array([top, 1])], vocab_size)
    assert file.header.dtype == dtype
    assert file.tokens.tolist() == [0, top, top, 1]
    assert isinstance(file.tokens, np.memmap)
    file.verify()


@pytest.mark.parametrize("bad", [70000, 300, -1])
def test_ids_never_wrap_around(tmp_path, bad):
    writer = data.TokenWriter(tmp_path / "a.tokens", 300)
    with pytest.raises(ValueError, match=f"token id {bad} is outside the vocabulary of 300"):
        writer.write([1, bad])
    writer.close()


def test_damage_is_found(tmp_path):
    file = write(tmp_path / "a.tokens", [range(100)])
    blob = file.path.read_bytes()
    flipped = bytes([blob[0] ^ 1]) + blob[1:]
    file.path.write_bytes(flipped)
    with pytest.raises(UserError, match="sha256"):
        data.TokenFile(file.path).verify()
    file.path.write_bytes(blob[:-10])
    with pytest.raises(UserError, match="promises 200 bytes, it has 190"):
        data.TokenFile(file.path)
    file.path.write_bytes(blob)
    header = file.path.with_suffix(".json")
    good = json.loads(header.read_text(encoding="utf-8"))
    for bad, said in [
        ("{", "not a token file's header"),
        ("[]", "not a token file's header"),
        (json.dumps({**good, "format": 99}), "format 99"),
        (json.dumps({**good, "n_tokens": "many"}), "damaged"),
        (json.dumps({"format": data.FORMAT}), "damaged"),
    ]:
        header.write_text(bad, encoding="utf-8")
        with pytest.raises(UserError, match=said):
            data.TokenFile(file.path)
    header.unlink()
    with pytest.raises(UserError, match="gpt2lib prepare"):
        data.TokenFile(file.path)


def test_another_tokenizer_is_refused(tmp_path):
    file = write(tmp_path / "a.tokens", [range(10)])
    file.check_tokenizer("t" * 64)
    with pytest.raises(UserError, match="is not the one"):
        file.check_tokenizer("u" * 64)


def test_a_token_file_pickles_as_its_path(tmp_path):
    file = write(tmp_path / "a.tokens", [np.arange(50_000) % 300])
    blob = pickle.dumps(file)
    assert len(blob) < 1000
    again = pickle.loads(blob)
    assert np.array_equal(again.tokens, file.tokens) and again.header == file.header
    assert dataclasses.asdict(again.header)["n_tokens"] == len(again) == 50_000


# --- batches -------------------------------------------------------------------------------------


def test_targets_are_the_next_tokens(tmp_path):
    file = write(tmp_path / "a.tokens", [range(100)])
    idx, targets = data.batch(file, data.sample_windows(100, 8, 0, range(5)), 8)
    assert idx.shape == targets.shape == (5, 8)
    assert str(idx.dtype) == str(targets.dtype) == "torch.int64"
    assert idx.is_contiguous() and targets.is_contiguous()
    assert (targets == idx + 1).all()
    with pytest.raises(ValueError, match=r"0 \.\. 98"):
        data.batch(file, [99], 8)


@pytest.mark.parametrize("n_tokens", [2, 8, 9, 10, 16, 17, 100])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_evaluation_scores_every_token_but_the_first_once(tmp_path, n_tokens, batch_size):
    file = write(tmp_path / "a.tokens", [np.arange(n_tokens)])
    scored = []
    for idx, targets in data.eval_batches(file, 8, batch_size):
        assert idx.shape == targets.shape and idx.shape[1] == 8 and 1 <= len(idx) <= batch_size
        assert (idx >= 0).all()
        kept = targets != data.IGNORE
        assert (targets[kept] == idx[kept] + 1).all()
        scored += targets[kept].tolist()
    assert scored == list(range(1, n_tokens))


def test_a_limited_evaluation_is_spread_over_the_file(tmp_path):
    file = write(tmp_path / "a.tokens", [np.arange(300)])
    batches = list(data.eval_batches(file, 8, 3, limit=4))
    assert [len(idx) for idx, _ in batches] == [3, 3, 3, 3]
    starts = [int(row[0]) for idx, _ in batches for row in idx]
    assert starts == sorted(set(starts)) and starts[-1] > 250
    assert all(s % 8 == 0 for s in starts)
    assert len(list(data.eval_batches(file, 8, 3, limit=10**6))) == len(
        list(data.eval_batches(file, 8, 3))
    )
