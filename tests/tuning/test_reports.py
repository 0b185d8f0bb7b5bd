"""What a study is told as: the command, its table, figures and preset; and workers that die."""

from __future__ import annotations

import csv
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from study_runs import fake_train, run_here, study, study_file

from gpt2lib.cli import main
from gpt2lib.config import load_config
from gpt2lib.tuning import pool, results, trial
from gpt2lib.tuning.config import load_study
from gpt2lib.tuning.figures import Axis
from gpt2lib.tuning.results import best_trials, importances, noise, winner
from gpt2lib.utils.errors import UserError


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESAMPLED", 40)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "train", fake_train)


def finished(value: float, x: float = 0.5, y: float = 0.5, **attributes: Any) -> FrozenTrial:
    unit = FloatDistribution(0, 1)
    return create_trial(
        params={"x": x, "y": y},
        distributions={"x": unit, "y": unit},
        value=value,
        user_attrs={"values": [value], **attributes},
    )


# ── numbers ─────────────────────────────────────────────────────────────────────────────────────


def test_the_noise_of_a_seed_is_pooled_over_trials() -> None:
    seeds = [[1.0, 1.2, 1.1], [2.0, 2.4], [5.0], [3.0, math.inf]]
    found = noise([finished(1.0, values=values) for values in seeds])
    squares = 2 * statistics.variance(seeds[0]) + statistics.variance(seeds[1])
    assert found is not None and (found.trials, found.runs) == (2, 5)
    assert found.deviation == pytest.approx(math.sqrt(squares / 3))
    assert noise([finished(1.0)]) is None


def test_the_winner_is_one_that_new_seeds_confirmed() -> None:
    lucky, second, diverged = finished(1.0), finished(1.1), finished(math.inf)
    failed = create_trial(state=TrialState.FAIL)
    trials = [diverged, second, failed, lucky]
    assert best_trials(trials) == [lucky, second] and winner(trials) == lucky
    again = [finished(1.3, confirms=0), finished(1.2, confirms=1)]
    assert winner([*trials, *again]) == again[1]
    with pytest.raises(UserError, match="no trial yet that was trained to its end"):
        winner([diverged, failed])


def test_importance_finds_what_decides_beyond_its_interval() -> None:
    draw = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    unit = FloatDistribution(0, 1)
    points = [draw.ask({"x": unit, "y": unit}).params for _ in range(60)]
    trials = [finished((p["x"] - 0.3) ** 2 + 0.01 * p["y"], **p) for p in points]
    first, second = importances(trials)
    assert (first.name, second.name) == ("x", "y") and first.value > 0.8
    for found in (first, second):
        assert 0 <= found.low < found.high <= 1
    assert first.low > second.high
    with pytest.raises(UserError, match="at least 10 complete trials; there are 9"):
        importances(trials[:9])


def test_an_axis_places_values() -> None:
    space = {"optim.lr": FloatDistribution(1e-4, 1, log=True),
             "optim.name": CategoricalDistribution(["adamw", "muon"])}  # fmt: skip
    trials = [
        create_trial(params={"optim.lr": rate, "optim.name": name}, distributions=space, value=0)
        for rate, name in ((1e-3, "adamw"), (1e-2, "muon"), (1e-1, "muon"))
    ]
    rate, name = (Axis(parameter, trials) for parameter in space)
    assert list(rate.positions) == pytest.approx([-3, -2, -1]) and list(name.positions) == [0, 1, 1]
    assert rate.ends == pytest.approx((-3.2, -0.8)) and name.ends == pytest.approx((-0.1, 1.1))


# ── the command ─────────────────────────────────────────────────────────────────────────────────


def test_a_report_and_a_preset_of_a_study(
    tmp_path: Path, fake: None, capsys: pytest.CaptureFixture[str]
) -> None:
    space = {
        "optim.lr": {"low": 1e-3, "high": 1e-1, "log": True},
        "batch_size": [2, 4],
        "optim.beta1": {"low": 0.8, "high": 0.95},
        "optim.warmup_steps": {"tie": "steps // 5"},
    }
    path = study_file(tmp_path, space=space, trials=12, seeds=2, sampler="random")
    out = tmp_path / "out"
    done = run_here(load_study(path), out)
    preset = tmp_path / "best.yaml"
    command = ["tune", str(path), "--out", str(out)]
    assert main([*command, "--report", "--preset", str(preset)]) == 0
    said = capsys.readouterr()
    best = winner(done.trials)
    header, first, *rest = said.out.splitlines()
    assert header.split()[:3] == ["trial", "bits", "per"] and first.split()[0] == str(best.number)
    assert "noise of a seed: ±" in said.out and len(rest) > 9
    drawn = {p.name for p in out.glob("*.png")}
    assert {"importance.png", "parallel.png"} < drawn and len(drawn) == 5
    page = (out / "report.md").read_text(encoding="utf-8")
    assert all(f"]({name})" in page for name in drawn) and "12 trials: 12 complete" in page
    with (out / "trials.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["params_optim.lr"]) for row in rows] == [
        t.params["optim.lr"] for t in done.trials
    ]
    made = load_config(str(preset))
    assert (made.optim.lr, made.batch_size) == (best.params["optim.lr"], best.params["batch_size"])
    assert made.steps == best.user_attrs["steps"] and made.optim.warmup_steps == made.steps // 5
    assert preset.read_text(encoding="utf-8").startswith(f"# Trial {best.number} of the study")
    assert main([*command, "--preset", str(preset)]) == 2
    assert "best.yaml exists; choose another name" in capsys.readouterr().err


def test_a_report_of_few_trials_says_what_it_leaves_out(tmp_path: Path, fake: None) -> None:
    path = study_file(tmp_path, trials=2)
    run_here(load_study(path), tmp_path / "out")
    assert main(["tune", str(path), "--out", str(tmp_path / "out"), "--report"]) == 0
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "Importance needs at least 10 complete trials; there are 2." in page
    assert "not measured, every trial has one seed" in page


def test_what_cannot_be_tuned_or_told_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = study_file(tmp_path)
    for words, says in (
        ([str(path), "--report"], "holds no study yet; run it first"),
        ([str(path), "--trials", "0"], "trials must be at least 1, not 0"),
        ([str(path), "--storage", "redis"], "storage 'redis' is neither sqlite, journal nor"),
        ([str(tmp_path / "none.yaml")], "there is no study file"),
        ([], "tune needs STUDY"),
    ):
        assert main(["tune", *words, *(["--out", str(tmp_path / "out")] if words else [])]) == 2
        said = capsys.readouterr().err
        assert says in said and said.count("\n") == 1


# ── workers that die ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("code", "says", "starts"),
    [("2", "gpt2lib: no room", 1), ("9", "a worker ended 3 times: gpt2lib: no room", 3)],
)
def test_a_worker_that_cannot_go_on_ends_the_study_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, says: str, starts: int
) -> None:
    started: list[int] = []

    def start(self: pool.Pool, number: int) -> subprocess.Popen[bytes]:
        started.append(number)
        with self.log(number).open("ab") as log:
            dying = f"import sys; print('gpt2lib: no room'); sys.exit({code})"
            return subprocess.Popen([sys.executable, "-c", dying], stdout=log)

    monkeypatch.setattr(pool.Pool, "start", start)
    monkeypatch.setattr(pool, "POLL", 0.02)
    with pytest.raises(UserError) as refused:
        pool.tune(study(tmp_path), tmp_path / "out")
    assert str(refused.value) == says.replace("gpt2lib: ", "") and len(started) == starts


def test_the_workers_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda of: set(range(8)), raising=False)
    for changes, threads in (({"workers": 3}, "2"), ({"workers": 9}, "1"), ({"threads": 5}, "5")):
        made = pool.Pool(study(tmp_path, **changes), tmp_path)
        assert made.environment["OMP_NUM_THREADS"] == threads
