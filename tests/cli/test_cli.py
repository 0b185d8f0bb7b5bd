"""The command line, called in process: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpt2lib.cli import main
from gpt2lib.cli.generate import text_pieces
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import sha256

QUICK = [
    *("--steps=4", "--save_every=2", "--eval_every=2"),
    *("--eval_batches=1", "--sample_tokens=5"),
]


def speech(n_lines: int, seed: int = 0) -> str:
    """Return text of verse-like lines, with characters of two, three and four bytes."""
    words = ["the", "and", "of", "thou", "love", "king", "naïve", "—", "night", "🗡", "come"]
    draw = random.Random(seed)
    return "".join(" ".join(draw.choices(words, k=7)) + "\n" for _ in range(n_lines))


@pytest.fixture(scope="module", autouse=True)
def no_tracebacks(private_cache: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GPT2LIB_DEBUG", raising=False)
        yield


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "verse.txt"
    path.write_text(speech(400), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """A complete run of four steps."""
    out = tmp_path_factory.mktemp("runs") / "verse"
    assert main(train_args(out, text)) == 0
    return out


def train_args(out: Path, source: Path, *more: str) -> list[str]:
    data = ["--data.source", str(source), "--data.vocab_size", "280"]
    return ["train", "smoke", "--out", str(out), *data, *QUICK, *more]


def state_of(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder."""
    return {str(p.relative_to(folder)): sha256(p) for p in folder.rglob("*") if p.is_file()}


# ── what the commands do ────────────────────────────────────────────────────────────────────────


def test_train_leaves_a_whole_run_and_says_so(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = [word for word in train_args(Path("x"), text) if word not in ("--out", "x")]
    assert main(argv) == 0
    out = capsys.readouterr().out
    run = Path("runs/smoke")  # the default
    files = {p.name for p in run.iterdir() if not p.name.startswith(".")}
    assert {"checkpoints", "config.yaml", "metrics.jsonl", "result.json", "loss.png"} <= files
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert f"{result['loss']:.4f} nats per token" in out
    assert f"{result['bits_per_byte']:.4f}" in out
    assert f"4 steps, {result['train_seconds']:.1f} seconds" in out
    assert result["sample"].split()[0] in out
    assert all(name in out for name in files)
    assert f"gpt2lib generate {run} --prompt" in out
    before = state_of(run)
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{run} is complete already")
    assert f"{result['loss']:.4f} nats per token" in out
    after = state_of(run)
    assert {k for k in after if before.get(k) != after[k]} <= {"loss.png"}


def test_only_the_first_of_several_processes_prints(
    trained: Path, text: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(train_args(trained, text)) == 0
    assert capsys.readouterr().out == ""
    assert main(["nonsense"]) == 2
    assert capsys.readouterr().err.startswith("gpt2lib[1]: ")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_command_leaves_the_logging_as_it_was(
    rank: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", rank)
    logger = logging.getLogger("gpt2lib")
    during: list[tuple[int, int]] = []

    def command(argv: list[str]) -> int:
        during.append((logger.level, len(logger.handlers)))
        logger.error("shown")
        raise UserError("refused")

    before = logger.level, list(logger.handlers)
    monkeypatch.setattr("gpt2lib.cli.estimate.estimate", command)
    assert main(["estimate"]) == 2
    wanted = logging.INFO if rank == "0" else logging.ERROR
    assert during == [(wanted, len(before[1]) + 1)]
    assert (logger.level, logger.handlers) == before
    logger.error("no longer shown by the command line")
    err = capsys.readouterr().err
    assert err.startswith("shown\n") and "no longer" not in err


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_how_to_go_on_and_goes_on(
    signum: int,
    tmp_path: Path,
    text: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gpt2lib.training.loop import Trainer

    out, update = tmp_path / "run", Trainer.update

    def stopped_in_the_first(self: Trainer, *arguments: Any) -> bool:
        if self.step == 0:
            os.kill(os.getpid(), signum)
        return bool(update(self, *arguments))

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", stopped_in_the_first)
        assert main(train_args(out, text)) == 128 + signum
    err = capsys.readouterr().err
    assert f"--out {out}" in err
    assert "Traceback" not in err
    assert (out / "checkpoints" / "step-00000001").is_dir()
    assert not (out / "result.json").exists()
    assert main(train_args(out, text)) == 0
    assert "resumed" in capsys.readouterr().err


def test_generate_streams_and_repeats_with_a_seed(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["generate", str(trained), "--prompt", "the king", "--max_new_tokens", "20"]
    texts = []
    for seed in ("1", "1", "2"):
        assert main([*argv, "--seed", seed]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("the king")
    assert len(texts[0]) > len("the king") + 10


def test_weights_of_fewer_bytes_are_used_where_asked_for(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from gpt2lib import for_decoding, generate, load_pretrained
    from gpt2lib.hub import load_tokenizer_for

    tokenizer, model = load_tokenizer_for(trained), load_pretrained(trained)
    idx = torch.tensor([tokenizer.encode("come")])
    argv = ["generate", str(trained), "--prompt", "come", "--max_new_tokens", "30", "--seed", "4"]
    texts = set()
    for weights in ("fp32", "bf16", "int8"):
        assert main([*argv, "--weights", weights]) == 0
        made = model if weights == "fp32" else for_decoding(model, weights)
        ids = generate(made, idx, 30, seed=4, stop=[tokenizer.eot])[0].tolist()
        wanted = tokenizer.decode([i for i in ids if i != tokenizer.eot])
        texts.add(capsys.readouterr().out)
        assert wanted + "\n" in texts
    assert main(argv) == 0  # auto: the model is small
    assert capsys.readouterr().out in texts
    losses = []
    for weights in ("fp32", "int8"):
        assert main(["evaluate", str(trained), "--weights", weights, "--json"]) == 0
        scores = json.loads(capsys.readouterr().out)
        assert scores["weights"] == weights
        losses.append(scores["loss"])
    assert 0 < abs(losses[0] - losses[1]) < 0.01
    for command in (argv, ["evaluate", str(trained)]):
        assert main([*command, "--weights", "int4"]) != 0
        error = capsys.readouterr().err
        assert "int8, not 'int4'" in error and error.count("\n") == 1


def test_generate_differs_without_a_seed_and_not_at_temperature_0(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["generate", str(trained), "--prompt", "the", "--max_new_tokens", "30"]
    found = []
    for more in ([], [], ["--temperature", "0"], ["--top_k", "1"]):
        assert main([*argv, *more]) == 0
        found.append(capsys.readouterr().out)
    assert found[0] != found[1]
    assert found[2] == found[3]


def test_generate_ends_before_a_stop_text(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["generate", str(trained), "--prompt", "the", "--max_new_tokens", "40", "--seed", "3"]
    assert main(argv) == 0
    whole = capsys.readouterr().out.removesuffix("\n")
    stop = whole[13:16]
    assert main([*argv, "--stop", stop, "--stop", "never to be seen"]) == 0
    assert capsys.readouterr().out == whole[: whole.index(stop, 3)] + "\n"


def test_generate_agrees_with_the_library(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from gpt2lib import generate, load_pretrained
    from gpt2lib.hub import load_tokenizer_for

    tokenizer = load_tokenizer_for(trained)
    idx = torch.tensor([tokenizer.encode("come")])
    ids = generate(load_pretrained(trained), idx, 25, seed=5, stop=[tokenizer.eot])[0].tolist()
    ids = ids[:-1] if ids[-1] == tokenizer.eot else ids
    argv = ["generate", str(trained), "--prompt", "come", "--max_new_tokens", "25", "--seed", "5"]
    assert main(argv) == 0
    assert capsys.readouterr().out == tokenizer.decode(ids) + "\n"


def test_generate_does_not_write_the_end_of_text_token(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt2lib.hub import load_tokenizer_for

    tokenizer = load_tokenizer_for(trained)
    drawn = [*tokenizer.encode(" love"), tokenizer.eot]

    def stand_in(*arguments: Any, stop: tuple[int, ...], **options: Any) -> Iterator[int]:
        assert stop == (tokenizer.eot,)
        yield from drawn

    monkeypatch.setattr("gpt2lib.generation.generator.stream", stand_in)
    assert main(["generate", str(trained), "--prompt", "thou"]) == 0
    assert capsys.readouterr().out == "thou love\n"


def test_a_wrong_sampling_option_prints_nothing(trained: Path, refused: Callable[..., str]) -> None:
    assert "top_p" in refused("generate", trained, "--prompt", "the", "--top_p", "1.5")
    assert "temperature" in refused("generate", trained, "--prompt", "a", "--temperature", "-1")
    said = refused("generate", trained, "--prompt", "a", "--temperature", "0", "--top_k", "5")
    assert "top_k 5 would do nothing" in said
    said = refused("generate", trained, "--prompt", "a", "--repetition_penalty", "0")
    assert "repetition_penalty must be above 0, not 0.0" in said
    said = refused("generate", trained, "--prompt", "a", "--past_block", "crop")
    assert "--past_block must be one of reread, refuse, not 'crop'" in said


def test_generate_says_when_the_context_is_too_short(
    trained: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused("generate", trained, "--prompt", "to be or not to be " * 40)
    found = re.search(r"a prompt of (\d+) tokens does not fit block_size (\d+); shorten it", said)
    assert found and int(found[1]) > int(found[2])
    argv = ["generate", str(trained), "--prompt", "a", "--max_new_tokens", "2000"]
    said = refused(*argv, "--past_block", "refuse")
    assert f"2000 new ones do not fit block_size {found[2]}" in said
    argv[-1] = str(int(found[2]) + 20)
    assert main([*argv, "--seed", "1"]) == 0  # reads the last half anew, unless it is told not to
    assert capsys.readouterr().out.startswith("a")


def test_generate_takes_a_repetition_penalty(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["generate", str(trained), "--prompt", "the", "--temperature", "0"]
    texts = []
    for penalty in ("1", "1.0", "5"):
        assert main([*argv, "--max_new_tokens", "30", "--repetition_penalty", penalty]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


def test_evaluate_repeats_the_run_s_result(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = json.loads((trained / "result.json").read_text(encoding="utf-8"))
    checkpoint = trained / "checkpoints" / "step-00000004"
    for source in (trained, checkpoint):
        assert main(["evaluate", str(source), "--json"]) == 0
        scores = json.loads(capsys.readouterr().out)  # nothing but JSON
        assert scores.pop("weights") == "fp32"
        assert scores.pop("text") == "the held-out part of verse.txt"
        assert scores.pop("mask_documents") is False
        assert scores.pop("bits_per_byte_without_ends") < scores["bits_per_byte"]
        assert set(scores) >= {"loss", "perplexity", "bits_per_byte", "tokens"}
        for key, value in scores.items():
            assert value == pytest.approx(result[key], rel=1e-5), key
    assert main(["evaluate", str(trained)]) == 0
    assert f"{result['bits_per_byte']:.4f}" in capsys.readouterr().out


def test_evaluate_takes_all_of_other_text(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gpt2lib.hub import load_tokenizer_for

    other = tmp_path / "other.txt"
    other.write_text(speech(30, seed=9), encoding="utf-8")
    assert main(["evaluate", str(trained), "--data", str(other), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    n_tokens = len(load_tokenizer_for(trained).encode(speech(30, seed=9)))
    assert scores["tokens"] == n_tokens + 1  # and the end of the text
    assert main(["evaluate", str(trained), f"--data={other}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == scores


def test_prepare_and_train_on_it(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tokens"
    argv = ["prepare", str(text), "--out", str(folder), "--data.tokenizer", "char"]
    assert main(argv) == 0
    assert (folder / "train-00000.tokens").is_file()
    out = capsys.readouterr().out.split("gpt2lib train cpu ")[1].split()  # what it says to do next
    assert main(train_args(tmp_path / "run", folder, *out)) == 0


def test_estimate_counts_what_the_model_has(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gpt2lib import load_pretrained

    assert main(["estimate", str(trained / "config.yaml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"]["total"] == load_pretrained(trained).num_parameters()
    elsewhere = ["--device", "cuda", "--memory", "24GB"]  # counted, not played
    assert main(["estimate", "--json", "gpt2", *elsewhere]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"]["total"] == 124_439_808
    assert main(["estimate", "gpt2", "--model.tie_weights", "false", *elsewhere]) == 0
    assert "163,037,184" in capsys.readouterr().out


def test_export_opens_in_transformers(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(trained), str(tmp_path / "hf")]) == 0
    assert str(tmp_path / "hf") in capsys.readouterr().out
    config = json.loads((tmp_path / "hf" / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "gpt2"


def test_course_lists_exercises_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["course", "exercises", "--json"]) == 0
    exercises = json.loads(capsys.readouterr().out)
    assert exercises
    assert all({"id", "notebook", "signature"} <= set(e) for e in exercises)
    assert main(["course", "progress"]) == 0
    assert f"of {len(exercises)} exercises done" in capsys.readouterr().out


# ── convert and lengthen ────────────────────────────────────────────────────────────────────────


def test_convert_changes_the_shape_and_train_goes_on_from_it(
    trained: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made"
    options = ["--n_kv_head", "1", "--block_size", "64", "--window", "[8,16]"]
    options += ["--dilation", "[[1],[1,2]]", "--global_tokens", "[0]"]
    assert main(["convert", str(trained), str(made), *options]) == 0
    assert f"--init_from {made}" in capsys.readouterr().out
    from gpt2lib.hub import model_config

    was, now = model_config(trained), model_config(made)
    assert now == was.replace(
        n_kv_head=1,
        block_size=64,
        window=(8, 16),
        dilation=((1,), (1, 2)),
        global_tokens=(0,),
    )
    out = tmp_path / "on"
    more = ["--init_from", str(made), "--model.block_size", "64"]
    assert main(train_args(out, text, *more)) == 0
    assert model_config(out) == now.replace(dropout=model_config(out).dropout)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("", "nothing to change; give --block_size, --n_kv_head or --window"),
        ("--dilation 2", "dilation 2 needs a window"),
        ("--block_size 64 --global_tokens [0]", "need a window"),
        ("--block_size 64 --pooling first", "--pooling first needs --n_kv_head"),
        ("--n_kv_head 3", "2 key/value heads cannot become 3"),
        ("--block_size 3", "block_size 3 is not above the 32 of the model"),
        ("--block_size 64 --extension ntk", "'ntk' does not fit position learned; it can be tile"),
        ("--window 4 --extension tile", "--extension tile needs --block_size"),
        ("--window 0", "window must be at least 1 token, not 0"),
        ("--window 4 --global_tokens [32]", "global token 32 is outside the block"),
        ("--n_kv_head 1 --pooling median", "must be one of mean, first, random, not 'median'"),
        ("--windw 3", "unknown option --windw; did you mean '--window'"),
    ],
)
def test_a_conversion_that_cannot_be_leaves_nothing(
    options: str, says: str, trained: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert says in refused("convert", trained, tmp_path / "made", *options.split())
    assert not list(tmp_path.iterdir())


def test_convert_keeps_what_it_is_not_asked_to_change(trained: Path, tmp_path: Path) -> None:
    from gpt2lib.hub import model_config

    first = ["--window", "4", "--dilation", "2", "--global_tokens", "[0,3]"]
    assert main(["convert", str(trained), str(tmp_path / "first"), *first]) == 0
    assert (
        main(["convert", str(tmp_path / "first"), str(tmp_path / "second"), "--window", "8"]) == 0
    )
    was, now = (model_config(tmp_path / name) for name in ("first", "second"))
    assert now == was.replace(window=8)
    assert (now.dilation, now.global_tokens) == (2, (0, 3))


def test_lengthen_that_is_stopped_says_how_to_go_on(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from gpt2lib.training.guard import Interrupted

    def stop(*_: object) -> Path:
        raise Interrupted(signal.SIGINT, tmp_path / "stage-1", 3)

    monkeypatch.setattr("gpt2lib.training.lengthening.lengthen", stop)
    assert main(["lengthen", str(trained), "--out", str(tmp_path)]) == 128 + signal.SIGINT
    assert capsys.readouterr().err.endswith(
        "gpt2lib: stopped; the same command goes on from there\n"
    )


def test_convert_replaces_nothing(
    trained: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "mine.txt").write_text("kept", encoding="utf-8")
    assert "exists; choose another folder" in refused("convert", trained, tmp_path, "--window", "3")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_lengthen_trains_its_stages(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "long"
    assert main(["lengthen", str(trained), "--out", str(out), "--stages", "1", "--steps", "2"]) == 0
    assert f"generate {out / 'stage-1'}" in capsys.readouterr().out
    assert json.loads((out / "stage-1" / "result.json").read_text(encoding="utf-8"))["steps"] == 2


def test_lengthen_refuses_what_is_no_run(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "is no run" in refused("lengthen", tmp_path, "--out", tmp_path / "long")


# ── text as it comes ────────────────────────────────────────────────────────────────────────────


def test_half_a_character_is_held_back() -> None:
    data = "a🗡é".encode()
    pieces = list(text_pieces(data[i : i + 1] for i in range(len(data))))
    assert pieces == ["a", "🗡", "é"]
    assert list(text_pieces([b"a\xf0\x9f"])) == ["a", "\ufffd"]
    assert "".join(text_pieces([b"\xff", b"b"])) == "\ufffdb"


def test_a_stop_text_may_be_spread_over_tokens() -> None:
    assert "".join(text_pieces([b"one\n", b"\nROM", b"EO: two"], ["\n\nROMEO:"])) == "one"
    assert "".join(text_pieces([b"aab", b"aac", b"d"], ["aabaad"])) == "aabaacd"
    assert "".join(text_pieces([b"xaa", b"ab!"], ["aab", "!"])) == "xa"
    assert "".join(text_pieces([b"x"], [""])) == "x"


# ── errors ──────────────────────────────────────────────────────────────────────────────────────


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def stand_in(argv: list[str]) -> int:
        raise error

    monkeypatch.setattr("gpt2lib.cli.course.course", stand_in)
    return main(["course", "progress"])


def test_exit_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert fail_with(monkeypatch, KeyboardInterrupt()) == 130
    capsys.readouterr()
    assert fail_with(monkeypatch, BrokenPipeError()) == 141
    assert capsys.readouterr().err == ""
    assert fail_with(monkeypatch, OSError(28, "No space left on device", "runs/x/a")) == 2
    assert capsys.readouterr().err == "gpt2lib: runs/x/a: No space left on device\n"
    assert fail_with(monkeypatch, UserError("two\nlines")) == 2
    assert capsys.readouterr().err == "gpt2lib: two lines\n"
    with pytest.raises(ZeroDivisionError):  # a bug is not dressed up as bad input
        fail_with(monkeypatch, ZeroDivisionError())


def test_the_traceback_is_shown_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPT2LIB_DEBUG", "1")
    assert fail_with(monkeypatch, UserError("it is so")) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("gpt2lib: it is so\n")


@pytest.mark.parametrize("on_cpu", [False, True])
def test_full_memory_names_the_way_out(
    monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str], on_cpu: bool
) -> None:
    import torch

    def stand_in(*arguments: Any, **more: Any) -> None:
        if on_cpu:
            torch.empty(2**58)  # more than any address space has
        raise torch.OutOfMemoryError("CUDA out of memory. Tried ...")

    monkeypatch.setattr("gpt2lib.training.loop.train", stand_in)
    assert "--micro_batch auto" in refused("train", "smoke")


# ── bad input: one line each, and nothing lost ──────────────────────────────────────────────────


def test_an_empty_file(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "empty.txt").touch()
    said = refused(*train_args(tmp_path / "run", tmp_path / "empty.txt"))
    assert "empty.txt is empty" in said


def test_a_file_shorter_than_the_block(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "short.txt").write_text("to be, or not\n", encoding="utf-8")
    source = tmp_path / "short.txt"
    said = refused(*train_args(tmp_path / "run", source, "--data.tokenizer", "char"))
    assert "block_size 32 needs at least 33 tokens" in said
    assert "short.txt" in said


def test_a_file_that_is_not_utf_8(tmp_path: Path, text: Path, refused: Callable[..., str]) -> None:
    source = tmp_path / "old.txt"
    source.write_bytes(b"caf\xe9 " * 500)
    said = refused(*train_args(tmp_path / "run", source))
    assert "offset 3" in said
    assert "--data.encoding latin-1" in said
    # Nothing has begun, so the same folder takes the mended settings.
    assert main(train_args(tmp_path / "run", source, "--data.encoding", "latin-1")) == 0


def test_a_missing_path(tmp_path: Path, text: Path, refused: Callable[..., str]) -> None:
    said = refused(*train_args(tmp_path / "run", text.with_name("vers.txt")))
    assert "did you mean 'verse.txt'?" in said
    said = refused("generate", tmp_path / "no" / "run", "--prompt", "x")
    assert "there is no folder" in said
    said = refused("evaluate", tmp_path, "--json")
    assert "holds no model" in said
    assert "no such checkpoint" in refused(
        *train_args(tmp_path / "r", text, "--resume", str(tmp_path / "step-1"))
    )


def missing(path: Path) -> None:
    path.unlink()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [missing, truncated, flipped])
@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "tokenizer"])
def test_a_damaged_checkpoint(
    damage: Callable[[Path], None],
    name: str,
    trained: Path,
    text: Path,
    tmp_path: Path,
    refused: Callable[..., str],
) -> None:
    folder = tmp_path / "step-00000002"
    shutil.copytree(trained / "checkpoints" / "step-00000002", folder)
    path = folder / name
    path = min(path.iterdir()) if path.is_dir() else path
    damage(path)
    before = state_of(tmp_path)
    for argv in (
        ["generate", str(folder), "--prompt", "x"],
        ["export", str(folder), str(tmp_path / "hf")],
        train_args(tmp_path / "run", text, "--resume", str(folder)),
        train_args(tmp_path / "run", text, "--init_from", str(folder)),
    ):
        said = refused(*argv)
        assert path.name in said
        assert "use another copy" in said
    after = state_of(tmp_path)
    assert {k: v for k, v in after.items() if not k.startswith("run")} == before


def test_a_tokenizer_that_is_not_the_checkpoint_s(
    trained: Path, text: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    more = ("--init_from", str(trained), "--data.tokenizer", "char")
    said = refused(*train_args(tmp_path / "run", text, *more))
    assert "tokenizer" in said
    assert str(trained) in said
    assert main(["prepare", str(text), "--out", str(tmp_path / "p"), "--data.tokenizer=char"]) == 0
    said = refused("evaluate", trained, "--data", tmp_path / "p")
    assert "is not the one" in said
    # one whose files were swapped inside of a checkpoint
    folder = tmp_path / "step-00000004"
    shutil.copytree(trained / "checkpoints" / "step-00000004", folder)
    shutil.rmtree(folder / "tokenizer")
    shutil.copytree(tmp_path / "p" / "tokenizer", folder / "tokenizer")
    assert "tokenizer" in refused("generate", folder, "--prompt", "x")


def test_a_block_size_above_the_checkpoint_s(
    trained: Path, text: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    more = ("--init_from", str(trained), "--model.block_size", "64")
    said = refused(*train_args(tmp_path / "run", text, *more))
    assert "block_size 64 is above the 32" in said


def test_an_output_folder_that_cannot_be_written(
    trained: Path, text: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    below = tmp_path / "file" / "run"
    for argv in (
        train_args(below, text),
        ["export", str(trained), str(below)],
        ["prepare", str(text), "--out", str(below), "--data.tokenizer", "char"],
    ):
        assert str(below) in refused(*argv)
    assert str(tmp_path / "file") in refused(*train_args(tmp_path / "file", text))
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_an_earlier_run_is_never_overwritten(
    trained: Path, text: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = state_of(trained)
    said = refused(*train_args(trained, text, "--optim.lr", "1e-4"))
    assert "optim.lr 0.005 → 0.0001" in said
    assert "--out" in said
    assert "--out" in refused(*train_args(trained, text, "--resume", "never"))
    assert "not empty" in refused("export", trained, trained)
    assert "not empty" in refused("prepare", text, "--out", trained)
    assert state_of(trained) == before


def test_another_folder_is_never_overwritten(
    text: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    assert "is not a run" in refused(*train_args(tmp_path, text))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


# ── as a process ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[], ["accelerate.commands.launch", "--cpu", "-m"]])
def test_the_same_as_a_module_and_through_accelerate(
    launcher: list[str], text: Path, tmp_path: Path
) -> None:
    argv = [sys.executable, "-m", *launcher, "gpt2lib", *train_args(tmp_path / "run", text)]
    done = subprocess.run(argv, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    assert "bits per byte" in done.stdout
    assert (tmp_path / "run" / "result.json").is_file()
