"""What a command says where it could end in a traceback, or in words of another library."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import verse

from gpt2lib.cli import main

pytestmark = pytest.mark.usefixtures("private_cache")

SMOKE = ("train", "smoke", "--steps", "2", "--sample_tokens", "0", "--data.vocab_size", "257")
Refused = Callable[..., str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(verse(60), encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_without_a_compiler_compile_is_one_line(
    here: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "/nowhere/g++"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(here / "inductor"))
    said = refused(*SMOKE, "--data.source", "text.txt", "--compile", "true")
    assert "torch.compile failed" in said and "compiler" in said
    assert said.endswith("or set compile to false")


@pytest.mark.skipif(sys.platform != "linux", reason="names are any bytes on Linux only")
def test_folders_whose_names_are_no_utf_8(here: Path) -> None:
    """In a process of its own: what it prints would stop those that tests run in."""
    name = os.fsdecode(b"caf\xe9")
    tokens, run, stages = (f"{name}-{what}" for what in ("tokens", "run", "stages"))
    commands = [
        ["prepare", "text.txt", "--out", tokens, "--data.vocab_size", "257"],
        [*SMOKE, "--out", run, "--data.source", tokens, "--data.tokenizer", "auto"],
        ["plot", run, run, "--out", f"{name}.png"],
        ["evaluate", run, "--json"],
        ["export", run, f"{name}-model"],
        ["evaluate", f"{name}-model", "--data", "text.txt"],
        ["convert", run, f"{name}-long", "--block_size", "64"],
        ["lengthen", run, "--out", stages, "--stages", "1", "--steps", "1"],
        ["generate", f"{stages}/stage-1", "--prompt", "the"],
    ]
    code = "import sys; from gpt2lib.cli import main; sys.stdout.reconfigure(errors='replace')\n"
    code += f"for argv in {commands!r}: assert main(argv) == 0, argv"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert ended.returncode == 0, ascii(ended.stderr[-3000:])


def test_a_text_in_place_of_a_name(here: Path, refused: Refused) -> None:
    text = "The king and queen of night. " * 12
    for argv in (
        ("prepare", text, "--out", "o"),
        ("prepare", "text.txt", "--out", text),
        ("train", text),
        (*SMOKE, "--out", text),
        (*SMOKE, "--data.source", text, "--out", "o"),
        ("generate", text, "--prompt", "a"),
        ("evaluate", text),
    ):
        assert "'The king and queen of night. The king an'… cannot be" in refused(*argv)


def test_what_a_run_read_is_found_from_another_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = here / "runs" / "a"
    assert main([*SMOKE, "--out", "runs/a", "--data.source", "text.txt", "--batch_size", "4"]) == 0
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert main(["evaluate", str(run)]) == 0
    assert main(["lengthen", str(run), "--out", "long", "--stages", "1", "--steps", "1"]) == 0
    capsys.readouterr()


def test_a_run_goes_on_from_another_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = here / "runs" / "a"
    assert main([*SMOKE, "--out", "runs/a", "--data.source", "text.txt", "--save_every", "1"]) == 0
    (run / "result.json").unlink()
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert main(["train", str(run / "requested.yaml"), "--out", str(run)]) == 0
    capsys.readouterr()


def test_options_that_do_not_go_together(here: Path, refused: Refused) -> None:
    said = refused("tune", "study.yaml", "--report", "--workers", "2")
    assert "--workers is for trials, and --report and --preset run none" in said
    assert "--json is for the list" in refused("course", "progress", "--json")
    assert "--file is for progress" in refused("course", "exercises", "--file", "a.json")


def test_an_estimate_says_what_it_does_not_read(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["estimate", "smoke", "--memory", "2GB", "--device", "cpu", "--seed", "3"]) == 0
    assert "seed is 3, but nothing reads it: no estimate depends on it" in capsys.readouterr().err
