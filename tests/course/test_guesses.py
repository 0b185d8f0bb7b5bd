"""`predict` before a result and `reveal` after it."""

import json

import pytest
import torch

from gpt2lib.course import guesses, predict, progress, registry, reveal
from gpt2lib.course.progress_file import load


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A reader with a progress file and a fresh kernel."""
    path = tmp_path / "progress.json"
    monkeypatch.setenv("GPT2LIB_PROGRESS", str(path))
    new_kernel(monkeypatch)
    return path


def new_kernel(monkeypatch):
    monkeypatch.setattr(guesses, "_session", {})
    monkeypatch.setattr(guesses, "_shown", {})


def said(capsys):
    return capsys.readouterr().out


def test_guess_and_result_stand_side_by_side(file, capsys, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "my-notebooks/04_attention.ipynb")
    predict("first-loss", 4)
    assert said(capsys) == "● first-loss: your guess is 4.\n"
    reveal("first-loss", torch.tensor(3.2), unit="nats")
    assert said(capsys) == (
        "first-loss: your guess 4 nats, the result 3.2 nats, off by 0.8, 25% of the result, "
        "too high\n"
    )
    kept = json.loads(file.read_text())["guesses"]["first-loss"]
    assert kept["notebook"] == "04"
    assert (kept["guess"], round(kept["actual"], 5)) == (4, 3.2)


@pytest.mark.parametrize("untouched", [None, ...])
def test_untouched_it_goes_on(untouched, file, capsys):
    predict("first-loss", untouched)
    assert "no guess yet" in said(capsys)
    reveal("first-loss", 3.2)
    assert said(capsys) == "first-loss: the result is 3.2; no guess was made.\n"
    assert not file.exists()


def test_run_all_again_keeps_the_first_guess(file, capsys, monkeypatch):
    for actual in (3.2, 3.3):  # the result may move a little
        predict("first-loss", 4)
        reveal("first-loss", actual)
    assert load(file).guesses["first-loss"]["guess"] == 4
    new_kernel(monkeypatch)
    predict("first-loss", 3.3)
    assert "the result is known, so your first guess, 4, counts" in said(capsys)
    predict("first-loss", ...)
    assert said(capsys) == "○ first-loss: your guess was 4.\n"
    assert load(file).guesses["first-loss"] == {"notebook": "", "guess": 4, "actual": 3.3}


def test_a_guess_can_be_changed_before_the_result(file, capsys):
    predict("first-loss", 4)
    predict("first-loss", 5)
    assert load(file).guesses["first-loss"]["guess"] == 5


def test_a_guess_after_the_result_does_not_count(file, capsys, monkeypatch):
    predict("first-loss", ...)
    reveal("first-loss", 3.2)
    predict("first-loss", 3.2)
    assert "was shown already, so 3.2 is not counted" in said(capsys)
    assert not file.exists()


def test_it_works_without_a_file(monkeypatch, tmp_path, capsys):
    new_kernel(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for value in ("", "off"):
        monkeypatch.setenv("GPT2LIB_PROGRESS", value)
        predict("first-loss", 4)
        reveal("first-loss", 3.2)
        assert "your guess 4, the result 3.2" in said(capsys)
    assert list(tmp_path.iterdir()) == []


def test_nothing_stops_the_notebook(file, capsys):
    for odd in ([1], "", object, float("nan"), float("inf"), torch.ones(2), 1j, True):
        predict("odd", odd)
        reveal("odd", odd)
        reveal("other", odd)
    assert "is a number, a word, True or False" in said(capsys)
    file.unlink(missing_ok=True)
    file.mkdir()  # cannot be written
    predict("odd-2", 4)
    reveal("odd-2", 5)
    assert "your guess 4" in said(capsys)


def test_words_and_choices(file, capsys):
    predict("faster", "RoPE")
    reveal("faster", "RoPE")
    assert "off by nothing: right" in said(capsys)
    predict("lower", True)
    reveal("lower", False)
    assert "the other one" in said(capsys)
    assert guesses.summary(load(file).guesses) == "2 guesses, 1 of 2 choices right."


def entry(guess, actual):
    return {"notebook": "00", "guess": guess, "actual": actual}


def test_summary():
    made = {
        "a": entry(1.05, 1.0),
        "b": entry(2.0, 1.0),
        "c": entry(-1.0, -4.0),
        "d": entry(5, None),
    }
    assert guesses.summary(made) == (
        "3 guesses, 1 of 3 numbers within 10% of the result, half of them within a factor of 2."
    )
    assert guesses.summary({"d": entry(5, None)}) == ""
    assert guesses.summary({"e": entry(0.0, 0.0)}).startswith("1 guess, 1 of 1 numbers within")
    assert "factor" not in guesses.summary({"f": entry(-1.0, 1.0)})


def test_progress_shows_how_good_they_were(file, capsys, monkeypatch):
    monkeypatch.setattr(registry, "all_exercises", dict)
    progress()
    assert "Guesses" not in said(capsys)
    predict("first-loss", 3.3)
    reveal("first-loss", 3.2)
    said(capsys)
    progress()
    assert "Guesses: 1 guess, 1 of 1 numbers within 10% of the result" in said(capsys)
