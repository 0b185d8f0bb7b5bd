"""Reporting a run to TensorBoard, Weights & Biases, trackio or MLflow, through accelerate.

`metrics.jsonl` in the run's folder is the record; trackers get the same numbers on top. Accelerate
only warns of a tracker that is not installed, so it is checked here before anything is trained.

A resumed run goes on in the same run of each tracker: `trackers.json` in the run's folder keeps
by which name each of them knows it. Steps after the last checkpoint are then reported again, with
the same numbers, because resuming is exact. (TensorBoard replaces them; wandb keeps the first.)
"""

from __future__ import annotations

import importlib
import logging
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lib.config import TrainConfig
from gpt2lib.config.schema import flat
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.formats import read_json, write_json

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

PROJECT = "gpt2lib"
"""What trackers gather runs under."""

FILE = "trackers.json"
KNOWN = {
    "tensorboard": ("torch.utils.tensorboard", "pip install tensorboard"),
    "wandb": ("wandb", "pip install wandb"),
    # trackio 0.43 refuses a newer pillow
    "trackio": ("trackio", 'pip install trackio "pillow<13"'),
    "mlflow": ("mlflow", "pip install mlflow"),
}
"""The module of each tracker, and how to get it."""


def check_trackers(names: Iterable[str]) -> None:
    """Refuse a tracker that accelerate would leave out, or that cannot be imported.

    Raises:
        UserError: naming the tracker and how to install it.
    """
    from accelerate.tracking import get_available_trackers

    available = {str(name) for name in get_available_trackers()}
    for name in names:
        module, way_out = KNOWN[name]
        if name not in available:
            raise UserError(f"trackers: {name} is not installed; {way_out}")
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a half-installed package raises
            raise UserError(
                f"trackers: {name} is installed but cannot be imported ({_one_line(error)}); "
                f"{way_out}"
            ) from error


def accelerator_arguments(names: Iterable[str], folder: Path) -> dict[str, Any]:
    """Return what `Accelerator` is to be made with for these trackers, beside other arguments.

    TensorBoard's files go into `tensorboard/` in the run's folder.
    """
    from accelerate.utils import ProjectConfiguration

    where = ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / "tensorboard"))
    return {"log_with": list(names), "project_config": where}


class Trackers:
    """The trackers of a run, as accelerate started them."""

    def __init__(self, trackers: Iterable[Any]) -> None:
        self._trackers = list(trackers)

    def log(self, step: int, **values: Any) -> None:
        """Report the numbers among the values; text and lists are left out.

        A tracker that fails is left alone from then on, with one warning: a server that cannot
        be reached must not end a week of training, and metrics.jsonl has it all.

        Args:
            step: updates so far.
            values: names to values, as in a line of metrics.jsonl.
        """
        numbers = {
            name: int(value) if isinstance(value, bool) else value
            for name, value in values.items()
            if isinstance(value, int | float)
        }
        for tracker in list(self._trackers) if numbers else []:
            try:
                tracker.log(dict(numbers), step=step)
            except Exception as error:
                self._trackers.remove(tracker)
                logger.warning(
                    "%s failed at step %d (%s) and gets nothing more of this run; "
                    "metrics.jsonl has it all",
                    tracker.name,
                    step,
                    _one_line(error),
                )

    def finish(self) -> None:
        """Let every tracker send what it still holds. A second call does nothing.

        Accelerate's `end_training` is not used: it also ends the group of processes, which the
        rest of the run, and another run in this process, still need.
        """
        while self._trackers:
            tracker = self._trackers.pop(0)
            try:
                tracker.finish()
            except Exception as error:
                logger.warning("%s failed at the end (%s)", tracker.name, _one_line(error))


def start_trackers(
    accelerator: Accelerator, folder: Path, config: TrainConfig, step: int = 0
) -> Trackers:
    """Begin, or go on with, the run of every tracker that the accelerator was made with.

    Only the main process reports. It is the last thing before training: it writes into the run's
    folder.

    Args:
        accelerator: made with `accelerator_arguments`.
        folder: the run's folder.
        config: the whole run; each tracker gets it once, with names such as `optim.lr`.
        step: updates made before, if this run goes on.

    Raises:
        UserError: if a tracker cannot start.
    """
    if not accelerator.is_main_process:
        return Trackers(())
    path = folder / FILE
    new: dict[str, Any] = {"id": uuid.uuid4().hex, "told": []}
    known = read_json(path) if path.exists() else new
    try:
        accelerator.init_trackers(PROJECT, None, _start_options(folder, known, step))
        if "mlflow" in config.trackers:
            known["mlflow"] = accelerator.get_tracker("mlflow", unwrap=True).info.run_id
        for tracker in accelerator.trackers:
            if tracker.name not in known["told"]:  # MLflow refuses a setting that changed
                tracker.store_init_configuration(flat_settings(config))
                known["told"].append(tracker.name)
    except Exception as error:
        for tracker in accelerator.trackers:
            with suppress(Exception):  # one that did not start cannot finish
                tracker.finish()
        raise UserError(
            f"trackers: {', '.join(config.trackers)} cannot start ({_one_line(error)}); "
            "put that right, or leave it out of trackers"
        ) from error
    write_json(path, known)
    return Trackers(accelerator.trackers)


def _start_options(folder: Path, known: dict[str, Any], step: int) -> dict[str, dict[str, Any]]:
    """Return how each tracker is told which run this is."""
    name, key = folder.resolve().name, str(known["id"])
    options: dict[str, dict[str, Any]] = {
        "wandb": {"id": key, "name": name, "resume": "allow", "dir": str(folder)},
        # trackio knows a run by its name only, and folders in two places may have the same one
        "trackio": {"name": f"{name}-{key[:6]}", "resume": "allow"},
        "mlflow": {"run_name": name, "run_id": known.get("mlflow")},
    }
    if step:  # what was drawn after the checkpoint is going to be drawn again
        options["tensorboard"] = {"purge_step": step + 1}
    return options


def flat_settings(config: TrainConfig) -> dict[str, bool | int | float | str]:
    """Return every field of a configuration under a dotted name, as trackers take them.

    None and lists become text; numbers and text stay.
    """
    return {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in flat(config.to_dict()).items()
    }


def _one_line(error: Exception) -> str:
    """Return the first line of what an exception says, or its name."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
