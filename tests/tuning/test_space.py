"""What a study may ask for: its file, its space, ties, and every refusal in one line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from study_runs import study

from gpt2lib.config import TrainConfig, load_config
from gpt2lib.tuning.checks import check
from gpt2lib.tuning.config import StudyConfig, load_study
from gpt2lib.tuning.space import Invalid, distributions, plan, settings
from gpt2lib.tuning.ties import evaluate
from gpt2lib.utils.errors import UserError

SMOKE = load_config("smoke")
RATE = {"low": 1e-3, "high": 1e-1, "log": True}


def refusal(folder: Path, **changes: Any) -> str:
    """Return the line that a study is refused with before anything is trained."""
    with pytest.raises(UserError) as refused:
        check(study(folder, **changes), SMOKE)
    message = str(refused.value)
    assert "\n" not in message
    return message


def planned(
    config: StudyConfig, params: dict[str, Any], speed: float = 1e3, text: int = 10_000
) -> TrainConfig:
    return plan(config, SMOKE, params, lambda _: speed, lambda _: text)


# ── the file ────────────────────────────────────────────────────────────────────────────────────


def test_a_study_is_the_same_after_a_round_trip(tmp_path: Path) -> None:
    space = {"optim.lr": RATE, "model.window": [None, [4, 8]], "batch_size": {"tie": "2 + 2"}}
    config = study(tmp_path, space=space, pruner="median", confirm=2)
    assert StudyConfig.from_dict(config.to_dict()) == config
    assert config.space["model.window"].choices == (None, (4, 8))
    assert config.confirm == 2 and config.name == "study"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"trails": 3}, "unknown field 'trails'; did you mean 'trials'?"),
        ({"space": {"optim.lr": {"lo": 1, "high": 2}}}, "unknown field 'space.optim.lr.lo'"),
        ({"space": {"optim.lr": {"low": 0.1}}}, "space.optim.lr needs low and high, or choices"),
        ({"space": {"optim.lr": {}}}, "needs low and high, or choices, or a tie"),
        ({"space": {"optim.lr": {**RATE, "choices": [1]}}}, "or a tie: one of the three"),
        ({"space": {}}, "space is empty"),
        ({"sampler": "tpee"}, "sampler must be one of tpe, gp, random, not 'tpee'"),
        ({"pruner": "medain"}, "did you mean 'median'?"),
        ({"trials": 0}, "trials must be at least 1, not 0"),
        ({"budget": {"tokens": 1, "seconds": 1.0}}, "budget has tokens and seconds"),
        ({"budget": {"seconds": 0.0}}, "budget.seconds must be above 0, not 0"),
        ({"prune_checks": 1}, "prune_checks must be at least 2, not 1"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as refused:
        study(tmp_path, **changes)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_files_that_are_no_study(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    for content, says in (
        ("a: [", "is not YAML"),
        ("[1]", "must hold fields"),
        ("a: 1", "must hold a base"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=says):
            load_study(path)
    with pytest.raises(UserError, match="there is no study file"):
        load_study(tmp_path / "missing.yaml")


# ── ties ────────────────────────────────────────────────────────────────────────────────────────


def test_ties_are_arithmetic() -> None:
    values = {"model.n_embd": 96, "batch_size": 8}
    for tie, result in (
        ("model.n_embd // 32", 3),
        ("2 * batch_size + 1", 17),
        ("-batch_size ** 2", -64),
        ("round(sqrt(batch_size), 2)", 2.83),
        ("max(1, min(model.n_embd, 50)) / 4", 12.5),
        ("log2(batch_size) % 2", 1),
        ("ceil(0.1 * 3) - floor(2.9)", -1),
    ):
        assert evaluate(tie, values.__getitem__) == pytest.approx(result)


@pytest.mark.parametrize(
    ("tie", "says"),
    [
        ("__import__('os').system('true')", "it may hold numbers, fields"),
        ("(lambda: 1)()", "it may hold"),
        ("[1][0]", "it may hold"),
        ("1 if 2 else 3", "it may hold"),
        ("'a'", "it may hold"),
        ("round(1.5, ndigits=1)", "it may hold"),
        ("1 +", "is not arithmetic"),
        ("1 / 0", "cannot be computed: division by zero"),
        ("9.0 ** 999999", "cannot be computed"),
        ("sqrt(0 - 1)", "cannot be computed"),
        ("optim.name * 2.5", "cannot be computed"),
    ],
)
def test_ties_are_nothing_else(tie: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        evaluate(tie, lambda name: "adamw")


# ── from what was drawn to a run ────────────────────────────────────────────────────────────────


def test_distributions_follow_the_types_of_the_fields(tmp_path: Path) -> None:
    space: dict[str, Any] = {
        "optim.lr": RATE,
        "batch_size": {"low": 2, "high": 8, "step": 2},
        "model.n_layer": {"low": 1, "high": 4, "log": True},
        "optim.grad_clip": {"low": 0, "high": 1, "step": 0.5},
        "optim.warmup_steps": {"share_of": "steps", "low": 0, "high": 0.5},
        "optim.name": ["adamw", "muon"],
        "model.n_head": {"tie": "model.n_layer"},
        "epochs": {"low": 1, "high": 4},
    }
    assert distributions(study(tmp_path, space=space)) == {
        "optim.lr": FloatDistribution(1e-3, 1e-1, log=True),
        "batch_size": IntDistribution(2, 8, step=2),
        "model.n_layer": IntDistribution(1, 4, log=True),
        "optim.grad_clip": FloatDistribution(0, 1, step=0.5),
        "optim.warmup_steps": FloatDistribution(0, 0.5),
        "optim.name": CategoricalDistribution(["adamw", "muon"]),
        "epochs": FloatDistribution(1, 4),
    }


def test_values_shares_and_ties_reach_the_run(tmp_path: Path) -> None:
    space = {
        "optim.lr": RATE,
        "optim.head_lr": {"share_of": "optim.lr", "low": 0.5, "high": 2.0},
        "model.n_embd": {"tie": "model.n_head * 24"},
        "model.n_head": {"low": 1, "high": 4},
        "model.window": [None, [4, 8]],
    }
    config = study(tmp_path, space=space, fixed={"optim.beta2": 0.99}, budget={})
    params = {"optim.lr": 0.01, "optim.head_lr": 0.5, "model.n_head": 3, "model.window": "[4, 8]"}
    made = settings(config, SMOKE, params)
    assert (made.optim.head_lr, made.model.n_embd, made.model.window) == (0.005, 72, (4, 8))
    assert (made.optim.lr, made.optim.beta2, made.steps) == (0.01, 0.99, SMOKE.steps)
    assert made.data == SMOKE.data  # what is not named stays


def test_the_budget_decides_the_steps_and_shares_follow(tmp_path: Path) -> None:
    space = {"batch_size": [2, 4], "optim.warmup_steps": {"share_of": "steps", "low": 0, "high": 1}}
    params = {"batch_size": 4, "optim.warmup_steps": 0.25}
    fixed = {"model.block_size": 16}
    made = planned(study(tmp_path, space=space, fixed=fixed, budget={"tokens": 1000}), params)
    assert (made.steps, made.optim.warmup_steps) == (15, 4)  # 1000 // (4 × 16)
    made = planned(study(tmp_path, space=space, fixed=fixed, budget={"seconds": 2.0}), params, 800)
    assert made.steps == 25  # 2 s × 800 tokens/s // 64
    space = {**space, "epochs": {"low": 0.5, "high": 2.0}}
    config = study(tmp_path, space=space, fixed=fixed, budget={})
    made = planned(config, {**params, "epochs": 0.5}, text=10_000)
    assert (made.steps, made.optim.warmup_steps) == (78, 20)
    made = planned(study(tmp_path, space={"batch_size": [2]}, budget={}), {"batch_size": 2})
    assert made.steps == SMOKE.steps


def test_what_does_not_go_together_is_invalid(tmp_path: Path) -> None:
    config = study(tmp_path, space={"model.n_head": [2, 3]}, fixed={"model.n_embd": 16}, budget={})
    with pytest.raises(Invalid, match="n_embd 16 is not divisible by n_head 3; 15 would be"):
        settings(config, SMOKE, {"model.n_head": 3})
    config = study(tmp_path, space={"batch_size": [2, 16]}, budget={"tokens": 100})
    with pytest.raises(Invalid, match="less than one step of 16 × 16 = 256 tokens"):
        planned(config, {"batch_size": 16})
    space = {"optim.lr": RATE, "batch_size": {"tie": "max(1, steps // 10)"}}
    with pytest.raises(Invalid, match="the steps decide the shape, which decides the steps"):
        planned(study(tmp_path, space=space, budget={"tokens": 10_000}), {"optim.lr": 0.1})


# ── refused before anything is trained ──────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"space": {"optim.lrr": RATE}}, "space: unknown field 'optim.lrr'; did you mean"),
        ({"fixed": {"optim.bta2": 1}}, "fixed: unknown field 'optim.bta2'; did you mean 'optim.b"),
        (
            {"space": {"optim.lr": {**RATE, "share_of": "step"}}},
            "is a valid run: unknown field 'step'; did you mean 'steps'?",
        ),
        (
            {"space": {"optim.lr": RATE, "batch_size": {"tie": "modl.n_embd"}}},
            "did you mean 'model.n_embd'?",
        ),
        ({"space": {"seed": [1, 2]}}, "seed is what a study decides itself"),
        ({"fixed": {"keep": 3}}, "keep is what a study decides itself"),
        ({"space": {"optim.lr": RATE}, "fixed": {"optim.lr": 0.1}}, "both in fixed and in space"),
        (
            {"space": {"batch_size": {"low": 1.5, "high": 3}}},
            "space.batch_size must be of type int",
        ),
        (
            {"space": {"optim.lr": {"low": 0.1, "high": 0.01}}},
            "space.optim.lr: `low <= high` must hold, but got (low=0.1, high=0.01)",
        ),
        ({"space": {"optim.lr": {"low": 0, "high": 1, "log": True}}}, "`low > 0` must hold"),
        ({"space": {"optim.lr": {**RATE, "step": 0.1}}}, "`step` is not supported when `log`"),
        ({"space": {"optim.lr": {"low": 1, "high": float("inf")}}}, "to inf is not finite"),
        (
            {"space": {"optim.lr": RATE, "optim.muon_lr": {"share_of": "model.window", **RATE}}},
            "* model.window' cannot be computed: unsupported operand",
        ),
        ({"space": {"steps": [10, 20]}}, "steps and budget.tokens both decide the steps"),
        ({"space": {"epochs": {"low": 1, "high": 2}}}, "epochs and budget.tokens both decide"),
        (
            {
                "space": {"data.tokenizer": ["bpe", "char"]},
                "pruner": "median",
                "prune_on": "train",
            },
            "data.tokenizer changes the text or its tokens",
        ),
        ({"space": {"optim.lr": {"tie": "0.1"}}}, "space draws nothing"),
        ({"space": {"model.n_head": [3, 5]}}, "none of 300 draws of the space is a valid run: n_e"),
        (
            {"space": {"optim.name": ["adam", "muon"]}},
            "space.optim.name must be one of adamw, muon, not 'adam'; did you mean 'adamw'?",
        ),
        ({"budget": {"tokens": 10}}, "the budget of 10 tokens is less than one step of"),
        (
            {
                "space": {
                    "optim.lr": RATE,
                    "batch_size": {"tie": "micro_batch"},
                    "micro_batch": {"tie": "batch_size"},
                }
            },
            "ties go in a circle: batch_size → micro_batch → batch_size",
        ),
    ],
)
def test_a_study_that_cannot_give_anything_is_one_line(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    assert says in refusal(tmp_path, **changes)


def test_the_gaussian_process_names_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert refusal(tmp_path, sampler="gp") == "sampler gp needs scipy: pip install scipy"


def test_without_optuna_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2lib.tuning.pool import open_folder

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r'needs Optuna: pip install "optuna>=5,<6"'):
        open_folder(study(tmp_path), tmp_path / "out")
