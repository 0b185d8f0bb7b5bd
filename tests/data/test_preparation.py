"""Preparation: shards, chunks, kills, full disks, and several processes at once."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2lib import data
from gpt2lib.config import DataConfig
from gpt2lib.data import encode, token_files, writer
from gpt2lib.data.sources import Corpus, corpus_from_texts
from gpt2lib.data.sources import corpus as corpus_module
from gpt2lib.data.sources import files as sources_files
from gpt2lib.data.writer import TokenWriter
from gpt2lib.tokenizer import FastBPE, train_bpe
from gpt2lib.utils.errors import UserError

TEXTS = [f"document {i}\nsays “naïve” 🙂 " + "and more of it " * (i % 7) for i in range(60)]
TOKENIZER = train_bpe(TEXTS, 300)


def prepare(out, texts=TEXTS, *, corpus=None, config=None, **kwargs):
    """Prepare documents that are in memory, without a bar."""
    return data.prepare(
        config or DataConfig(vocab_size=300),
        out,
        progress=False,
        corpus=corpus or corpus_from_texts(texts),
        **kwargs,
    )


def in_chunks(monkeypatch, texts, size):
    """Make a corpus whose documents are cut in chunks of about that size."""
    monkeypatch.setattr(corpus_module, "CHUNK", size)
    return corpus_from_texts(texts)


def content(folder):
    """Return the hash of every file of a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- shards --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [17, 64, 1000])
def test_shards_hold_the_same_tokens_and_give_the_same_batches(tmp_path, monkeypatch, size):
    whole = prepare(tmp_path / "whole", tokenizer=TOKENIZER)
    monkeypatch.setattr(writer, "SHARD", size)
    cut = prepare(tmp_path / "cut", tokenizer=TOKENIZER)
    for a, b in ((whole.train, cut.train), (whole.val, cut.val)):
        n = -(-len(a) // size)
        assert [s.n_tokens for s in b.header.shards] == [size] * (n - 1) + [len(a) - size * (n - 1)]
        assert isinstance(a.tokens, np.memmap) and b.tokens[:].tolist() == a.tokens.tolist()
        for name in ("n_tokens", "n_documents", "n_bytes", "n_scored_bytes", "source"):
            assert getattr(a.header, name) == getattr(b.header, name)
        b.verify()
    starts = whole.train.windows(8, 1, np.arange(100))
    assert np.array_equal(cut.train.windows(8, 1, np.arange(100)), starts)
    for one, other in (
        (data.batch(f, starts, 8) for f in (whole.train, cut.train)),
        *zip(*(data.eval_batches(f, 8, 3) for f in (whole.val, cut.val)), strict=True),
    ):
        assert all((x == y).all() for x, y in zip(one, other, strict=True))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_joined_tokens_are_indexed_as_numpy_does(draw):
    sizes = draw.draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    row = np.arange(sum(sizes), dtype="<u2") * 3
    joined = data.JoinedTokens(np.split(row, np.cumsum(sizes)[:-1]))
    assert len(joined) == len(row) and joined.shape == row.shape and joined.dtype == row.dtype
    n = len(row)
    bound = st.none() | st.integers(-n - 3, n + 3)
    where = draw.draw(
        st.builds(slice, bound, bound, st.none() | st.sampled_from([1, 2, 3, -1, -2]))
    )
    assert joined[where].tolist() == row[where].tolist() and joined[where].dtype == row.dtype
    at = np.array(draw.draw(st.lists(st.integers(-n, n - 1), max_size=12)), dtype=np.int64)
    assert joined[at].tolist() == row[at].tolist()
    if len(at) % 2 == 0:
        assert joined[at.reshape(2, -1)].tolist() == row[at.reshape(2, -1)].tolist()
    one = draw.draw(st.integers(-n, n - 1))
    assert joined[one] == row[one] and np.ndim(joined[one]) == 0
    for outside in (n, -n - 1, [0, n], 1.5):
        with pytest.raises(IndexError):
            joined[outside]
    assert np.asarray(joined).tolist() == joined.tolist() == row.tolist()


def damage(path):
    """Yield damaged forms of a file, one at a time, and the words that name what is wrong."""
    whole = path.read_bytes()
    path.unlink()
    yield "it is missing"
    path.write_bytes(whole[:-2])
    yield "its header promises 200 bytes, it has 198"
    path.write_bytes(whole + b"\0")
    yield "its header promises 200 bytes, it has 201"
    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    yield "its sha256 is"
    path.write_bytes(whole)


def test_a_damaged_shard_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "SHARD", 100)
    made = prepare(tmp_path / "out", tokenizer=TOKENIZER)
    for said in damage(tmp_path / "out" / "train-00003.tokens"):
        for open_again in (lambda: data.open_prepared(made.folder), lambda: prepare(made.folder)):
            with pytest.raises(UserError, match=r"train-00003\.tokens is damaged: " + said) as e:
                open_again()
            assert "\n" not in str(e.value) and "prepare again" in str(e.value)
    data.open_prepared(made.folder)
    info = made.folder / "prepared.json"
    good = json.loads(info.read_text(encoding="utf-8"))
    for bad in ({**good, "format": 1}, {**good, "parts": []}):
        info.write_text(json.dumps(bad), encoding="utf-8")
        with pytest.raises(UserError, match=r"format 1, this version reads 2|is damaged"):
            data.open_prepared(made.folder)


def test_of_large_files_what_changed_after_the_header_is_hashed(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "SHARD", 100)
    made = prepare(tmp_path / "out", tokenizer=TOKENIZER)
    monkeypatch.setattr("gpt2lib.data.token_files.VERIFY_BELOW", 0)
    hashed = []
    check = token_files.check_hash
    monkeypatch.setattr(
        "gpt2lib.data.token_files.check_hash",
        lambda path, s: (hashed.append(path.name), check(path, s)),
    )
    data.open_prepared(made.folder)
    assert hashed == []
    shard = made.folder / "train-00002.tokens"
    blob = bytearray(shard.read_bytes())
    blob[10] ^= 1
    shard.write_bytes(blob)
    later = made.train.path.stat().st_mtime_ns + 10**6  # clocks of file systems are coarse
    os.utime(shard, ns=(later, later))
    with pytest.raises(UserError, match=r"train-00002\.tokens is damaged: its sha256"):
        data.open_prepared(made.folder)
    assert hashed == ["train-00002.tokens"]


# --- chunks --------------------------------------------------------------------------------------

LONG = ["".join(TEXTS) * 3, "short", " ", "".join(TEXTS[:9]), "x" * 500 + " y" * 200]


@pytest.mark.parametrize("size", [1, 5, 40, 200])
@pytest.mark.parametrize("tokenizer", ["auto", "char"])
@pytest.mark.parametrize("group", [1, 50, 1 << 20])
def test_chunks_give_what_whole_documents_give(tmp_path, monkeypatch, tokenizer, group, size):
    config = DataConfig(vocab_size=300, tokenizer=tokenizer)
    whole = prepare(tmp_path / "whole", LONG, config=config)
    monkeypatch.setattr(encode, "GROUP", group)
    monkeypatch.setattr(writer, "SHARD", 333)
    corpus = in_chunks(monkeypatch, LONG, size)
    assert len(list(corpus.chunks("train"))) > 3
    cut = prepare(tmp_path / "cut", config=config, corpus=corpus)
    assert cut.tokenizer.fingerprint == whole.tokenizer.fingerprint
    for a, b in ((whole.train, cut.train), (whole.val, cut.val)):
        assert a.tokens.tolist() == b.tokens[:].tolist()
        for name in ("n_documents", "n_bytes", "n_scored_bytes"):
            assert getattr(a.header, name) == getattr(b.header, name)


def test_a_tokenizer_whose_tokens_span_chunks_gets_whole_documents(tmp_path, monkeypatch):
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=inner.pre_tokenizer.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    inner.train_from_iterator(TEXTS, trainer)
    spanning = FastBPE(inner, 0)  # it has tokens such as "and more of it"
    assert not spanning.encodes_chunks and TOKENIZER.encodes_chunks
    whole = prepare(tmp_path / "whole", LONG, tokenizer=spanning)
    cut = prepare(tmp_path / "cut", tokenizer=spanning, corpus=in_chunks(monkeypatch, LONG, 9))
    assert cut.train.tokens.tolist() == whole.train.tokens.tolist()


def test_a_document_is_never_whole_in_memory(tmp_path, monkeypatch):
    size, longest = 0, 0

    def documents():
        yield (f" word{i}" * 100 for i in range(300))  # one document, in parts

    def watched(self, texts, allow_special=False):
        nonlocal size, longest
        longest = max(longest, sum(map(len, texts)))
        size += sum(map(len, texts))
        return encode_batch(self, texts, allow_special)

    encode_batch = FastBPE.encode_batch
    monkeypatch.setattr(FastBPE, "encode_batch", watched)
    monkeypatch.setattr(encode, "GROUP", 5000)
    monkeypatch.setattr(corpus_module, "CHUNK", 700)
    made = prepare(tmp_path / "out", corpus=Corpus("one", "f" * 64, "", "", documents))
    assert made.train.header.n_documents == 1 and made.val is None
    assert size == made.train.header.n_bytes > 150_000 and longest < 6000


# --- learning ------------------------------------------------------------------------------------


def test_a_small_text_is_learned_whole_and_gives_the_same_merges(tmp_path):
    made = prepare(tmp_path / "out", LONG)
    train = list(corpus_from_texts(LONG).train())
    assert made.tokenizer.fingerprint == train_bpe(train, 300).fingerprint
    n_bytes = sum(len(text.encode()) for text in train)
    assert made.info["learned_from"] == {"n_bytes": n_bytes, "of": n_bytes}
    given_one = prepare(tmp_path / "given", LONG, tokenizer=TOKENIZER)
    assert given_one.info["learned_from"] is None


@pytest.mark.parametrize("n", [1, 2, 50, 1000, 5000])
def test_a_sample_is_spread_evenly_and_bounded(n):
    texts = [f"{i:06d}" + "x" * 94 for i in range(n)]
    limit = 164 * 100
    sample = encode.spread(iter(texts), limit)
    assert all(text.decode() in texts for text in sample)
    assert encode.spread(iter(texts), limit) == sample
    kept = [int(text[:6]) for text in sample]
    assert kept == sorted(set(kept))
    if n <= 100:
        assert kept == list(range(n))
        return
    assert 45 <= len(kept) <= 100
    gaps = np.diff([-1, *kept, n])
    assert gaps.max() <= 3 * n / len(kept)  # no part of the text is left out
    assert len({k % 2 for k in kept}) == 2  # nor every second text


def test_a_text_above_the_limit_is_learned_from_a_sample(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(encode, "LEARN_FROM", 2000)
    with caplog.at_level(logging.INFO):
        made = prepare(tmp_path / "out", TEXTS)
    assert "learned from" in caplog.text
    n, of = made.info["learned_from"].values()
    assert 0 < n <= 2000 < of == made.train.header.n_bytes


def test_one_long_text_is_kept_whatever_its_length():
    assert encode.spread(["x" * 1000], 10) == [b"x" * 1000]
    assert len(encode.spread(["x" * 1000] * 50, 10)) == 1


# --- stopped and taken up again ------------------------------------------------------------------


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of 200 tokens and groups of 300 characters: several of each in `TEXTS`."""
    monkeypatch.setattr(writer, "SHARD", 200)
    monkeypatch.setattr(encode, "GROUP", 300)


@pytest.fixture
def encoded(monkeypatch):
    """Collect the texts that are encoded."""
    seen = []
    encode_batch = FastBPE.encode_batch
    monkeypatch.setattr(
        FastBPE,
        "encode_batch",
        lambda self, texts, *more: (seen.extend(texts), encode_batch(self, texts, *more))[1],
    )
    return seen


def full_disk(monkeypatch, after):
    """Let the disk be full after some writes."""
    append, count = TokenWriter._append, 0

    def refuse(self, data):
        nonlocal count
        count += 1
        if count > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, data)

    monkeypatch.setattr(TokenWriter, "_append", refuse)


def stopped(tmp_path, monkeypatch):
    """Stop a preparation of `out` by a full disk; return the folder with what is done."""
    with monkeypatch.context() as context:
        full_disk(context, after=10)
        with pytest.raises(UserError, match="No space left on device") as e:
            prepare(tmp_path / "out")
    assert "\n" not in str(e.value) and "make room" in str(e.value)
    (partial,) = tmp_path.glob(".out*")
    assert f"stays in {partial}" in str(e.value) and not (tmp_path / "out").exists()
    return partial


def test_a_full_disk_is_one_line_and_the_work_stays(
    tmp_path, monkeypatch, small_shards, encoded, caplog
):
    whole = content(prepare(tmp_path / "whole").folder)
    everything = len(encoded)
    partial = stopped(tmp_path, monkeypatch)
    assert len(list(partial.glob("train-*.tokens"))) >= 3
    encoded.clear()
    made = prepare(tmp_path / "out")
    assert "going on with what a stopped preparation left" in caplog.text
    assert content(made.folder) == whole and len(encoded) < 0.8 * everything
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "whole"]


def test_a_read_only_disk_is_one_line(tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=r"cannot write .*out \(Read-only file system\)") as e:
        prepare(tmp_path / "out")
    assert "\n" not in str(e.value) and "stays" not in str(e.value)


def breaking(after):
    """Make a corpus that breaks off once, after some documents."""
    whole = corpus_from_texts(TEXTS)
    broken = []

    def documents():
        for i, document in enumerate(whole.documents()):
            if i == after and not broken:
                broken.append(i)
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            yield document

    made = dataclasses.replace(whole, documents=documents)
    vars(made)["_held_out"] = whole._held_out  # so that it breaks off where it is encoded
    return made


@pytest.mark.parametrize(("after", "stays"), [(2, False), (40, True)])
def test_a_source_that_breaks_off_is_not_the_disks_fault(
    tmp_path, small_shards, encoded, after, stays
):
    whole = content(prepare(tmp_path / "whole", tokenizer=TOKENIZER).folder)
    corpus = breaking(after)
    with pytest.raises(UserError, match="cannot read the texts: Connection reset by peer"):
        prepare(tmp_path / "out", corpus=corpus, tokenizer=TOKENIZER)
    assert bool(list(tmp_path.glob(".out*"))) == stays
    encoded.clear()
    assert content(prepare(tmp_path / "out", corpus=corpus, tokenizer=TOKENIZER).folder) == whole
    assert (len(encoded) < len(TEXTS)) == stays


def test_stopped_before_its_last_step_only_that_is_missing(tmp_path, monkeypatch, encoded):
    whole = content(prepare(tmp_path / "whole").folder)
    rename = Path.rename

    def refuse(self, target):
        if str(target).endswith("out"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    with monkeypatch.context() as context:
        context.setattr(Path, "rename", refuse)
        with pytest.raises(UserError, match="Input/output error"):
            prepare(tmp_path / "out")
    encoded.clear()
    assert content(prepare(tmp_path / "out").folder) == whole and not encoded


@pytest.mark.parametrize("after", range(4, 13))
def test_it_goes_on_in_the_middle_of_a_document(tmp_path, monkeypatch, small_shards, after):
    whole = content(prepare(tmp_path / "whole", tokenizer=TOKENIZER).folder)
    with monkeypatch.context() as context:
        full_disk(context, after)
        with pytest.raises(UserError, match="No space left on device"):
            prepare(tmp_path / "out", tokenizer=TOKENIZER)
    assert content(prepare(tmp_path / "out", tokenizer=TOKENIZER).folder) == whole


def test_a_damaged_shard_of_a_stopped_preparation_is_made_again(
    tmp_path, monkeypatch, small_shards, caplog
):
    whole = content(prepare(tmp_path / "whole").folder)
    shard = stopped(tmp_path, monkeypatch) / "train-00001.tokens"
    shard.write_bytes(shard.read_bytes()[:-2] + b"\0\0")
    assert content(prepare(tmp_path / "out").folder) == whole
    assert "train-00001.tokens was damaged since" in caplog.text


def test_what_is_left_of_another_preparation_is_not_touched(tmp_path, monkeypatch, small_shards):
    partial = stopped(tmp_path, monkeypatch)
    left = content(partial)
    prepare(tmp_path / "out", TEXTS[::-1])
    assert content(partial) == left


def test_shards_of_another_size_are_not_gone_on_with(tmp_path, monkeypatch, small_shards):
    stopped(tmp_path, monkeypatch)
    monkeypatch.setattr(writer, "SHARD", 333)
    made = prepare(tmp_path / "out")
    assert content(made.folder) == content(prepare(tmp_path / "whole").folder)


# --- how often the text is read ------------------------------------------------------------------


@pytest.fixture
def passes(monkeypatch):
    """Collect how much of the documents each pass over a corpus reads, in order."""
    read = []

    def counted(corpus):
        def documents():
            number = len(read)
            read.append(0)
            for document in corpus.documents():
                read[number] += 1
                yield document

        return dataclasses.replace(corpus, documents=documents)

    return read, counted


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ["count", "learn", "encode"]),
        ({"tokenizer": "char"}, ["count", "learn", "encode"]),
        ({"given": True}, ["count", "encode"]),
        ({"val_fraction": 0.0}, ["learn", "encode"]),
        ({"given": True, "val_fraction": 0.0}, ["encode"]),
    ],
)
def test_the_text_is_read_as_few_times_as_it_is_needed(tmp_path, passes, config, expected):
    read, counted = passes
    given = {"tokenizer": TOKENIZER} if config.pop("given", False) else {}
    config = DataConfig(vocab_size=300, **config)
    corpus = counted(corpus_from_texts(TEXTS, val_fraction=config.val_fraction))
    prepare(tmp_path / "out", config=config, corpus=corpus, **given)
    assert read == [len(TEXTS)] * len(expected)
    read.clear()
    prepare(tmp_path / "out", config=config, corpus=corpus, **given)
    assert read == []  # what is found is opened without reading: the fingerprint is enough


def test_a_text_file_is_hashed_once_and_decoded_three_times(tmp_path, monkeypatch):
    path = tmp_path / "notes.txt"
    path.write_text("\n".join(TEXTS * 40), encoding="utf-8")
    hashed, decoded, opened = [], [], sources_files.open_text

    def hash_(path):
        hashed.append(path.name)
        return sha256(path)

    @contextmanager
    def counting(path, *how):
        with opened(path, *how) as file:
            decoded.append(0)
            yield Counting(file, decoded)

    class Counting:
        def __init__(self, file, into):
            self.file, self.into, self.number = file, into, len(into) - 1

        def read(self, size):
            text = self.file.read(size)
            self.into[self.number] += len(text)
            return text

    sha256 = sources_files.sha256
    monkeypatch.setattr(sources_files, "sha256", hash_)
    monkeypatch.setattr(sources_files, "open_text", counting)
    monkeypatch.setattr(sources_files, "PART", 100)
    config = DataConfig(source=str(path), vocab_size=300)
    data.prepare(config, tmp_path / "out", progress=False)
    size = len(path.read_text(encoding="utf-8"))
    whole = [n for n in decoded if n == size]
    assert hashed == ["notes.txt"] and len(whole) == 3  # its length, the tokenizer, the ids
    assert all(n <= 100 for n in decoded if n != size)  # is it empty; is it the only one


@pytest.mark.parametrize("after", [8, 14, 20])
def test_gone_on_with_only_what_no_shard_has_is_encoded(
    tmp_path, monkeypatch, small_shards, encoded, passes, after
):
    read, counted = passes
    corpus = counted(corpus_from_texts(TEXTS))
    whole = prepare(tmp_path / "whole", corpus=corpus, tokenizer=TOKENIZER)
    everything = list(encoded)
    with monkeypatch.context() as context:
        full_disk(context, after)
        with pytest.raises(UserError, match="No space left on device"):
            prepare(tmp_path / "out", corpus=corpus, tokenizer=TOKENIZER)
    (partial,) = tmp_path.glob(".out*")
    noted = json.loads((partial / "progress.json").read_text(encoding="utf-8"))
    shards = [s for row in noted["rows"].values() for s in row["shards"] if s["n_tokens"] == 200]
    assert len(shards) >= 1 and noted["n_chunks"] >= len(shards)
    encoded.clear()
    read.clear()
    made = prepare(tmp_path / "out", corpus=corpus, tokenizer=TOKENIZER)
    assert encoded == everything[noted["n_chunks"] :]  # nothing of a finished shard, nothing twice
    assert read == [len(TEXTS)]  # one pass, which skips what is there
    assert content(made.folder) == content(whole.folder)


def test_a_shard_that_was_begun_is_damaged_or_missing(tmp_path, monkeypatch, small_shards, caplog):
    whole = content(prepare(tmp_path / "whole").folder)
    for spoil in (Path.unlink, lambda path: path.write_bytes(b"\0" * 3)):
        partial = stopped(tmp_path, monkeypatch)
        spoil(max(partial.glob("train-*.tokens")))
        assert content(prepare(tmp_path / "out").folder) == whole
        assert "was damaged since it was written; beginning anew" in caplog.text
        shutil.rmtree(tmp_path / "out")
        caplog.clear()


def test_what_an_older_version_left_is_not_gone_on_with(tmp_path, monkeypatch, small_shards):
    whole = content(prepare(tmp_path / "whole").folder)
    progress = stopped(tmp_path, monkeypatch) / "progress.json"
    state = json.loads(progress.read_text(encoding="utf-8"))
    old = {k: state[k] for k in ("key", "shard_tokens", "learned_from")} | {"train": [], "val": []}
    progress.write_text(json.dumps(old), encoding="utf-8")
    assert content(prepare(tmp_path / "out").folder) == whole


# --- real processes ------------------------------------------------------------------------------

DRIVER = """
import json, logging, os, random, resource, shutil, signal, sys, time
from pathlib import Path
from gpt2lib.config import DataConfig
from gpt2lib.data import encode, prepare, writer
from gpt2lib.data.writer import Partial, TokenWriter
from gpt2lib.tokenizer import FastBPE

base = Path(sys.argv[1])
writer.SHARD, encode.GROUP = 400, 1000

def touching(holder, name, before):
    real = getattr(holder, name)
    def touched(*args, **kwargs):
        before()
        return real(*args, **kwargs)
    setattr(holder, name, touched)

# Prepare in a process that kills itself before its `kill_at`-th touch of the disk.
def child(out, kill_at=0, begin=lambda: None, said=None):
    pid = os.fork()
    if pid:
        return pid
    events, characters = 0, 0
    def count():
        nonlocal events
        events += 1
        if events == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    for name in ("fsync", "rename", "replace", "unlink", "mkdir", "rmdir"):
        touching(os, name, count)
    touching(Path, "open", count)
    touching(TokenWriter, "_append", count)
    encode_batch = FastBPE.encode_batch
    def counted(self, texts, *more):
        nonlocal characters
        characters += sum(map(len, texts))
        return encode_batch(self, texts, *more)
    FastBPE.encode_batch = counted
    code = 1
    try:
        begin()
        config = DataConfig(source=str(base / "source.jsonl"), vocab_size=300)
        prepare(config, base / out, progress=False)
        (base / f"{said or out}.characters").write_text(str(characters))
        code = 0
    except ValueError as error:
        (base / f"{out}.said").write_text(str(error))
    finally:
        os._exit(code)

# Wait for a process: 0 for success, minus the signal that killed it.
def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def drive(tmp_path, code):
    """Run code after `DRIVER` in a process of its own; return what it prints, and says."""
    words = [f"word{i * i % 97} and {i}" for i in range(700)]
    rows = [json.dumps({"text": "\n".join(words[i : i + 5])}) for i in range(0, 700, 5)]
    (tmp_path / "source.jsonl").write_text("\n".join(rows), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", DRIVER + code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def characters(tmp_path, out):
    """Return how many characters the last process encoded for a folder."""
    return int((tmp_path / f"{out}.characters").read_text(encoding="utf-8"))


def nothing_left(tmp_path):
    """Return whether all hidden files are gone, but for the empty lock of a killed process."""
    return all(path.suffix == ".lock" for path in tmp_path.glob(".*"))


@pytest.mark.parametrize("step", [23, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_before_any_touch_of_the_disk_it_goes_on_to_the_same_bytes(tmp_path, step):
    killed, _ = drive(
        tmp_path,
        f"""
assert ended(child("whole")) == 0
killed, k = [], 1
while ended(child(f"out{{k}}", kill_at=k)) == -signal.SIGKILL:
    assert ended(child(f"out{{k}}")) == 0, k
    killed.append(k)
    k += {step}
print(json.dumps(killed))
""",
    )
    whole = content(tmp_path / "whole")
    assert sum(name.startswith("train-") for name in whole) >= 5 and len(killed) >= 60 / step
    for k in killed:
        assert content(tmp_path / f"out{k}") == whole, k
    anew = [characters(tmp_path, f"out{k}") for k in killed]
    assert anew[0] == characters(tmp_path, "whole")
    assert sorted(anew, reverse=True) == anew and anew[-1] < 0.3 * anew[0]
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("n", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_again_and_again_at_any_time(tmp_path, n):
    drive(
        tmp_path,
        f"""
start = time.perf_counter()
assert ended(child("whole")) == 0
seconds = time.perf_counter() - start
rng = random.Random({n})
for run in range({n}):
    kills = 0
    while kills == 0:
        shutil.rmtree(base / f"out{{run}}", ignore_errors=True)
        code = -signal.SIGKILL
        while code == -signal.SIGKILL and kills < 3:  # each goes on from what the killed one left
            pid = child(f"out{{run}}")
            time.sleep(rng.random() * seconds)
            os.kill(pid, signal.SIGKILL)
            code = ended(pid)
            kills += code == -signal.SIGKILL
        seconds *= 1 if kills else 0.8  # this machine is faster now: kill earlier, and again
    assert ended(child(f"out{{run}}")) == 0
print("null")
""",
    )
    for run in range(n):
        assert content(tmp_path / f"out{run}") == content(tmp_path / "whole"), run


def test_of_two_processes_the_second_waits_and_opens_the_result(tmp_path):
    codes, said = drive(
        tmp_path,
        """
assert ended(child("whole")) == 0
slow = child("out", begin=lambda: touching(Partial, "publish", lambda: time.sleep(1)))
while not list(base.glob(".out*.partial/train-00001.tokens")):
    time.sleep(0.005)
second = child("out", said="second")
print(json.dumps([ended(slow), ended(second)]))
""",
    )
    assert codes == [0, 0] and "another process prepares" in said
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert characters(tmp_path, "second") == 0  # the second one encoded nothing
    assert nothing_left(tmp_path)


def test_a_waiting_process_takes_over_from_a_killed_one(tmp_path):
    codes, said = drive(
        tmp_path,
        """
assert ended(child("whole")) == 0
first = child("out", begin=lambda: touching(TokenWriter, "finish", lambda: time.sleep(600)))
while not list(base.glob(".out*.partial/train-00003.tokens")):
    time.sleep(0.005)
second = child("out")
time.sleep(0.5)
os.kill(first, signal.SIGKILL)
print(json.dumps([ended(first), ended(second)]))
""",
    )
    assert codes == [-9, 0] and "another process prepares" in said and "going on with" in said
    assert characters(tmp_path, "out") < 0.8 * characters(tmp_path, "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_limit_of_the_system_on_files_is_one_line(tmp_path):
    codes, _ = drive(
        tmp_path,
        """
from gpt2lib.tokenizer import train_bpe
train_bpe(["a"], 257).save(base / "tokenizer")
largest = max(path.stat().st_size for path in (base / "tokenizer").iterdir())
writer.SHARD = 2 * largest  # of two bytes each
size = 2 * largest
limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
row = json.dumps({"text": "0123456789" * largest})
(base / "source.jsonl").write_text(row)
print(json.dumps([ended(child("out", begin=limit)), ended(child("out"))]))
""",
    )
    assert codes == [1, 0]
    said = (tmp_path / "out.said").read_text(encoding="utf-8")
    assert "File too large" in said and "\n" not in said
    assert data.open_prepared(tmp_path / "out").val is not None


def test_room_is_asked_for_where_there_is_none_and_only_there(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"cannot write .*; give another folder") as caught:
        prepare(tmp_path / "file" / "out")
    assert "make room" not in str(caught.value)
