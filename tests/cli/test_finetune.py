"""`gpt2lib finetune`: the plan, the run and the verdict."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tiny import log, stop_after, verse

from gpt2lib.cli import main
from gpt2lib.config import GPTConfig, MethodConfig, TrainConfig
from gpt2lib.training import plan as planning
from gpt2lib.training.finetune import what_is_odd
from gpt2lib.training.plan import METHODS, advise, base_config, block_for, planned, read_study
from gpt2lib.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("private_cache")

QUICK = ("--device", "cpu", "--precision", "fp32", "--batch_size", "4", "--sample_tokens", "0")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A text of the words that the model knows, in an order that it does not."""
    path = tmp_path / "notes.txt"
    path.write_text(verse(60, words="night love king do queen", seed=7), encoding="utf-8")
    return path


def run(*words: str | Path) -> int:
    return main(["finetune", *map(str, words)])


def row(method: str, size: int, lr: float, after: float, old: float = 3.0) -> dict[str, str]:
    values = {"method": method, "bytes": size, "lr": lr, "before": 3.5, "after": after}
    return {k: str(v) for k, v in {**values, "old_before": 2.9, "old_after": old}.items()}


# The advice


def test_the_best_rate_is_that_of_the_mean_over_seeds() -> None:
    rows = [row("full", 1000, 1e-3, 3.0), row("full", 1000, 1e-3, 3.4, 3.3)]
    rows += [row("full", 1000, 3e-3, 2.9), row("full", 1000, 3e-3, 3.6)]
    (found,) = advise(rows, 1000)
    assert (found.method, found.lr, found.runs) == ("full", 1e-3, 2)
    assert found.gain == (pytest.approx(0.1), pytest.approx(0.5))
    assert found.forgotten == (pytest.approx(0.1), pytest.approx(0.4))


def test_the_nearest_size_is_nearest_in_proportion() -> None:
    rows = [row("full", 1000, 1e-3, 3.0), row("norms", 100_000, 1e-2, 3.0)]
    assert advise(rows, 9_000)[0].method == "full"
    assert advise(rows, 11_000)[0].method == "norms"


def test_methods_come_in_the_order_of_their_loss_and_if_equal_of_what_they_forget() -> None:
    rows = [row("norms", 1000, 1e-2, 3.1), row("full", 1000, 1e-3, 3.0, old=3.2)]
    assert [one.method for one in advise(rows, 1000)] == ["full", "norms"]
    rows += [row("head", 1000, 1e-3, 3.01, old=3.1)]
    assert [one.method for one in advise(rows, 1000)] == ["head", "full", "norms"]


def test_the_study_is_there_and_knows_every_method() -> None:
    rows = read_study()
    assert {one["method"] for one in rows} == set(METHODS)
    for size in {int(one["bytes"]) for one in rows}:
        found = advise(rows, size)
        assert len(found) == len(METHODS)
        assert all(one.gain[0] > 0 for one in found if one.method == "full")


# The plan


def plan_for(tokens: int, method: str = "auto", **given: Any) -> TrainConfig:
    values = base_config(init_from="gpt2").to_dict()
    from gpt2lib.config.schema import with_changes

    config = TrainConfig.from_dict(with_changes(values, given))
    shape = GPTConfig(vocab_size=50257, block_size=1024, n_layer=12, n_head=12, n_embd=768)
    return planned(config, shape, (tokens, 100, 3 * tokens), method, given.keys()).config


def test_the_rate_falls_with_the_width() -> None:
    (full,) = (one for one in advise(read_study(), 300_000) if one.method == "full")
    assert plan_for(100_000, "full").optim.lr == pytest.approx(full.lr * 64 / 768, rel=0.05)


def test_what_is_given_stays() -> None:
    config = plan_for(5000, "lora", **{"optim.lr": 0.5, "steps": 7, "method.rank": 3})
    assert (config.optim.lr, config.steps, config.method.rank) == (0.5, 7, 3)
    assert config.method.name == "lora"
    assert config.patience == 3


def test_a_text_is_read_about_ten_times_and_in_blocks_of_which_it_has_a_few() -> None:
    assert block_for(100_000, GPTConfig()) == 1024
    assert block_for(1000, GPTConfig()) == 128
    long = plan_for(1_000_000)
    seen = long.steps * long.batch_size * long.model.block_size
    assert seen == pytest.approx(10 * 1_000_000, rel=0.01)
    assert plan_for(5000).steps == planning.LEAST_STEPS
    with pytest.raises(UserError, match="the text has 50 tokens to train on"):
        plan_for(50)


# The command


def test_what_an_estimate_says_of_a_method(
    uninterrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["estimate", "smoke", "--init_from", str(uninterrupted), "--model.block_size", "16"]
    found = {}
    for method in ("full", "norms"):
        assert main([*words, "--method.name", method, "--device", "cpu", "--json"]) == 0
        out, err = capsys.readouterr()
        found[method] = json.loads(out)["bytes"]
        assert "method.name" not in err  # it is read
    n_norms = 2 * 2 + 1  # each with a gain and a bias for 16 channels, of 4 bytes
    assert found["norms"]["gradients"] == n_norms * 2 * 16 * 4
    assert found["norms"]["optimizer"] == 2 * found["norms"]["gradients"]
    assert found["norms"]["peak"] < found["full"]["peak"]
    assert found["full"]["gradients"] == found["full"]["weights"]


def test_several_processes_are_refused(
    notes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(notes) == 2
    assert "trains in several" in capsys.readouterr().err


def test_the_run_chooses_its_precision_itself(
    notes: Path, uninterrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--plan", "--json", "--device", "cpu", "--batch_size", "4")
    assert run(notes, "--from", uninterrupted, *words) == 0
    settings = json.loads(capsys.readouterr().out)["config"]
    assert (settings["precision"], settings["device"]) == ("auto", "cpu")


def test_a_plan_says_what_would_be_done_and_does_nothing(
    notes: Path, uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(notes, "--from", uninterrupted, "--out", out, "--plan", *QUICK) == 0
    said = capsys.readouterr().out
    for word in ("tokens to train on", "parameters train", "GB of tensors", "falls by", "study"):
        assert word in said
    assert not out.exists()
    assert run(notes, "--from", uninterrupted, "--plan", "--json", *QUICK) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["config"]["init_from"] == str(uninterrupted)
    assert values["peak"] > 0 and values["minutes"] > 0 and values["passes"] > 1


def test_a_text_is_learned_and_before_and_after_are_told(
    notes: Path, uninterrupted: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ("--out", out, "--method", "full", "--steps", "60", "--optim.lr", "0.01", *QUICK)
    more = ("--control", "--remember", text)
    assert run(notes, "--from", uninterrupted, *words, *more) == 0
    said = capsys.readouterr().out
    report = json.loads((out / "finetune.json").read_text(encoding="utf-8"))
    assert report["after"] < report["before"] - 0.05
    first = next(line["val_loss"] for line in log(out) if "val_loss" in line)
    assert report["before"] == pytest.approx(first, abs=1e-3)  # of the same bytes
    assert math.isfinite(report["control"]) and report["control"] != report["after"]
    old = report["remembered"]
    assert old["before"] != old["after"]
    for name, value in (("before", report["before"]), ("from scratch", report["control"])):
        assert f"{name}" in said and f"{value:.4f}" in said
    assert report["said"] is None and "but " not in said


def test_stopped_it_goes_on_as_planned(
    notes: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan made anew would measure another speed, and choose other steps."""
    words = (notes, "--from", uninterrupted, "--out", tmp_path / "run", "--minutes", "0.02", *QUICK)
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        assert run(*words) == 128 + 15
    assert run(*words) == 0
    assert run(*words[:-2], "--steps", "3") == 2


def test_what_fits_is_chosen(
    notes: Path, uninterrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (notes, "--from", uninterrupted, "--plan", "--json", *QUICK)
    peaks = {}
    for method in ("full", "norms"):
        assert run(*words, "--method", method) == 0
        peaks[method] = json.loads(capsys.readouterr().out)["peak"]
    assert peaks["norms"] < peaks["full"]
    assert run(*words, "--fit", "1kB") == 2
    assert "a smaller model or --model.block_size needs less" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--minutes", "0"), "--minutes must be above 0"),
        (("--minutes", "1", "--steps", "5"), "leave it or --steps out"),
        (("--method", "adapter"), "method must be one of"),
        (("--data.source", "x"), "the text stands by its place"),
        (("--from", "./nowhere"), "there is no folder ./nowhere"),
        (("--method", "last-k", "--method.k", "9"), "method.k is 9, but the model has 2 blocks"),
        (("--fit", "8"), "--fit 8 would be 8 bytes"),
    ],
)
def test_what_is_refused(
    words: tuple[str, ...],
    message: str,
    notes: Path,
    uninterrupted: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = () if "--from" in words else ("--from", str(uninterrupted))
    assert run(notes, *source, "--out", tmp_path / "run", *words, *QUICK) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# Nothing changed


@pytest.mark.parametrize(
    ("lr", "before", "after", "message"),
    [
        (1e-9, 3.0, 3.0, "is too low"),
        (10.0, 3.0, 3.5, "is too high"),
        (1e-3, 3.0, 2.5, None),
    ],
)
def test_why_nothing_was_learned(
    lr: float,
    before: float,
    after: float,
    message: str | None,
    uninterrupted: Path,
    tmp_path: Path,
) -> None:
    import torch

    from gpt2lib import load_pretrained
    from gpt2lib.hub import load_tokenizer_for
    from gpt2lib.hub.saving import save_model

    model = load_pretrained(uninterrupted)
    with torch.no_grad():
        for p in model.parameters():
            p += lr * torch.randn_like(p)
    save_model(model, load_tokenizer_for(uninterrupted), tmp_path / "tuned")
    config = TrainConfig(init_from=str(uninterrupted), method=MethodConfig())
    report = {"before": before, "after": after, "step": 20}
    said = what_is_odd(report, config, tmp_path / "tuned")
    assert said is None if message is None else message in str(said)
