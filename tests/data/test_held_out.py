"""Which part of a text is held out: a share of its bytes, or what the source says itself."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import config, losses, stop_after, verse

from gpt2lib.config import DataConfig
from gpt2lib.data import preparation, prepare
from gpt2lib.data.sources import corpus_from_texts, load_corpus
from gpt2lib.data.sources.split import NEAR, by_bytes, held_out
from gpt2lib.training.guard import Interrupted
from gpt2lib.training.loop import train
from gpt2lib.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("private_cache")


def both(texts: list[str], fraction: float) -> tuple[list[str], list[str]]:
    corpus = corpus_from_texts(texts, val_fraction=fraction)
    return list(corpus.train()), list(corpus.val())


def size(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_book_and_its_preface(swapped: bool) -> None:
    """The share is of bytes, whichever of the two the hash would have chosen."""
    texts = [verse(30_000), verse(60)]
    train_on, held = both(texts[::-1] if swapped else texts, 0.1)
    assert size(held) == pytest.approx(0.1 * size(texts), rel=0.01)
    assert size(train_on) + size(held) == size(texts)


@given(
    st.lists(st.text(alphabet="aé\n", min_size=1, max_size=300), min_size=1, max_size=30),
    st.floats(0.01, 0.9),
)
def test_the_share_is_of_bytes(texts: list[str], fraction: float) -> None:
    train_on, held = both(texts, fraction)
    assert size(train_on) + size(held) == size(texts)
    chosen = by_bytes([[text] for text in texts], fraction)
    lines = 1000  # a cut may move back to the end of a line
    whole = size([texts[i] for i in chosen.whole])
    if chosen.cut is None and size(texts) > len(texts):
        assert abs(whole - fraction * size(texts)) <= NEAR * fraction * size(texts) + 1e-9 or (
            max(len(text) for i, text in enumerate(texts) if i not in chosen.whole) < 2
        )
    elif chosen.cut:
        assert size(held) <= fraction * size(texts) + 2 * lines
    if size(texts) > 1 and max(map(len, texts)) > 1:
        assert train_on and held


@pytest.mark.parametrize("n", [2, 20, 101, 999])
def test_documents_of_one_length_are_counted(n: int) -> None:
    """Then it is what a share of their number would choose, and the same runs go on."""
    chosen = by_bytes([["four"]] * n, 0.4)
    if n == 2:  # one of two would be a half
        assert chosen.cut is None and len(chosen.whole) == 1
    assert chosen.whole == frozenset(held_out(n, 0.4).nonzero()[0].tolist())
    assert chosen.as_counted


def test_the_same_text_on_both_sides_is_said(tmp_path: Path) -> None:
    for i in range(8):
        (tmp_path / f"{i}.txt").write_text(verse(20, seed=i), encoding="utf-8")
        copy = verse(20, seed=i).encode()
        (tmp_path / f"{i}.txt.gz").write_bytes(gzip.compress(copy))
    source = DataConfig(str(tmp_path), tokenizer="char")
    made = prepare(source, progress=False)
    assert made.val is not None
    n = made.val.header.n_documents
    assert f"16 files: {len(made.train):,} tokens of" in made.summary()
    assert f"; {n} of those are trained on too, as copies" in made.summary()
    for path in tmp_path.glob("*.gz"):
        path.unlink()
    assert "copies" not in prepare(source, progress=False).summary()


def test_the_files_of_splits_are_kept_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name in ("train-00", "train-01", "validation", "test"):
        (tmp_path / f"{name}.txt").write_text(f"{name} " + verse(9), encoding="utf-8")
    corpus = load_corpus(DataConfig(str(tmp_path)))
    assert [text[:8] for text in corpus.train()] == ["train-00", "train-01"]
    assert [text[:10] for text in corpus.val()] == ["validation"]
    assert "2 to train on, 1 (validation) held out; not read: test (1)" in caplog.text
    (tmp_path / "validation.txt").unlink()
    (tmp_path / "notes.md").write_text("notes", encoding="utf-8")
    corpus = load_corpus(DataConfig(str(tmp_path)))
    assert next(corpus.train()) == "notes" and next(corpus.val()).startswith("test ")
    assert "1 of them of no split" in caplog.text
    (tmp_path / "test.txt").write_text(verse(9), encoding="utf-8")
    (tmp_path / "train-00.txt").write_text(verse(9), encoding="utf-8")
    made = prepare(DataConfig(str(tmp_path), tokenizer="char"), progress=False)
    assert "1 of those are trained on too" in made.summary()


@pytest.mark.parametrize(
    ("files", "held"),
    [
        (["train/a.txt", "valid/a.txt", "valid/b.txt"], ["valid/a.txt", "valid/b.txt"]),
        (["wiki.train.txt", "wiki.valid.txt.gz"], ["wiki.valid.txt.gz"]),
        (["x-dev.jsonl", "x-train.jsonl"], ["x-dev.jsonl"]),
        (["a.txt", "test.txt"], None),
        (["train.txt", "training.txt", "tests.txt", "latest.txt"], None),
    ],
)
def test_names_of_splits(files: list[str], held: list[str] | None) -> None:
    from gpt2lib.data.sources.split_names import by_name

    root = Path("train")  # a folder that is called so says nothing
    used, val = by_name([root / name for name in files], "texts")
    assert val == (held and [root / name for name in held])
    assert len(used) == len(files) - len(held or ())


def test_a_run_says_what_it_reads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "book.txt").write_text(verse(400), encoding="utf-8")
    (texts / "preface.txt").write_text(verse(2), encoding="utf-8")
    train(config(texts, steps=2), tmp_path / "run")
    data = prepare(config(texts).data)
    assert data.val is not None
    (said,) = [line for line in caplog.messages if line.startswith("texts: 2 files: ")]
    passes = 2 * 4 * 16 / len(data.train)
    assert f"{len(data.train):,} tokens of 1 document to train on, {len(data.val):,} of " in said
    assert said.endswith(f"held out (with the end of a long one); {passes:.2g} passes over it")


# ── runs that began when documents were counted ─────────────────────────────────────────────────


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Split as it once was: by the number of documents."""
    key, by_number = preparation._key, by_bytes
    patch = pytest.MonkeyPatch()
    patch.setattr(
        "gpt2lib.data.sources.corpus.by_bytes",
        lambda documents, fraction: by_number((["four"] for _ in documents), fraction),
    )
    patch.setattr(preparation, "_key", lambda *args, share="": key(*args, share=""))
    return patch


@pytest.mark.parametrize("kept", [True, False])
def test_an_old_run_goes_on_with_what_it_read(
    tmp_path: Path, counting: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for i in range(10):
        name = texts / f"{i}.txt"
        name.write_text(verse(40 if i == 3 else 4, seed=i), encoding="utf-8")
    cache = str(tmp_path / "cache")
    asked = config(texts, data={"cache": cache})
    train(asked, tmp_path / "whole")
    stop_after(monkeypatch, 4)
    with pytest.raises(Interrupted):
        train(asked, tmp_path / "run")
    monkeypatch.undo()
    counting.undo()
    if kept:
        train(asked, tmp_path / "run")
        assert losses(tmp_path / "run").equal(losses(tmp_path / "whole"))
        return
    for folder in Path(cache).iterdir():
        folder.rename(tmp_path / folder.name)
    with pytest.raises(UserError, match="a share of the documents, and it is one of the bytes now"):
        train(asked, tmp_path / "run")
