"""Special tokens that are written in a text: borders and tokens where they count, else said."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tiny import verse

from gpt2lib.config import DataConfig
from gpt2lib.data import prepare
from gpt2lib.data.sources.borders import split_at_borders
from gpt2lib.data.sources.corpus import Corpus
from gpt2lib.tokenizer import train_bpe

pytestmark = pytest.mark.usefixtures("private_cache")


BORDER = "<|endoftext|>"


@pytest.mark.parametrize("size", [1, 3, 14, 1000])
@pytest.mark.parametrize(
    ("text", "documents"),
    [
        (f"one{BORDER}two", ["one", "two"]),
        (f"{BORDER}one\n{BORDER}\ntwo\n{BORDER}\r\n", ["one\n", "two\n"]),
        (f"{BORDER}{BORDER}\n", []),
        (f"a{BORDER}\n\nb{BORDER[:-1]}", ["a", f"\nb{BORDER[:-1]}"]),
        ("no border", ["no border"]),
    ],
)
def test_borders_cut_documents_whatever_the_parts(
    text: str, documents: list[str], size: int
) -> None:
    parts = [text[i : i + size] for i in range(0, len(text), size)]
    made = Corpus("t", "f", "", "", lambda: iter([parts, ["last"]]), val_fraction=0.0)
    cut = split_at_borders(made, BORDER)
    assert list(cut.train()) == [*documents, "last"]
    assert cut.fingerprint != made.fingerprint
    # A document whose parts nobody asks for is passed over, and the next one is right.
    firsts = [next(iter(document)) for document in cut.documents()]
    assert [found[0] for found in firsts] == [whole[0] for whole in [*documents, "last"]]


def borders(tmp_path: Path) -> Path:
    path = tmp_path / "tuning.txt"
    path.write_text("".join(f"{verse(2, seed=i)}<|endoftext|>\n" for i in range(20)), "utf-8")
    return path


@pytest.mark.parametrize("tokenizer", ["bpe", "gpt2"])
def test_the_end_of_text_in_a_text_is_a_border_if_it_counts(
    tokenizer: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = DataConfig(str(borders(tmp_path)), tokenizer=tokenizer, vocab_size=280)
    texts = [verse(2, seed=i) for i in range(20)]
    made = prepare(config, progress=False)
    assert "tuning.txt has <|endoftext|> 20 times, as text like any other" in caplog.text
    assert made.train.header.n_documents == 1
    caplog.clear()
    made = prepare(config.replace(special_tokens=True), progress=False)
    assert "<|endoftext|>" not in caplog.text
    assert made.val is not None
    assert made.train.header.n_documents + made.val.header.n_documents == 20
    eot = made.tokenizer.eot
    read = []
    for part in (made.train, made.val):
        ids = np.asarray(part.tokens).tolist()
        borders_at = [i for i, token in enumerate(ids) if token == eot]
        read += [made.tokenizer.decode(ids[a + 1 : b]) for a, b in pairwise(borders_at)]
    assert sorted(read) == sorted(texts)


def test_added_tokens_of_a_loaded_tokenizer_count_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inner = json.loads(train_bpe([verse(20)], 280)._inner.to_str())
    for i, content in enumerate(("<|user|>", "<|bot|>")):
        inner["added_tokens"].append(
            {**inner["added_tokens"][0], "id": 280 + i, "content": content}
        )
    (tmp_path / "tok").mkdir()
    (tmp_path / "tok" / "tokenizer.json").write_text(json.dumps(inner), "utf-8")
    path = tmp_path / "chats.txt"
    path.write_text("<|user|>love<|bot|>night<|endoftext|><|user|>thee<|bot|>do", "utf-8")
    config = DataConfig(str(path), tokenizer=str(tmp_path / "tok"), val_fraction=0.0)
    made = prepare(config, progress=False)
    said = "<|endoftext|> 1 times, <|user|> 2 times, <|bot|> 2 times"
    assert said in caplog.text
    assert not {280, 281} & {*np.asarray(made.train.tokens).tolist()}
    made = prepare(config.replace(special_tokens=True), progress=False)
    ids = np.asarray(made.train.tokens).tolist()
    assert (ids.count(280), ids.count(281), ids.count(made.tokenizer.eot)) == (2, 2, 3)
    assert made.train.header.n_documents == 2


def test_a_char_tokenizer_has_no_special_tokens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = DataConfig(str(borders(tmp_path)), tokenizer="char")
    prepare(config, progress=False)
    assert "20 times, as text like any other; a char tokenizer has no such token" in caplog.text
    prepare(config.replace(special_tokens=True), progress=False)
    assert "data.special_tokens is True, but nothing reads it" in caplog.text
