"""Copied or written: matches with a text, by a suffix array and by looking everywhere."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt2lib.cli import main
from gpt2lib.config import DataConfig
from gpt2lib.data import prepare
from gpt2lib.data.sources import corpus_from_texts
from gpt2lib.generation.copied import Copied, CopyIndex, find_copied, text_of
from gpt2lib.training.loop import train
from gpt2lib.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("private_cache")


def everywhere(sample: bytes, text: bytes) -> list[int]:
    """Return the longest match from each position, by trying all lengths."""
    found = []
    for start in range(len(sample)):
        end = start
        while end < len(sample) and sample[start : end + 1] in text:
            end += 1
        found.append(end - start)
    return found


@given(st.binary(max_size=200).map(lambda b: bytes(x % 3 for x in b)), st.binary(max_size=40))
def test_matches_are_those_of_looking_everywhere(text: bytes, sample: bytes) -> None:
    few = bytes(x % 4 for x in sample)  # few letters: many matches, and one letter that has none
    assert CopyIndex(text).matches(few).tolist() == everywhere(few, text)


def positions_by_brute_force(text: bytes, sample: bytes) -> list[int]:
    """Return the longest match from each position, by comparing with every position of the text."""
    row = np.frombuffer(text, dtype=np.uint8)
    run = np.zeros(len(text) + 1, dtype=np.int64)  # matches that begin one position further on
    found = []
    for byte in reversed(sample):
        run[:-1] = np.where(row == byte, run[1:] + 1, 0)
        found.append(int(run.max()))
    return found[::-1]


@pytest.mark.parametrize("seed", range(2))
def test_a_hundred_thousand_positions_are_as_by_brute_force(seed: int) -> None:
    draw = random.Random(seed)
    text = tiny.verse(4000, seed=seed).encode()[:100_000]
    sample = b"".join(
        text[(at := draw.randrange(len(text))) : at + draw.randrange(1, 200)] for _ in range(8)
    )
    assert len(text) == 100_000
    assert CopyIndex(text).matches(sample).tolist() == positions_by_brute_force(text, sample)


def test_long_repeats_are_matched_to_their_end() -> None:
    text = b"a" * 5000 + b"b"
    assert CopyIndex(text).matches(b"a" * 3000).tolist() == list(range(3000, 0, -1))


@given(
    st.lists(st.binary(max_size=30).map(lambda b: bytes(x % 3 for x in b)), max_size=8),
    st.binary(max_size=20).map(lambda b: bytes(x % 3 for x in b)),
    st.integers(1, 6),
)
def test_parts_find_what_the_whole_does(pieces: list[bytes], sample: bytes, least: int) -> None:
    whole = everywhere(sample, b"".join(pieces))
    (found,) = find_copied([sample], pieces, least=least, part=1)
    covered = {i for start, n in enumerate(whole) if n >= least for i in range(start, start + n)}
    assert {i for a, b in found.stretches for i in range(a, b)} == covered
    assert all(a[1] < b[0] for a, b in zip(found.stretches, found.stretches[1:], strict=False))
    assert found.longest == max(whole, default=0)
    assert found.share == len(covered) / max(1, len(sample))


def test_a_match_over_the_border_of_two_parts_is_whole() -> None:
    text = random.Random(0).randbytes(300)
    for start in range(270):
        (found,) = find_copied([text[start : start + 30]], [text[:130], text[130:]], part=60)
        assert found.longest == 30


def test_what_is_copied_is_painted_and_characters_stay_whole() -> None:
    (found,) = find_copied(["so: née & <b>".encode()], ["xx née & <b> xx".encode()], least=4)
    assert found.painted() == "so:[[ née & <b>]]"
    assert found.painted("<", ">") == "so:< née & <b>>"
    shown = found._repr_html_()
    assert "<mark> née &amp; &lt;b&gt;</mark>" in shown and "78.6%" in shown
    half = Copied("née".encode(), ((2, 4),), 2, 2)  # from the middle of a character
    assert "".join(text for text, _ in half.pieces()) == "née"
    assert half.painted() == "n[[ée]]"
    assert Copied(b"", (), 0, 2).share == 0.0


def test_a_match_of_no_byte_is_refused() -> None:
    with pytest.raises(UserError, match="at least 1 byte, not 0"):
        find_copied([b"a"], [b"a"], least=0)


def test_the_text_of_tokens_is_what_was_prepared(tmp_path: Path) -> None:
    texts = [tiny.verse(3, seed=i) + "é" for i in range(9)]
    corpus = corpus_from_texts(texts, val_fraction=0.0)
    made = prepare(
        DataConfig(vocab_size=270, val_fraction=0.0), tmp_path / "out", False, corpus=corpus
    )
    for size in (1, 7, 1 << 20):
        text = b"".join(text_of(made.train, made.tokenizer, size)).decode()
        assert text.split("<|endoftext|>") == ["", *texts, ""]


# ── the command ─────────────────────────────────────────────────────────────────────────────────


def printed(run: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    argv = ["generate", str(run), "--prompt", "the", "--max_new_tokens", "60", "--seed", "1"]
    assert main([*argv, "--weights", "fp32", "--device", "cpu", *more]) == 0
    return capsys.readouterr().out


def test_generate_marks_what_is_copied(
    uninterrupted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = printed(uninterrupted, capsys).rstrip("\n")
    marked = printed(uninterrupted, capsys, "--show_copied", "--copied_bytes", "3")
    text, _, said = marked.rpartition("\n\n")
    assert "[[" in text and text.replace("[[", "").replace("]]", "") == plain
    assert "in stretches of 3 bytes or more; the longest has" in said
    assert "(of held-out text 100.0%)" in said  # six words, over and over
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    painted = printed(uninterrupted, capsys, "--show_copied", "--copied_bytes", "3")
    assert "\x1b[30;43m" in painted and "[[" not in painted
    monkeypatch.setitem(os.environ, "NO_COLOR", "1")
    without = printed(uninterrupted, capsys, "--show_copied", "--copied_bytes", "3")
    assert "[[" in without and "\x1b" not in without


def test_a_model_without_a_run_has_no_text_to_look_in(
    uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(uninterrupted), str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert main(["generate", str(tmp_path / "out"), "--prompt", "the", "--show_copied"]) == 2
    said = capsys.readouterr().err
    assert "does not say what it was trained on" in said and "Traceback" not in said
    assert main(["generate", str(uninterrupted), "--prompt", "a", "--copied_bytes", "0"]) == 2


# ── memorisation ────────────────────────────────────────────────────────────────────────────────


def test_a_line_that_stands_there_often_is_copied(tmp_path: Path) -> None:
    """The figure tells a line learned by heart from one that was there once."""
    from gpt2lib.generation.generator import generate
    from gpt2lib.hub import load_pretrained, load_tokenizer_for, resolve

    once, often = "waxy sphinx judges quartz big vodka", "zephyr quills jolt my vow of black onyx"
    lines = [*tiny.verse(150).splitlines(), once, *[often] * 64]
    random.Random(0).shuffle(lines)
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    changes = {"model": {"dropout": 0.0, "n_embd": 48, "block_size": 48}, "steps": 150}
    settings = tiny.config(path, **changes, batch_size=8, micro_batch=8, eval_every=150)
    settings = settings.replace(data=settings.data.replace(tokenizer="char"), sample_tokens=0)
    train(settings, tmp_path / "run")
    folder = resolve(str(tmp_path / "run"))
    model, tokenizer = load_pretrained(folder), load_tokenizer_for(folder)
    made = prepare(settings.data, progress=False)
    shares = []
    for line in (once, often):
        idx = torch.tensor([tokenizer.encode(line[:12])])
        drawn = generate(model, idx, len(line) - 12, temperature=0.0)[0, 12:].tolist()
        sample = tokenizer.decode(drawn).encode()
        (found,) = find_copied([sample], text_of(made.train, tokenizer), least=15)
        shares.append(found.share)
    assert shares == [0.0, 1.0]
