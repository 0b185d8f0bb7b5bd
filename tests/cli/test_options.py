"""Options: how they are found, read, checked and explained, before a command does anything."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt2lib import cli
from gpt2lib.cli import main
from gpt2lib.cli.estimate import Estimate
from gpt2lib.cli.generate import Generate
from gpt2lib.cli.terminal import command_line
from gpt2lib.cli.train import OFTEN, Train, parse
from gpt2lib.config import (
    DataConfig,
    GPTConfig,
    OptimConfig,
    TrainConfig,
    load_config,
    preset_names,
)
from gpt2lib.config.schema import all_kinds
from gpt2lib.utils.errors import UserError


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in cli.COMMANDS)


def test_without_a_command_help_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "usage: gpt2lib COMMAND" in err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from gpt2lib import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"gpt2lib {__version__}\n"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: gpt2lib {command} ")
    assert err == ""


def test_train_help_shows_every_field_with_its_doc_and_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "--help", "all"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    configs: list[tuple[str, Any]] = [
        ("", TrainConfig),
        ("model.", GPTConfig),
        ("data.", DataConfig),
        ("optim.", OptimConfig),
    ]
    for prefix, config in configs:
        docs = " ".join((config.__doc__ or "").split())
        for field in dataclasses.fields(config):
            if field.default is dataclasses.MISSING:
                continue  # a group
            start = out.index(f" --{prefix}{field.name} ")
            entry = out[start : out.index("default: ", start) + 60]
            doc = docs.split(f" {field.name}: ")[1][:16]
            assert doc in entry, f"{prefix}{field.name} has no doc"
            typed = isinstance(field.default, str) and field.default.strip()
            default = field.default if typed else json.dumps(field.default)
            assert f"default: {default}" in entry, f"{prefix}{field.name} shows no default"


def test_the_short_help_shows_what_is_changed_most_and_how_to_see_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "-h"]) == 0
    short = capsys.readouterr().out
    names = [n for n in all_kinds(TrainConfig) if n in OFTEN and "." not in n]
    names += [n for n in all_kinds(TrainConfig) if n in OFTEN and "." in n]
    assert len(names) == len(OFTEN)
    own = ["out", "resume", "minutes"]
    assert re.findall(r"^  --([\w.]+)", short, re.MULTILINE) == [*own, *names]
    assert all(name in " ".join(short.split()) for name in preset_names())
    assert main(["train", "smoke", "--help=all"]) == 0
    whole = capsys.readouterr().out
    listed = re.findall(r"^  --([\w.]+)", whole, re.MULTILINE)
    assert f"`gpt2lib train --help all` lists all {len(listed) - len(own)}" in short
    assert set(OFTEN) < set(listed) and "data.mixture" in listed
    assert main(["prepare", "--help"]) == 0
    listed = re.findall(r"^  --([\w.]+)", capsys.readouterr().out, re.MULTILINE)
    assert "data.column" in listed  # few enough to be shown at once
    assert "data.source" not in listed  # it is given by its position


def test_a_field_that_a_command_does_not_take_is_refused(refused: Callable[..., str]) -> None:
    assert "unknown option --data.source" in refused("prepare", "x", "--data.source", "y")
    assert "unknown option --data.tokenizer" in refused("evaluate", "x", "--data.tokenizer", "char")


def test_train_help_shows_the_values_of_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "smoke", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    start = out.index("--model.n_embd ")
    assert "default: 32)" in out[start : start + 120]


def taken(monkeypatch: pytest.MonkeyPatch, *argv: str) -> TrainConfig:
    """Return the configuration that `gpt2lib train` hands to the trainer."""
    seen: list[TrainConfig] = []

    def stand_in(config: TrainConfig, out: Path, resume: str) -> dict[str, Any]:
        seen.append(config)
        raise UserError("seen")

    monkeypatch.setattr("gpt2lib.training.loop.train", stand_in)
    assert main(["train", *argv]) == 2
    return seen[0]


def test_options_reach_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    config = taken(
        monkeypatch,
        *("--model.n_layer", "3", "--optim.lr=3e-4", "--compile", "true", "smoke"),
        *("--micro_batch", "4", "--data.cache", "null", "--model.bias=false"),
        *("--precision", "bf16", "--sample_prompt", "null", "--data.source", "12"),
    )
    assert config.model.n_layer == 3
    assert config.model.n_embd == 32  # the preset's
    assert config.optim.lr == 3e-4
    assert config.compile is True
    assert config.model.bias is False
    assert config.micro_batch == 4
    assert config.data.cache is None
    assert config.precision == "bf16"
    assert config.sample_prompt == "null"  # not an optional field: text stays text
    assert config.data.source == "12"


def test_a_yaml_file_is_taken_like_a_preset(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("steps: 7\noptim: {lr: 3e-4}\nmicro_batch: 2\n", encoding="utf-8")
    config = taken(monkeypatch, str(path), "--micro_batch", "null")
    assert config.steps == 7
    assert config.optim.lr == 3e-4
    assert config.micro_batch is None


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_goes_through_the_parser_unchanged(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:

    assert taken(monkeypatch, name) == load_config(name)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("tran smoke", "unknown command 'tran'; did you mean 'train'?"),
        ("zzz", "unknown command 'zzz'; there are train, finetune"),
        ("train smoke --model.n_layr 2", "did you mean '--model.n_layer'?"),
        ("train smoke --n_layer=2", "unknown option --n_layer; did you mean '--model.n_layer'?"),
        ("train --stepz 2 smoke", "unknown option --stepz; did you mean '--steps'?"),
        ("train smoke --steps x", "--steps must be of type int, not 'x'"),
        ("train smoke --steps 1.5", "--steps must be of type int, not '1.5'"),
        ("train smoke --steps", "--steps needs a value"),
        ("train smoke --optim.lr nan", "--optim.lr must be of type float, not 'nan'"),
        ("train smoke --micro_batch x", "--micro_batch must be int or auto, not 'x'"),
        ("train smoke --compile maybe", "--compile must be of type bool, not 'maybe'"),
        ("train smoke --precision bf61", "not 'bf61'; did you mean 'bf16'?"),
        ("train smoke --model x", "--model must be a group of fields, not 'x'"),
        ("train smoke --step 4", "unknown option --step; did you mean '--steps'?"),
        ("train smoke extra", "unexpected argument 'extra'"),
        ("train smoke --steps 0", "steps must be at least 1, not 0"),
        ("train smoke --batch_size 1000000000", "batch_size must be at most 1,048,576, not 1,000,"),
        ("train smoke --model.n_layer 100000", "n_layer must be at most 4,096, not 100,000"),
        (f"train smoke --data.vocab_size 1{'0' * 24}", "vocab_size must be at most 16,777,216"),
        ("train smoke --optim.weight_decay 1e300", "weight_decay must be at most 100, not 1"),
        ("train smoke --optim.min_lr 2", "min_lr must be at most 1, not 2"),
        ("train smoke --data.source=", "data.source is empty"),
        ("train smoke --trackers wandb", "--trackers must be a list such as [a, b], not 'wandb'"),
        ("train", "train needs a preset or a YAML file; presets: "),
        ("train smoek", "did you mean 'smoke'?"),
        ("doctor --device tpu", "device tpu was asked for, but PyTorch sees only: "),
        ("estimate", "estimate needs a preset, a size or a YAML file; there are "),
        ("estimate --json gpt3", "did you mean"),
        ("generate", "generate needs RUN and --prompt"),
        ("generate x --prompt y --top_k q", "--top_k must be of type int, not 'q'"),
        ("generate x --prompt y --max_new_tokens 0", "must be at least 1, not 0"),
        ("generate x --prompt y --seed 9223372036854775808", "--seed must be from 0 to 2**63 - 1"),
        ("generate x --prompt y --seed -1", "--seed must be from 0 to 2**63 - 1, not -1"),
        ("generate ~no-such-user/x --prompt y", "~no-such-user, but no such user has a home"),
        ("export ~no-such-user/x y", "~no-such-user, but no such user has a home"),
        ("prepare ~no-such-user/x --out y", "~no-such-user, but no such user has a home"),
        ("generate x --prompt y --device gpu", "device must be one of auto, cpu, cuda, mps"),
        ("evaluate x --batch_size 0", "must be at least 1, not 0"),
        ("generate speedrun --prompt y", "speedrun is a preset and not a trained model; train it"),
        ("evaluate cpu", "gpt2lib train cpu --out runs/cpu"),
        ("export smoke y", "smoke is a preset and not a trained model"),
        ("prepare x", "prepare needs --out"),
        ("course excercises", "did you mean 'exercises'?"),
        ("train smoke --model.n_embd 100 --model.n_head 3", "100 is not divisible by n_head 3"),
        ("train smoke --precision fp16 --device cpu", "needs a GPU"),
    ],
)
def test_a_wrong_word_is_one_line(argv: str, says: str, refused: Callable[..., str]) -> None:
    assert says in refused(*argv.split())


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        ("stepz: 3", "unknown field 'stepz'; did you mean 'steps'?"),
        ("model: {n_layr: 3}", "unknown field 'model.n_layr'; did you mean 'n_layer'?"),
        ("steps: many", "steps must be of type int, not 'many'"),
        ("steps: [1", "is not YAML"),
        ("- steps", "must hold fields"),
        ("on: 2", "unknown field 'True'"),
        ("model: {1: 2}", "unknown field 'model.1'"),
    ],
)
def test_a_wrong_yaml_file_is_one_line(
    yaml: str, says: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml, encoding="utf-8")
    assert says in refused("train", path)


# ── where a value ends and the next option begins ───────────────────────────────────────────────


def read(*argv: str) -> tuple[Train, dict[str, Any]]:
    return Train.read(argv)


@pytest.mark.parametrize(
    "argv",
    [
        ["--steps", "3", "cpu"],
        ["--steps=3", "--out", "x", "cpu"],
        ["cpu", "--steps", "3"],
        ["--steps", "3", "--", "cpu"],
        ["--out", "-x-", "--steps", "3", "--", "cpu"],
    ],
)
def test_the_preset_is_found_among_options(argv: list[str]) -> None:
    options, changes = read(*argv)
    assert options.preset == "cpu"
    assert changes == {"steps": 3}


def test_a_flag_takes_no_word_that_follows_it() -> None:
    options, changes = Estimate.read(["--json", "gpt2", "--compile", "true"])
    assert options.json and options.preset == "gpt2"
    assert changes == {"compile": True}
    assert not Estimate.read(["gpt2"])[0].json


def test_values_may_begin_with_a_dash() -> None:
    options, changes = read(
        *("cpu", "--out", "-dash", "--data.source", "-dash.txt", "--sample_prompt=--- scene"),
        *("--data.column", "- x", "--init_from", "a b/c", "--data.cache", "null"),
    )
    assert options.out == "-dash"
    assert changes == {
        "data.source": "-dash.txt",
        "sample_prompt": "--- scene",
        "data.column": "- x",
        "init_from": "a b/c",
        "data.cache": None,
    }


def test_what_stands_behind_two_dashes_is_no_option() -> None:
    assert read("--out", "x", "--", "-dash.yaml")[0].preset == "-dash.yaml"
    with pytest.raises(UserError, match="unexpected argument '--steps'; options stand before --"):
        read("--", "cpu", "--steps", "3")


def test_a_file_that_begins_with_a_dash_is_prepared(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-dash.txt").write_text("to be, or not to be\n" * 200, encoding="utf-8")
    said = refused("prepare", "-dash.txt", "--out", "x")
    assert said == "unknown option -dash.txt; the file of that name is written ./-dash.txt"
    for number, source in enumerate((["./-dash.txt"], ["--", "-dash.txt"])):
        argv = ["prepare", "--data.tokenizer", "char", "--out", f"tokens of {number}", *source]
        assert main(argv) == 0
        said = capsys.readouterr().out
        assert f"--data.source 'tokens of {number}' --data.tokenizer auto" in said


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("cpu --out", "--out needs a value; one that begins with -- is written --out=--..."),
        ("cpu --out --steps 3", "--out needs a value"),
        ("cpu --out -h", "--out needs a value"),
        ("cpu --stepz", "unknown option --stepz; did you mean '--steps'?"),
        ("cpu --compile", "--compile needs a value"),
        ("cpu -o x", "unknown option -o; "),
        ("cpu --optim.lr=", "--optim.lr must be of type float, not ''"),
        ("cpu --seed '@'", "--seed must be of type int, not '@'"),
        ("cpu --model.window '[4,x]'", "--model.window must be int or a list, not [4, 'x']"),
        ("cpu --model.global_tokens '[0'", "must be a list such as [a, b], not '[0'"),
        ("cpu --optim '{lr: fast}'", "--optim.lr must be of type float, not 'fast'"),
        ("cpu --optim '{learning_rate: 1}'", "unknown field '--optim.learning_rate'; did you mean"),
        ("cpu --data.mixture '{a: 1, a: 2}'", "--data.mixture has 'a' twice, in line 1 and"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(argv: str, says: str) -> None:
    if "-h" in argv:  # help is given wherever it is asked for
        with pytest.raises(SystemExit):
            read(*shlex.split(argv))
        return
    with pytest.raises(UserError) as refusal:
        read(*shlex.split(argv))
    assert says in str(refusal.value)


def test_an_option_of_many_texts_is_given_several_times() -> None:
    argv = ["run", "--prompt", "a", "--stop", "[1, 2]", "--stop=--", "--top_k", "3"]
    options, changes = Generate.read(argv)
    assert options.stop == ("[1, 2]", "--") and options.top_k == 3 and changes == {}


# ── preset, file and options become one configuration ───────────────────────────────────────────


def test_an_option_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optim: {lr: 1e-3, beta2: 0.9}\ndata: {mixture: {a: 1, b: 2}}\n")
    argv = [str(path), "--optim", "{beta2: 0.8}", "--data.mixture", "{c: 1}", "--steps", "3"]
    _, config = parse(argv)
    assert config == TrainConfig(
        steps=3,
        optim=OptimConfig(lr=1e-3, beta2=0.8),
        data=DataConfig(mixture={"c": 1.0}),  # a field as a whole
    )
    assert parse([*argv, "--steps", "4"])[1].steps == 4  # the last of two


@pytest.mark.parametrize("name", ["gpt2-124m", "ladder-mlp", "speedrun"])
def test_every_field_can_be_set_by_an_option(name: str) -> None:
    """What a preset says, typed option by option over another preset, is that preset."""
    wanted = load_config(name)
    argv = ["smoke"]
    for group, values in {"": wanted, "model.": wanted.model, "data.": wanted.data}.items():
        for field, value in values.to_dict().items():
            if not isinstance(value, dict):
                argv.append(
                    f"--{group}{field}={value if isinstance(value, str) else json.dumps(value)}"
                )
    argv += ["--optim", json.dumps(wanted.optim.to_dict())]
    assert parse(argv)[1] == wanted


def test_the_configuration_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    check = TrainConfig.__post_init__
    monkeypatch.setattr(TrainConfig, "__post_init__", lambda self: (made.append(1), check(self)))
    parse(["smoke", "--optim.lr", "1", "--model.n_layer", "1"])
    assert made == [1]


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("model.n_embd", "d_model emb_dim hidden_size"),
        ("model.n_layer", "n_layers num_hidden_layers n_layer"),
        ("model.n_head", "num_heads num_attention_heads n_heads"),
        ("model.n_kv_head", "num_key_value_heads"),
        ("model.block_size", "context_length n_positions max_seq_len n_ctx block_size"),
        ("model.dropout", "dropout drop_rate resid_pdrop"),
        ("model.bias", "qkv_bias"),
        ("data.vocab_size", "vocab vocab_size"),
        ("data.source", "dataset source"),
        ("optim.lr", "learning_rate lr max_lr"),
        ("optim.min_lr", "min_lr"),
        ("optim.warmup_steps", "warmup_iters warmup_steps"),
        ("optim.weight_decay", "weight_decay wd"),
        ("optim.beta2", "beta2 adam_beta2"),
        ("optim.grad_clip", "max_grad_norm"),
        ("optim.name", "optimizer"),
        ("steps", "max_iters max_steps num_train_epochs"),
        ("micro_batch", "per_device_train_batch_size batch_size_per_gpu"),
        ("micro_batch", "gradient_accumulation_steps"),
        ("eval_every", "eval_interval eval_steps"),
        ("eval_batches", "eval_iters"),
        ("seed", "random_seed seeds"),
        ("precision", "dtype bf16"),
        ("save_every", "save_steps"),
        ("out", "out_dir output_dir"),
        ("resume", "resume_from_checkpoint"),
    ],
)
def test_the_names_of_other_projects_lead_to_the_field(field: str, names: str) -> None:
    for name in names.split():
        for typed in (name, name.replace("_", "-"), f"optim.{name}"):
            if typed == field:
                continue
            with pytest.raises(UserError) as refusal:
                read("cpu", f"--{typed}", "1")
            assert str(refusal.value) == f"unknown option --{typed}; did you mean '--{field}'?"
        if field in ("out", "resume") or name == field:
            continue
        with pytest.raises(UserError) as refusal:  # the same words for a file and for Python
            TrainConfig.from_dict({name: 1})
        assert str(refusal.value) == f"unknown field {name!r}; did you mean {field!r}?"


def test_a_field_in_the_wrong_group_is_led_to_its_own() -> None:
    for values, says in (
        ({"model": {"learning_rate": 1}}, "'model.learning_rate'; did you mean 'optim.lr'?"),
        ({"model": {"n_layers": 1}}, "'model.n_layers'; did you mean 'n_layer'?"),
        ({"optim.lr": 1}, "unknown field 'optim.lr'; it is written optim: {lr: ...}"),
        ({"LR": 1}, "unknown field 'LR'; did you mean 'optim.lr'?"),
        ({"shuffle": 1}, "unknown field 'shuffle'"),  # not much like another's "schedule"
        ({"num_workers": 1}, "unknown field 'num_workers'"),
    ):
        with pytest.raises(UserError) as refusal:
            TrainConfig.from_dict(values)
        assert str(refusal.value).endswith(says)
    with pytest.raises(UserError, match="unknown field 'd_model'; did you mean 'n_embd'"):
        GPTConfig.from_dict({"d_model": 3})


def test_a_key_twice_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("steps: 3\noptim:\n  lr: 1\n  beta1: 0.5\n  lr: 2\n", encoding="utf-8")
    said = refused("train", path)
    assert said == f"{path} has 'lr' twice, in line 3 and in line 5; leave one of them out"
    path.write_text("base: &b {n_layer: 1}\nmodel: {<<: *b, n_layer: 2}\n", encoding="utf-8")
    assert "unknown field 'base'" in refused("train", path)  # a merge is no key twice


# ── commands that are printed can be typed ──────────────────────────────────────────────────────


def test_a_printed_command_is_quoted_and_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = command_line("generate", Path("my runs/it's"), "--prompt", "a b")
    assert shlex.split(made)[1:] == ["generate", "my runs/it's", "--prompt", "a b"]
    program = tmp_path / ".venv" / "bin" / "gpt2lib"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(program.parent))
    assert command_line("train") == "gpt2lib train"
    monkeypatch.setenv("PATH", str(tmp_path))  # the environment is not active
    assert command_line("train") == ".venv/bin/gpt2lib train"
    monkeypatch.chdir(program.parents[1])
    assert command_line("train") == "bin/gpt2lib train"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert command_line("train") == shlex.join([str(program), "train"])


@pytest.mark.parametrize(
    "argv",
    [
        ["smoke", "--resume", "never", "--data.source", "my text.txt"],
        ["--resume=never", "--data.source", "my text.txt", "smoke", "--out", "my runs/a"],
        ["--data.source=my text.txt", "--resume", "never", "--", "smoke"],
    ],
)
def test_the_command_to_go_on_asks_for_the_same_run(argv: list[str]) -> None:
    from gpt2lib.cli.train import _again

    options, config = parse(argv)
    program, command, *again = shlex.split(_again(argv, options))
    assert (Path(program).name, command) == ("gpt2lib", "train")
    same, now = parse(again)
    assert now == config and now.data.source == "my text.txt"
    assert same == dataclasses.replace(options, resume="auto", out=str(options.folder))
