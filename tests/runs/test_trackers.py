"""Trackers: refused when absent, told the run's settings once, and the same run when it goes on."""

from __future__ import annotations

import json
import logging
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import accelerate.tracking as theirs
import pytest
from accelerate import Accelerator
from accelerate.utils import LoggerType

from gpt2lib.config import TrainConfig
from gpt2lib.runs import trackers as tracking
from gpt2lib.runs.trackers import (
    Trackers,
    accelerator_arguments,
    check_trackers,
    flat_settings,
    start_trackers,
)
from gpt2lib.utils.errors import UserError


class Service:
    """What the packages wandb, trackio, mlflow and torch.utils.tensorboard would talk to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def module(self, name: str, **members: Any) -> types.ModuleType:
        made = types.ModuleType(name)
        vars(made).update(members)
        return made

    def note(self, what: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if args and isinstance(args[0], dict):
                options = {"values": args[0], **options}
            elif args:
                options = {"args": args, **options}
            self.calls.append((what, options))
            return types.SimpleNamespace(
                info=types.SimpleNamespace(run_id="run-of-the-server"),
                log=self.note(f"{what}.log"),
                finish=self.note(f"{what}.finish"),
            )

        return call

    def of(self, what: str) -> list[dict[str, Any]]:
        return [options for name, options in self.calls if name == what]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Packages that write down how accelerate's own tracker classes call them."""
    made = Service()
    config = types.SimpleNamespace(update=made.note("config"))
    limits = types.SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100)
    modules = {
        "wandb": made.module("wandb", init=made.note("wandb"), config=config),
        "trackio": made.module("trackio", init=made.note("trackio"), config=config),
        "mlflow": made.module(
            "mlflow",
            search_experiments=lambda **_: [],
            create_experiment=lambda **_: "1",
            start_run=made.note("mlflow"),
            log_params=made.note("mlflow.params"),
            log_metrics=made.note("mlflow.log"),
            end_run=made.note("mlflow.finish"),
            utils=types.SimpleNamespace(validation=limits),
        ),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(theirs, "_available_trackers", [LoggerType(n) for n in modules])
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TAGS"):
        monkeypatch.delenv(name, raising=False)
    yield made


def begin(folder: Path, *names: str, step: int = 0) -> Trackers:
    config = TrainConfig.from_dict({"trackers": list(names), "device": "cpu"})
    check_trackers(config.trackers)
    accelerator = Accelerator(cpu=True, **accelerator_arguments(config.trackers, folder))
    return start_trackers(accelerator, folder, config, step)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio", "mlflow"])
def test_a_tracker_that_is_not_installed_is_refused_with_the_way_out(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(theirs, "_available_trackers", [])
    with pytest.raises(UserError, match=f"{name} is not installed; pip install {name}") as error:
        check_trackers([name])
    assert "\n" not in str(error.value)
    assert ("pillow<13" in str(error.value)) == (name == "trackio")


def test_what_is_missing_here_is_refused_without_stand_ins() -> None:
    available = {str(name) for name in theirs.get_available_trackers()}
    for name in {"tensorboard", "wandb", "trackio", "mlflow"} - available:
        with pytest.raises(UserError, match="is not installed"):
            check_trackers([name])


def test_a_tracker_that_breaks_on_import_is_refused(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # import raises ImportError
    with pytest.raises(UserError, match="wandb is installed but cannot be imported"):
        check_trackers(["wandb"])


def test_numbers_arrive_with_their_step_and_text_does_not(service: Service, tmp_path: Path) -> None:
    trackers = begin(tmp_path, "wandb", "mlflow")
    trackers.log(7, loss=2.5, spike=True, skipped="loss nan", ids=[1, 2])
    trackers.log(8, skipped="loss nan")  # nothing that is a number
    wanted = {"values": {"loss": 2.5, "spike": 1}, "step": 7}
    assert service.of("wandb.log") == service.of("mlflow.log") == [wanted]
    assert type(service.of("mlflow.log")[0]["values"]["spike"]) is int


def test_settings_are_flat_and_told_once(service: Service, tmp_path: Path) -> None:
    begin(tmp_path, "mlflow").finish()
    (told,) = service.of("mlflow.params")
    assert told["values"]["optim.lr"] == TrainConfig().optim.lr
    assert told["values"]["init_from"] == "None"
    assert told["values"]["trackers"] == "['mlflow']"
    begin(tmp_path, "mlflow", step=5)
    assert len(service.of("mlflow.params")) == 1  # MLflow would refuse a changed one
    begin(tmp_path, "mlflow", "wandb", step=5)
    assert len(service.of("mlflow.params")) == 1 and len(service.of("config")) == 1
    kinds = {type(value) for value in flat_settings(TrainConfig()).values()}
    assert kinds <= {bool, int, float, str}


def test_a_resumed_run_is_the_same_run_and_another_folder_is_not(
    service: Service, tmp_path: Path
) -> None:
    folders = [tmp_path / "a" / "run", tmp_path / "a" / "run", tmp_path / "b" / "run"]
    for folder, step in zip(folders, (0, 40, 0), strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        begin(folder, "wandb", "trackio", "mlflow", step=step).finish()
    first, again, other = service.of("wandb")
    assert first["id"] == again["id"] != other["id"]
    assert first["resume"] == again["resume"] == "allow" and first["name"] == "run"
    first, again, other = service.of("trackio")
    assert first["name"] == again["name"] != other["name"]
    assert again["resume"] == "allow"
    first, again, other = service.of("mlflow")
    assert (first["run_id"], again["run_id"], other["run_id"]) == (None, "run-of-the-server", None)


def test_tensorboard_goes_on_in_the_same_folder_and_replaces_later_steps(tmp_path: Path) -> None:
    options = [tracking._start_options(tmp_path, {"id": "ab"}, step) for step in (0, 40)]
    assert "tensorboard" not in options[0]
    assert options[1]["tensorboard"] == {"purge_step": 41}
    place = accelerator_arguments(["tensorboard"], tmp_path)["project_config"]
    assert place.logging_dir == str(tmp_path / "tensorboard")


def test_tensorboard_itself(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trackers = begin(tmp_path, "tensorboard")
    for step in range(1, 6):
        trackers.log(step, loss=1.0)
    trackers.finish()
    trackers = begin(tmp_path, "tensorboard", step=3)
    for step in range(4, 7):
        trackers.log(step, loss=2.0)
    trackers.finish()
    events = EventAccumulator(str(tmp_path / "tensorboard" / tracking.PROJECT)).Reload()
    assert [e.step for e in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6]


def test_a_tracker_that_fails_ends_neither_the_run_nor_the_others(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    trackers = begin(tmp_path, "mlflow", "wandb")

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nto the server")

    monkeypatch.setattr(sys.modules["mlflow"], "log_metrics", offline)
    with caplog.at_level(logging.WARNING, logger="gpt2lib.runs.trackers"):
        trackers.log(1, loss=1.0)
        trackers.log(2, loss=1.0)
    assert [call["step"] for call in service.of("wandb.log")] == [1, 2]
    (record,) = caplog.records
    assert "mlflow failed at step 1 (no route)" in record.getMessage()
    trackers.finish()
    trackers.finish()
    assert len(service.of("wandb.finish")) == 1


def test_a_tracker_that_cannot_start_is_one_line_and_leaves_no_record(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("api_key not configured (no-tty)\ncall wandb login")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    with pytest.raises(UserError, match=r"wandb cannot start \(api_key not configured"):
        begin(tmp_path, "wandb")
    assert list(tmp_path.iterdir()) == []


def test_only_the_main_process_reports(service: Service, tmp_path: Path) -> None:
    config = TrainConfig.from_dict({"trackers": ["wandb"]})
    other = types.SimpleNamespace(is_main_process=False)
    start_trackers(other, tmp_path, config).log(1, loss=1.0)  # type: ignore[arg-type]
    assert service.calls == [] and list(tmp_path.iterdir()) == []


def test_the_folder_keeps_what_identifies_the_run(service: Service, tmp_path: Path) -> None:
    begin(tmp_path, "mlflow").finish()
    kept = json.loads((tmp_path / tracking.FILE).read_text(encoding="utf-8"))
    assert kept["mlflow"] == "run-of-the-server" and kept["told"] == ["mlflow"]
