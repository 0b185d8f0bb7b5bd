"""Whole studies: what is drawn, what is pruned, invalid or diverges, and what is kept of it."""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from study_runs import fake_train, run_here, study

from gpt2lib.config import TrainConfig, load_config
from gpt2lib.data import prepare
from gpt2lib.runs.log import Watch
from gpt2lib.runs.plots import read_metrics
from gpt2lib.training.guard import Interrupted
from gpt2lib.tuning import pool, speed, trial
from gpt2lib.tuning.results import CONFIRMS
from gpt2lib.tuning.samplers import draw
from gpt2lib.tuning.space import distributions, settings
from gpt2lib.tuning.trial import TrialRun
from gpt2lib.tuning.worker import Worker
from gpt2lib.utils.errors import UserError

COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


@pytest.fixture(autouse=True)
def few_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SAVES", 3)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "train", fake_train)


def drawn(trials: list[FrozenTrial]) -> list[dict[str, Any]]:
    return [trial.params for trial in trials]


def facts(study: optuna.Study) -> list[Any]:
    """Return everything of the trials but times and machines."""
    left_out = ("train_seconds", "tokens_per_second", "machine")
    return [
        (t.number, t.state, t.params, t.values, t.intermediate_values,
         {k: v for k, v in t.user_attrs.items() if k not in left_out})
        for t in study.get_trials(deepcopy=False)
    ]  # fmt: skip


# ── the real trainer ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_a_study_of_real_runs(tmp_path: Path, storage: str) -> None:
    pruning: dict[str, Any] = {"pruner": "median", "prune_checks": 3, "prune_after": 2}
    config = study(tmp_path, storage=storage, seeds=2, **pruning, trials=3)
    done = run_here(config, tmp_path / "out")
    trials = done.get_trials()
    assert [t.number for t in trials] == [0, 1, 2]
    for one in trials:
        runs = sorted((tmp_path / "out" / "trials" / f"{one.number:04d}").glob("seed-*"))
        first = read_metrics(runs[0])
        if one.state == PRUNED:
            assert len(runs) == 1
            continue
        assert one.state == COMPLETE and [r.name for r in runs] == ["seed-1337", "seed-1338"]
        results = [json.loads((r / "result.json").read_text(encoding="utf-8")) for r in runs]
        values = [result["bits_per_byte"] for result in results]
        assert one.user_attrs["values"] == values
        assert one.value == statistics.fmean(values)
        assert one.user_attrs["spread"] == statistics.stdev(values)
        steps = one.user_attrs["steps"]
        assert steps == results[0]["steps"] == 640 // (16 * one.params["batch_size"])
        evaluations = [m for m in first if "val_loss" in m and 0 < m["step"] < steps]
        part = steps // 3
        expected = {m["step"] // part: m["val_bits_per_byte"] for m in evaluations}
        assert one.intermediate_values == expected and list(expected) == [1, 2, 3][: len(expected)]
        # The second seed was judged by nobody, so nothing was evaluated on the way but the end.
        assert not list(runs[1].glob("checkpoints/step-*"))  # only a trial in progress needs them
    assert all(type(v) in (int, float, str, list) for t in trials for v in t.user_attrs.values())


def test_two_identical_studies_are_the_same_and_another_seed_is_not(
    tmp_path: Path, fake: None
) -> None:
    one, two, other = (
        run_here(study(tmp_path, trials=12, seed=seed), tmp_path / name)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert facts(one) == facts(two)
    assert drawn(one.trials) != drawn(other.trials)
    assert len({t.params["optim.lr"] for t in one.trials}) == 12
    # Past its first ten trials the sampler knows where it is good.
    late = [abs(math.log10(t.params["optim.lr"] / 1e-2)) for t in one.trials[10:]]
    early = [abs(math.log10(t.params["optim.lr"] / 1e-2)) for t in one.trials[:10]]
    assert statistics.fmean(late) < statistics.fmean(early)


def test_more_trials_go_on_where_fewer_ended(tmp_path: Path, fake: None) -> None:
    whole = run_here(study(tmp_path, trials=12), tmp_path / "whole")
    run_here(study(tmp_path, trials=4), tmp_path / "parts")
    run_here(study(tmp_path, trials=11), tmp_path / "parts")
    parts = run_here(study(tmp_path, trials=12), tmp_path / "parts")
    assert facts(parts) == facts(whole)


@pytest.mark.parametrize(("sampler", "n"), [("random", 4), ("tpe", 12)])
def test_a_trial_killed_between_two_draws_gets_what_it_would_have(
    tmp_path: Path, fake: None, sampler: str, n: int
) -> None:
    space = {f"optim.{n}": {"low": 0.1, "high": 0.9, "step": 0.1} for n in ("beta1", "beta2")}
    space["optim.lr"] = {"choices": [0.01, 0.1]}
    config = study(tmp_path, space=space, sampler=sampler, trials=n)
    whole = run_here(config, tmp_path / "whole")
    run_here(config.replace(trials=n - 1), tmp_path / "killed")
    opened = pool.open_folder(config, tmp_path / "killed")
    asked = opened.ask()  # as a worker does, and then it dies
    draw(asked, config, {"optim.beta1": distributions(config)["optim.beta1"]})
    assert facts(run_here(config, tmp_path / "killed")) == facts(whole)


# ── trials that go wrong ────────────────────────────────────────────────────────────────────────


def test_values_that_do_not_go_together_are_told_and_do_not_count(
    tmp_path: Path, fake: None
) -> None:
    space = {"model.n_head": [1, 2, 3], "model.n_embd": [16, 18], "optim.lr": [1e-2]}
    config = study(tmp_path, space=space, sampler="random", trials=8)
    fixed = {k: v for k, v in config.fixed.items() if k != "model.n_embd"}
    done = run_here(config.replace(fixed=fixed), tmp_path / "out")
    bad = [t for t in done.trials if "invalid" in t.user_attrs]
    assert bad and all(t.state == PRUNED for t in bad)
    assert {t.user_attrs["reason"] for t in bad} == {
        "n_embd 16 is not divisible by n_head 3; 15 would be"
    }
    assert sum(t.state == COMPLETE for t in done.trials) == 8


def test_a_run_that_diverges_is_told_and_is_the_worst(tmp_path: Path) -> None:
    """Really: a rate of 9 with a scale of the weights that no float32 survives."""
    space = {"optim.lr": [9.9, 1e-3], "optim.eps": [1e-30]}
    config = study(tmp_path, space=space, trials=2)
    extra = {"max_skipped": 1, "optim.grad_clip": 0.0, "optim.weight_decay": 50.0}
    config = config.replace(
        fixed={**config.fixed, **extra}, budget=type(config.budget)(tokens=4000)
    )
    opened = pool.open_folder(config, tmp_path / "out")
    for rate in space["optim.lr"]:
        opened.enqueue_trial({"optim.lr": rate})
    done = run_here(config, tmp_path / "out")
    wild, calm = sorted(done.trials, key=lambda t: -t.params["optim.lr"])
    assert calm.state == COMPLETE and math.isfinite(calm.value or math.inf)
    assert wild.state == COMPLETE and wild.value == math.inf
    assert wild.user_attrs["diverged"] is True
    assert wild.user_attrs["reason"] == "it diverged: loss or gradient is not finite"
    assert done.best_trial == calm


def test_a_loss_that_is_not_finite_is_the_worst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nan_at_high_rates(config: TrainConfig, out: Path, watch: Watch) -> dict[str, Any]:
        result = fake_train(config, out, watch)
        return {**result, "bits_per_byte": math.nan} if config.optim.lr > 1e-2 else result

    monkeypatch.setattr(trial, "train", nan_at_high_rates)
    done = run_here(study(tmp_path, trials=15, seeds=2), tmp_path / "out")
    for one in done.trials:
        assert math.isinf(one.value or 0) == (one.params["optim.lr"] > 1e-2)
        assert ("diverged" in one.user_attrs) == (one.params["optim.lr"] > 1e-2)
    assert any(map(math.isinf, (t.value or 0 for t in done.trials)))


def test_a_run_that_fails_does_not_end_the_study_but_three_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def failing(config: TrainConfig, out: Path, watch: Watch) -> dict[str, Any]:
        calls.append(1)
        if len(calls) in (2, 3) or len(calls) > 5:
            raise RuntimeError("can't allocate memory:\n you tried 10 GB")
        return fake_train(config, out, watch)

    monkeypatch.setattr(trial, "train", failing)
    with pytest.raises(UserError, match="3 trials in a row could not be run; the last: can't all"):
        run_here(study(tmp_path, trials=20), tmp_path / "out")
    trials = pool.open_folder(study(tmp_path, trials=20), tmp_path / "out").trials
    assert [t.state for t in trials] == [COMPLETE, FAIL, FAIL, COMPLETE, COMPLETE, FAIL, FAIL, FAIL]
    assert trials[1].user_attrs["reason"] == "can't allocate memory: you tried 10 GB"


def test_a_full_disk_leaves_the_trial_to_go_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(config: TrainConfig, out: Path, watch: Watch) -> dict[str, Any]:
        raise UserError("cannot write x: No space left on device") from OSError(28, "No space")

    config = study(tmp_path, trials=2)
    monkeypatch.setattr(trial, "train", full)
    with pytest.raises(UserError, match="No space left"):
        run_here(config, tmp_path / "out")
    monkeypatch.setattr(trial, "train", fake_train)
    done = run_here(config, tmp_path / "out")
    assert [t.state for t in done.trials] == [COMPLETE, COMPLETE]


def test_a_text_without_held_out_part_cannot_be_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "train", lambda config, out, watch: {"train_seconds": 1.0})
    with pytest.raises(UserError, match="a study needs held-out text, and there is none"):
        run_here(study(tmp_path), tmp_path / "out")


# ── pruning ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("on", ["val", "train"])
@pytest.mark.parametrize("name", ["median", "halving", "hyperband"])
def test_pruners_end_the_worse_trials(tmp_path: Path, fake: None, name: str, on: str) -> None:
    pruning = {"pruner": name, "prune_on": on, "prune_checks": 4, "prune_after": 3}
    config = study(tmp_path, **pruning, trials=18, sampler="random")
    done = run_here(config, tmp_path / "out")
    ended = {state: [t for t in done.trials if t.state == state] for state in (COMPLETE, PRUNED)}
    assert len(ended[COMPLETE]) + len(ended[PRUNED]) == 18 and min(map(len, ended.values())) > 0

    def worth(t: FrozenTrial) -> float:
        return abs(math.log10(t.params["optim.lr"] / 1e-2))

    means = {state: statistics.fmean(map(worth, trials)) for state, trials in ended.items()}
    assert means[COMPLETE] < means[PRUNED]
    for t in done.trials:
        parts = list(t.intermediate_values)
        assert parts == list(range(1, len(parts) + 1)) and parts[-1] <= 4
    one = ended[COMPLETE][0]  # the values are those of the run, in parts of its length
    steps, batch = one.user_attrs["steps"], one.params["batch_size"]
    part, run = steps // 4, tmp_path / "out" / "trials" / f"{one.number:04d}" / "seed-1337"
    lines = read_metrics(run)
    for number, value in one.intermediate_values.items():
        if on == "val":
            expected = next(m["val_bits_per_byte"] for m in lines
                            if m["step"] == number * part and "val_loss" in m)  # fmt: skip
        else:
            expected = statistics.fmean(
                m["loss"] for m in lines
                if "loss" in m and (number - 1) * part < m["step"] <= number * part
            )  # fmt: skip
        assert value == pytest.approx(expected), (number, steps, batch)


def test_a_real_run_is_ended_in_its_course(tmp_path: Path) -> None:
    """The fourth trial has a rate at which nothing is learnt, and 40 steps in ten parts."""
    pruning: dict[str, Any] = {"pruner": "median", "prune_checks": 10, "prune_after": 3}
    space = {"optim.lr": [1e-2, 9e-3, 8e-3, 1e-9]}
    config = study(tmp_path, space=space, **pruning, trials=4, budget={"tokens": 2560})
    config = config.replace(fixed={**config.fixed, "batch_size": 4})
    out = tmp_path / "out"
    opened = pool.open_folder(config, out)
    for rate in space["optim.lr"]:
        opened.enqueue_trial({"optim.lr": rate})
    done = run_here(config, out)
    assert [t.state for t in done.trials] == [COMPLETE] * 3 + [PRUNED]
    assert max(m["step"] for m in read_metrics(out / "trials" / "0003" / "seed-1337")) == 4
    assert done.trials[3].intermediate_values.keys() == {1}
    assert not (out / "trials" / "0003" / "seed-1337" / "result.json").exists()


def test_a_run_that_was_judged_before_a_kill_is_judged_as_then(tmp_path: Path, fake: None) -> None:
    config = study(tmp_path, pruner="median", prune_checks=4, prune_after=0, trials=1)
    opened = pool.open_folder(config, tmp_path / "out")
    asked = opened.ask()
    asked.report(123.0, 1)
    asked.report(122.0, 2)
    (done,) = run_here(config, tmp_path / "out").trials
    assert done.intermediate_values[1] == 123.0 and done.intermediate_values[2] == 122.0
    assert 3 in done.intermediate_values


# ── the budget in seconds ───────────────────────────────────────────────────────────────────────


def test_seconds_become_steps_once_for_each_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[TrainConfig] = []

    def measure(config: TrainConfig, run: Path, alive: Any) -> float:
        measured.append(config)
        return 100.0 * config.batch_size

    monkeypatch.setattr(trial, "train", fake_train)
    monkeypatch.setattr(speed, "measure_speed", measure)
    config = study(tmp_path, budget={"seconds": 4.0}, trials=8)
    done = run_here(config, tmp_path / "out")
    assert {t.user_attrs["steps"] for t in done.trials} == {25}
    for t in done.trials:
        assert t.user_attrs["measured_tokens_per_second"] == 100.0 * t.params["batch_size"]
    assert sorted(c.batch_size for c in measured) == [2, 4]  # other rates are no other shape
    assert len(json.loads((tmp_path / "out" / "speeds.json").read_text(encoding="utf-8"))) == 2


def test_a_trial_that_goes_on_keeps_its_steps_on_a_machine_that_became_slower(
    tmp_path: Path, fake: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = study(tmp_path, budget={"seconds": 4.0}, trials=1), tmp_path / "out"
    monkeypatch.setattr(speed, "measure_speed", lambda *_: 160.0)

    def dying(config: TrainConfig, out: Path, watch: Watch) -> dict[str, Any]:
        sys.exit()

    with monkeypatch.context() as killed:
        killed.setattr(trial, "train", dying)
        with pytest.raises(SystemExit):
            run_here(config, out)
    (out / "speeds.json").unlink()
    monkeypatch.setattr(speed, "measure_speed", lambda *_: 80.0)
    (done,) = run_here(config, out).trials
    assert done.user_attrs["steps"] == 640 // (16 * done.params["batch_size"])


def test_a_real_speed_is_measured_and_nothing_of_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "SECONDS", 0.05)
    config = study(tmp_path, budget={"seconds": 0.2}, trials=1)
    (done,) = run_here(config, tmp_path / "out").trials
    pace, steps = done.user_attrs["measured_tokens_per_second"], done.user_attrs["steps"]
    assert abs(steps - 0.2 * pace / (16 * done.params["batch_size"])) < 1.01  # it is rounded
    assert sorted(p.name for p in (tmp_path / "out" / "trials" / "0000").iterdir()) == [
        ".lock", "seed-1337"
    ]  # fmt: skip


def test_epochs_count_the_training_text(tmp_path: Path) -> None:
    config = study(tmp_path, space={"epochs": [0.5, 1.0], "batch_size": [2]}, budget={}, trials=2)
    opened = pool.open_folder(config, tmp_path / "out")
    for epochs in (0.5, 1.0):
        opened.enqueue_trial({"epochs": epochs})
    done = run_here(config, tmp_path / "out")
    half, one = sorted(done.trials, key=lambda t: t.params["epochs"])

    n = len(prepare(settings(config, load_config("smoke"), one.params).data).train)
    assert one.user_attrs["steps"] == n // 32 and half.user_attrs["steps"] == n // 2 // 32


# ── new seeds for the best ──────────────────────────────────────────────────────────────────────


def test_the_best_are_repeated_with_seeds_that_chose_nothing(tmp_path: Path, fake: None) -> None:
    config = study(tmp_path, trials=6, seeds=2, confirm=2)
    done = run_here(config, tmp_path / "out")
    first, again = done.trials[:6], done.trials[6:]
    ranked = sorted(first, key=lambda t: t.value or math.inf)
    assert [t.user_attrs[CONFIRMS] for t in again] == [t.number for t in ranked[:2]]
    for one, repeat in zip(ranked, again, strict=False):
        assert repeat.params == one.params
        runs = sorted((tmp_path / "out" / "trials" / f"{repeat.number:04d}").glob("seed-*"))
        assert [r.name for r in runs] == ["seed-1339", "seed-1340", "seed-1341"]
        assert len(one.user_attrs["values"]) == 2 and len(repeat.user_attrs["values"]) == 3
    assert facts(run_here(config, tmp_path / "out")) == facts(done)  # once


# ── whose study, whose folder ───────────────────────────────────────────────────────────────────


def test_another_study_in_the_storage_is_refused(tmp_path: Path, fake: None) -> None:
    out = tmp_path / "out"
    config = study(tmp_path, trials=2, storage="sqlite")
    run_here(config, out)
    before = (out / "study.yaml").read_bytes()
    space = {"optim.lr": {"low": 1e-3, "high": 0.5, "log": True}, "batch_size": [2, 4]}
    for changes, says in (
        ({"space": space}, r"space.optim.lr.high 0.1 → 0.5"),
        ({"budget": {"tokens": 700}}, "budget.tokens 640 → 700"),
        ({"seeds": 2}, "seeds 1 → 2"),
        ({"base": "cpu"}, "and .* more"),
    ):
        with pytest.raises(UserError, match=f"of another space or base .*{says}"):
            run_here(study(tmp_path, storage="sqlite", **changes), out)
    assert (out / "study.yaml").read_bytes() == before
    second = study(tmp_path, storage="sqlite", name="second", space=space, trials=1)
    run_here(second, out)  # beside it, by its name
    stranger = optuna.create_study(storage=f"sqlite:///{out / 'study.db'}", study_name="x")
    stranger.ask()
    with pytest.raises(UserError, match="holds a study 'x' of other origin"):
        run_here(study(tmp_path, storage="sqlite", name="x"), out)


def test_fields_that_came_later_do_not_make_another_study(tmp_path: Path, fake: None) -> None:
    config = study(tmp_path, trials=1)
    opened = run_here(config, tmp_path / "out")
    told = json.loads(opened.user_attrs["settings"])
    del told["base"]["spike_threshold"]
    opened.set_user_attr("settings", json.dumps(told))
    assert len(run_here(config.replace(trials=2), tmp_path / "out").trials) == 2


def test_a_folder_that_holds_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="exists and is not a study; choose another --out"):
        pool.open_folder(study(tmp_path), tmp_path / "out")


@pytest.mark.parametrize(
    ("storage", "says"),
    [
        ("sqlit", "storage 'sqlit' is neither sqlite, journal nor the URL of a database"),
        ("sqlite:////nowhere/at/all.db", "cannot open sqlite:////nowhere/at/all.db: unable to op"),
        ("postgresql://me:secret@127.0.0.1:1/x", r"cannot open postgresql://me:\*\*\*@127.0.0.1"),
        (
            "mysql+nodriver://me:secret@h/x",
            r"cannot open mysql.nodriver://me:\*\*\*@h/x: Can't load",
        ),
    ],
)
def test_a_storage_that_cannot_be_opened_is_one_line(
    tmp_path: Path, storage: str, says: str
) -> None:
    with pytest.raises(UserError, match=says) as refused:
        pool.open_folder(study(tmp_path, storage=storage), tmp_path / "out")
    assert "secret" not in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_that_is_no_storage_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "study.yaml").write_text("{}", encoding="utf-8")
    (tmp_path / "out" / "study.db").write_text("no database " * 100, encoding="utf-8")
    with pytest.raises(UserError, match="cannot open the sqlite storage: file is not a database"):
        pool.open_folder(study(tmp_path, storage="sqlite"), tmp_path / "out")


def test_postgresql_without_a_driver_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r'pip install "psycopg\[binary\]"$'):
        pool.open_folder(study(tmp_path, storage="postgresql://h/x"), tmp_path / "out")


def test_a_torn_line_of_the_journal_is_cut_off(tmp_path: Path, fake: None) -> None:
    config = study(tmp_path, storage="journal", trials=2)
    run_here(config, tmp_path / "out")
    with (tmp_path / "out" / "study.journal").open("ab") as file:
        file.write(b'{"op_code":8,"worker_')
    assert len(run_here(config.replace(trials=4), tmp_path / "out").trials) == 4
    assert len(run_here(config.replace(trials=5), tmp_path / "out").trials) == 5


# ── being asked to stop ─────────────────────────────────────────────────────────────────────────


def test_a_worker_ends_with_the_process_that_started_it(
    tmp_path: Path, fake: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = study(tmp_path)
    pool.open_folder(config, tmp_path / "out")
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(SystemExit):
        Worker(tmp_path / "out", parent=12345).work()


def test_a_worker_ends_with_it_in_the_middle_of_a_run_and_the_trial_goes_on(
    tmp_path: Path, fake: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out, asked = study(tmp_path, trials=1), tmp_path / "out", iter(range(100))
    whole = run_here(config, tmp_path / "whole")
    opened = pool.open_folder(config, out)
    with monkeypatch.context() as dying:
        dying.setattr(os, "getppid", lambda: 1 if next(asked) > 3 else 2)
        with pytest.raises(SystemExit):
            Worker(out, parent=2).work()
    assert [t.state for t in opened.trials] == [TrialState.RUNNING]
    assert not list(out.glob("trials/*/*/result.json"))
    assert facts(run_here(config, out)) == facts(whole)


def test_sigterm_in_a_run_leaves_a_checkpoint_and_the_trial_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = study(tmp_path, trials=1, pruner="median", prune_checks=5)
    whole = run_here(config, tmp_path / "whole")
    asked = TrialRun.judge

    def once(self: TrialRun, line: dict[str, Any], run: Path, steps: int) -> None:
        if line["step"] == 4 and not (tmp_path / "asked").exists():
            (tmp_path / "asked").touch()
            signal.raise_signal(signal.SIGTERM)
        asked(self, line, run, steps)

    monkeypatch.setattr(TrialRun, "judge", once)
    with pytest.raises(Interrupted):
        run_here(config, tmp_path / "out")
    opened = pool.open_folder(config, tmp_path / "out")
    assert [t.state for t in opened.trials] == [TrialState.RUNNING]
    assert list((tmp_path / "out").glob("trials/0000/seed-1337/checkpoints/step-*"))
    assert facts(run_here(config, tmp_path / "out")) == facts(whole)
